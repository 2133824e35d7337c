//! Checks whether the broker knows the exchange types that plugins provide.

use lapin::{
    options::ExchangeDeclareOptions,
    types::{FieldTable, ShortString},
};
use tokio::time::timeout;

use super::{finding::Finding, verifier::Verifier};
use crate::{
    connection::error::{Result, broker_reply},
    topology::Exchange,
};

/// An exchange that every broker has and no user can create or change.
const PROBE_EXCHANGE: &str = "amq.topic";

/// Records it if the broker does not know this exchange's type, and returns whether it does. Runs last, because a broker that does not know
/// the type closes the connection.
///
/// The probe declares an existing exchange with the type in question: the broker checks the type first.
pub(super) async fn plugin(verifier: &mut Verifier<'_>, exchange: &Exchange) -> Result<bool> {
    let Some(plugin) = exchange.kind.plugin() else {
        return Ok(true);
    };
    let limit = verifier.probe.limit();
    let channel = verifier.connection().channel(limit).await?;
    let kind = lapin::ExchangeKind::Custom(exchange.kind.as_str().to_owned());
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let name = ShortString::from(PROBE_EXCHANGE);
    let request = channel.exchange_declare(name, kind, options, FieldTable::default());
    let result = timeout(limit, request)
        .await
        .map_err(|_| verifier.timed_out("exchange", PROBE_EXCHANGE))?;
    if let Err(error) = result
        && broker_reply(&error).is_some_and(|(_, text)| text.contains("unknown exchange type"))
    {
        verifier.findings.push(Finding::PluginMissing {
            exchange: exchange.name.clone(),
            kind: exchange.kind.as_str(),
            plugin,
        });
        return Ok(false);
    }
    Ok(true)
}
