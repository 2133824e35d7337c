//! Deletes a declared topology, for a comparison or a test that used its own namespace.

use lapin::{
    Channel,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};

use crate::{
    amqp::short_string,
    connection::{
        Connection, Dialer,
        error::{ConnectError, ConnectErrorKind, Result},
        probe_channel::{ProbeChannel, ProbeResult},
    },
    settings::BrokerSettings,
    topology::Topology,
};

/// Attempts. RabbitMQ may close the connection while a quorum queue is slow to delete, and has deleted it by the next attempt.
const MAX_ATTEMPTS: u32 = 3;

/// Deletes every queue of a topology with all its messages, then every exchange and owner record, and nothing else. Missing objects count
/// as deleted. If the broker closes the connection, the deletion is retried with the backoff of the settings, three attempts in all. Each
/// attempt tries every address once; each broker call is bounded by [`BrokerSettings::connect_timeout`]. May be cancelled, and called again
/// for the rest.
///
/// # Errors
/// Fails if the broker is unreachable, does not respond, or denies permission. The error names the object that is left.
pub async fn delete(settings: &BrokerSettings, topology: &Topology) -> Result<()> {
    let mut failures = 0;
    loop {
        settings.backoff_after(failures).await;
        let deleted = delete_once(settings, topology).await;
        failures += 1;
        match deleted {
            Err(error) if error.kind() == ConnectErrorKind::Protocol && failures < MAX_ATTEMPTS => {
            }
            ended => return ended,
        }
    }
}

async fn delete_once(settings: &BrokerSettings, topology: &Topology) -> Result<()> {
    let limit = settings.connect_timeout;
    let name = format!("{} topology deletion", settings.namespace);
    let connection = Dialer::new(settings, &name).open().await?;
    let deleted = delete_on(&connection, settings, topology).await;
    connection.close(limit).await;
    deleted
}

async fn delete_on(
    connection: &Connection,
    settings: &BrokerSettings,
    topology: &Topology,
) -> Result<()> {
    let mut probe = ProbeChannel::new(connection, settings.connect_timeout);
    // Queues first: a marker is deleted with its queue, and no queue is left without its exchange.
    for queue in &topology.queues {
        let delete = async |channel: Channel| {
            let options = QueueDeleteOptions::default();
            channel
                .queue_delete(short_string(queue.name.as_str()), options)
                .await
                .map(drop)
        };
        let result = probe.try_method(delete).await?;
        check_deleted(&probe, &format!("queue {}", queue.name), result)?;
    }
    let exchanges = topology.exchanges.iter().map(|exchange| &exchange.name);
    // Owner records are deleted with their queues: a queue declared under the same name later has no owner yet.
    for exchange in topology
        .owners
        .iter()
        .map(|owner| &owner.exchange)
        .chain(exchanges)
    {
        let delete = async |channel: Channel| {
            let options = ExchangeDeleteOptions::default();
            channel
                .exchange_delete(short_string(exchange), options)
                .await
        };
        let result = probe.try_method(delete).await?;
        check_deleted(&probe, &format!("exchange {exchange}"), result)?;
    }
    probe.close().await;
    Ok(())
}

fn check_deleted(probe: &ProbeChannel<'_>, object: &str, result: ProbeResult<()>) -> Result<()> {
    match result {
        ProbeResult::Accepted(()) => Ok(()),
        ProbeResult::Rejected(_, reason) => Err(ConnectError::no_permission(format!(
            "{object} on {} cannot be deleted: {reason}",
            probe.connection().address()
        ))),
        ProbeResult::TimedOut => Err(probe.timed_out(object)),
    }
}
