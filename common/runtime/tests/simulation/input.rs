//! The published messages: several sources and subjects, duplicates, disorder, gaps that are filled late, and every
//! kind of failure.

use std::collections::BTreeMap;

use doorstep_event::{EventId, EventType, Sender, StreamKey, Timestamp, headers::Decoded};
use doorstep_runtime::InboundMessage;

use super::seeded_rng::SeededRng;
use crate::ledger::{
    self, Move,
    labor::{Labor, Twist},
};

pub const ACCOUNTS: [&str; 3] = ["account/a", "account/b", "account/c"];
const SOURCES: [&str; 3] = ["shop", "web", "pay"];

/// An event of a stream with its intended content.
#[derive(Debug, Clone)]
pub struct Meant {
    pub fact: Move,
    pub form: InputKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKind {
    /// A fact for the role.
    Sound,
    /// Of a type that the role knows and does not handle.
    Ignored,
    /// Its message is invalid: it takes its position in the stream and can never be applied.
    Spoiled,
}

/// An event without a sequence, from a source of its own.
#[derive(Debug, Clone)]
pub struct Loose {
    pub source: String,
    pub account: String,
    pub fact: Move,
}

pub struct Input {
    pub streams: BTreeMap<StreamKey, Vec<Meant>>,
    pub loose: Vec<Loose>,
    pub unreadable: Vec<String>,
    /// In the order of publishing; taken from the end.
    pub to_publish: Vec<InboundMessage>,
}

impl Input {
    pub fn new(rng: &mut SeededRng, now: Timestamp, events: usize, tasks: bool) -> Self {
        let mut input = Self {
            streams: BTreeMap::new(),
            loose: Vec::new(),
            unreadable: Vec::new(),
            to_publish: Vec::new(),
        };
        input.fill_streams(rng, events, tasks);
        // Each message gets a position, and messages are published in the order of positions.
        let mut line: Vec<(usize, InboundMessage)> = Vec::new();
        input.numbered(rng, &mut line);
        input.unnumbered(rng, now, &mut line);
        let length = line.len() * 4;
        for index in 0..line.len() {
            if rng.one_in(6) {
                let (place, incoming) = line[index].clone();
                // A duplicate follows at once or much later.
                let later = if rng.one_in(2) { 1 } else { rng.below(length) };
                line.push((place + later, incoming));
            }
        }
        line.sort_by_key(|(place, _)| *place);
        line.reverse();
        input.to_publish = line.into_iter().map(|(_, incoming)| incoming).collect();
        input
    }

    fn fill_streams(&mut self, rng: &mut SeededRng, events: usize, tasks: bool) {
        let mut left = events;
        let accounts = rng.between(1, ACCOUNTS.len());
        for account in &ACCOUNTS[..accounts] {
            for source in SOURCES {
                if rng.one_in(3) {
                    continue;
                }
                let length = rng.between(1, 6).min(left);
                left -= length;
                let meant = (0..length)
                    .map(|_| Meant::any(rng, account, tasks))
                    .collect();
                self.streams.insert(ledger::stream(source, account), meant);
            }
            // Each account needs these two.
            let mut callers = vec![Move::Open, Move::Fix];
            if rng.one_in(2) {
                callers.swap(0, 1);
            }
            let callers = callers.into_iter().map(Meant::sound).collect();
            self.streams
                .insert(ledger::stream("callers", account), callers);
        }
    }

    fn numbered(&self, rng: &mut SeededRng, line: &mut Vec<(usize, InboundMessage)>) {
        let disorder = *rng.pick(&[1, 4, 12, 40]);
        for (key, meant) in &self.streams {
            let mut place = rng.below(20);
            for (index, meant) in meant.iter().enumerate() {
                place += rng.between(1, 4);
                let incoming = meant.incoming(key, index as u64 + 1);
                // Now and then an event is missing until nearly all others have been processed.
                let late = if rng.one_in(15) { 200 } else { 0 };
                if meant.form == InputKind::Sound && rng.one_in(15) {
                    let contender = contender(incoming.clone());
                    let at = place + rng.below(disorder + 8);
                    line.push((at, contender.clone()));
                    if rng.one_in(2) {
                        line.push((at + rng.below(3), contender));
                    }
                }
                line.push((place + rng.below(disorder) + late, incoming));
            }
        }
    }

