//! Commands on their way: asked, handed to an owner, lost with its channel and handed out again, asked anew under the same id.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use doorstep_event::{Request, RequestResult, Timestamp};
use doorstep_runtime::CommandResult;

use super::{dice::Dice, input::ACCOUNTS};
use crate::ledger::{Bid, Move, Order, order};

/// How long a caller waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command that an owner was given.
#[derive(Debug, Clone)]
pub struct Given {
    /// Its place among all that are ever asked.
    pub number: usize,
    pub request: Request,
    pub redelivered: bool,
    /// Of the channel by which it was given, and by which alone it can be answered.
    channel: u64,
}

pub struct Desk {
    /// All that is ever asked: several may have one id, with different contents.
    pub orders: Vec<Request>,
    /// Those that were not asked yet.
    to_ask: VecDeque<usize>,
    /// What has come back, for each.
    pub answers: BTreeMap<usize, Vec<RequestResult>>,
    /// Replies from before everything was asked for once more.
    pub replies: BTreeMap<usize, Vec<RequestResult>>,
    ready: VecDeque<Given>,
    given: Vec<(usize, Given)>,
    channels: [u64; 2],
}

impl Desk {
    /// Commands, each under an id of its own if `unique`.
    pub fn new(dice: &mut Dice, now: Timestamp, most: usize, unique: bool) -> Self {
        let mut orders = Vec::new();
        for id in 0..dice.below(most + 1) {
            let id = format!("command-{id}");
            let account = *dice.pick(&ACCOUNTS);
            orders.push(order(&id, now, account, bid(dice)));
            // Somebody uses an id twice.
            if dice.one_in(8) && !unique {
                orders.push(order(&id, now, account, Bid::Deposit(100)));
            }
        }
        Self {
            to_ask: (0..orders.len()).collect(),
            orders,
            answers: BTreeMap::new(),
            replies: BTreeMap::new(),
            ready: VecDeque::new(),
            given: Vec::new(),
            channels: [0, 1],
        }
    }

    /// Asks something new, or, which happens as often, something again while nobody knows what has become of it.
    pub fn ask(&mut self, dice: &mut Dice, now: Timestamp) {
        let asked = self.orders.len() - self.to_ask.len();
        if asked > 0 && dice.one_in(2) {
            self.send(dice.below(asked), now);
        } else if let Some(number) = self.to_ask.pop_front() {
            self.send(number, now);
        }
    }

    /// From here on everything is asked for once more: what was refused may be obeyed by now, and replies must be what they were.
    pub fn begin_anew(&mut self) {
        for (number, answers) in std::mem::take(&mut self.answers) {
            let replies = answers.into_iter().filter(Result::is_ok);
            self.replies.entry(number).or_default().extend(replies);
        }
    }

    /// Asks all that nobody has asked yet, and all that has no answer for good since then.
    pub fn ask_the_rest(&mut self, now: Timestamp) -> bool {
        if !self.ready.is_empty() || !self.given.is_empty() {
            return false;
        }
        self.to_ask.clear();
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
        request.deadline = now.checked_add(PATIENCE).unwrap();
        self.ready.push_back(Given {
            number,
            request,
            redelivered: false,
            channel: 0,
        });
    }

    /// Gives an owner at most so many.
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

    /// An owner answers. What its channel was given comes to somebody only while that channel lives.
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

    /// The channel of an owner dies: what was not answered is handed out again.
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

    /// What was asked.
    pub fn bid(&self, number: usize) -> Order {
        serde_json::from_slice(&self.orders[number].data).unwrap()
    }

    /// Whether this, or another one under its id, asks that.
    pub fn is_under_one_id_with(&self, number: usize, bid: &Bid) -> bool {
        let id = &self.orders[number].id;
        (0..self.orders.len()).any(|n| self.orders[n].id == *id && self.bid(n).bid == *bid)
    }

    /// What was obeyed under this id: the one that was replied to.
    pub fn obeyed(&self, id: &str) -> Option<Order> {
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

fn bid(dice: &mut Dice) -> Bid {
    let amount = dice.between(1, 9) as i64;
    match dice.below(16) {
        0..5 => Bid::Deposit(amount),
        5..7 => Bid::Withdraw(amount),
        7 => Bid::AfterOpen,
        8..12 => {
            let fact = match dice.below(6) {
                0 => Move::AfterOpen,
                1 => Move::Poison,
                _ => Move::Add(amount),
            };
            Bid::Later(dice.below(20) as u64, fact)
        }
        12 | 13 => Bid::Nothing,
        14 => Bid::Panic,
        _ => Bid::Kill,
    }
}
