//! Commands that wait for a role's loop, each with the way back to its caller.

use std::time::{Duration, Instant};

use doorstep_event::{Request, RequestKind, RequestResult};
use doorstep_messaging::{Cancelled, Reply, ReplyHandle};
use tokio::sync::oneshot;

use super::desk::DeskError;
use crate::{
    Decided, Past,
    told::{RequestEnded, RequestMeters},
};

/// The way back.
pub(super) enum Caller {
    /// Somebody in this process.
    Desk(oneshot::Sender<Result<RequestResult, DeskError>>),
    /// Somebody behind the broker.
    Rpc(ReplyHandle, Cancelled),
}

/// A command that waits.
pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) past: Past,
    pub(super) caller: Called,
}

/// A caller, since when it waits, and whether its request had come before.
pub(super) struct Called {
    /// `None` once it has heard.
    caller: Option<Caller>,
    past: Past,
    since: Instant,
}

impl Waiting {
    pub(super) fn new(request: Request, past: Past, caller: Caller) -> Self {
        Self {
            request,
            past,
            caller: Called {
                caller: Some(caller),
                past,
                since: Instant::now(),
            },
        }
    }
}

impl Called {
    /// Whether nobody waits any more.
    pub(super) fn is_gone(&self) -> bool {
        match &self.caller {
            Some(Caller::Desk(answer)) => answer.is_closed(),
            Some(Caller::Rpc(_, cancelled)) => cancelled.is_cancelled(),
            None => true,
        }
    }

    /// Tells the caller what has become of the command.
    pub(super) fn tell(mut self, decided: Decided, meters: &RequestMeters) {
        let Some(caller) = self.caller.take() else {
            return;
        };
        match (caller, decided) {
            (caller, Decided::Answer(answer)) => {
                RequestEnded {
                    meters,
                    act: RequestKind::Command,
                    answer: &answer,
                    took: self.since.elapsed(),
                }
                .tell();
                caller.answer(answer);
            }
            (Caller::Desk(answer), Decided::Expired) => {
                drop(answer.send(Err(DeskError::TimedOut)));
            }
            (Caller::Rpc(reply, _), Decided::Expired) => reply.ack_without_reply(),
        }
    }

    /// Nobody waits for it, so it is not begun.
    pub(super) fn forget(mut self) {
        if let Some(Caller::Rpc(reply, _)) = self.caller.take() {
            reply.ack_without_reply();
        }
    }

    /// Tells the caller that there is too much to do. The command is not begun; that another server may have begun it before is told
    /// on the way.
    pub(super) fn shed(mut self, retry_after: Duration) {
        match self.caller.take() {
            Some(Caller::Desk(answer)) => {
                drop(answer.send(Err(DeskError::Overloaded { retry_after })));
            }
            Some(Caller::Rpc(reply, _)) => {
                reply.send(Reply::Overloaded { retry_after });
            }
            None => {}
        }
    }
}

impl Drop for Called {
    /// The role ends before it has come to this. Behind the broker another server gets it; one that had come before would count as
    /// refused then, although nobody has failed on it, so that its caller is asked to try again instead.
    fn drop(&mut self) {
        const SOON: Duration = Duration::from_millis(250);
        match self.caller.take() {
            Some(Caller::Rpc(reply, _)) if self.past != Past::First => {
                reply.send(Reply::Overloaded { retry_after: SOON });
            }
            other => drop(other),
        }
    }
}

impl Caller {
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
