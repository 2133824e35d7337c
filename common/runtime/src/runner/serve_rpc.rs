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
pub(super) async fn serve_rpc(
    responder: Arc<RpcServer>,
    local_client: LocalClient,
    mut stop: Shutdown,
) {
    loop {
        // Both may be cancelled: a request leaves the server only if its arm wins.
        let requested = tokio::select! {
            biased;
            () = stop.requested() => break,
            requested = responder.next() => requested,
        };
        let Some(requested) = requested else { break };
        match requested.request.act {
            RequestKind::Command => execute(&local_client, requested),
            RequestKind::Query => {
                // Most queries are served from memory, which is not worth a task.
                let mut query = Box::pin(query(local_client.clone(), requested));
                if (&mut query).now_or_never().is_none() {
                    drop(tokio::spawn(query));
                }
            }
        }
    }
    responder.close(stop.time_remaining()).await;
}

fn execute(local_client: &LocalClient, requested: IncomingRequest) {
    let past = if requested.redelivered {
        DeliveryHistory::Redelivered
    } else {
        DeliveryHistory::First
    };
    let caller = ReplyTo::Rpc(requested.reply, requested.cancelled);
    let rejected = local_client.take(QueuedCommand::new(requested.request, past, caller));
    if let Err((waiting, LocalCallError::Overloaded { retry_after })) = rejected {
        waiting.caller.reject_overloaded(retry_after);
    }
}

/// The server's bound on requests also bounds these tasks.
async fn query(local_client: LocalClient, requested: IncomingRequest) {
    let IncomingRequest {
        request,
        redelivered,
        cancelled,
        reply,
    } = requested;
    // Nothing is written, so a query whose caller has gone may be dropped at any point.
    let answer = tokio::select! {
        biased;
        answer = local_client.query(request) => answer,
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
            let retry_after = local_client.retry_after();
            reply.send(Reply::Overloaded { retry_after });
        }
        // Another server may serve it.
        Err(LocalCallError::Closed | LocalCallError::Unavailable { .. }) => drop(reply),
    }
}
