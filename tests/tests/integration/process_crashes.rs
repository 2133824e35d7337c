//! Events that crash the process repeatedly, without a panic that could be caught.

use doorstep_event::{Event, Timestamp};
use doorstep_runtime::operate;
use doorstep_store::{DeadLetter, SqliteStore, sqlite::Options};
use doorstep_tests::{
    LEDGER, Program, RunningProgram, TempDir, TestEnv,
    ledger::{Move, accounts, entries, event},
    wait_for, wait_until,
};

use crate::{
    SOON,
    roles::{dead, summary},
};

/// The first crash is not attributed, the second one is counted, and so on up to the maximum. One or two more occur if
/// another event of the same batch was suspected first.
const MAX_CRASHES: usize = 6;

/// A role in a process that is restarted after each crash.
struct CrashingService {
    env: TestEnv,
    scratch: TempDir,
    store: SqliteStore,
    running: Option<RunningProgram>,
    crashes: usize,
}

impl CrashingService {
    async fn new(hint: &str) -> Self {
        let scratch = TempDir::new(hint);
        let folder = scratch.join("stores");
        let store = SqliteStore::open(&folder, LEDGER.role, &Options::default()).unwrap();
        Self {
            env: TestEnv::new(hint, &[LEDGER]).await,
            scratch,
            store,
            running: None,
            crashes: 0,
        }
    }

    /// Restarts processes, as a supervisor does.
    fn keep_running(&mut self) {
        if self.running.as_mut().is_some_and(|run| !run.is_running()) {
            self.running = None;
            self.crashes += 1;
        }
        self.running.get_or_insert_with(|| {
            Program::ledger()
                .broker(&self.env.amqp_url())
                .store(&self.scratch.join("stores"))
                .start(&self.scratch)
        });
    }

    /// Restarts it until this many events are applied and this many are dead letters, and the queues are empty. Returns
    /// the number of crashes.
    async fn until(&mut self, applied: u64, dead_lettered: u64) -> usize {
        let before = self.crashes;
        let wanted = (applied, dead_lettered);
        let what = format!("{wanted:?} events are applied and dead");
        wait_for(what, SOON * 2, async || {
            self.keep_running();
            let tally = summary(&self.store).await.tally;
            let mut ready = 0;
            for queue in [
                self.env.namespace().role_queue(LEDGER.role, 0),
                self.env.namespace().quarantine_queue(LEDGER.role),
            ] {
                ready += self.env.try_depth(&queue).await?.ready;
            }
            if (tally.applied, tally.dead_letters) == wanted && ready == 0 {
                return Ok(());
            }
            Err(format!("{tally:?}, {ready} ready, {} deaths", self.crashes))
        })
        .await;
        self.crashes - before
    }

    async fn only_dead_letter(&self) -> DeadLetter {
        let mut dead = dead(&self.store).await;
        assert_eq!(dead.len(), 1, "{dead:?}");
        let dead = dead.remove(0);
        assert_eq!(dead.reason, "poison", "{dead:?}");
        dead
    }
}

fn add(source: &str, account: usize, sequence: u64) -> Event {
    event(
        source,
        &format!("account/{account:02}"),
        sequence,
        &Move::Add(1),
    )
}

fn kill(source: &str, account: usize, sequence: u64) -> Event {
    event(
        source,
        &format!("account/{account:02}"),
        sequence,
        &Move::Kill,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_poison_event_is_dead_lettered() {
    let mut service = CrashingService::new("deaths").await;
    // Ten accounts with twenty harmless events each, and the poison event in the middle of one of them.
    let mut events = Vec::new();
    for n in 1..=21 {
        for account in 0..10 {
            match (account, n) {
                (5, 11) => events.push(kill("shop", account, n)),
                (5, _) | (_, ..=20) => events.push(add("shop", account, n)),
                _ => {}
            }
        }
    }
    assert_eq!(events.len(), 201);
    service.env.publish(&events).await;
    let crashes = service.until(190, 1).await;
    assert!((2..=MAX_CRASHES).contains(&crashes), "{crashes} deaths");
    let poison = service.only_dead_letter().await;
    assert_eq!(poison.event.unwrap().id, kill("shop", 5, 11).id);
    assert!(poison.blocks);

    // A replay resets its crash count, and it crashes the process again.
    operate::replay(&service.store, &poison.id, Timestamp::now())
        .await
        .unwrap();
    let crashes = service.until(190, 2).await;
    assert!((2..=MAX_CRASHES).contains(&crashes), "{crashes} deaths");
    let again = service.only_dead_letter().await;
    assert_eq!(again.attempts, 2);

    operate::skip(&service.store, &again.id, Timestamp::now())
        .await
        .unwrap();
    assert_eq!(service.until(200, 2).await, 0);
    assert_eq!(summary(&service.store).await.usage.deferred.rows, 0);
    let accounts = accounts(&service.store).await;
    assert_eq!(accounts.len(), 10);
    for (number, (key, account)) in accounts.iter().enumerate() {
        let last = if number == 5 { 21 } else { 20 };
        let all: Vec<_> = (1..=last)
            .filter(|n| (number, *n) != (5, 11))
            .map(|n| format!("shop {n}"))
            .collect();
        assert_eq!(account.entries, all, "{key}");
        assert_eq!(account.balance, 20, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deferred_poison_event_is_dead_lettered_alone() {
    let mut service = CrashingService::new("deaths").await;
    let early = [
        kill("web", 3, 2),
        add("web", 3, 3),
        kill("web", 4, 3),
        add("web", 5, 2),
    ];
    service.env.publish(&early).await;
    service.keep_running();
    let store = service.store.clone();
    wait_until("they are deferred", SOON, async || {
        summary(&store).await.usage.deferred.rows == 4
    })
    .await;
    assert_eq!(service.crashes, 0);
    let missing = [
        add("web", 3, 1),
        add("web", 5, 1),
        add("web", 4, 1),
        add("web", 6, 1),
    ];
    service.env.publish(&missing).await;
    let crashes = service.until(5, 1).await;
    assert!((2..=MAX_CRASHES).contains(&crashes), "{crashes} deaths");
    assert_eq!(
        service.only_dead_letter().await.event.unwrap().id,
        kill("web", 3, 2).id
    );
    assert_eq!(entries(&store, "account/05").await, ["web 1", "web 2"]);

    // The other event is next only now.
    service.env.publish(&[add("web", 4, 2)]).await;
    let crashes = service.until(6, 2).await;
    assert!((2..=MAX_CRASHES).contains(&crashes), "{crashes} deaths");
    for dead in dead(&store).await {
        assert_eq!(dead.reason, "poison", "{dead:?}");
        operate::skip(&store, &dead.id, Timestamp::now())
            .await
            .unwrap();
    }
    assert_eq!(service.until(7, 2).await, 0);
    assert_eq!(entries(&store, "account/03").await, ["web 1", "web 3"]);
    assert_eq!(entries(&store, "account/04").await, ["web 1", "web 2"]);
}
