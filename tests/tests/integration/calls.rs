//! Thousands of calls at once, while the processes that answer are killed, and the broker too.

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
    ledger::{Bid, Order, Standing, accounts, order},
    wait_for,
};
use tokio::task::{JoinSet, block_in_place, spawn_blocking};

use crate::{
    requests::requester,
    roles::{LISTENER, summary},
};

/// A start of a broker takes its time on a busy machine.
const LONG: Duration = Duration::from_secs(240);
/// The calls that are made at once before each disturbance.
const WAVE: usize = 1_200;
/// As many are made once more where too few are under way for a disturbance to matter.
const MORE: usize = 300;
/// Those that are to be obeyed between two disturbances.
const OBEYED: u64 = 300;
/// What a call may take beyond its deadline.
const BEYOND: Duration = Duration::from_secs(1);
/// One of so many asks for what is refused.
const REFUSED: usize = 20;
const ACCOUNTS: usize = 40;
const DEPOSIT: i64 = 5;
/// The account of the command that was obeyed before all others.
const FIRST: &str = "account/first";

/// A call that has ended.
struct Ended {
    n: usize,
    answer: Result<Standing, CallError>,
    /// When it had to be over, and when it was.
    deadline: Instant,
    at: Instant,
}

fn account(n: usize) -> String {
    format!("account/{:02}", n % ACCOUNTS)
}

fn is_refused(n: usize) -> bool {
    n.is_multiple_of(REFUSED)
}

/// A command, to be answered within so long.
fn command(n: usize, within: Duration) -> Request {
    let bid = if is_refused(n) {
        Bid::Withdraw(1_000_000)
    } else {
        Bid::Deposit(DEPOSIT)
    };
    let mut command = order(&format!("call-{n}"), Timestamp::now(), &account(n), bid);
    command.deadline = Timestamp::now() + within;
    command
}

async fn call(requester: Arc<RpcClient>, n: usize, within: Duration) -> Ended {
    let (deadline, command) = (Instant::now() + within, command(n, within));
    let answer = requester.call_with_retry::<Order>(command).await;
    let at = Instant::now();
    Ended {
        n,
        answer,
        deadline,
        at,
    }
}

