//! Takes connections, within a bound in number, of all and of one address, and in the time that a head may take, until it is told to stop;
//! then finishes what is under way.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{Extension, Router, http::StatusCode};
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

use super::{
    keyed_semaphore::{KeyedPermit, KeyedSemaphore},
    refusal_log::{Refusal, RefusalLog},
    write_timeout::WriteTimeout,
};

/// The most connections at a time: the next ones wait in the system's own queue.
const CONNECTIONS: usize = 4096;
/// How many files stay for everything else where the system lets the process have few: the store, the broker, the log.
const OTHER_FILES: usize = 128;
/// One address has no more than one in so many of them, and this many at least.
const SHARE: usize = 4;
const LEAST: usize = 8;
/// How long a client may leave unread what it has asked for.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
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

/// What counts as one address: of IPv6 all that a customer is usually given.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    prefix(address, 64)
}

/// The same where one client must not have many: of IPv6 all that a site is usually given.
pub(crate) fn site(address: IpAddr) -> IpAddr {
    prefix(address, 48)
}

/// The address without what is behind so many bits of IPv6.
fn prefix(address: IpAddr, bits: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> bits)).into(),
    }
}

/// What connections are bounded by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// The most at a time.
    all: usize,
    /// The most of one address.
    of_one: usize,
    /// How long a client may leave unread what it has asked for.
    patience: Duration,
    /// Whose connections are those of many, and bounded with all others only.
    proxy: Option<IpAddr>,
}

impl ConnectionLimits {
    /// As many as the system lets the process have, up to the most; with this proxy in front, if with any.
    pub(crate) fn of_this_process(proxy: Option<IpAddr>) -> Self {
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self::within(open_files(&limits), proxy)
    }

    fn within(files: Option<usize>, proxy: Option<IpAddr>) -> Self {
        let room = files.map_or(CONNECTIONS, |files| files.saturating_sub(OTHER_FILES));
        let all = room.clamp(LEAST, CONNECTIONS);
        Self {
            all,
            of_one: (all / SHARE).max(LEAST),
            patience: WRITE_TIMEOUT,
            proxy,
        }
    }
}

/// How many files a process may have open, by what the system says of its limits; `None` where that is not told, or unlimited.
fn open_files(limits: &str) -> Option<usize> {
    let files = |line: &str| {
        let rest = line.strip_prefix("Max open files")?;
        rest.split_whitespace().next()?.parse().ok()
    };
    limits.lines().find_map(files)
}

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
        let Ok(share) = acquire_ip_permit(&shares, peer, bounds.proxy) else {
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
        let stream = WriteTimeout::new(stream, bounds.patience, (share, place));
        let connection = server.serve_connection(TokioIo::new(stream), service);
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

/// One more connection of whoever is there; a proxy needs none, since it speaks for many.
///
/// # Errors
/// There is as much as one address may have.
fn acquire_ip_permit(
    shares: &KeyedSemaphore<IpAddr>,
    peer: SocketAddr,
    proxy: Option<IpAddr>,
) -> Result<Option<KeyedPermit<IpAddr>>, ()> {
    if proxy == Some(peer.ip().to_canonical()) {
        return Ok(None);
    }
    shares.take(network(peer.ip())).map(Some).ok_or(())
}

async fn accept(
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
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

    #[test]
    fn there_are_no_more_connections_than_the_system_lets_the_process_have() {
        let limits = |soft: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max processes             31190                31190                processes\n\
                 Max open files            {soft}                 524288               files\n"
            )
        };
        let within = |soft: &str| {
            let ConnectionLimits { all, of_one, .. } =
                ConnectionLimits::within(open_files(&limits(soft)), None);
            (all, of_one)
        };
        assert_eq!(within("1024"), (896, 224));
        assert_eq!(within("1048576"), (4096, 1024));
        assert_eq!(within("unlimited"), (4096, 1024));
        assert_eq!(within("64"), (8, 8));
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn a_network_counts_as_one_address() {
        let parsed = |text: &str| network(text.parse().unwrap());
        assert_eq!(parsed("2001:db8::1"), parsed("2001:db8::ffff:1"));
        assert_ne!(parsed("2001:db8::1"), parsed("2001:db8:0:1::1"));
        assert_eq!(parsed("::ffff:192.0.2.1"), parsed("192.0.2.1"));
        let site = |text: &str| site(text.parse().unwrap());
        assert_eq!(site("2001:db8:0:1::1"), site("2001:db8:0:ffff::1"));
        assert_ne!(site("2001:db8:1::1"), site("2001:db8:2::1"));
    }
}
