//! `consumers store take-over`: gives the queues of a role to the store in this folder.

use doorstep_cli::{CliError, ExitReason, output::print};
use doorstep_event::Timestamp;
use doorstep_messaging::{
    BrokerSettings, ConnectError, ConnectErrorKind, OwnerRecord, PresentOwner, take_over as replace,
};
use doorstep_runtime::operate::{Attribution, record_take_over};
use doorstep_store::{Store, begin_epoch};

use crate::stores::{self, StoreLocation};

/// Records at the broker that the role's queues belong to this store, and in the store by whom.
///
/// # Errors
/// There is no such store or it cannot be written, a consumer uses the queues, or the broker refuses permission.
pub(crate) async fn take_over(
    place: StoreLocation,
    broker: BrokerSettings,
    by: Attribution,
) -> Result<(), CliError> {
    let role = place.role.name;
    let store = stores::open_existing(&place)?;
    // The record contains a start, and this counts as one.
    let since = Timestamp::now();
    let epoch = begin_epoch(&store, since).await?;
    let record = OwnerRecord {
        store: store.source().clone(),
        epoch,
        since,
    };
    let before = replace(&broker, role, &record)
        .await
        .map_err(|e| CliError::new(reason(&e), e.to_string()))?;
    let queue = broker.namespace.role_queue(role, 0).to_string();
    let (from, to) = (
        before.as_ref().map(in_json),
        in_json(&record.clone().into()),
    );
    record_take_over(&store, &queue, from, to, by).await?;
    let now = PresentOwner::from(record);
    print(|out| {
        if let Some(before) = before {
            writeln!(out, "The queues of {role} belonged {before}.")?;
        }
        writeln!(out, "The queues of {role} belong {now}.")
    })
}

fn reason(error: &ConnectError) -> ExitReason {
    match error.kind() {
        ConnectErrorKind::OtherStore => ExitReason::OtherStore,
        _ => ExitReason::Broker,
    }
}

fn in_json(owner: &PresentOwner) -> bytes::Bytes {
    serde_json::to_vec(owner).unwrap_or_default().into()
}
