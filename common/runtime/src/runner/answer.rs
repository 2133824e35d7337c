//! Requests that come by the broker, on their way to the desk and back.

use std::sync::Arc;

use doorstep_event::RequestKind;
use doorstep_messaging::{IncomingRequest, Reply, RpcServer};
use futures_util::FutureExt;

use super::{
    caller::{Caller, Waiting},
    desk::{Desk, DeskError},
    stop::Stop,
};
use crate::Past;

/// Hands out requests until the role stops; then waits for the replies to what was handed out, within the grace period, and closes.
pub(super) async fn answering(responder: Arc<RpcServer>, desk: Desk, mut stop: Stop) {
    loop {
        // Both may be cancelled: a request leaves the responder only when its arm wins.
        let asked = tokio::select! {
            biased;
            () = stop.asked() => break,
            asked = responder.next() => asked,
        };
        let Some(asked) = asked else { break };
        match asked.request.act {
            RequestKind::Command => obey(&desk, asked),
            RequestKind::Query => {
                // Most are answered from what is in memory, and not even a task is worth it then.
                let mut query = Box::pin(query(desk.clone(), asked));
                if (&mut query).now_or_never().is_none() {
                    drop(tokio::spawn(query));
                }
            }
        }
    }
    responder.close(stop.left()).await;
}

fn obey(desk: &Desk, asked: IncomingRequest) {
    let past = if asked.redelivered {
        Past::Redelivered
    } else {
        Past::First
    };
    let caller = Caller::Rpc(asked.reply, asked.cancelled);
    let refused = desk.take(Waiting::new(asked.request, past, caller));
    if let Err((waiting, DeskError::Overloaded { retry_after })) = refused {
        waiting.caller.shed(retry_after);
    }
}

/// The responder's bound is that of these tasks.
async fn query(desk: Desk, asked: IncomingRequest) {
    let IncomingRequest {
        request,
        redelivered,
        cancelled,
        reply,
    } = asked;
    // Nothing is written, so work that nobody waits for is dropped wherever it is.
    let answer = tokio::select! {
        biased;
        answer = desk.query(request) => answer,
        () = cancelled.cancelled() => return reply.ack_without_reply(),
    };
    match answer {
        Ok(answer) => {
            reply.send(Reply::Answer(answer));
        }
        Err(DeskError::Overloaded { retry_after }) => {
            reply.send(Reply::Overloaded { retry_after });
        }
        // Its caller has noticed by itself.
        Err(DeskError::TimedOut) => reply.ack_without_reply(),
        // Perhaps no server can read now. It is no fault of the query's, so it is not refused but may be asked again.
        Err(DeskError::Closed | DeskError::Unavailable { .. }) if redelivered => {
            let retry_after = desk.retry_after();
            reply.send(Reply::Overloaded { retry_after });
        }
        // Another server may answer it.
        Err(DeskError::Closed | DeskError::Unavailable { .. }) => drop(reply),
    }
}
