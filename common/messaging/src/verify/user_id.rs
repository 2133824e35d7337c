//! The check of the user id that a publisher's messages carry: RabbitMQ closes the channel for a message whose user id is not the name of
//! the connection's user. Asked by a message in a transaction that is rolled back, so that nothing is published.

use std::{collections::BTreeSet, time::Duration};

use lapin::{
    BasicProperties, Channel, ErrorKind, options::BasicPublishOptions, types::ShortString,
};

use crate::{
    connection::{Connection, wrong_user_id},
    error::{ConnectError, reply},
    message::short_string,
    probe_channel::{ProbeChannel, ProbeResult},
    topology::Topology,
};

/// The most tries to hear of one routing key what the broker says.
const MAX_TRIES: usize = 10;

/// Checks the user id on this connection. Where the user may publish nothing that the topology binds, the broker tells nothing of it,
/// and nothing is wrong.
///
/// # Errors
/// The broker knows the connection's user by another name, or cannot be asked.
pub(crate) async fn check_user_id(
    connection: &Connection,
    topology: &Topology,
    exchange: &str,
    user_id: &ShortString,
    limit: Duration,
) -> Result<(), ConnectError> {
    // Topic permissions are looked at before the user id, so a family is wanted that the user may publish.
    let bindings = topology.bindings.iter();
    let families: BTreeSet<&str> = bindings
        .filter(|binding| binding.exchange == exchange)
        .filter_map(|binding| binding.routing_key.split('.').next())
        .collect();
    for family in families {
        let key = format!("{family}.user-id");
        match try_to_publish(connection, exchange, &key, user_id, limit).await? {
            ProbeResult::No(reply::ACCESS_REFUSED, text) if text.contains("access to topic") => {}
            ProbeResult::No(reply::PRECONDITION_FAILED, text) => {
                return wrong_user_id(connection.address(), &text).map_or(Ok(()), Err);
            }
            ProbeResult::Yes(()) | ProbeResult::No(..) | ProbeResult::Silence => break,
        }
    }
    Ok(())
}

/// Returns the broker's answer to a message that is rolled back.
async fn try_to_publish(
    connection: &Connection,
    exchange: &str,
    key: &str,
    user_id: &ShortString,
    limit: Duration,
) -> Result<ProbeResult<()>, ConnectError> {
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
                // The broker has refused the message before the rollback was sent, and the client keeps its reason for a request that
                // waits. It cannot be sent together with the message, since the client sends requests first.
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
            ProbeResult::Yes(false) => {}
            ProbeResult::Yes(true) => return Ok(ProbeResult::Yes(())),
            ProbeResult::No(code, text) => return Ok(ProbeResult::No(code, text)),
            ProbeResult::Silence => break,
        }
    }
    Ok(ProbeResult::Silence)
}
