//! Takes connections, within a bound in number and in the time that a head may take, until it is told to stop; then finishes what is
//! under way.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::patient::Patient;

/// The most connections at a time: the next ones wait in the system's own queue.
const CONNECTIONS: usize = 4096;
/// How long a head may take to come. A connection that is kept alive waits for its next head as long.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// The most bytes that a connection keeps of what came and was not read.
const BUFFER: usize = 64 * 1024;
/// The most headers of a request.
const HEADERS: usize = 64;
/// How long to wait where the system has no connection to give, as when it has no more file descriptors.
const SYSTEM_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer(pub(crate) SocketAddr);

/// What counts as one address: of IPv6 all that a customer is usually given.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

/// Answers by this router until `stop` is done, and then finishes what is under way within the grace period.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
    grace: Duration,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        // Either arm may be dropped: what waits has taken nothing yet, since a place that is dropped is given back.
        let (stream, peer, place) = tokio::select! {
            () = &mut stop => break,
            taken = take(&listener, &room) => match taken {
                Some(taken) => taken,
                None => {
                    sleep(SYSTEM_PAUSE).await;
                    continue;
                }
            },
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(Peer(peer))));
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_headers(HEADERS)
            .max_buf_size(BUFFER);
        let connection =
            server.serve_connection(TokioIo::new(Patient::new(stream, place)), service);
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that goes away or speaks something else is nothing that anybody could mend here.
            if let Err(e) = watched.await {
                tracing::debug!(reason = %e, "a connection has ended");
            }
        });
    }
    drop(listener);
    if timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were cut off at the end of the grace period");
    }
}

async fn take(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(
    tokio::net::TcpStream,
    SocketAddr,
    tokio::sync::OwnedSemaphorePermit,
)> {
    let place = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Small answers are not worth waiting for more; failing to say so does no harm.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, place))
        }
        Err(e) => {
            tracing::debug!(reason = %e, "a connection could not be taken");
            None
        }
    }
}
