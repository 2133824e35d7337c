//! The RPC variants.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use doorstep_event::{
    EventType, Idempotency, Request, RequestContract, RequestId, RequestKind, Source, Timestamp,
};
use doorstep_messaging::{RpcClient, RpcClientSettings};
use serde::Serialize;

use super::{
    baseline::BareCaller,
    http::HttpLine,
    sample_role::{ReadParcel, Weigh},
    server::RpcServerProcess,
};
use crate::{
    env::{BenchEnv, TIMEOUT},
    events::Generator,
};

/// The deadline of a request.
const DEADLINE: Duration = Duration::from_secs(30);
/// The number of parcels that the requests use, in turn.
const PARCELS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CallPath {
    /// The bare client, direct reply-to.
    Bare,
    /// Doorstep without a role: an echo, as with the bare client.
    Echo,
    /// Doorstep, a query that a role answers from its store.
    Query,
    /// Doorstep, a command that a role answers once its change is committed to disk.
    Command,
    /// HTTP/1.1 on loopback, one connection for each request in flight, without a broker.
    Http,
}

impl CallPath {
    pub(crate) const ALL: [Self; 5] = [
        Self::Bare,
        Self::Echo,
        Self::Query,
        Self::Command,
        Self::Http,
    ];

    /// Returns Doorstep's request of this variant, if it is one of Doorstep's.
    fn asked(self) -> Result<Option<(EventType, RequestKind)>> {
        Ok(match self {
            Self::Bare | Self::Http => None,
            Self::Echo => Some((EventType::new("counter.read.v1")?, RequestKind::Query)),
            Self::Query => Some((ReadParcel::request_type(), ReadParcel::ACT)),
            Self::Command => Some((Weigh::request_type(), Weigh::ACT)),
        })
    }
}

impl fmt::Display for CallPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "bare client, echo",
            Self::Echo => "Doorstep, echo",
            Self::Query => "Doorstep, query from the store",
            Self::Command => "Doorstep, command committed",
            Self::Http => "plain HTTP, echo",
        })
    }
}

/// A client of one variant.
pub(super) struct Caller {
    kind: Kind,
    bodies: Arc<[Bytes]>,
}

enum Kind {
    Bare(Arc<BareCaller>),
    Doorstep(ConnectedClient),
    Http(u16),
}

/// A sequence of requests, one after the other.
pub(super) struct RequestSequence {
    kind: SequenceClient,
    bodies: Arc<[Bytes]>,
}

enum SequenceClient {
    Bare(Arc<BareCaller>),
    Doorstep(ConnectedClient),
    Http(HttpLine),
}

#[derive(Clone)]
struct ConnectedClient {
    requester: RpcClient,
    /// New for every measurement: a command with a known id would be answered from its stored reply.
    source: Source,
    kind: EventType,
    act: RequestKind,
}

impl ConnectedClient {
    async fn connect(env: &BenchEnv, kind: EventType, act: RequestKind) -> Result<Self> {
        let name = format!("{}: ask", env.settings.namespace);
        let topology = env.topology.clone();
        let requester =
            RpcClient::start(&env.settings, &name, topology, RpcClientSettings::default());
        requester.ready(TIMEOUT).await?;
        Ok(Self {
            requester,
            source: Source::new(format!("bench/{}", uuid::Uuid::now_v7()))?,
            kind,
            act,
        })
    }

    async fn call(&self, number: usize, body: &Bytes) -> Result<Bytes> {
        let now = Timestamp::now();
        let request = Request {
            id: RequestId::new(number.to_string())?,
            caller: self.source.clone(),
            kind: self.kind.clone(),
            act: self.act,
            time: now,
            deadline: now.checked_add(DEADLINE)?,
            idempotency: Idempotency::Retryable,
            traceparent: None,
            data: body.clone(),
        };
        Ok(self.requester.call_raw(request).await?)
    }
}

/// Sends the role every parcel that the queries will read.
pub(super) async fn weigh_all(env: &BenchEnv) -> Result<()> {
    let client = ConnectedClient::connect(env, Weigh::request_type(), Weigh::ACT).await?;
    for (number, body) in bodies()?.iter().enumerate() {
        let weighed = client.call(number, body).await?;
        ensure!(weighed == body, "received {weighed:?} for {body:?}");
    }
    client.requester.close(TIMEOUT).await;
    Ok(())
}

fn bodies() -> Result<Arc<[Bytes]>> {
    let generator = Generator::new(PARCELS)?;
    (0..PARCELS)
        .map(|number| Ok(generator.event(number)?.data))
        .collect()
}

impl Caller {
    pub(super) async fn connect(
        env: &BenchEnv,
        answerer: &RpcServerProcess,
        way: CallPath,
    ) -> Result<Self> {
        let kind = match (way, way.asked()?) {
            (_, Some((kind, act))) => {
                Kind::Doorstep(ConnectedClient::connect(env, kind, act).await?)
            }
            (CallPath::Http, None) => Kind::Http(answerer.http_port),
            (_, None) => Kind::Bare(BareCaller::connect(env).await?),
        };
        let bodies = bodies()?;
        Ok(Self { kind, bodies })
    }

    pub(super) async fn line(&self) -> Result<RequestSequence> {
        let kind = match &self.kind {
            Kind::Bare(caller) => SequenceClient::Bare(caller.clone()),
            Kind::Doorstep(client) => SequenceClient::Doorstep(client.clone()),
            Kind::Http(port) => SequenceClient::Http(HttpLine::connect(*port).await?),
        };
        Ok(RequestSequence {
            kind,
            bodies: self.bodies.clone(),
        })
    }

    pub(super) async fn close(self) -> Result<()> {
        match self.kind {
            Kind::Bare(caller) => caller.close().await?,
            Kind::Doorstep(client) => client.requester.close(TIMEOUT).await,
            Kind::Http(_) => {}
        }
        Ok(())
    }
}

impl RequestSequence {
    pub(super) async fn call(&mut self, number: usize) -> Result<()> {
        let body = self.bodies.get(number % PARCELS).context("no parcel")?;
        let bytes = match &mut self.kind {
            SequenceClient::Bare(caller) => caller.call(body).await?.len(),
            SequenceClient::Doorstep(client) => client.call(number, body).await?.len(),
            SequenceClient::Http(line) => line.call(body).await?,
        };
        ensure!(
            bytes == body.len(),
            "received {bytes} of {} bytes",
            body.len()
        );
        Ok(())
    }
}
