//! Telling whether a queue is still the one that was consumed from before.
//!
//! A queue that was deleted and made again looks like the old one, whoever made it: the role's own connection, another role's, a
//! producer in another process. So whoever consumes from a queue marks it, with something that the broker takes away together with the
//! queue and that nobody else makes: an exchange that leads to that queue alone and is deleted with its last binding. Nothing is ever
//! published to it.
//!
//! The mark is looked for once consuming has begun. If it is there then, this is the queue that was marked: had that one been deleted
//! since consuming began, the broker would end the consumption, and before that, the mark would be gone.
//!
//! What cannot be told: that a queue was purged, or that it was restored together with its mark from exported definitions. And of several
//! processes of one role, the one that looks first makes the mark again, and alone reports.

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions},
    types::{FieldTable, ShortString},
};

use crate::{
    connection::Connection,
    error::{ConnectError, reply},
    message::short_string,
    names::QueueName,
    probe_channel::{ProbeChannel, ProbeResult},
};

/// Whether a queue's loss would be noticed from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MarkerState {
    /// It would.
    Yes,
    /// Not by this user, who may neither look for the mark nor make it, for this reason.
    Forbidden(String),
    /// The broker cannot say for now; it is asked again with the next connection.
    Unknown,
}

/// Looks for a queue's mark, and makes it if it is missing. `missing` is called before it is made, so that whatever breaks after that,
/// the loss was reported. It is not called where a mark cannot be made, for want of permission or of a majority: it would be missing
/// each time.
///
/// # Errors
/// The connection is of no more use.
pub(crate) async fn check_marker(
    connection: &Connection,
    queue: &QueueName,
    limit: Duration,
    missing: impl FnOnce(),
) -> Result<MarkerState, ConnectError> {
    let mut asker = ProbeChannel::new(connection, limit);
    let name = queue.mark();
    let declare = |passive| {
        let name = name.as_str().into();
        let options = ExchangeDeclareOptions {
            passive,
            durable: true,
            auto_delete: true,
            internal: true,
            ..ExchangeDeclareOptions::default()
        };
        async move |channel: Channel| {
            let kind = ExchangeKind::Fanout;
            channel
                .exchange_declare(name, kind, options, FieldTable::default())
                .await
        }
    };
    let marked = match asker.try_method(declare(true)).await? {
        // It is bound: the broker deletes it with its binding, and whoever makes it binds it at once.
        ProbeResult::Yes(()) => MarkerState::Yes,
        ProbeResult::No(reply::NOT_FOUND, _) => {
            missing_marker(&mut asker, &name, queue, declare(false), missing).await?
        }
        ProbeResult::No(code, reason) => refused(queue, code, reason),
        ProbeResult::Silence => timed_out(queue),
    };
    asker.close().await;
    Ok(marked)
}

async fn missing_marker(
    asker: &mut ProbeChannel<'_>,
    name: &str,
    queue: &QueueName,
    declare: impl AsyncFnOnce(Channel) -> lapin::Result<()>,
    missing: impl FnOnce(),
) -> Result<MarkerState, ConnectError> {
    // Who may make the mark and not bind it would find it missing each time. Unbinding asks for the same rights as binding does, and
    // there is nothing to unbind.
    let may_bind = async |channel: Channel| {
        channel
            .queue_unbind(
                short_string(queue.as_str()),
                short_string(name),
                ShortString::default(),
                FieldTable::default(),
            )
            .await
    };
    if let ProbeResult::No(code @ reply::ACCESS_REFUSED, reason) =
        asker.try_method(may_bind).await?
    {
        return Ok(refused(queue, code, reason));
    }
    match asker.try_method(declare).await? {
        ProbeResult::Yes(()) => {}
        ProbeResult::No(code, reason) => return Ok(refused(queue, code, reason)),
        ProbeResult::Silence => return Ok(timed_out(queue)),
    }
    missing();
    let bind = async |channel: Channel| {
        channel
            .queue_bind(
                short_string(queue.as_str()),
                short_string(name),
                ShortString::default(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
    };
    let unbound = match asker.try_method(bind).await? {
        ProbeResult::Yes(()) => return Ok(MarkerState::Yes),
        ProbeResult::No(code, reason) => refused(queue, code, reason),
        ProbeResult::Silence => timed_out(queue),
    };
    // A mark that hangs on nothing would stay for good.
    let unmake = async |channel: Channel| {
        channel
            .exchange_delete(short_string(name), ExchangeDeleteOptions::default())
            .await
    };
    asker.try_method(unmake).await?;
    Ok(unbound)
}

fn refused(queue: &QueueName, code: u16, reason: String) -> MarkerState {
    if code == reply::ACCESS_REFUSED {
        return MarkerState::Forbidden(reason);
    }
    tracing::debug!(%queue, reason, "the queue cannot be marked for now");
    MarkerState::Unknown
}

fn timed_out(queue: &QueueName) -> MarkerState {
    tracing::debug!(%queue, "no answer about the queue's mark");
    MarkerState::Unknown
}
