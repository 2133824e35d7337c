//! From a file of sales to the consumers' exports, by the real binaries, undisturbed and with all faults.

use std::{
    cell::Cell,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use doorstep_broker::{NodeOptions, PrivateNode};
use doorstep_tests::{
    Program, TempDir, TestEnv,
    retail::{Invoice, Sales, Stock},
    wait_for,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::task::spawn_blocking;

/// The limit of one program's run. The broker is down twice for much of it, and each of its starts may take minutes.
const RUN_LIMIT: Duration = Duration::from_secs(480);
const PRODUCER_KILLS: usize = 3;
const CONSUMER_KILLS: usize = 5;

/// A shop's file, and the stores of its consumers.
struct Shop {
    scratch: TempDir,
    amqp_url: String,
    file: PathBuf,
}

impl Shop {
    fn new(hint: &str, env: &TestEnv, sales: &Sales) -> Self {
        let scratch = TempDir::new(hint);
        let file = scratch.join("sales.csv.gz");
        sales.write(&file);
        Self {
            amqp_url: env.amqp_url(),
            scratch,
            file,
        }
    }

    fn import(&self) -> Program {
        Program::producer(&["import", "retail"])
            .arg(&self.file)
            .broker(&self.amqp_url)
    }

    fn consumers(&self, arguments: &[&str]) -> Program {
        Program::consumers(arguments)
            .broker(&self.amqp_url)
            .store(&self.scratch.join("stores"))
    }

    /// Imports the file, and checks that every row is accounted for.
    async fn import_all(&self, sales: &Sales) {
        let ended = self.import().run(&self.scratch, RUN_LIMIT).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let (rows, rejected) = (sales.rows(), sales.rejected());
        let sum = format!(
            "{rows} read = {} imported + {rejected} refused",
            rows - rejected
        );
        assert!(ended.stdout.contains(&sum), "{sum} in {}", ended.stdout);
        let list = fs::read_to_string(self.scratch.join("sales.csv.gz.refused.jsonl")).unwrap();
        assert_eq!(list.lines().count(), rejected, "{list}");
    }

    /// Runs all roles until they are idle, and returns their exports.
    async fn exports_when_idle(&self) -> [String; 3] {
        let run = self.consumers(&["run", "--exit-when-idle", "2s"]);
        let ended = run.run(&self.scratch, RUN_LIMIT).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        [
            self.export("inventory").await,
            self.export("orders").await,
            self.export("reports").await,
        ]
    }

    async fn export(&self, role: &str) -> String {
        let ended = self
            .consumers(&["export", role])
            .run(&self.scratch, RUN_LIMIT)
            .await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stdout
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_and_restarts_do_not_change_the_exports() {
    let seed: u64 = rand::random();
    eprintln!("seed of the sales and of the disturbances: {seed}");
    let sales = Sales::generate(seed, 6_000);
    let node = spawn_blocking(|| PrivateNode::start(NodeOptions::named("end-to-end")));
    let env = TestEnv::new("e2e", &[]).await;
    let calm = Shop::new("calm", &env, &sales);
    calm.import_all(&sales).await;
    let undisturbed = calm.exports_when_idle().await;
    assert_eq!(Stock::read_all(&undisturbed[0]), sales.stock());
    assert_eq!(Invoice::read_all(&undisturbed[1]), sales.invoices());

    let node = node.await.unwrap().unwrap();
    let env = TestEnv::on(&node.broker(), "e2e", &[]).await;
    let shop = Shop::new("storm", &env, &sales);
    // Once undisturbed, so that the queues exist before the broker is killed.
    let _ = shop
        .consumers(&["run", "--exit-when-idle", "100ms"])
        .run(&shop.scratch, RUN_LIMIT)
        .await;
    let node = Arc::new(Mutex::new(node));
    on(&node, |node| node.sync_declarations()).await;

    // Concurrently on this one task: each mostly waits.
    let still = Still::default();
    let (producer_kills, consumer_kills, ()) = tokio::join!(
        kill_producers(&shop, seed, &still),
        kill_consumers(&shop, seed, &still),
        disturb_the_broker(&node, seed, &still),
    );
    eprintln!("killed {producer_kills} producers and {consumer_kills} consumers");
    shop.import_all(&sales).await;
    let disturbed = shop.exports_when_idle().await;
    assert!(disturbed == undisturbed, "the exports differ, seed {seed}");

    // Another undisturbed import changes nothing.
    shop.import_all(&sales).await;
    assert!(
        shop.exports_when_idle().await == undisturbed,
        "a second import has changed something, seed {seed}"
    );
}

/// The faults that are still to come.
struct Still {
    importing: Cell<bool>,
    broker_disturbed: Cell<bool>,
}

impl Default for Still {
    fn default() -> Self {
        Self {
            importing: Cell::new(true),
            broker_disturbed: Cell::new(true),
        }
    }
}

/// Starts imports and kills them while they run, and lets one finish.
async fn kill_producers(shop: &Shop, seed: u64, still: &Still) -> usize {
    let mut dice = StdRng::seed_from_u64(seed ^ 1);
    let mut kills = 0;
    while kills < PRODUCER_KILLS {
        let import = shop.import().start(&shop.scratch);
        pause(&mut dice, 20, 700).await;
        kills += usize::from(import.kill());
    }
    // One that starts while the broker is down gives up after half a minute with that exit code, and is run again.
    wait_for("an import finishes", RUN_LIMIT, async || {
        let ended = shop.import().run(&shop.scratch, RUN_LIMIT).await;
        match ended.code {
            Some(0) => Ok(()),
            Some(69) => Err(ended.stderr),
            other => panic!("{other:?}: {}", ended.stderr),
        }
    })
    .await;
    still.importing.set(false);
    kills
}

/// Runs consumers and kills them, until enough were killed and all other faults are over.
async fn kill_consumers(shop: &Shop, seed: u64, still: &Still) -> usize {
    let mut dice = StdRng::seed_from_u64(seed ^ 2);
    let mut kills = 0;
    while kills < CONSUMER_KILLS || still.importing.get() || still.broker_disturbed.get() {
        // Small batches, so that more of them can be interrupted.
        let run = shop.consumers(&["run", "--batch-size", "20", "--prefetch", "100"]);
        let run = run.start(&shop.scratch);
        pause(&mut dice, 200, 3_000).await;
        let log = run.stderr();
        assert!(run.kill(), "consumers ended by themselves: {log}");
        kills += 1;
    }
    kills
}

/// Kills and restarts the broker, and later stops it gracefully and restarts it.
async fn disturb_the_broker(node: &Arc<Mutex<PrivateNode>>, seed: u64, still: &Still) {
    let mut dice = StdRng::seed_from_u64(seed ^ 3);
    pause(&mut dice, 200, 2_000).await;
    on(node, PrivateNode::kill).await;
    pause(&mut dice, 0, 500).await;
    on(node, PrivateNode::start_again).await;
    pause(&mut dice, 200, 2_000).await;
    on(node, PrivateNode::restart).await;
    still.broker_disturbed.set(false);
}

async fn on<T: Send + 'static>(
    node: &Arc<Mutex<PrivateNode>>,
    act: impl FnOnce(&mut PrivateNode) -> anyhow::Result<T> + Send + 'static,
) -> T {
    let node = Arc::clone(node);
    spawn_blocking(move || act(&mut node.lock().unwrap()))
        .await
        .unwrap()
        .unwrap()
}

async fn pause(dice: &mut StdRng, from_ms: u64, to_ms: u64) {
    doorstep_tests::random_moment(Duration::from_millis(dice.random_range(from_ms..to_ms))).await;
}
