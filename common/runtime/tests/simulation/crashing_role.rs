//! The ledger, except that an event which crashes its process ends the actor that handles it, and not the simulation.

use std::cell::Cell;

use doorstep_event::{Event, Rejection, Request, Timestamp};
use doorstep_runtime::{CommandOutcome, Effects, HandlerError, Role, States};

use super::world::{Shared, with};
use crate::ledger::{Account, Bid, Ledger, LedgerCommand, LedgerWith, Move, Replace, labor::Twist};

thread_local! {
    /// Set if the last handler call has crashed its process. The actor is on this very thread, and notices at its next
    /// step.
    static DEAD: Cell<bool> = const { Cell::new(false) };
}

thread_local! {
    /// Set if events may crash processes in this schedule.
    static LETHAL: Cell<bool> = const { Cell::new(true) };
}

thread_local! {
    /// Set if tasks may crash processes in this schedule.
    static LETHAL_TASKS: Cell<bool> = const { Cell::new(false) };
}

/// Sets whether events and tasks crash their processes from here on, or are only rejected.
pub fn lethal(deaths: bool, task_deaths: bool) {
    LETHAL.set(deaths);
    LETHAL_TASKS.set(task_deaths);
}

/// Crashes the process by a task. Returns whether tasks may do so.
pub fn die_of_task() -> bool {
    let dies = LETHAL_TASKS.get();
    if dies {
        DEAD.set(true);
    }
    dies
}

pub type CrashingRole = LedgerWith<Crashing>;

pub struct Crashing;

impl Replace for Crashing {
    fn handle(
        &self,
        states: &mut States<Account>,
        event: &Event,
        fact: &Move,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        if *fact == Move::Kill && !LETHAL.get() {
            return Err(HandlerError::reject("it would kill"));
        }
        if *fact == Move::Kill {
            DEAD.set(true);
            return Ok(Effects::none());
        }
        Ledger.handle(states, event, fact, now)
    }

    fn execute(
        &self,
        states: &mut States<Account>,
        request: &Request,
        command: &LedgerCommand,
        now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        if let LedgerCommand::Order(order) = command
            && order.bid == Bid::Kill
        {
            DEAD.set(LETHAL.get());
            return Err(Rejection::new(Rejection::FAILED, "it would kill"));
        }
        if let LedgerCommand::LaborDone(done) = command
            && done.twist == Twist::KillsRole
        {
            die_of_task();
            return Err(Rejection::new(Rejection::FAILED, "it would kill"));
        }
        Ledger.execute(states, request, command, now)
    }
}

/// Waits for ever at the actor's next use of the store if it has crashed: the scheduler drops it.
pub async fn stop_if_dead(world: &Shared) {
    if DEAD.take() {
        with(world, |world| {
            world.history.count("death");
            world.note(|| "dies of an event or a task".to_owned());
            world.died = true;
        });
        std::future::pending::<()>().await;
    }
}
