//! The check of the user id that a publisher's messages carry: RabbitMQ closes the channel for a message whose user id is not the name of
//! the connection's user. Asked by a message in a transaction that is rolled back, so that nothing is published.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::try_join;
use lapin::{BasicProperties, Channel, options::BasicPublishOptions, types::ShortString};

use crate::{
    asker::{Answer, Asker},
    connection::{Connection, wrong_user_id},
    error::{ConnectError, reply},
    message::short,
    topology::Topology,
};

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
    let mut asker = Asker::new(connection, limit);
    // Topic permissions are looked at before the user id, so a family is wanted that the user may publish.
    let bindings = topology.bindings.iter();
    let families: BTreeSet<&str> = bindings
        .filter(|binding| binding.exchange == exchange)
        .filter_map(|binding| binding.routing_key.split('.').next())
        .collect();
    let mut found = Ok(());
    for family in families {
        let key = format!("{family}.user-id");
        let request = async |channel: Channel| {
            channel.tx_select().await?;
            let properties = BasicProperties::default().with_user_id(user_id.clone());
            let options = BasicPublishOptions::default();
            // Begun together: a refusal of the message may close the channel before a rollback that is begun later, which then fails
            // without the reason.
            let publish =
                channel.basic_publish(short(exchange), short(&key), options, &[], properties);
            try_join(publish, channel.tx_rollback()).await?;
            channel.close(200, "OK".into()).await
        };
        match asker.ask(request).await? {
            Answer::No(reply::ACCESS_REFUSED, text) if text.contains("access to topic") => {}
            Answer::No(reply::PRECONDITION_FAILED, text) => {
                found = wrong_user_id(connection.address(), &text).map_or(Ok(()), Err);
                break;
            }
            Answer::Yes(()) | Answer::No(..) | Answer::Silence => break,
        }
    }
    found
}
