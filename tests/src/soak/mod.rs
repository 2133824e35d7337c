//! A soak: messages of other publishers, valid and invalid, shuffled among very many valid events, while the consumers
//! are killed. Afterwards every valid event must be applied once, and every other one must be a dead letter, once.
//!
//! - `case`: the messages of other publishers.
//! - `pace`: the progress of the valid events.
//! - `contents`: the final contents of the stores, compared with the expected ones.

mod case;
mod contents;
mod pace;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use doorstep_broker::{User, UserPermissions, Vhost};
use doorstep_event::{Event, EventId, EventType, Sequence, Source, Subject, Timestamp};
use doorstep_messaging::{BrokerSettings, Message, PublishOutcome, Publisher, Topology};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    task::block_in_place,
    time::{sleep, timeout},
};

use self::{
    case::{Case, Others, sale},
    contents::{Expected, StoreContents},
    pace::Pace,
};
use crate::{Client, Program, RawAmqp, RunningProgram, TempDir, random_moment, wait_for};

const NAMESPACE: &str = "doorstep";
const ROLES: [&str; 5] = ["orders", "inventory", "tracking", "restaurant", "payments"];
/// The number of stock codes, each with a stream of its own.
const CODES: usize = 997;
/// The maximum number of valid events published at a time.
const CHUNK: usize = 1_000;
/// The timeout for the start of a program, and for a confirm during a kill.
const SOON: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The size of a soak.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// The number of valid events.
    pub events: usize,
    /// The number of times that each other publisher sends its messages.
    pub rounds: usize,
    /// The number of times that the consumers are killed.
    pub kills: usize,
    /// The seed of the messages and their order. The moments of the kills do not depend on it.
    pub seed: u64,
    /// The maximum time without progress that is accepted.
    pub max_stall: Duration,
}

/// The result of a soak.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub events: usize,
    /// Messages sent by other publishers.
    pub others: usize,
    pub kills: usize,
    /// Events that the inventory has applied.
    pub applied: u64,
    pub dead_letters: BTreeMap<String, u64>,
    /// The final state of each role.
    pub roles: BTreeMap<String, String>,
    /// The longest time without progress while work was pending, in seconds.
    pub longest_stall_seconds: f64,
    /// The duration, in seconds.
    pub seconds: f64,
    /// All deviations from the expected result.
    pub differences: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            events,
            others,
            kills,
            applied,
            ..
        } = self;
        writeln!(
            f,
            "{events} valid events and {others} messages of other publishers in {:.0} s, consumers killed {kills} times",
            self.seconds
        )?;
        writeln!(f, "applied by the inventory: {applied}")?;
        writeln!(f, "dead letters: {}", listed(&self.dead_letters))?;
        writeln!(f, "roles: {}", listed(&self.roles))?;
        writeln!(f, "longest stall: {:.1} s", self.longest_stall_seconds)?;
        for difference in &self.differences {
            writeln!(f, "DIFFERS  {difference}")?;
        }
        match self.differences.len() {
            0 => write!(f, "every event has its expected result"),
            count => write!(f, "{count} differences"),
        }
    }
}

fn listed<T: fmt::Display>(values: &BTreeMap<String, T>) -> String {
    let all: Vec<_> = values
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    all.join(", ")
}

/// Runs a soak in this virtual host, which must be empty. `progress` periodically gets the number of valid events sent.
///
/// # Panics
/// If a program cannot be started or the broker rejects a message. Any other failure is in the report.
pub async fn soak(vhost: &Vhost, size: Size, mut progress: impl FnMut(usize)) -> Report {
    let began = Instant::now();
    let mut soak = Soak::begin(vhost, size).await;
    let mut dice = StdRng::seed_from_u64(size.seed);
    let mut todo: Vec<_> = (0..size.rounds).flat_map(|_| Case::ALL).collect();
    todo.sort_by_cached_key(|_| dice.random::<u64>());
    let steps = todo.len().max(1);
    let mut kills: Vec<_> = (0..size.kills)
        .map(|_| dice.random_range(0..steps))
        .collect();
    for step in 0..steps {
        // As many as are due by now, so that they are spread evenly.
        soak.send_sound(size.events * (step + 1) / steps).await;
        if let Some(case) = todo.get(step) {
            let wrong = soak.others.send(*case).await;
            soak.differences.extend(wrong);
        }
        while let Some(due) = kills.iter().position(|kill| *kill == step) {
            kills.swap_remove(due);
            soak.kill().await;
        }
        progress(soak.sent);
    }
    todo.sort_unstable();
    todo.dedup();
    soak.end(todo, began).await
}

