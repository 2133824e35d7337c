//! The role that serves the requests: commands weigh a parcel and are answered once that is committed, queries read it
//! from the store.
//!
//! Requests and replies have 300 bytes, as in the other variants: only the work differs.

use doorstep_event::{
    ContractError, Event, Rejection, Request, RequestContract, RequestKind, Subject, Timestamp,
};
use doorstep_messaging::RoleQueues;
use doorstep_runtime::{
    CommandOutcome, Effects, HandlerError, Reading, Role, States, Unsupported, reply,
};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

use crate::events::ParcelWeighed;

/// The role's queues; no event of the bench is routed to it.
pub(crate) const DEPOT: RoleQueues = RoleQueues {
    role: "depot",
    subjects: &["depot"],
    handles_requests: true,
};

/// `depot.weigh.v1`: records a weight.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Weigh(ParcelWeighed);

impl RequestContract for Weigh {
    const TYPE: &'static str = "depot.weigh.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ParcelWeighed;
}

/// `depot.parcel.v1`: reads the recorded weight of this parcel.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct ReadParcel(ParcelWeighed);

impl RequestContract for ReadParcel {
    const TYPE: &'static str = "depot.parcel.v1";
    const ACT: RequestKind = RequestKind::Query;
    type Reply = ParcelWeighed;
}

/// The state of a parcel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Parcel {
    weighed: u64,
    last: ParcelWeighed,
}

/// Keeps the last weight of every parcel.
pub(super) struct Depot;

impl Role for Depot {
    type Payload = Unsupported;
    type Command = Weigh;
    type Query = ReadParcel;
    type State = Parcel;

    fn name(&self) -> &'static str {
        DEPOT.role
    }

    fn read(&self, event: &Event) -> Result<Reading<Unsupported>, ContractError> {
        Err(ContractError::UnknownType(event.event_type.to_string()))
    }

    fn keys(&self, _: &Event, fact: &Unsupported) -> Vec<EntityKey> {
        match *fact {}
    }

    fn handle(
        &self,
        _: &mut States<Parcel>,
        _: &Event,
        fact: &Unsupported,
        _: Timestamp,
    ) -> Result<Effects, HandlerError> {
        match *fact {}
    }

    fn read_command(&self, request: &Request) -> Result<Weigh, ContractError> {
        let weigh = Weigh::read(request)?;
        Subject::new(weigh.0.parcel.as_str())?;
        Ok(weigh)
    }

    fn command_keys(&self, _: &Request, command: &Weigh) -> Vec<EntityKey> {
        key(&command.0)
    }

    fn execute(
        &self,
        states: &mut States<Parcel>,
        _: &Request,
        command: &Weigh,
        _: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        let parcel = states.first_mut();
        *parcel = Some(Parcel {
            weighed: parcel.as_ref().map_or(0, |p| p.weighed) + 1,
            last: command.0.clone(),
        });
        CommandOutcome::new::<Weigh>(&command.0, Effects::none())
    }

    fn read_query(&self, request: &Request) -> Result<ReadParcel, ContractError> {
        let asked = ReadParcel::read(request)?;
        Subject::new(asked.0.parcel.as_str())?;
        Ok(asked)
    }

    fn query_keys(&self, _: &Request, query: &ReadParcel) -> Vec<EntityKey> {
        key(&query.0)
    }

    fn query(
        &self,
        states: &States<Parcel>,
        _: &Request,
        query: &ReadParcel,
        _: Timestamp,
    ) -> Result<Vec<u8>, Rejection> {
        let parcel = &query.0.parcel;
        let known = key(&query.0).first().and_then(|key| states.get(key));
        let known = known.ok_or_else(|| {
            Rejection::new(
                Rejection::BAD_REQUEST,
                format!("{parcel} was never weighed"),
            )
        })?;
        reply::<ReadParcel>(&known.last)
    }
}

/// The parcel's entity; its name was validated when the request was decoded.
fn key(parcel: &ParcelWeighed) -> Vec<EntityKey> {
    let subject = Subject::new(parcel.parcel.as_str()).ok();
    subject.iter().map(EntityKey::from).collect()
}
