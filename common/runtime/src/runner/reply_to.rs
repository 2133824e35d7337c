//! Commands that wait for a role's loop, each with the way back to its caller.

use std::time::{Duration, Instant};

use doorstep_event::{Request, RequestKind, RequestResult};
use doorstep_messaging::{Cancelled, Reply, ReplyHandle};
use tokio::sync::oneshot;

use super::local_call_error::LocalCallError;
use crate::{CommandResult, DeliveryHistory, telemetry::RequestInstruments};

/// The way back to a caller.
pub(super) enum ReplyTo {
    /// A caller in this process.
    Local(oneshot::Sender<Result<RequestResult, LocalCallError>>),
    /// A caller behind the broker.
    Rpc(ReplyHandle, Cancelled),
}

/// A waiting command.
pub(super) struct QueuedCommand {
    pub(super) request: Request,
    pub(super) past: DeliveryHistory,
    pub(super) caller: PendingReply,
}

/// A pending reply: its caller, the start of its wait, and whether its request was delivered before.
pub(super) struct PendingReply {
    /// `None` once it has its reply.
    caller: Option<ReplyTo>,
    past: DeliveryHistory,
    since: Instant,
}

impl QueuedCommand {
    pub(super) fn new(request: Request, past: DeliveryHistory, caller: ReplyTo) -> Self {
        Self {
            request,
            past,
            caller: PendingReply {
                caller: Some(caller),
                past,
                since: Instant::now(),
            },
        }
    }
}

impl PendingReply {
    /// Returns whether its caller has stopped waiting.
    pub(super) fn is_gone(&self) -> bool {
        match &self.caller {
            Some(ReplyTo::Local(answer)) => answer.is_closed(),
            Some(ReplyTo::Rpc(_, cancelled)) => cancelled.is_cancelled(),
            None => true,
        }
    }

    /// Replies with the result of the command.
    pub(super) fn reply(mut self, decided: CommandResult, meters: &RequestInstruments) {
        let Some(caller) = self.caller.take() else {
            return;
        };
        match (caller, decided) {
            (caller, CommandResult::Answer(answer)) => {
                meters.ended(RequestKind::Command, &answer, self.since.elapsed());
                caller.answer(answer);
            }
            // Ends of tasks have no caller.
            (
                ReplyTo::Local(answer),
                CommandResult::Expired | CommandResult::Ended | CommandResult::LeaseLost,
            ) => drop(answer.send(Err(LocalCallError::TimedOut))),
            (
                ReplyTo::Rpc(reply, _),
                CommandResult::Expired | CommandResult::Ended | CommandResult::LeaseLost,
            ) => reply.ack_without_reply(),
        }
    }

    /// Drops a command that is not started, since its caller has stopped waiting.
    pub(super) fn forget(mut self) {
        if let Some(ReplyTo::Rpc(reply, _)) = self.caller.take() {
            reply.ack_without_reply();
        }
    }

    /// Replies with an overload error. The command is not started here; the RPC client is warned that another server
    /// may have started it before.
    pub(super) fn reject_overloaded(mut self, retry_after: Duration) {
        match self.caller.take() {
            Some(ReplyTo::Local(answer)) => {
                drop(answer.send(Err(LocalCallError::Overloaded { retry_after })));
            }
            Some(ReplyTo::Rpc(reply, _)) => {
                reply.send(Reply::Overloaded { retry_after });
            }
            None => {}
        }
    }
}

impl Drop for PendingReply {
    /// The role ends before it has started this command. Behind the broker, another server gets it. If it was delivered
    /// before, the broker would count a return as a failed attempt, although no server has failed on it; so its caller
    /// is asked to try again instead.
    fn drop(&mut self) {
        const SOON: Duration = Duration::from_millis(250);
        match self.caller.take() {
            Some(ReplyTo::Rpc(reply, _)) if self.past != DeliveryHistory::First => {
                reply.send(Reply::Overloaded { retry_after: SOON });
            }
            other => drop(other),
        }
    }
}

impl ReplyTo {
    fn answer(self, answer: RequestResult) {
        match self {
            // A caller that has gone away drops its reply.
            Self::Local(sender) => drop(sender.send(Ok(answer))),
            Self::Rpc(reply, _) => {
                reply.send(Reply::Result(answer));
            }
        }
    }
}