/// Calls under way, and the processes that answer them from one store.
struct Service {
    world: TestEnv,
    scratch: TempDir,
    store: SqliteStore,
    servers: [Option<RunningProgram>; 2],
    requester: Arc<RpcClient>,
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
        // What the deposits tell has a queue to go to.
        let world = TestEnv::on(&node.broker(), "calls", &[LEDGER_WITH_RPC, LISTENER]).await;
        let requester = requester(&world).await;
        let mut service = Self {
            world,
            scratch,
            store,
            servers: [None, None],
            requester,
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

    /// There are servers, and they answer: a command beside the others.
    async fn answers(&self) {
        let mut first = order("first", Timestamp::now(), FIRST, Bid::Deposit(1));
        first.deadline = Timestamp::now() + LONG;
        self.requester
            .call_with_retry::<Order>(first)
            .await
            .unwrap();
    }

    /// What every supervisor does.
    fn keep_running(&mut self) {
        let program = Program::ledger()
            .broker(&self.world.amqp_url())
            .store(&self.scratch.join("stores"));
        for server in &mut self.servers {
            server.get_or_insert_with(|| program.start(&self.scratch));
        }
    }

    /// Makes so many calls at once. Some have more time than others: for some, a restart of the broker takes too long.
    fn make(&mut self, count: usize) {
        for n in self.made..self.made + count {
            let within = Duration::from_millis(2_000 + (n as u64 * 7) % 22_000);
            self.calls.spawn(call(self.requester.clone(), n, within));
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

    /// Waits until some more are obeyed, with many under way all the time.
    async fn some_are_obeyed(&mut self) {
        let store = self.store.clone();
        let before = summary(&store).await.tally.obeyed;
        wait_for("some are obeyed", LONG, async || {
            self.take_ended();
            if self.calls.len() < MORE {
                self.make(MORE);
            }
            let obeyed = summary(&store).await.tally.obeyed;
            if obeyed >= before + OBEYED {
                return Ok(());
            }
            Err((before, obeyed, self.calls.len()))
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
        // All that were under way may have ended since somebody looked.
        if self.calls.is_empty() {
            self.make(MORE);
        }
        self.disturbed.push(self.calls.len());
    }

    /// A wave while the broker is being disturbed, and one more once it is back.
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
        self.some_are_obeyed().await;
        node
    }

    async fn all_have_ended(&mut self) {
        while let Some(ended) = self.calls.join_next().await {
            self.ended.push(ended.unwrap());
        }
        assert_eq!(self.ended.len(), self.made);
    }

    /// The ids that were obeyed, by account in order, after a look at the sums.
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

/// Each of these was applied at most once, and none was that had to be refused. Returns how many there are.
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
            assert!(!is_refused(n), "{n} had to be refused");
            assert_eq!(*account_key, account(n));
        }
    }
    once.len()
}

/// The reply tells the place that its command has taken in the account.
fn is_applied(applied: &HashMap<String, Vec<String>>, n: usize, reply: &Standing) {
    let entries = &applied[&account(n)];
    assert_eq!(entries[reply.entries - 1], format!("gateway/1 call-{n}"));
    assert_eq!(reply.balance, DEPOSIT * reply.entries as i64);
}

fn word(answer: &Result<Standing, CallError>) -> &'static str {
    match answer {
        Ok(_) => "answered",
        Err(CallError::Refused(_)) => "refused",
        Err(CallError::NoResponder { .. }) => "no responder",
        Err(CallError::TimedOut) => "timed out",
        Err(CallError::Overloaded { .. }) => "overloaded",
        Err(CallError::Unreachable { .. }) => "unreachable",
        Err(CallError::Malformed(_)) => "malformed",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_of_thousands_of_calls_ends_in_time_and_is_obeyed_once_while_servers_and_broker_are_killed()
 {
    let node = spawn_blocking(|| PrivateNode::start(NodeOptions::named("calls")));
    let node = node.await.unwrap().unwrap();
    let mut service = Service::on(&node).await;
    block_in_place(|| node.sync_declarations()).unwrap();
    let watchdog = Watchdog::start();

    service.make(WAVE);
    service.some_are_obeyed().await;
    service.kill_servers(0..1);
    service.make(WAVE);
    service.some_are_obeyed().await;
    let killed = |node: &mut PrivateNode| {
        node.kill().unwrap();
        node.start_again().unwrap();
    };
    let node = service.disturb_broker(node, killed).await;
    service.kill_servers(0..2);
    service.make(WAVE);
    service.some_are_obeyed().await;
    let restarted = |node: &mut PrivateNode| node.restart().unwrap();
    let node = service.disturb_broker(node, restarted).await;
    service.kill_servers(1..2);
    service.all_have_ended().await;

    let mut sums = BTreeMap::new();
    let mut latest = (Duration::ZERO, Duration::ZERO);
    for ended in &service.ended {
        *sums.entry(word(&ended.answer)).or_insert(0_usize) += 1;
        // Time that the runtime itself did not get is nobody's fault here.
        let awake = watchdog.awake(ended.deadline, ended.at);
        let late = ended.at.saturating_duration_since(ended.deadline);
        latest = latest.max((late, awake));
        assert!(awake <= BEYOND, "{}: {late:?} beyond its deadline", ended.n);
    }
    // Who is refused hears so, or nothing.
    for ended in &service.ended {
        match &ended.answer {
            Ok(_) => assert!(!is_refused(ended.n), "{}", ended.n),
            // Where the whole machine was held up, a request comes so late that clocks are blamed, and nobody waits any more.
            Err(CallError::Refused(refused)) if refused.code == Rejection::CLOCK_SKEW => {
                assert!(ended.at >= ended.deadline, "{}: {refused}", ended.n);
            }
            Err(CallError::Refused(refused)) => {
                assert!(is_refused(ended.n), "{}: {refused}", ended.n);
                assert_eq!(refused.code, "short");
            }
            Err(CallError::Malformed(what)) => panic!("{}: {what}", ended.n),
            Err(_) => {}
        }
    }
    let applied = service.applied().await;
    let obeyed = each_once(&applied);
    for ended in &service.ended {
        if let Ok(reply) = &ended.answer {
            is_applied(&applied, ended.n, reply);
        }
    }
    println!(
        "{} calls, at most {} at once, under way at each disturbance: {:?}",
        service.made, service.most, service.disturbed
    );
    println!("{sums:?}; {obeyed} obeyed");
    println!(
        "latest {:?} beyond the deadline; the runtime got no turn for {:?} at most",
        latest.0,
        watchdog.longest_gap()
    );
    assert!(service.disturbed.iter().all(|calls| *calls > 0));
    let answered = sums.get("answered").copied().unwrap_or(0);
    assert!(obeyed >= answered && answered > 0, "{sums:?}, {obeyed}");

    // Who asks once more under the same id, now that all is well, hears the same reply, or the first one.
    let first = std::mem::take(&mut service.ended);
    for n in 0..service.made {
        let again = call(service.requester.clone(), n, LONG);
        service.calls.spawn(again);
    }
    service.all_have_ended().await;
    let applied = service.applied().await;
    let wanted = (0..service.made).filter(|n| !is_refused(*n)).count();
    assert_eq!(each_once(&applied), wanted);
    let mut replies = HashMap::new();
    for ended in &service.ended {
        match &ended.answer {
            Ok(reply) => {
                is_applied(&applied, ended.n, reply);
                replies.insert(ended.n, reply);
            }
            Err(CallError::Refused(_)) if is_refused(ended.n) => {}
            other => panic!("{}: {other:?}", ended.n),
        }
    }
    assert_eq!(replies.len(), wanted);
    for ended in &first {
        if let Ok(reply) = &ended.answer {
            assert_eq!(replies[&ended.n], reply, "{}", ended.n);
        }
    }
    let tally = summary(&service.store).await.tally;
    assert_eq!(tally.obeyed, wanted as u64 + 1, "the first one included");
    println!("asked once more: {} replies", replies.len());
    drop(service);
    block_in_place(|| drop(node));
}
