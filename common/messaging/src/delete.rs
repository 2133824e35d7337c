//! Taking away what was declared, for whoever has had a namespace for a while: a comparison, a trial.

use lapin::{
    Channel,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};

use crate::{
    connection::{Connection, Dialer},
    error::{ConnectError, ConnectErrorKind, Refusal},
    message::short_string,
    probe_channel::{ProbeChannel, ProbeResult},
    settings::BrokerSettings,
    topology::Topology,
};

/// How often it is tried: RabbitMQ may close the connection over a quorum queue that is slow to go, and has deleted it by the next time.
const MAX_ATTEMPTS: u32 = 3;

/// Deletes every queue of a topology, with all that is in it, and then every exchange and record of an owner; nothing else. What is not there is gone already.
/// Where the broker ends the connection over it, that is tried again with the pauses of the settings, three times in all; each attempt tries
/// every address once, and each question has the bound of [`BrokerSettings::connect_timeout`]. May be cancelled, and called again for what is left.
///
/// # Errors
/// The broker cannot be reached, does not answer, or does not let us: says what is left.
pub async fn delete(settings: &BrokerSettings, topology: &Topology) -> Result<(), ConnectError> {
    let mut failures = 0;
    loop {
        settings.backoff_after(failures).await;
        let removed = delete_once(settings, topology).await;
        failures += 1;
        match removed {
            Err(error) if error.kind() == ConnectErrorKind::Protocol && failures < MAX_ATTEMPTS => {
            }
            ended => return ended,
        }
    }
}

async fn delete_once(settings: &BrokerSettings, topology: &Topology) -> Result<(), ConnectError> {
    let limit = settings.connect_timeout;
    let name = format!("{} removes what it declared", settings.namespace);
    let connection = Dialer::new(settings, &name).open().await?;
    let removed = delete_on(&connection, settings, topology).await;
    connection.close(limit).await;
    removed
}

async fn delete_on(
    connection: &Connection,
    settings: &BrokerSettings,
    topology: &Topology,
) -> Result<(), ConnectError> {
    let mut asker = ProbeChannel::new(connection, settings.connect_timeout);
    // Queues first: a mark goes with its queue, and nothing finds its exchange gone while it still has a queue.
    for queue in &topology.queues {
        let delete = async |channel: Channel| {
            let options = QueueDeleteOptions::default();
            channel
                .queue_delete(short_string(queue.name.as_str()), options)
                .await
                .map(drop)
        };
        let answer = asker.try_method(delete).await?;
        done(connection, &format!("queue {}", queue.name), answer)?;
    }
    let exchanges = topology.exchanges.iter().map(|exchange| &exchange.name);
    // The records of owners go with their queues: whatever is declared under these names later is nobody's yet.
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
        let answer = asker.try_method(delete).await?;
        done(connection, &format!("exchange {exchange}"), answer)?;
    }
    asker.close().await;
    Ok(())
}

fn done(connection: &Connection, what: &str, answer: ProbeResult<()>) -> Result<(), ConnectError> {
    let address = connection.address();
    match answer {
        ProbeResult::Yes(()) => Ok(()),
        ProbeResult::No(_, reason) => Err(ConnectError::new(
            ConnectErrorKind::Refused(Refusal::Permission),
            format!("{what} on {address} cannot be deleted: {reason}"),
        )),
        ProbeResult::Silence => Err(ConnectError::new(
            ConnectErrorKind::Silent,
            format!("{address} does not answer whether {what} is deleted"),
        )),
    }
}
