//! A wire that tests cut, stall and half-close: a TCP proxy on this machine.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::AbortHandle,
};

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the broker.
    ToBroker,
    /// From the broker to the client.
    ToClient,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Passing,
    Stalled,
    Ended,
}

#[derive(Debug, Clone, Copy)]
struct Switch {
    /// Connections made under another number are over.
    cuts: u64,
    refuses: bool,
    to_broker: Flow,
    to_client: Flow,
}

impl Switch {
    fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::ToBroker => self.to_broker,
            Direction::ToClient => self.to_client,
        }
    }
}

/// A TCP proxy. All connections go when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    switch: watch::Sender<Switch>,
    accepted: Arc<AtomicU64>,
    listener: AbortHandle,
}

impl Proxy {
    /// Listens on a port of its own and leads to `host:port`.
    ///
    /// # Panics
    /// If no port can be had.
    pub async fn start(host: &str, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let switch = watch::Sender::new(Switch {
            cuts: 0,
            refuses: false,
            to_broker: Flow::Passing,
            to_client: Flow::Passing,
        });
        let accepted = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(accept(
            listener,
            (host.to_owned(), port),
            switch.subscribe(),
            Arc::clone(&accepted),
        ));
        Self {
            address,
            switch,
            accepted,
            listener: task.abort_handle(),
        }
    }

    /// Where to connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were made by it so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    /// Breaks every connection that there is; new ones pass.
    pub fn cut(&self) {
        self.switch.send_modify(|switch| switch.cuts += 1);
    }

    /// Breaks every connection that there is, and closes each new one as soon as it is made, until [`Proxy::restore`].
    pub fn refuse(&self) {
        self.switch.send_modify(|switch| {
            switch.cuts += 1;
            switch.refuses = true;
        });
    }

    /// Carries nothing in that direction any more, on old and new connections, until [`Proxy::restore`]. Nothing is lost by it.
    pub fn stall(&self, direction: Direction) {
        self.set(direction, Flow::Stalled);
    }

    /// Ends that direction of every connection that there is, as a side does that has nothing more to say. What is on its way the
    /// other way still arrives.
    pub fn half_close(&self, direction: Direction) {
        self.set(direction, Flow::Ended);
    }

    /// Lets new connections in, and lets everything flow that was stalled.
    pub fn restore(&self) {
        self.switch.send_modify(|switch| {
            switch.refuses = false;
            switch.to_broker = Flow::Passing;
            switch.to_client = Flow::Passing;
        });
    }

    fn set(&self, direction: Direction, flow: Flow) {
        self.switch.send_modify(|switch| match direction {
            Direction::ToBroker => switch.to_broker = flow,
            Direction::ToClient => switch.to_client = flow,
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    target: (String, u16),
    switch: watch::Receiver<Switch>,
    accepted: Arc<AtomicU64>,
) {
    while let Ok((client, _)) = listener.accept().await {
        accepted.fetch_add(1, Ordering::AcqRel);
        let now = *switch.borrow();
        if !now.refuses {
            tokio::spawn(carry(client, target.clone(), switch.clone(), now.cuts));
        }
    }
}

/// Carries one connection until it is cut or both of its directions have ended.
async fn carry(
    client: TcpStream,
    target: (String, u16),
    mut switch: watch::Receiver<Switch>,
    cuts: u64,
) {
    let mut cut = switch.clone();
    let carried = async {
        let broker = TcpStream::connect(target).await?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_broker, to_broker) = broker.into_split();
        let mut other = switch.clone();
        tokio::try_join!(
            pump(from_client, to_broker, &mut switch, Direction::ToBroker),
            pump(from_broker, to_client, &mut other, Direction::ToClient),
        )
    };
    // Whichever is first: dropping the rest closes both sides.
    tokio::select! {
        _ = carried => {}
        _ = cut.wait_for(|switch| switch.cuts != cuts) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    switch: &mut watch::Receiver<Switch>,
    direction: Direction,
) -> io::Result<()> {
    let mut buffer = vec![0; 32 * 1024];
    loop {
        if is_over(switch, direction).await {
            return to.shutdown().await;
        }
        // Reading may be cancelled: nothing is taken then.
        let count = tokio::select! {
            _ = switch.changed() => continue,
            read = from.read(&mut buffer) => read?,
        };
        // A stall concerns what was read meanwhile, too.
        if count == 0 || is_over(switch, direction).await {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

/// Waits while the direction is stalled. Returns whether it has ended.
async fn is_over(switch: &mut watch::Receiver<Switch>, direction: Direction) -> bool {
    match switch
        .wait_for(|switch| switch.flow(direction) != Flow::Stalled)
        .await
    {
        Ok(switch) => switch.flow(direction) == Flow::Ended,
        Err(_) => true,
    }
}