struct Soak<'a> {
    vhost: &'a Vhost,
    size: Size,
    scratch: TempDir,
    consumers: Option<RunningProgram>,
    publisher: Publisher,
    others: Others,
    pace: Pace,
    source: Source,
    now: Timestamp,
    sold: BTreeMap<String, u64>,
    sent: usize,
    kills: usize,
    differences: Vec<String>,
    /// Last, so that it is deleted after its connections are closed.
    _stranger: User,
}

impl<'a> Soak<'a> {
    async fn begin(vhost: &'a Vhost, size: Size) -> Self {
        let scratch = TempDir::new("soak");
        let settings = settings(&vhost.amqp_url());
        let exchange = settings.namespace.events_exchange();
        let consumers = start(vhost, &scratch);
        let publisher = publisher(&settings, "soak: publish").await;
        let stranger = block_in_place(|| stranger(vhost, &exchange));
        let source = Source::new("till/sound").unwrap();
        let now = Timestamp::now();
        let others = Others {
            raw: RawAmqp::open(&vhost.amqp_url()).await,
            stranger: self::publisher(&self::settings(stranger.amqp_url()), "soak: forge").await,
            exchange,
            source: source.clone(),
            now,
        };
        // The first valid event is sent once the queues exist; it makes the user the owner of the source.
        let first = sound(&source, 0, 1, now);
        wait_for("the queues exist", SOON, async || {
            match publisher.publish(Message::event(&first)).await {
                PublishOutcome::Confirmed => Ok(()),
                other => Err(other),
            }
        })
        .await;
        let pace = Pace::begin(&scratch.join("stores"), "inventory").await;
        Self {
            vhost,
            size,
            consumers: Some(consumers),
            publisher,
            others,
            pace,
            source,
            now,
            sold: BTreeMap::from([(code(0), 1)]),
            sent: 1,
            kills: 0,
            differences: Vec::new(),
            scratch,
            _stranger: stranger,
        }
    }

    /// Sends valid events until their number reaches `until`.
    async fn send_sound(&mut self, until: usize) {
        while self.sent < until {
            let upto = until.min(self.sent + CHUNK);
            let mut left: Vec<_> = (self.sent..upto)
                .map(|n| {
                    let stock = n % CODES;
                    let sold = self.sold.entry(code(stock)).or_default();
                    *sold += 1;
                    sound(&self.source, stock, *sold, self.now)
                })
                .collect();
            self.sent = upto;
            wait_for("they are confirmed", SOON, async || {
                let messages = left.iter().map(Message::event).collect();
                let mut outcomes = self.publisher.publish_all(messages).await.into_iter();
                left.retain(|_| outcomes.next() != Some(PublishOutcome::Confirmed));
                if left.is_empty() {
                    Ok(())
                } else {
                    Err(left.len())
                }
            })
            .await;
            self.pace.sent(self.sent);
        }
    }

    async fn kill(&mut self) {
        if let Some(consumers) = self.consumers.take() {
            self.pace.interrupted();
            if !consumers.kill() {
                let wrong = "the consumers had exited by themselves before they were killed";
                self.differences.push(wrong.to_owned());
            }
            self.kills += 1;
        }
        self.consumers = Some(start(self.vhost, &self.scratch));
    }

    async fn end(mut self, cases: Vec<Case>, began: Instant) -> Report {
        let of_cases = cases.iter().filter(|case| case.sells().is_some()).count();
        let wanted = (self.sent + of_cases) as u64;
        let others = self.size.rounds * Case::ALL.len();
        let sold = std::mem::take(&mut self.sold);
        let expected = Expected { sold, cases };
        let stores = self.scratch.join("stores");
        let applied = self.pace.applied(wanted, SOON).await;
        let stall = self.pace.longest_stall().await;
        let mut roles = BTreeMap::new();
        if let Some(mut consumers) = self.consumers.take() {
            if consumers.is_running() {
                self.is_quiet().await;
                // An empty queue says nothing of the deliveries that the consumers hold: stopped now, they would return them.
                let _ = timeout(SOON, async {
                    let contents = || StoreContents::read(&stores, &ROLES);
                    while !contents().await.differences(&expected).is_empty() {
                        sleep(Duration::from_millis(200)).await;
                    }
                })
                .await;
                roles = states(&consumers).await;
                consumers.terminate();
            }
            let ended = consumers.ended(SOON).await;
            if ended.code != Some(0) {
                let log: String = ended.stderr.chars().take(2_000).collect();
                let code = ended.code;
                self.differences.push(format!(
                    "the consumers ended with exit code {code:?}: {log}"
                ));
            }
        }
        for (role, state) in &roles {
            if !is_good(state) {
                self.differences.push(format!("{role} is {state}"));
            }
        }
        if stall > self.size.max_stall {
            self.differences
                .push(format!("no event was applied for {stall:.1?}"));
        }
        if applied != wanted {
            let wrong = format!("the inventory has applied {applied} of {wanted} valid events");
            self.differences.push(wrong);
        }
        let contents = StoreContents::read(&stores, &ROLES).await;
        self.differences.extend(contents.differences(&expected));
        Report {
            events: self.sent,
            others,
            kills: self.kills,
            applied,
            dead_letters: contents.reasons(),
            roles,
            longest_stall_seconds: stall.as_secs_f64(),
            seconds: began.elapsed().as_secs_f64(),
            differences: self.differences,
        }
    }

