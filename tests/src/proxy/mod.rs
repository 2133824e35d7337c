//! A TCP proxy that understands AMQP frames: tests use it to cut, stall, slow down, half-close and corrupt connections,
//! on command or at a chosen AMQP method.

mod fault;
mod frames;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::AbortHandle,
    time::interval,
};

pub use fault::{Direction, Point, WireFault};
use frames::{Frame, Frames};

/// The resolution of timers.
const SHORTEST_TURN: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Passing,
    Stalled,
    Ended,
}

#[derive(Debug, Clone, Copy)]
struct Flows {
    to_broker: Flow,
    to_client: Flow,
}

impl Flows {
    const PASSING: Self = Self {
        to_broker: Flow::Passing,
        to_client: Flow::Passing,
    };

    fn in_direction(&self, direction: Direction) -> Flow {
        match direction {
            Direction::ToBroker => self.to_broker,
            Direction::ToClient => self.to_client,
        }
    }

    fn set(&mut self, direction: Direction, flow: Flow) {
        match direction {
            Direction::ToBroker => self.to_broker = flow,
            Direction::ToClient => self.to_client = flow,
        }
    }
}

/// The state common to all connections.
#[derive(Debug, Clone, Copy)]
struct Switch {
    /// Connections made under an earlier number are cut.
    cuts: u64,
    refuses: bool,
    flows: Flows,
}

/// The state of one connection.
#[derive(Debug, Clone, Copy)]
struct Local {
    cut: bool,
    bytes_per_second: Option<u32>,
    flows: Flows,
}

/// The data that all connections share.
#[derive(Debug)]
struct Shared {
    target: (String, u16),
    switch: watch::Sender<Switch>,
    accepted: AtomicU64,
    trap: Mutex<Option<(Point, WireFault)>>,
    triggered: watch::Sender<u64>,
}

/// A TCP proxy. Dropping it closes all connections.
#[derive(Debug)]
pub struct ChaosProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: AbortHandle,
}

impl ChaosProxy {
    /// Listens on a free port and forwards to `host:port`.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(host: &str, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: (host.to_owned(), port),
            switch: watch::Sender::new(Switch {
                cuts: 0,
                refuses: false,
                flows: Flows::PASSING,
            }),
            accepted: AtomicU64::new(0),
            trap: Mutex::new(None),
            triggered: watch::Sender::new(0),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            listener: task.abort_handle(),
        }
    }

    /// Returns the address to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of connections accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Acquire)
    }

    /// Resets every open connection; new ones pass.
    pub fn cut(&self) {
        self.shared.switch.send_modify(|switch| switch.cuts += 1);
    }

    /// Resets every open connection, and closes each new one immediately, until [`ChaosProxy::restore`].
    pub fn reject_connections(&self) {
        self.shared.switch.send_modify(|switch| {
            switch.cuts += 1;
            switch.refuses = true;
        });
    }

    /// Forwards nothing in that direction, on old and new connections, until [`ChaosProxy::restore`]. No byte is lost.
    pub fn stall(&self, direction: Direction) {
        self.set(direction, Flow::Stalled);
    }

    /// Ends that direction of every open connection, like a side that has nothing more to send. Bytes in the other
    /// direction still arrive.
    pub fn half_close(&self, direction: Direction) {
        self.set(direction, Flow::Ended);
    }

    /// Accepts new connections and resumes all that [`ChaosProxy::stall`] has stalled.
    pub fn restore(&self) {
        self.shared.switch.send_modify(|switch| {
            switch.refuses = false;
            switch.flows = Flows::PASSING;
        });
    }

    /// Injects this fault into the first connection on which that method is about to pass, and into no other. The
    /// method itself is not forwarded, unless the fault leaves its direction open. Replaces an earlier fault.
    ///
    /// # Panics
    /// Never, unless another thread has.
    pub fn at(&self, point: Point, fault: WireFault) {
        *self.shared.trap.lock().unwrap() = Some((point, fault));
    }

    /// Returns the number of times that the fault of [`ChaosProxy::at`] was triggered, as a watch.
    #[must_use]
    pub fn triggered(&self) -> watch::Receiver<u64> {
        self.shared.triggered.subscribe()
    }

    fn set(&self, direction: Direction, flow: Flow) {
        self.shared
            .switch
            .send_modify(|switch| switch.flows.set(direction, flow));
    }
}

impl Drop for ChaosProxy {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::AcqRel);
        let now = *shared.switch.borrow();
        if !now.refuses {
            tokio::spawn(forward(client, Arc::clone(&shared), now.cuts));
        }
    }
}

