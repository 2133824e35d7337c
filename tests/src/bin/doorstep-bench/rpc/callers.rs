//! The three ways to ask.

use std::{fmt, sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use bytes::Bytes;
use doorstep_event::{Act, EventType, Request, RequestId, Source, Timestamp};
use doorstep_messaging::{AskSettings, Requester};
use serde::Serialize;

use super::{answerer::Answerer, bare::BareCaller, http::HttpLine};
use crate::{
    events::Generator,
    world::{PATIENCE, World},
};

/// How long a request may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A way to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// The bare client, direct reply-to.
    Bare,
    /// Doorstep, a query.
    Doorstep,
    /// HTTP/1.1 on loopback, one connection for each request in flight, without a broker.
    Http,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Bare, Self::Doorstep, Self::Http];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bare => "bare client",
            Self::Doorstep => "Doorstep",
            Self::Http => "plain HTTP",
        })
    }
}

/// Somebody who asks, in one of the ways.
pub(super) struct Caller {
    kind: Kind,
    body: Bytes,
}

enum Kind {
    Bare(Arc<BareCaller>),
    Doorstep(Requester, Source, EventType),
    Http(u16),
}

/// One request after the other.
pub(super) struct Line {
    kind: LineKind,
    body: Bytes,
}

enum LineKind {
    Bare(Arc<BareCaller>),
    Doorstep(Requester, Source, EventType),
    Http(HttpLine),
}

impl Caller {
    pub(super) async fn connect(world: &World, answerer: &Answerer, way: Way) -> Result<Self> {
        let kind = match way {
            Way::Bare => Kind::Bare(BareCaller::connect(world).await?),
            Way::Doorstep => {
                let name = format!("{}: ask", world.settings.namespace);
                let topology = world.topology.clone();
                let requester =
                    Requester::start(&world.settings, &name, topology, AskSettings::default());
                requester.ready(PATIENCE).await?;
                let source = Source::new("bench/0199d5a4-7a42-7c60-8d6a-4f2d6a1f7c11")?;
                Kind::Doorstep(requester, source, EventType::new("counter.read.v1")?)
            }
            Way::Http => Kind::Http(answerer.http_port),
        };
        Ok(Self {
            kind,
            body: Generator::new(1)?.event(0)?.data,
        })
    }

    pub(super) async fn line(&self) -> Result<Line> {
        let kind = match &self.kind {
            Kind::Bare(caller) => LineKind::Bare(caller.clone()),
            Kind::Doorstep(requester, source, kind) => {
                LineKind::Doorstep(requester.clone(), source.clone(), kind.clone())
            }
            Kind::Http(port) => LineKind::Http(HttpLine::connect(*port).await?),
        };
        Ok(Line {
            kind,
            body: self.body.clone(),
        })
    }

    pub(super) async fn close(self) -> Result<()> {
        match self.kind {
            Kind::Bare(caller) => caller.close().await?,
            Kind::Doorstep(requester, ..) => requester.close(PATIENCE).await,
            Kind::Http(_) => {}
        }
        Ok(())
    }
}

impl Line {
    pub(super) async fn call(&mut self, number: usize) -> Result<()> {
        let expected = self.body.len();
        let bytes = match &mut self.kind {
            LineKind::Bare(caller) => caller.call(&self.body).await?.len(),
            LineKind::Doorstep(requester, source, kind) => {
                let now = Timestamp::now();
                let request = Request {
                    id: RequestId::new(number.to_string())?,
                    caller: source.clone(),
                    kind: kind.clone(),
                    act: Act::Query,
                    time: now,
                    deadline: now.checked_add(DEADLINE)?,
                    traceparent: None,
                    data: self.body.clone(),
                };
                requester.ask(request).await?.len()
            }
            LineKind::Http(line) => line.call(&self.body).await?,
        };
        ensure!(bytes == expected, "{bytes} of {expected} bytes came back");
        Ok(())
    }
}
