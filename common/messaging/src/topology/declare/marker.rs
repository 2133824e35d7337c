//! Detects whether a queue is still the one consumed from before.
//!
//! A queue that was deleted and created again looks like the old one, whether the role's own connection, another role or a producer created
//! it. So the consumer of a queue marks it: with an exchange that is bound to that queue only and auto-deleted with its last binding. The
//! broker deletes the marker together with the queue, and only a consumer creates it. Nothing is ever published to it.
//!
//! The marker is checked after consuming has begun. If it is present, the queue is the marked one. If that queue had been deleted later,
//! the broker would have cancelled the consumer; if earlier, the marker would be gone.
//!
//! Two cases go undetected: a purged queue, and a queue restored together with its marker from exported definitions. If a role runs in
//! several processes, the first to check creates the marker again, and only that process reports the loss.

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions},
    types::{FieldTable, ShortString},
};

use crate::{
    amqp::short_string,
    connection::{
        Connection,
        error::{Result, reply},
        probe_channel::{ProbeChannel, ProbeResult},
    },
    topology::names::QueueName,
};

/// Detectability of the loss of a queue from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MarkerState {
    Marked,
    /// The user may neither check nor create the marker, for this reason.
    Forbidden(String),
    /// The broker cannot say for now. The next connection checks again.
    Unknown,
}

/// Checks a queue's marker, and creates it if it is missing. `missing` is called before the marker is complete, so the loss is reported
/// even if a later step fails. It is not called if the marker cannot be created, for lack of permission or quorum: it would be missing each
/// time.
///
/// # Errors
/// Fails if the connection is unusable.
pub(crate) async fn check_marker(
    connection: &Connection,
    queue: &QueueName,
    limit: Duration,
    missing: impl FnOnce(),
) -> Result<MarkerState> {
    let mut probe = ProbeChannel::new(connection, limit);
    let name = queue.marker();
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
    let marked = match probe.try_method(declare(true)).await? {
        // An existing marker is bound: the broker deletes it with its binding, and its creator binds it at once.
        ProbeResult::Accepted(()) => MarkerState::Marked,
        ProbeResult::Rejected(reply::NOT_FOUND, _) => {
            missing_marker(&mut probe, &name, queue, declare(false), missing).await?
        }
        ProbeResult::Rejected(code, reason) => rejected(queue, code, reason),
        ProbeResult::TimedOut => timed_out(queue),
    };
    probe.close().await;
    Ok(marked)
}

async fn missing_marker(
    probe: &mut ProbeChannel<'_>,
    name: &str,
    queue: &QueueName,
    declare: impl AsyncFnOnce(Channel) -> lapin::Result<()>,
    missing: impl FnOnce(),
) -> Result<MarkerState> {
    // A user who may create the marker but not bind it would find it missing each time. Unbinding needs the same permissions as binding,
    // and here has nothing to unbind.
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
    if let ProbeResult::Rejected(code @ reply::ACCESS_REFUSED, reason) =
        probe.try_method(may_bind).await?
    {
        return Ok(rejected(queue, code, reason));
    }
    match probe.try_method(declare).await? {
        ProbeResult::Accepted(()) => {}
        ProbeResult::Rejected(code, reason) => return Ok(rejected(queue, code, reason)),
        ProbeResult::TimedOut => return Ok(timed_out(queue)),
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
    let unbound = match probe.try_method(bind).await? {
        ProbeResult::Accepted(()) => return Ok(MarkerState::Marked),
        ProbeResult::Rejected(code, reason) => rejected(queue, code, reason),
        ProbeResult::TimedOut => timed_out(queue),
    };
    // A marker without a binding would never be auto-deleted.
    let delete = async |channel: Channel| {
        channel
            .exchange_delete(short_string(name), ExchangeDeleteOptions::default())
            .await
    };
    probe.try_method(delete).await?;
    Ok(unbound)
}

fn rejected(queue: &QueueName, code: u16, reason: String) -> MarkerState {
    if code == reply::ACCESS_REFUSED {
        return MarkerState::Forbidden(reason);
    }
    tracing::debug!(%queue, reason, "queue cannot be marked for now");
    MarkerState::Unknown
}

fn timed_out(queue: &QueueName) -> MarkerState {
    tracing::debug!(%queue, "no response about the queue's marker");
    MarkerState::Unknown
}
