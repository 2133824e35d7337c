//! Tests of the loop's wiring: its steps and their times, on a store in memory and without a broker.

use std::time::{Duration, Instant};

use doorstep_event::{ContractError, Event, Timestamp};
use doorstep_messaging::{BrokerSettings, Publisher, Topology};
use doorstep_store::{EntityKey, MemoryStore};

use super::*;
use crate::{
    Effects, HandlerError, Limits, Reading, States, Unsupported,
    runner::{
        Liveness, RoleConnections,
        shutdown::ShutdownTrigger,
        upkeep::tests::{defer, due, remember, remembered},
    },
};

/// A role that handles nothing.
struct Idle;

impl Role for Idle {
    type Payload = ();
    type Command = Unsupported;
    type Query = Unsupported;
    type State = ();

    fn name(&self) -> &'static str {
        "idle"
    }

    fn read(&self, _: &Event) -> Result<Reading<()>, ContractError> {
        Ok(Reading::Ignored)
    }

    fn keys(&self, event: &Event, (): &()) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        _: &mut States<()>,
        _: &Event,
        (): &(),
        _: Timestamp,
    ) -> Result<Effects, HandlerError> {
        Ok(Effects::none())
    }
}

/// Runs one housekeeping of a loop on this store, in a process whose clock has run evenly for this long. Returns the
/// reasons why the role is degraded.
async fn housekeeping(
    store: &MemoryStore,
    steady_for: Duration,
) -> Vec<crate::runner::ReadinessReason> {
    let started = Timestamp::now().checked_sub(steady_for).unwrap();
    let started_at = Instant::now().checked_sub(steady_for).unwrap();
    housekeeping_by(store, WallClock::new(started, started_at)).await
}

async fn housekeeping_by(
    store: &MemoryStore,
    wall: WallClock,
) -> Vec<crate::runner::ReadinessReason> {
    // An address without a listener.
    let broker = BrokerSettings::new("amqp://127.0.0.1:1", "test").unwrap();
    let namespace = broker.namespace.clone();
    let publisher = Publisher::start(&broker, "idle", Topology::none());
    let (status, _watch) = watch::channel(RoleStatus::starting());
    let (_stopper, stop) = ShutdownTrigger::new(Duration::ZERO);
    let (_commands, waiting) = mpsc::channel(1);
    let liveness = Liveness::new();
    let queue = namespace.role_queue("idle", 0);
    let meters = BatchInstruments::new("idle", &queue, &namespace.events_exchange());
    let mut looped = RoleLoop {
        engine: Engine::new(Idle, store.clone(), Limits::default()),
        intake: None,
        commands: waiting,
        tasks: None,
        status: &status,
        outbox_filled: &Arc::default(),
        quarantine: namespace.quarantine_queue("idle"),
        pulse: &liveness.engine,
        meters: &meters,
        requests: &RequestInstruments::new("idle"),
        stop,
        links: ConnectionMonitor::new(
            &RoleConnections::publishing(&publisher),
            watch::channel(None).1,
            false,
        ),
        findings: Vec::new(),
        store_outage: OutageReasons::default(),
        wall,
    };
    looped.housekeeping(&StoreUsage::default()).await;
    status.borrow().degraded.clone()
}

#[tokio::test]
async fn housekeeping_prunes_after_an_even_hour() {
    let store = MemoryStore::new("idle");
    let long_ago = Timestamp::now()
        .checked_sub(Duration::from_hours(30 * 24))
        .unwrap();
    remember(&store, "1", long_ago).await;
    housekeeping(&store, Duration::from_mins(50)).await;
    assert_eq!(remembered(&store, "1").await, [true; 3]);
    housekeeping(&store, Duration::from_mins(61)).await;
    assert_eq!(remembered(&store, "1").await, [false; 3]);
}

#[tokio::test]
async fn housekeeping_makes_missed_and_misdated_rows_due() {
    let store = MemoryStore::new("idle");
    let now = Timestamp::now();
    let next_year = now.checked_add(Duration::from_hours(365 * 24)).unwrap();
    defer(&store, "account/overlooked", None, now).await;
    defer(&store, "account/too-far", Some(next_year), now).await;
    housekeeping(&store, Duration::ZERO).await;
    let made_due = ["account/overlooked", "account/too-far"];
    assert_eq!(due(&store, Timestamp::now()).await, made_due);
}

#[tokio::test]
async fn jumped_clock_prunes_nothing_and_degrades_the_role() {
    let store = MemoryStore::new("idle");
    let long_ago = Timestamp::now()
        .checked_sub(Duration::from_hours(30 * 24))
        .unwrap();
    remember(&store, "1", long_ago).await;
    let jumped = |days: u64| {
        // The minute covers a pause between the readings of the two clocks.
        let jump = Duration::from_hours(24 * days) + Duration::from_mins(1);
        let earlier = Timestamp::now().checked_sub(jump);
        WallClock::new(earlier.unwrap(), Instant::now())
    };
    let degraded = housekeeping_by(&store, jumped(10)).await;
    assert!(
        degraded
            .iter()
            .any(|reason| reason.message.contains("jumped ahead by 240 h")),
        "{degraded:?}"
    );
    assert_eq!(remembered(&store, "1").await, [true; 3]);
}
