//! Thousands of concurrent calls while the serving processes are killed, and the broker, too.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use doorstep_broker::{NodeOptions, PrivateNode};
use doorstep_event::{Rejection, Request, Timestamp};
use doorstep_messaging::{CallError, RpcClient};
use doorstep_store::{SqliteStore, sqlite::Options};
use doorstep_tests::{
    LEDGER_WITH_RPC, Program, RunningProgram, TempDir, TestEnv, Watchdog,
    ledger::{AccountStatus, Bid, Order, accounts, order},
    wait_for,
};
use tokio::task::{JoinSet, block_in_place, spawn_blocking};

use crate::{
    requests::client,
    roles::{LISTENER, summary},
};

/// A broker takes long to start on a busy machine.
const LONG: Duration = Duration::from_secs(240);
/// The number of concurrent calls before each fault.
const WAVE: usize = 1_200;
/// The number of additional calls if too few are in flight for a fault to matter.
const MORE: usize = 300;
/// The number of commands to be executed between two faults.
const EXECUTED: u64 = 300;
/// The maximum time of a call beyond its deadline.
const BEYOND: Duration = Duration::from_secs(1);
/// One in this many calls is rejected by the role.
const REFUSED: usize = 20;
const ACCOUNTS: usize = 40;
const DEPOSIT: i64 = 5;
/// The account of the command executed before all others.
const FIRST: &str = "account/first";

/// A completed call.
struct Ended {
    n: usize,
    reply: Result<AccountStatus, CallError>,
    /// The deadline, and the time of completion.
    deadline: Instant,
    at: Instant,
}

fn account(n: usize) -> String {
    format!("account/{:02}", n % ACCOUNTS)
}

fn is_rejected(n: usize) -> bool {
    n.is_multiple_of(REFUSED)
}

/// Returns a command with this much time.
fn command(n: usize, within: Duration) -> Request {
    let bid = if is_rejected(n) {
        Bid::Withdraw(1_000_000)
    } else {
        Bid::Deposit(DEPOSIT)
    };
    let mut command = order(&format!("call-{n}"), Timestamp::now(), &account(n), bid);
    command.deadline = Timestamp::now() + within;
    command
}

async fn call(client: Arc<RpcClient>, n: usize, within: Duration) -> Ended {
    let (deadline, command) = (Instant::now() + within, command(n, within));
    let reply = client.call_with_retry::<Order>(command).await;
    let at = Instant::now();
    Ended {
        n,
        reply,
        deadline,
        at,
    }
}

/// The calls in flight, and the processes that serve them from one store.
struct Service {
    env: TestEnv,
    scratch: TempDir,
    store: SqliteStore,
    servers: [Option<RunningProgram>; 2],
    client: Arc<RpcClient>,
    calls: JoinSet<Ended>,
    made: usize,
    ended: Vec<Ended>,
    most: usize,
    disturbed: Vec<usize>,
}

impl Service {
    async fn on(node: &PrivateNode) -> Self {
        let scratch = TempDir::new("calls");
        let folder = scratch.join("stores");
        let store = SqliteStore::open(&folder, LEDGER_WITH_RPC.role, &Options::default()).unwrap();
        // The events of the deposits have a queue to go to.
        let env = TestEnv::on(&node.broker(), "calls", &[LEDGER_WITH_RPC, LISTENER]).await;
        let client = client(&env).await;
        let mut service = Self {
            env,
            scratch,
            store,
            servers: [None, None],
            client,
            calls: JoinSet::new(),
            made: 0,
            ended: Vec::new(),
            most: 0,
            disturbed: Vec::new(),
        };
        service.keep_running();
        service.answers().await;
        service
    }

    /// Checks that servers are there and serving, by a command beside the others.
    async fn answers(&self) {
        let mut first = order("first", Timestamp::now(), FIRST, Bid::Deposit(1));
        first.deadline = Timestamp::now() + LONG;
        self.client.call_with_retry::<Order>(first).await.unwrap();
    }

    /// Restarts processes, as a supervisor does.
    fn keep_running(&mut self) {
        let program = Program::ledger()
            .broker(&self.env.amqp_url())
            .store(&self.scratch.join("stores"));
        for server in &mut self.servers {
            server.get_or_insert_with(|| program.start(&self.scratch));
        }
    }

