//! Commands that wait for a role's loop, each with the way back to its caller.

use std::time::{Duration, Instant};

use doorstep_event::{Request, RequestKind, RequestResult};
use doorstep_messaging::{Cancelled, Reply, ReplyHandle};
use tokio::sync::oneshot;

use super::local_call_error::LocalCallError;
use crate::{
    CommandResult, DeliveryHistory,
    telemetry::{RequestEnded, RequestInstruments},
};

/// The way back.
pub(super) enum ReplyTo {
    /// Somebody in this process.
    Desk(oneshot::Sender<Result<RequestResult, LocalCallError>>),
    /// Somebody behind the broker.
    Rpc(ReplyHandle, Cancelled),
}

/// A command that waits.
pub(super) struct QueuedCommand {
    pub(super) request: Request,
    pub(super) past: DeliveryHistory,
    pub(super) caller: PendingReply,
}

/// A caller, since when it waits, and whether its request had come before.
pub(super) struct PendingReply {
    /// `None` once it has heard.
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
    /// Whether nobody waits any more.
    pub(super) fn is_gone(&self) -> bool {
        match &self.caller {
            Some(ReplyTo::Desk(answer)) => answer.is_closed(),
            Some(ReplyTo::Rpc(_, cancelled)) => cancelled.is_cancelled(),
            None => true,
        }
    }

    /// Tells the caller what has become of the command.
    pub(super) fn reply(mut self, decided: CommandResult, meters: &RequestInstruments) {
        let Some(caller) = self.caller.take() else {
            return;
        };
        match (caller, decided) {
            (caller, CommandResult::Answer(answer)) => {
                RequestEnded {
                    meters,
                    act: RequestKind::Command,
                    answer: &answer,
                    took: self.since.elapsed(),
                }
                .tell();
                caller.answer(answer);
            }
            (ReplyTo::Desk(answer), CommandResult::Expired) => {
                drop(answer.send(Err(LocalCallError::TimedOut)));
            }
            (ReplyTo::Rpc(reply, _), CommandResult::Expired) => reply.ack_without_reply(),
        }
    }

    /// Nobody waits for it, so it is not begun.
    pub(super) fn forget(mut self) {
        if let Some(ReplyTo::Rpc(reply, _)) = self.caller.take() {
            reply.ack_without_reply();
        }
    }

    /// Tells the caller that there is too much to do. The command is not begun; that another server may have begun it before is told
    /// on the way.
    pub(super) fn reject_overloaded(mut self, retry_after: Duration) {
        match self.caller.take() {
            Some(ReplyTo::Desk(answer)) => {
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
    /// The role ends before it has come to this. Behind the broker another server gets it; one that had come before would count as
    /// refused then, although nobody has failed on it, so that its caller is asked to try again instead.
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
            // Whoever has gone away does not hear it.
            Self::Desk(sender) => drop(sender.send(Ok(answer))),
            Self::Rpc(reply, _) => {
                reply.send(Reply::Answer(answer));
            }
        }
    }
}
