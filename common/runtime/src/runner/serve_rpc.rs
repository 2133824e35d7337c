//! Requests that come by the broker, on their way to the desk and back.

use std::sync::Arc;

use doorstep_event::RequestKind;
use doorstep_messaging::{IncomingRequest, Reply, RpcServer};
use futures_util::FutureExt;

use super::{
    local_call_error::LocalCallError,
    local_client::LocalClient,
    reply_to::{QueuedCommand, ReplyTo},
    shutdown::Shutdown,
};
use crate::DeliveryHistory;

/// Hands out requests until the role stops; then waits for the replies to what was handed out, within the grace period, and closes.
pub(super) async fn serve_rpc(responder: Arc<RpcServer>, desk: LocalClient, mut stop: Shutdown) {
    loop {
        // Both may be cancelled: a request leaves the responder only when its arm wins.
        let asked = tokio::select! {
            biased;
            () = stop.asked() => break,
            asked = responder.next() => asked,
        };
        let Some(asked) = asked else { break };
        match asked.request.act {
            RequestKind::Command => execute(&desk, asked),
            RequestKind::Query => {
                // Most are answered from what is in memory, and not even a task is worth it then.
                let mut query = Box::pin(query(desk.clone(), asked));
                if (&mut query).now_or_never().is_none() {
                    drop(tokio::spawn(query));
                }
            }
        }
    }
    responder.close(stop.time_remaining()).await;
}

fn execute(desk: &LocalClient, asked: IncomingRequest) {
    let past = if asked.redelivered {
        DeliveryHistory::Redelivered
    } else {
        DeliveryHistory::First
    };
    let caller = ReplyTo::Rpc(asked.reply, asked.cancelled);
    let refused = desk.take(QueuedCommand::new(asked.request, past, caller));
    if let Err((waiting, LocalCallError::Overloaded { retry_after })) = refused {
        waiting.caller.reject_overloaded(retry_after);
    }
}

/// The responder's bound is that of these tasks.
async fn query(desk: LocalClient, asked: IncomingRequest) {
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
        Err(LocalCallError::Overloaded { retry_after }) => {
            reply.send(Reply::Overloaded { retry_after });
        }
        // Its caller has noticed by itself.
        Err(LocalCallError::TimedOut) => reply.ack_without_reply(),
        // Perhaps no server can read now. It is no fault of the query's, so it is not refused but may be asked again.
        Err(LocalCallError::Closed | LocalCallError::Unavailable { .. }) if redelivered => {
            let retry_after = desk.retry_after();
            reply.send(Reply::Overloaded { retry_after });
        }
        // Another server may answer it.
        Err(LocalCallError::Closed | LocalCallError::Unavailable { .. }) => drop(reply),
    }
}