    /// Makes this many concurrent calls, with deadlines of different lengths: some are too short for a restart of the
    /// broker.
    fn make(&mut self, count: usize) {
        for n in self.made..self.made + count {
            let within = Duration::from_millis(2_000 + (n as u64 * 7) % 22_000);
            self.calls.spawn(call(self.client.clone(), n, within));
        }
        self.made += count;
        self.take_ended();
        self.most = self.most.max(self.calls.len());
    }

    fn take_ended(&mut self) {
        while let Some(ended) = self.calls.try_join_next() {
            self.ended.push(ended.unwrap());
        }
    }

    /// Waits until some more commands are executed, always with many in flight.
    async fn some_are_executed(&mut self) {
        let store = self.store.clone();
        let before = summary(&store).await.tally.executed;
        wait_for("some are obeyed", LONG, async || {
            self.take_ended();
            if self.calls.len() < MORE {
                self.make(MORE);
            }
            let executed = summary(&store).await.tally.executed;
            if executed >= before + EXECUTED {
                return Ok(());
            }
            Err((before, executed, self.calls.len()))
        })
        .await;
    }

    /// Kills these of the servers, and starts others.
    fn kill_servers(&mut self, which: std::ops::Range<usize>) {
        self.note_disturbance();
        for server in &mut self.servers[which] {
            let running = server.take().unwrap();
            let said = running.stderr();
            assert!(running.kill(), "it had ended by itself: {said}");
        }
        self.keep_running();
    }

    fn note_disturbance(&mut self) {
        self.take_ended();
        // All calls in flight may have completed since the last check.
        if self.calls.is_empty() {
            self.make(MORE);
        }
        self.disturbed.push(self.calls.len());
    }

    /// Makes a wave of calls during a fault of the broker, and another one after it.
    async fn disturb_broker(
        &mut self,
        mut node: PrivateNode,
        how: fn(&mut PrivateNode),
    ) -> PrivateNode {
        self.note_disturbance();
        let disturbing = spawn_blocking(move || {
            how(&mut node);
            node
        });
        self.make(WAVE);
        let node = disturbing.await.unwrap();
        self.make(WAVE);
        self.some_are_executed().await;
        node
    }

    async fn all_have_ended(&mut self) {
        while let Some(ended) = self.calls.join_next().await {
            self.ended.push(ended.unwrap());
        }
        assert_eq!(self.ended.len(), self.made);
    }

    /// Returns the executed ids, by account in order, after checking the sums.
    async fn applied(&self) -> HashMap<String, Vec<String>> {
        let mut all = HashMap::new();
        for (key, account) in accounts(&self.store).await {
            if key == FIRST {
                continue;
            }
            assert_eq!(account.balance, DEPOSIT * account.entries.len() as i64);
            all.insert(key, account.entries);
        }
        all
    }
}

/// Checks that each of these was applied at most once, and none that had to be rejected. Returns their number.
fn each_once(applied: &HashMap<String, Vec<String>>) -> usize {
    let mut once = BTreeSet::new();
    for (account_key, entries) in applied {
        for entry in entries {
            assert!(once.insert(entry.clone()), "{entry} was applied twice");
            let n: usize = entry
                .strip_prefix("gateway/1 call-")
                .unwrap()
                .parse()
                .unwrap();
            assert!(!is_rejected(n), "{n} had to be refused");
            assert_eq!(*account_key, account(n));
        }
    }
    once.len()
}

/// Checks that the reply contains the position of its command in the account.
fn is_applied(applied: &HashMap<String, Vec<String>>, n: usize, reply: &AccountStatus) {
    let entries = &applied[&account(n)];
    assert_eq!(entries[reply.entries - 1], format!("gateway/1 call-{n}"));
    assert_eq!(reply.balance, DEPOSIT * reply.entries as i64);
}

