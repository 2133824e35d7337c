//! The server: accepts connections.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    task::{self, JoinHandle, JoinSet},
    time,
};

use crate::{
    Action, Offer, Step,
    record::{AcceptedMail, Command, Log, Shared},
    session::Session,
};

/// The time after which a condition that a test waits for counts as never true.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A mail server on a port of 127.0.0.1. Its connections end when it is dropped.
#[derive(Debug)]
pub struct SmtpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl SmtpServer {
    /// Starts a server. The script gets the number of the connection, from 0, and the step.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(
        offer: Offer,
        script: impl Fn(usize, Step) -> Action + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(0, offer, script).await
    }

    /// Starts a server as [`SmtpServer::start`] does, on this port: one that was there before, and was away.
    ///
    /// # Panics
    /// If the port is not free.
    pub async fn start_at(
        port: u16,
        offer: Offer,
        script: impl Fn(usize, Step) -> Action + Send + Sync + 'static,
    ) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listener = TcpListener::bind(address).await.expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let shared = Arc::new(Shared::new(offer, script));
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Returns the port at 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the accepted mails.
    #[must_use]
    pub fn accepted(&self) -> Vec<AcceptedMail> {
        self.shared.log().accepted.clone()
    }

    /// Returns the commands of all connections.
    #[must_use]
    pub fn commands(&self) -> Vec<Command> {
        self.shared.log().commands.clone()
    }

    /// Waits until the record fulfils a condition.
    ///
    /// # Panics
    /// If it does not within two minutes.
    pub async fn wait_until(&self, condition: impl Fn(&Log) -> bool) {
        let wait = async {
            loop {
                let changed = self.shared.changed();
                if condition(&self.shared.log()) {
                    return;
                }
                changed.await;
            }
        };
        let waited = time::timeout(TIMEOUT, wait).await;
        assert!(waited.is_ok(), "never true: {:#?}", self.shared.log());
    }

    /// Ends all connections, and returns the accepted mails: no further one is accepted.
    pub async fn end(mut self) -> Vec<AcceptedMail> {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
        // Each session holds the record until it has ended.
        while Arc::strong_count(&self.shared) > 1 {
            task::yield_now().await;
        }
        self.accepted()
    }

    /// Waits until a connection has reached a step.
    pub async fn reaches(&self, connection: usize, step: Step) {
        self.wait_until(|log| log.steps.contains(&(connection, step)))
            .await;
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    for connection in 0.. {
        let Ok((socket, _)) = listener.accept().await else {
            return;
        };
        shared.record(|log| log.connections += 1);
        sessions.spawn(Session::new(connection, socket, shared.clone()).run());
        while sessions.try_join_next().is_some() {}
    }
}
