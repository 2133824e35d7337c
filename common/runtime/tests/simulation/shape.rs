//! The features of a schedule. Everything else about it follows from its seed.

use std::fmt;

use super::{world::Honesty, yielding_store::Bug};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    pub seed: u64,
    /// The maximum of events in streams.
    pub events: usize,
    /// The maximum of commands.
    pub commands: usize,
    /// The number of moves before the rest is drained.
    pub moves: usize,
    pub crashes: bool,
    /// Channels close under living owners.
    pub cuts: bool,
    /// Events crash processes within the handler.
    pub deaths: bool,
    /// Set if the engine gets the delivery history; without it, the crash guard fails.
    pub guard: Guard,
    /// The store fails.
    pub errors: bool,
    pub operator: bool,
    pub unruly_broker: bool,
    pub second_owner: bool,
    pub second_relay: bool,
    /// Events and commands start tasks.
    pub tasks: bool,
    /// Tasks and their results crash processes.
    pub task_deaths: bool,
    /// Input comes, and crashes happen, only now and then, so that tasks have the time to run.
    pub slow_input: bool,
    /// Owners stand still for longer than their leases.
    pub slow_holders: bool,
    /// Tasks block, and go on after their leases have ended.
    pub blocking_tasks: bool,
    /// The clock of the role's processes jumps ahead by days and is set right again, and pruning trusts it.
    pub jumps: bool,
    /// Acks before the commit: a bug.
    pub settling: Settling,
    pub honesty: Honesty,
    pub bug: Bug,
    pub traced: bool,
}

/// The time at which an owner acks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    AfterTheCommit,
    BeforeTheCommit,
}

/// The choice whether the engine knows of redeliveries and of its process's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    Informed,
    Uninformed,
}

impl Shape {
    /// All features, without a bug.
    pub fn from_seed(seed: u64) -> Self {
        // Few events meet each other more often, many reach further.
        let (events, moves) = match seed % 3 {
            0 => (24, 500),
            1 => (6, 300),
            _ => (40, 700),
        };
        Self {
            seed,
            events,
            commands: 6,
            moves,
            crashes: true,
            cuts: true,
            deaths: true,
            guard: Guard::Informed,
            errors: true,
            operator: true,
            unruly_broker: true,
            second_owner: true,
            second_relay: true,
            // So that the other half is as it would be without tasks.
            tasks: seed.is_multiple_of(2),
            task_deaths: true,
            slow_input: false,
            slow_holders: seed.is_multiple_of(2),
            blocking_tasks: seed.is_multiple_of(4),
            jumps: false,
            settling: Settling::AfterTheCommit,
            honesty: Honesty::Honest,
            bug: Bug::None,
            traced: false,
        }
    }

    /// Returns shapes that are each a little simpler than this one.
    pub fn simpler(&self) -> Vec<Self> {
        let mut simpler = Vec::new();
        let switches: [fn(&mut Self) -> &mut bool; 13] = [
            |s| &mut s.errors,
            |s| &mut s.cuts,
            |s| &mut s.crashes,
            |s| &mut s.deaths,
            |s| &mut s.operator,
            |s| &mut s.unruly_broker,
            |s| &mut s.second_relay,
            |s| &mut s.second_owner,
            |s| &mut s.jumps,
            |s| &mut s.tasks,
            |s| &mut s.task_deaths,
            |s| &mut s.blocking_tasks,
            |s| &mut s.slow_holders,
        ];
        for switch in switches {
            let mut shape = self.clone();
            if std::mem::take(switch(&mut shape)) {
                simpler.push(shape);
            }
        }
        for events in [self.events / 2, self.events.saturating_sub(1)] {
            if events < self.events {
                simpler.push(Self {
                    events,
                    ..self.clone()
                });
            }
        }
        if self.commands > 0 {
            simpler.push(Self {
                commands: self.commands - 1,
                ..self.clone()
            });
        }
        if self.moves > 20 {
            simpler.push(Self {
                moves: self.moves / 2,
                ..self.clone()
            });
        }
        simpler
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
