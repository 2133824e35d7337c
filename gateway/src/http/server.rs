//! Takes connections, within a bound in number, of all and of one address, and in the time that a head may take, until it is told to stop;
//! then finishes what is under way.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use axum::{Extension, Router, http::StatusCode};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;

use super::refusal_log::{Refusal, RefusalLog};
use crate::limits::{ConnectionLimits, KeyedSemaphore};

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
pub(crate) struct ConnectInfo(pub(crate) SocketAddr);

/// Answers by this router until `stop` is done, and then finishes what is under way within the grace period.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: ConnectionLimits,
    stop: impl Future<Output = ()>,
    grace: Duration,
    refusals: RefusalLog,
) {
    let room = Arc::new(Semaphore::new(bounds.all));
    let shares = KeyedSemaphore::new(bounds.of_one);
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        // Either arm may be dropped: what waits has taken nothing yet, since a place that is dropped is given back.
        let (stream, peer, place) = tokio::select! {
            () = &mut stop => break,
            taken = accept(&listener, &room) => match taken {
                Some(taken) => taken,
                None => {
                    sleep(SYSTEM_PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(share) = bounds.acquire(&shares, peer) else {
            // Nobody reads what it asks, so that it costs no more than this.
            refusals.tell(
                StatusCode::TOO_MANY_REQUESTS,
                Refusal {
                    code: "too_many_connections".into(),
                    name: None,
                    address: peer.ip().to_canonical(),
                    route: "none".to_owned(),
                },
            );
            continue;
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(ConnectInfo(peer))));
        let mut server = http1::Builder::new();
        server
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_headers(HEADERS)
            .max_buf_size(BUFFER);
        let stream = with_write_timeout(stream, bounds.patience);
        let connection = server.serve_connection(TokioIo::new(stream), service);
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            // Given back after the connection, in this order.
            let _place = (share, place);
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

/// A connection that a write without progress ends. What is read is bounded elsewhere, heads by the server and bodies where they are read.
fn with_write_timeout(stream: TcpStream, limit: Duration) -> Pin<Box<TimeoutStream<TcpStream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limit));
    Box::pin(stream)
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    /// The limit of waits for what takes a moment.
    const SOON: Duration = Duration::from_secs(60);
    /// More than the system keeps of a connection that nobody reads.
    const HUGE: usize = 64 * 1024 * 1024;

    struct Server {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    }

    async fn server(bounds: ConnectionLimits) -> Server {
        let router = Router::new()
            .route("/", get(async || "here"))
            .route("/huge", get(async || vec![b'x'; HUGE]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(
            listener,
            router,
            bounds,
            stopped,
            SOON,
            RefusalLog::new(),
        ));
        Server {
            address,
            stop,
            task,
        }
    }

    impl Server {
        /// A connection on which this path is asked for.
        async fn asked(&self, path: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let head = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
            // Whoever is sent away may be told so already.
            let _ = stream.write_all(head.as_bytes()).await;
            stream
        }

        async fn stop(self) {
            self.stop.send(()).unwrap();
            timeout(SOON, self.task).await.unwrap().unwrap();
        }
    }

    /// Whether there is an answer; there is none where the connection ends without one.
    async fn is_answered(stream: &mut TcpStream) -> bool {
        let mut first = [0; 12];
        match timeout(SOON, stream.read_exact(&mut first)).await {
            Ok(Ok(_)) => &first == b"HTTP/1.1 200",
            Ok(Err(_)) => false,
            Err(_) => panic!("neither an answer nor an end"),
        }
    }

    fn bounds(all: usize, of_one: usize) -> ConnectionLimits {
        ConnectionLimits {
            all,
            of_one,
            patience: SOON,
            proxy: None,
        }
    }

    #[tokio::test]
    async fn one_address_has_so_many_connections_and_what_is_more_is_closed_at_once() {
        let server = server(bounds(100, 2)).await;
        let mut kept = [server.asked("/").await, server.asked("/").await];
        for stream in &mut kept {
            assert!(is_answered(stream).await);
        }
        assert!(!is_answered(&mut server.asked("/").await).await);
        drop(kept);
        // The server notices that in a moment.
        let again = async { while !is_answered(&mut server.asked("/").await).await {} };
        timeout(SOON, again).await.unwrap();
        server.stop().await;
    }

    #[tokio::test]
    async fn a_proxy_has_as_many_as_there_are() {
        let proxied = ConnectionLimits {
            proxy: Some([127, 0, 0, 1].into()),
            ..bounds(100, 2)
        };
        let server = server(proxied).await;
        let mut kept = Vec::new();
        for _ in 0..10 {
            let mut stream = server.asked("/").await;
            assert!(is_answered(&mut stream).await);
            kept.push(stream);
        }
        server.stop().await;
    }

    #[tokio::test]
    async fn who_does_not_read_what_was_asked_for_loses_the_connection_to_the_next_one() {
        let impatient = ConnectionLimits {
            patience: Duration::from_millis(200),
            ..bounds(1, 1)
        };
        let server = server(impatient).await;
        let mut idle = server.asked("/huge").await;
        assert!(is_answered(&mut idle).await);
        // There is place for one only.
        assert!(is_answered(&mut server.asked("/").await).await);
        let mut rest = Vec::new();
        let read = timeout(SOON, idle.read_to_end(&mut rest)).await.unwrap();
        assert!(read.is_err() || rest.len() < HUGE, "{} bytes", rest.len());
        server.stop().await;
    }

    /// A connection whose server has so much patience, and its client.
    async fn pair(patience: Duration) -> (Pin<Box<TimeoutStream<TcpStream>>>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (stream, _) = listener.accept().await.unwrap();
        (with_write_timeout(stream, patience), client.unwrap())
    }

    #[tokio::test]
    async fn what_nobody_reads_is_not_written_for_ever() {
        let (mut server, _client) = pair(Duration::from_millis(100)).await;
        let written = server.write_all(&vec![0; HUGE]).await;
        assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_reads_slowly_gets_all_of_it() {
        let (mut server, mut client) = pair(Duration::from_secs(60)).await;
        let reading = async {
            let mut bytes = vec![0; HUGE / 16];
            let mut count = 0;
            loop {
                match client.read(&mut bytes).await.unwrap() {
                    0 => break count,
                    more => count += more,
                }
                sleep(Duration::from_millis(1)).await;
            }
        };
        let writing = async {
            server.write_all(&vec![0; HUGE]).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let (count, ()) = tokio::join!(reading, writing);
        assert_eq!(count, HUGE);
    }
}
