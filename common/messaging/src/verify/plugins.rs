//! Whether the broker knows the kinds of exchanges that come by plugins.

use lapin::{
    options::ExchangeDeclareOptions,
    types::{FieldTable, ShortString},
};
use tokio::time::timeout;

use super::{finding::Finding, verifier::Verifier};
use crate::{
    error::{ConnectError, broker_reply},
    topology::Exchange,
};

/// An exchange that every broker has and nobody can create or change.
const PROBE_EXCHANGE: &str = "amq.topic";

/// Notes it if the broker does not know this exchange's kind. Asks last of all: a broker that does not know it hangs up.
///
/// What is declared with the kind in question is an exchange that exists as another: the broker looks at the kind first.
pub(super) async fn plugin(
    look: &mut Verifier<'_>,
    exchange: &Exchange,
) -> Result<bool, ConnectError> {
    let Some(plugin) = exchange.kind.plugin() else {
        return Ok(true);
    };
    let limit = look.asker.limit();
    let channel = look.connection().channel(limit).await?;
    let kind = lapin::ExchangeKind::Custom(exchange.kind.as_str().to_owned());
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let name = ShortString::from(PROBE_EXCHANGE);
    let request = channel.exchange_declare(name, kind, options, FieldTable::default());
    let answer = timeout(limit, request)
        .await
        .map_err(|_| look.silence("exchange", PROBE_EXCHANGE))?;
    if let Err(error) = answer
        && broker_reply(&error).is_some_and(|(_, text)| text.contains("unknown exchange type"))
    {
        look.findings.push(Finding::PluginMissing {
            exchange: exchange.name.clone(),
            kind: exchange.kind.as_str(),
            plugin,
        });
        return Ok(false);
    }
    Ok(true)
}