/// Forwards one connection until it is cut or both of its directions have ended.
async fn forward(mut client: TcpStream, shared: Arc<Shared>, cuts: u64) -> io::Result<()> {
    let mut broker = TcpStream::connect((shared.target.0.as_str(), shared.target.1)).await?;
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let local = watch::Sender::new(Local {
        cut: false,
        bytes_per_second: None,
        flows: Flows::PASSING,
    });
    let mut all_cut = shared.switch.subscribe();
    let mut this_cut = local.subscribe();
    let (from_client, to_client) = client.split();
    let (from_broker, to_broker) = broker.split();
    let way = |direction| Forwarder {
        direction,
        shared: &shared,
        switch: shared.switch.subscribe(),
        local: &local,
        here: local.subscribe(),
    };
    let carried = async {
        tokio::try_join!(
            way(Direction::ToBroker).forward(from_client, to_broker),
            way(Direction::ToClient).forward(from_broker, to_client),
        )
    };
    // Whichever ends first: dropping the rest ends both sides.
    tokio::select! {
        ended = carried => return ended.map(drop),
        _ = all_cut.wait_for(|switch| switch.cuts != cuts) => {}
        _ = this_cut.wait_for(|local| local.cut) => {}
    }
    // Makes the close a reset instead of an orderly end.
    client.set_zero_linger()?;
    broker.set_zero_linger()
}

/// One direction of one connection.
struct Forwarder<'a> {
    direction: Direction,
    shared: &'a Shared,
    switch: watch::Receiver<Switch>,
    local: &'a watch::Sender<Local>,
    here: watch::Receiver<Local>,
}

impl Forwarder<'_> {
    async fn forward(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let mut buffer = vec![0; 32 * 1024];
        let mut frames = Frames::default();
        loop {
            if self.is_over().await {
                return to.shutdown().await;
            }
            // Both are cancel-safe: nothing was read, and a change is seen by the next check.
            let count = tokio::select! {
                _ = self.switch.changed() => continue,
                _ = self.here.changed() => continue,
                read = from.read(&mut buffer) => read?,
            };
            if count == 0 {
                return to.shutdown().await;
            }
            frames.add(&buffer[..count]);
            while let Some(mut frame) = frames.next() {
                if let Some(fault) = self.trigger(&frame) {
                    self.apply(fault, &mut frame);
                }
                // A stall also applies to the bytes just read.
                if self.is_over().await {
                    return to.shutdown().await;
                }
                self.write(&mut to, &frame).await?;
            }
        }
    }

    /// Removes the fault from its trap and returns it if this frame is its point.
    fn trigger(&self, frame: &Frame) -> Option<WireFault> {
        let method = frame.method()?;
        let mut trap = self.shared.trap.lock().unwrap();
        let (_, fault) = trap.take_if(|(point, _)| {
            point.direction() == self.direction && point.method() == method
        })?;
        self.shared
            .triggered
            .send_modify(|triggered| *triggered += 1);
        Some(fault)
    }

    fn apply(&self, fault: WireFault, frame: &mut Frame) {
        match fault {
            WireFault::Cut => self.local.send_modify(|local| {
                local.cut = true;
                // Until the cut takes effect, nothing passes.
                local.flows.set(self.direction, Flow::Stalled);
            }),
            WireFault::Stall => self.local.send_modify(|local| {
                local.flows.set(Direction::ToBroker, Flow::Stalled);
                local.flows.set(Direction::ToClient, Flow::Stalled);
            }),
            WireFault::Slow(rate) => self
                .local
                .send_modify(|local| local.bytes_per_second = Some(rate)),
            WireFault::HalfClose(direction) => self
                .local
                .send_modify(|local| local.flows.set(direction, Flow::Ended)),
            WireFault::CorruptType => frame.0[0] = 0xff,
            WireFault::CorruptSize => frame.0[3] = 0x7f,
            WireFault::CorruptEnd => {
                if let Some(end) = frame.0.last_mut() {
                    *end = 0;
                }
            }
            WireFault::UnknownTag => frame.rename_delivery(),
        }
    }

    /// Waits while the direction is stalled. Returns true if it has ended.
    async fn is_over(&mut self) -> bool {
        let direction = self.direction;
        loop {
            let all = self
                .switch
                .borrow_and_update()
                .flows
                .in_direction(direction);
            let this = self.here.borrow_and_update().flows.in_direction(direction);
            if all == Flow::Ended || this == Flow::Ended {
                return true;
            }
            if all == Flow::Passing && this == Flow::Passing {
                return false;
            }
            // Both only observe changes. An error means that the controlling side is gone.
            let gone = tokio::select! {
                changed = self.switch.changed() => changed.is_err(),
                changed = self.here.changed() => changed.is_err(),
            };
            if gone {
                return true;
            }
        }
    }

    async fn write(&self, to: &mut WriteHalf<'_>, frame: &Frame) -> io::Result<()> {
        const PARTS: u32 = 20;
        let Some(rate) = self.local.borrow().bytes_per_second else {
            return to.write_all(&frame.0).await;
        };
        let rate = rate.max(PARTS);
        let part = (rate / PARTS) as usize;
        for bytes in frame.0.chunks(part) {
            // The exact time that these bytes take: most frames are short.
            let takes = Duration::from_secs(bytes.len() as u64) / rate;
            let mut turn = interval(takes.max(SHORTEST_TURN));
            turn.tick().await;
            turn.tick().await;
            to.write_all(bytes).await?;
        }
        Ok(())
    }
}
