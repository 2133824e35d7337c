//! The HTTP server: accepts connections within limits of number, address and time until it is stopped, then finishes
//! requests in flight.

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

use super::rejection_log::{RejectedRequest, RejectionLog};
use crate::limits::{ConnectionLimits, KeyedSemaphore};

/// The timeout of a request's head. A kept-alive connection waits for its next head as long.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// The limit of bytes that a connection buffers before they are read.
const BUFFER: usize = 64 * 1024;
/// The limit of headers of a request.
const HEADERS: usize = 64;
/// The pause when the system gives no connection, for example because it has no more file descriptors.
const SYSTEM_PAUSE: Duration = Duration::from_millis(100);

/// The address of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectInfo(pub(crate) SocketAddr);

/// Serves this router until `stop` is done, then finishes requests in flight within the shutdown timeout.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: ConnectionLimits,
    stop: impl Future<Output = ()>,
    shutdown_timeout: Duration,
    rejections: RejectionLog,
) {
    let room = Arc::new(Semaphore::new(bounds.all));
    let shares = KeyedSemaphore::new(bounds.of_one);
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        // Dropping either arm is safe: a dropped permit is released, and nothing else has happened.
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
            // Its requests are not read, so that it costs no more than this.
            rejections.record(
                StatusCode::TOO_MANY_REQUESTS,
                RejectedRequest {
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
            // Released after the connection, in this order.
            let _place = (share, place);
            // A disconnected client, or one that speaks another protocol, is no error of the gateway.
            if let Err(e) = watched.await {
                tracing::debug!(error = %e, "a connection ended with an error");
            }
        });
    }
    drop(listener);
    if timeout(shutdown_timeout, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests were cut off at the end of the shutdown timeout");
    }
}

/// A connection that ends when a write makes no progress. Reads have limits elsewhere: heads in the server, bodies
/// where they are read.
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
            // Small responses should not wait for more bytes; a failure here does no harm.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, place))
        }
        Err(e) => {
            tracing::debug!(error = %e, "cannot accept a connection");
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

    /// A generous timeout of what takes a moment.
    const SOON: Duration = Duration::from_secs(60);
    /// More than the system buffers of a connection that is not read.
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
            RejectionLog::new(),
        ));
        Server {
            address,
            stop,
            task,
        }
    }

    impl Server {
        /// Opens a connection and requests this path.
        async fn asked(&self, path: &str) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let head = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
            // A rejected connection may be closed already.
            let _ = stream.write_all(head.as_bytes()).await;
            stream
        }

        async fn stop(self) {
            self.stop.send(()).unwrap();
            timeout(SOON, self.task).await.unwrap().unwrap();
        }
    }

    /// Returns true if there is a response, and false if the connection ends without one.
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
    async fn connections_per_address_are_limited() {
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
    async fn slow_reader_yields_its_connection() {
        let impatient = ConnectionLimits {
            patience: Duration::from_millis(200),
            ..bounds(1, 1)
        };
        let server = server(impatient).await;
        let mut idle = server.asked("/huge").await;
        assert!(is_answered(&mut idle).await);
        // There is only one permit.
        assert!(is_answered(&mut server.asked("/").await).await);
        let mut rest = Vec::new();
        let read = timeout(SOON, idle.read_to_end(&mut rest)).await.unwrap();
        assert!(read.is_err() || rest.len() < HUGE, "{} bytes", rest.len());
        server.stop().await;
    }

    /// Returns a connection whose server has this write timeout, and its client.
    async fn pair(patience: Duration) -> (Pin<Box<TimeoutStream<TcpStream>>>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (stream, _) = listener.accept().await.unwrap();
        (with_write_timeout(stream, patience), client.unwrap())
    }

    #[tokio::test]
    async fn an_unread_response_is_not_written_for_ever() {
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
