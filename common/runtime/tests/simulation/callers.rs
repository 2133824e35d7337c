//! Commands on their way: sent, delivered to an owner, lost with its channel and redelivered, sent again under the same
//! id.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use doorstep_event::{Request, RequestResult, Timestamp};
use doorstep_runtime::CommandResult;

use super::{
    input::{ACCOUNTS, labor, task_of},
    seeded_rng::SeededRng,
    shape::Shape,
};
use crate::ledger::{Bid, Move, Order, order};

/// The time that a caller waits.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A command that was delivered to an owner.
#[derive(Debug, Clone)]
pub struct Given {
    /// Its index among all commands.
    pub number: usize,
    pub request: Request,
    pub redelivered: bool,
    /// The channel of its delivery, the only one that accepts its reply.
    channel: u64,
}

pub struct Callers {
    /// All commands: several may have one id, with different contents.
    pub orders: Vec<Request>,
    /// The commands that were not sent yet.
    unsent: VecDeque<usize>,
    /// The results that came back, for each command.
    pub answers: BTreeMap<usize, Vec<RequestResult>>,
    /// The replies from before everything was sent once more.
    pub replies: BTreeMap<usize, Vec<RequestResult>>,
    ready: VecDeque<Given>,
    given: Vec<(usize, Given)>,
    channels: [u64; 2],
}

impl Callers {
    /// Creates commands. Each is under an id of its own if clocks jump.
    pub fn new(rng: &mut SeededRng, now: Timestamp, shape: &Shape) -> Self {
        let unique = shape.jumps;
        let mut orders = Vec::new();
        for id in 0..rng.below(shape.commands + 1) {
            let id = format!("command-{id}");
            let account = *rng.pick(&ACCOUNTS);
            let bid = if shape.tasks && rng.one_in(3) {
                task_bid(rng, account)
            } else {
                bid(rng)
            };
            orders.push(order(&id, now, account, bid));
            // A client uses an id twice.
            if rng.one_in(8) && !unique {
                orders.push(order(&id, now, account, Bid::Deposit(100)));
            }
        }
        Self {
            unsent: (0..orders.len()).collect(),
            orders,
            answers: BTreeMap::new(),
            replies: BTreeMap::new(),
            ready: VecDeque::new(),
            given: Vec::new(),
            channels: [0, 1],
        }
    }

    /// Sends a new command or, equally often, repeats one whose result is unknown.
    pub fn call(&mut self, rng: &mut SeededRng, now: Timestamp) {
        let asked = self.orders.len() - self.unsent.len();
        if asked > 0 && rng.one_in(2) {
            self.send(rng.below(asked), now);
        } else if let Some(number) = self.unsent.pop_front() {
            self.send(number, now);
        }
    }

    /// Starts over: from here on every command is sent once more. Rejected ones may be executed by now, and replies
    /// must be the same.
    pub fn begin_anew(&mut self) {
        for (number, answers) in std::mem::take(&mut self.answers) {
            let replies = answers.into_iter().filter(Result::is_ok);
            self.replies.entry(number).or_default().extend(replies);
        }
    }

    /// Sends all commands that were not sent yet, and all that have no final result since the start over.
    pub fn call_the_rest(&mut self, now: Timestamp) -> bool {
        if !self.ready.is_empty() || !self.given.is_empty() {
            return false;
        }
        self.unsent.clear();
        let open: Vec<_> = (0..self.orders.len())
            .filter(|number| !self.answers.contains_key(number))
            .collect();
        for number in &open {
            self.send(*number, now);
        }
        open.is_empty()
    }

    fn send(&mut self, number: usize, now: Timestamp) {
        let mut request = self.orders[number].clone();
        request.deadline = now.checked_add(TIMEOUT).unwrap();
        self.ready.push_back(Given {
            number,
            request,
            redelivered: false,
            channel: 0,
        });
    }

    /// Delivers at most this many commands to an owner.
    pub fn take(&mut self, owner: usize, most: usize) -> Vec<Given> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(mut next) = self.ready.pop_front()
        {
            next.channel = self.channels[owner];
            self.given.push((owner, next.clone()));
            taken.push(next);
        }
        taken
    }

    /// Takes an owner's reply. It reaches the caller only while the channel of the delivery is open.
    pub fn answer(&mut self, given: &Given, decided: CommandResult) {
        let is_it = |of: &Given| {
            of.channel == given.channel && of.request.deadline == given.request.deadline
        };
        let place = self
            .given
            .iter()
            .position(|(_, of)| of.number == given.number && is_it(of));
        let Some(place) = place else { return };
        self.given.swap_remove(place);
        if let CommandResult::Answer(answer) = decided {
            self.answers.entry(given.number).or_default().push(answer);
        }
    }

    /// Closes an owner's channel: commands without a reply are delivered again.
    pub fn cut(&mut self, owner: usize) {
        self.channels[owner] += 2;
        let (lost, kept): (Vec<_>, _) = std::mem::take(&mut self.given)
            .into_iter()
            .partition(|(of, _)| *of == owner);
        self.given = kept;
        for (_, mut given) in lost {
            given.redelivered = true;
            self.ready.push_front(given);
        }
    }

    /// Returns the content of a command.
    pub fn bid(&self, number: usize) -> Order {
        serde_json::from_slice(&self.orders[number].data).unwrap()
    }

    /// Returns whether this command, or another one under its id, has this content.
    pub fn is_under_one_id_with(&self, number: usize, bid: &Bid) -> bool {
        let id = &self.orders[number].id;
        (0..self.orders.len()).any(|n| self.orders[n].id == *id && self.bid(n).bid == *bid)
    }

    /// Returns the command executed under this id: the one that was replied to.
    pub fn executed(&self, id: &str) -> Option<Order> {
        let is_it = |number: &usize| {
            let answers = self.answers.get(number);
            self.orders[*number].id.as_str() == id
                && answers.is_some_and(|answers| answers.iter().any(Result::is_ok))
        };
        let mut of_id = (0..self.orders.len()).filter(|n| self.orders[*n].id.as_str() == id);
        let only = of_id.next().filter(|_| of_id.next().is_none());
        let number = (0..self.orders.len()).find(is_it).or(only)?;
        Some(self.bid(number))
    }
}

fn task_bid(rng: &mut SeededRng, account: &str) -> Bid {
    let id = task_of(rng, account);
    if rng.one_in(3) {
        return Bid::CancelTask(id);
    }
    Bid::Start(id, labor(rng))
}

fn bid(rng: &mut SeededRng) -> Bid {
    let amount = rng.between(1, 9) as i64;
    match rng.below(16) {
        0..5 => Bid::Deposit(amount),
        5..7 => Bid::Withdraw(amount),
        7 => Bid::AfterOpen,
        8..12 => {
            let fact = match rng.below(6) {
                0 => Move::AfterOpen,
                1 => Move::Poison,
                _ => Move::Add(amount),
            };
            Bid::Later(rng.below(20) as u64, fact)
        }
        12 | 13 => Bid::Nothing,
        14 => Bid::Panic,
        _ => Bid::Kill,
    }
}