    /// Waits until the queues of the roles are empty. A message that the last kill left unacknowledged is redelivered
    /// and dropped as a duplicate.
    async fn is_quiet(&mut self) {
        let settings = settings(&self.vhost.amqp_url());
        let inspector = doorstep_messaging::Inspector::connect(&settings, "soak: look").await;
        let inspector = inspector.unwrap();
        for role in ROLES {
            let queue = settings.namespace.role_queue(role, 0);
            wait_for(format!("{queue} is empty"), SOON, async || match inspector
                .queue_depth(&queue)
                .await
            {
                Ok(depth) if depth.ready == 0 => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
        }
    }
}

fn settings(amqp_url: &str) -> BrokerSettings {
    BrokerSettings::new(amqp_url, NAMESPACE).unwrap()
}

/// A publisher that declares nothing.
async fn publisher(settings: &BrokerSettings, name: &str) -> Publisher {
    let publisher = Publisher::start(settings, name, Topology::none());
    publisher.ready(SOON).await.unwrap();
    publisher
}

/// A user that may publish only the family of stock.
fn stranger(vhost: &Vhost, exchange: &str) -> User {
    let rights = UserPermissions {
        configure: "",
        write: exchange,
        read: "",
    };
    let stranger = vhost.new_user("stranger", rights).unwrap();
    let family = "^stock[.]";
    stranger.may_on_topics(vhost, exchange, family, "").unwrap();
    stranger
}

fn start(vhost: &Vhost, scratch: &TempDir) -> RunningProgram {
    Program::consumers(&["run", "--health-addr", "127.0.0.1:0"])
        .broker(&vhost.amqp_url())
        .store(&scratch.join("stores"))
        .variable("DOORSTEP_LOG_FORMAT", "json")
        .start(scratch)
}

fn code(stock: usize) -> String {
    format!("S{stock}")
}

fn sound(source: &Source, stock: usize, number: u64, now: Timestamp) -> Event {
    let subject = Subject::new(format!("stock/{}", code(stock))).unwrap();
    Event {
        id: EventId::new(format!("{stock}-{number}")).unwrap(),
        source: source.clone(),
        event_type: EventType::new("stock.adjusted.v1").unwrap(),
        subject,
        time: Some(now),
        sequence: Sequence::new(number),
        epoch: None,
        traceparent: None,
        data: sale("1").into(),
    }
}

/// Returns the states of the roles with their reasons, once all are ready or degraded or the time is up.
async fn states(consumers: &RunningProgram) -> BTreeMap<String, String> {
    let end = Instant::now() + SOON;
    loop {
        let states = states_now(consumers).await;
        if states.values().all(|state| is_good(state)) || Instant::now() >= end {
            return states;
        }
        // The consumers' view of the broker is some seconds old.
        random_moment(LOOK_AGAIN).await;
    }
}

fn is_good(state: &str) -> bool {
    state.starts_with("ready") || state.starts_with("degraded")
}

async fn states_now(consumers: &RunningProgram) -> BTreeMap<String, String> {
    let ready = wait_for("the consumers report their states", SOON, async || {
        let log = consumers.stderr();
        let said = log.lines().find(|line| line.contains("answering /livez"));
        let line: Value = serde_json::from_str(said.ok_or("no address")?).map_err(|_| "no JSON")?;
        let address: SocketAddr = line["address"]
            .as_str()
            .and_then(|address| address.parse().ok())
            .ok_or("no address")?;
        Ok::<_, &str>(Client::new(address).get("/readyz").await.json())
    })
    .await;
    let roles = ready["roles"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    roles
        .iter()
        .map(|role| {
            let reasons = role["reasons"].as_array().cloned().unwrap_or_default();
            let reasons: Vec<_> = reasons
                .iter()
                .map(|reason| text(&reason["message"]))
                .collect();
            let state = text(&role["status"]);
            let state = if reasons.is_empty() {
                state
            } else {
                format!("{state} ({})", reasons.join("; "))
            };
            (text(&role["role"]), state)
        })
        .collect()
}