    fn unnumbered(
        &mut self,
        rng: &mut SeededRng,
        now: Timestamp,
        line: &mut Vec<(usize, InboundMessage)>,
    ) {
        for number in 0..rng.below(4) {
            let account = (*rng.pick(&ACCOUNTS[..2])).to_owned();
            let loose = Loose {
                source: format!("loose-{number}"),
                fact: Meant::any(rng, &account, false).fact,
                account,
            };
            let mut event = ledger::event(&loose.source, &loose.account, 1, &loose.fact);
            event.sequence = None;
            event.time = match rng.below(6) {
                0 => None,
                1 => Some("2020-01-01T00:00:00Z".parse().unwrap()),
                _ => Some(now),
            };
            self.loose.push(loose);
            let incoming = InboundMessage::event(event, Sender::Anonymous);
            line.push((rng.below(60), incoming));
        }
        for number in 0..rng.below(3) {
            let body = format!("rubbish {number}");
            self.unreadable.push(body.clone());
            let incoming = InboundMessage::new(
                Decoded::Undecodable {
                    defect: "it has no attributes".into(),
                    body: body.into(),
                },
                Sender::Anonymous,
            );
            line.push((rng.below(60), incoming));
        }
    }
}

/// Returns the id of a task of an account: one of few, so that live and ended ones meet.
pub fn task_of(rng: &mut SeededRng, account: &str) -> String {
    format!("{account}/task-{}", rng.below(3))
}

/// Returns a task of any kind.
pub fn labor(rng: &mut SeededRng) -> Labor {
    let twist = match rng.below(20) {
        0 | 1 => Twist::Fails,
        2 => Twist::Kills,
        3 => Twist::KillsRole,
        4 | 5 => Twist::Unknown,
        6 => Twist::Spoiled,
        7 => Twist::Panics,
        8 | 9 => Twist::Again,
        _ => Twist::None,
    };
    let errors = match rng.below(8) {
        0 | 1 => 1,
        2 => 4,
        _ => 0,
    };
    Labor { errors, twist }
}

fn task_move(rng: &mut SeededRng, account: &str) -> Move {
    let id = task_of(rng, account);
    if rng.one_in(5) {
        return Move::CancelTask(id);
    }
    Move::Start(id, labor(rng))
}

/// Returns another event under the same sequence, as from a store that was restored without a new source.
fn contender(mut incoming: InboundMessage) -> InboundMessage {
    if let Decoded::Valid(event) | Decoded::Invalid(event, _) = &mut incoming.decoded {
        event.id = EventId::new(format!("{}-again", event.id)).unwrap();
    }
    incoming
}

impl Meant {
    fn sound(fact: Move) -> Self {
        Self {
            fact,
            form: InputKind::Sound,
        }
    }

    fn any(rng: &mut SeededRng, account: &str, tasks: bool) -> Self {
        if tasks && rng.one_in(3) {
            return Self::sound(task_move(rng, account));
        }
        let amount = rng.between(1, 9) as i64;
        let fact = match rng.below(20) {
            0 => Move::Poison,
            1 => Move::PoisonUntilFixed,
            10 => Move::Kill,
            2 | 3 => Move::AfterOpen,
            4..=6 => Move::Tell,
            7..=9 => Move::MoveTo((*rng.pick(&ACCOUNTS)).to_owned(), amount),
            _ => Move::Add(amount),
        };
        let form = match rng.below(16) {
            0 => InputKind::Ignored,
            1 => InputKind::Spoiled,
            _ => InputKind::Sound,
        };
        Self { fact, form }
    }

    fn incoming(&self, key: &StreamKey, sequence: u64) -> InboundMessage {
        let mut event = ledger::event(
            key.source.as_str(),
            key.subject.as_str(),
            sequence,
            &self.fact,
        );
        if self.form == InputKind::Ignored {
            event.event_type = EventType::new("account.ignored.v1").unwrap();
        }
        let decoded = if self.form == InputKind::Spoiled {
            Decoded::Invalid(event, "its version is wrong".to_owned())
        } else {
            Decoded::Valid(event)
        };
        InboundMessage::new(decoded, Sender::Anonymous)
    }
}
