//! The way of requests from the broker to the local client and back.

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

/// Serves requests until the role stops. Then waits for the replies to those in flight, within the shutdown timeout, and
/// closes.
pub(super) async fn serve_rpc(responder: Arc<RpcServer>, desk: LocalClient, mut stop: Shutdown) {
    loop {
        // Both may be cancelled: a request leaves the server only if its arm wins.
        let asked = tokio::select! {
            biased;
            () = stop.asked() => break,
            asked = responder.next() => asked,
        };
        let Some(asked) = asked else { break };
        match asked.request.act {
            RequestKind::Command => execute(&desk, asked),
            RequestKind::Query => {
                // Most queries are served from memory, which is not worth a task.
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

/// The server's bound on requests also bounds these tasks.
async fn query(desk: LocalClient, asked: IncomingRequest) {
    let IncomingRequest {
        request,
        redelivered,
        cancelled,
        reply,
    } = asked;
    // Nothing is written, so a query whose caller has gone may be dropped at any point.
    let answer = tokio::select! {
        biased;
        answer = desk.query(request) => answer,
        () = cancelled.cancelled() => return reply.ack_without_reply(),
    };
    match answer {
        Ok(answer) => {
            reply.send(Reply::Result(answer));
        }
        Err(LocalCallError::Overloaded { retry_after }) => {
            reply.send(Reply::Overloaded { retry_after });
        }
        // Its caller has noticed the deadline by itself.
        Err(LocalCallError::TimedOut) => reply.ack_without_reply(),
        // Perhaps no server can read now. That is not the query's fault, so it is not rejected, and its caller may try
        // again.
        Err(LocalCallError::Closed | LocalCallError::Unavailable { .. }) if redelivered => {
            let retry_after = desk.retry_after();
            reply.send(Reply::Overloaded { retry_after });
        }
        // Another server may serve it.
        Err(LocalCallError::Closed | LocalCallError::Unavailable { .. }) => drop(reply),
    }
}