fn label(reply: &Result<AccountStatus, CallError>) -> &'static str {
    match reply {
        Ok(_) => "answered",
        Err(CallError::Rejected(_)) => "refused",
        Err(CallError::NoResponder { .. }) => "no responder",
        Err(CallError::TimedOut) => "timed out",
        Err(CallError::Overloaded { .. }) => "overloaded",
        Err(CallError::Unreachable { .. }) => "unreachable",
        Err(CallError::Malformed(_)) => "malformed",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_are_executed_once_through_kills() {
    let node = spawn_blocking(|| PrivateNode::start(NodeOptions::named("calls")));
    let node = node.await.unwrap().unwrap();
    let mut service = Service::on(&node).await;
    block_in_place(|| node.sync_declarations()).unwrap();
    let watchdog = Watchdog::start();

    service.make(WAVE);
    service.some_are_executed().await;
    service.kill_servers(0..1);
    service.make(WAVE);
    service.some_are_executed().await;
    let killed = |node: &mut PrivateNode| {
        node.kill().unwrap();
        node.start_again().unwrap();
    };
    let node = service.disturb_broker(node, killed).await;
    service.kill_servers(0..2);
    service.make(WAVE);
    service.some_are_executed().await;
    let restarted = |node: &mut PrivateNode| node.restart().unwrap();
    let node = service.disturb_broker(node, restarted).await;
    service.kill_servers(1..2);
    service.all_have_ended().await;

    let mut sums = BTreeMap::new();
    let mut latest = (Duration::ZERO, Duration::ZERO);
    for ended in &service.ended {
        *sums.entry(label(&ended.reply)).or_insert(0_usize) += 1;
        // Time in which the runtime itself was starved does not count.
        let awake = watchdog.awake(ended.deadline, ended.at);
        let late = ended.at.saturating_duration_since(ended.deadline);
        latest = latest.max((late, awake));
        assert!(awake <= BEYOND, "{}: {late:?} beyond its deadline", ended.n);
    }
    service.rejected_as_decided();
    let applied = service.applied().await;
    let executed = each_once(&applied);
    for ended in &service.ended {
        if let Ok(reply) = &ended.reply {
            is_applied(&applied, ended.n, reply);
        }
    }
    println!(
        "{} calls, at most {} at once, in flight at each fault: {:?}",
        service.made, service.most, service.disturbed
    );
    println!("{sums:?}; {executed} executed");
    println!(
        "latest {:?} beyond the deadline; the runtime got no turn for {:?} at most",
        latest.0,
        watchdog.longest_gap()
    );
    assert!(service.disturbed.iter().all(|calls| *calls > 0));
    let answered = sums.get("answered").copied().unwrap_or(0);
    assert!(executed >= answered && answered > 0, "{sums:?}, {executed}");

    repeated_with_the_same_replies(&mut service).await;
    drop(service);
    block_in_place(|| drop(node));
}

impl Service {
    /// A rejected call got its rejection, or no reply.
    fn rejected_as_decided(&self) {
        for ended in &self.ended {
            match &ended.reply {
                Ok(_) => assert!(!is_rejected(ended.n), "{}", ended.n),
                // If the whole machine was stalled, a request arrives so late that its clock is blamed, and its caller has
                // given up.
                Err(CallError::Rejected(rejected)) if rejected.code == Rejection::CLOCK_SKEW => {
                    assert!(ended.at >= ended.deadline, "{}: {rejected}", ended.n);
                }
                Err(CallError::Rejected(rejected)) => {
                    assert!(is_rejected(ended.n), "{}: {rejected}", ended.n);
                    assert_eq!(rejected.code, "short");
                }
                Err(CallError::Malformed(what)) => panic!("{}: {what}", ended.n),
                Err(_) => {}
            }
        }
    }
}

/// A repetition with the same id, now without faults, gets the same reply, or the first one.
async fn repeated_with_the_same_replies(service: &mut Service) {
    let first = std::mem::take(&mut service.ended);
    for n in 0..service.made {
        let again = call(service.client.clone(), n, LONG);
        service.calls.spawn(again);
    }
    service.all_have_ended().await;
    let applied = service.applied().await;
    let wanted = (0..service.made).filter(|n| !is_rejected(*n)).count();
    assert_eq!(each_once(&applied), wanted);
    let mut replies = HashMap::new();
    for ended in &service.ended {
        match &ended.reply {
            Ok(reply) => {
                is_applied(&applied, ended.n, reply);
                replies.insert(ended.n, reply);
            }
            Err(CallError::Rejected(_)) if is_rejected(ended.n) => {}
            other => panic!("{}: {other:?}", ended.n),
        }
    }
    assert_eq!(replies.len(), wanted);
    for ended in &first {
        if let Ok(reply) = &ended.reply {
            assert_eq!(replies[&ended.n], reply, "{}", ended.n);
        }
    }
    let tally = summary(&service.store).await.tally;
    assert_eq!(tally.executed, wanted as u64 + 1, "the first one included");
    println!("repeated: {} replies", replies.len());
}
