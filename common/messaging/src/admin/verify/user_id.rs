//! Checks the user id of published messages. RabbitMQ closes the channel for a message whose user id is not the name of the connection's
//! user. The probe publishes a message in a transaction that is rolled back, so nothing is published.

use std::{collections::BTreeSet, time::Duration};

use lapin::{
    BasicProperties, Channel, ErrorKind, options::BasicPublishOptions, types::ShortString,
};

use crate::{
    amqp::short_string,
    connection::{
        Connection,
        error::{Result, reply},
        probe_channel::{ProbeChannel, ProbeResult},
        wrong_user_id,
    },
    topology::Topology,
};

/// Attempts to get the broker's reply for one routing key.
const MAX_TRIES: usize = 10;

/// Checks the user id on this connection. If the user may publish none of the topology's bound keys, the broker gives no verdict, and the
/// check passes.
///
/// # Errors
/// Fails if the broker knows the connection's user by another name, or cannot be reached.
pub(crate) async fn check_user_id(
    connection: &Connection,
    topology: &Topology,
    exchange: &str,
    user_id: &ShortString,
    limit: Duration,
) -> Result<()> {
    // The broker checks topic permissions before the user id, so this needs a family that the user may publish.
    let bindings = topology.bindings.iter();
    let families: BTreeSet<&str> = bindings
        .filter(|binding| binding.exchange == exchange)
        .filter_map(|binding| binding.routing_key.split('.').next())
        .collect();
    for family in families {
        let key = format!("{family}.user-id");
        match try_to_publish(connection, exchange, &key, user_id, limit).await? {
            ProbeResult::Rejected(reply::ACCESS_REFUSED, text)
                if text.contains("access to topic") => {}
            ProbeResult::Rejected(reply::PRECONDITION_FAILED, text) => {
                return wrong_user_id(connection.address(), &text).map_or(Ok(()), Err);
            }
            ProbeResult::Accepted(()) | ProbeResult::Rejected(..) | ProbeResult::TimedOut => break,
        }
    }
    Ok(())
}

/// Returns the broker's reply to a message that is rolled back.
async fn try_to_publish(
    connection: &Connection,
    exchange: &str,
    key: &str,
    user_id: &ShortString,
    limit: Duration,
) -> Result<ProbeResult<()>> {
    for _ in 0..MAX_TRIES {
        let request = async |channel: Channel| {
            channel.tx_select().await?;
            let properties = BasicProperties::default().with_user_id(user_id.clone());
            let options = BasicPublishOptions::default();
            let publish = channel.basic_publish(
                short_string(exchange),
                short_string(key),
                options,
                &[],
                properties,
            );
            publish.await?;
            match channel.tx_rollback().await {
                // The broker rejected the message before the rollback was sent, and lapin reports its reason only to a pending request. The
                // rollback cannot be sent together with the message, because lapin sends requests first.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => {
                    Ok(false)
                }
                rolled_back => {
                    rolled_back?;
                    channel.close(200, "OK".into()).await?;
                    Ok(true)
                }
            }
        };
        match ProbeChannel::new(connection, limit)
            .try_method(request)
            .await?
        {
            ProbeResult::Accepted(false) => {}
            ProbeResult::Accepted(true) => return Ok(ProbeResult::Accepted(())),
            ProbeResult::Rejected(code, text) => return Ok(ProbeResult::Rejected(code, text)),
            ProbeResult::TimedOut => break,
        }
    }
    Ok(ProbeResult::TimedOut)
}
