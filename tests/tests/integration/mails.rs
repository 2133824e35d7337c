//! Mails under kills of the role's process and of the mail server: each cause has one mail, or is unknown, or was
//! refused for good and is a dead letter.

use std::{collections::BTreeMap, env, time::Duration};

use doorstep_contracts::{
    AddressConfirmed, CustomerId, EmailAddress, InvoiceNo, Label, Money, OrderConfirmed, OrderLine,
    OrderPlaced, RestaurantId, Sku,
};
use doorstep_event::{Contract, Event, Sequence, Source, Subject, Timestamp};
use doorstep_store::{
    EntityKey, SqliteStore, Store, TaskFilter, TaskRow, TaskState, sqlite::Options,
};
use doorstep_tests::{Program, RunningProgram, TempDir, TestEnv, random_moment, wait_for};
use serde_json::Value;

use crate::{SOON, mail_server::MailServer, operator::ROLES, roles::dead};

const ROLE: &str = "notifications";

/// The number of mails unless [`MAILS`] names another.
const DEFAULT_MAILS: usize = 300;

/// The variable with the number of mails: `cargo xtask mail` sets 10,000.
const MAILS: &str = "DOORSTEP_TEST_MAILS";

/// The customers that the mails go to.
const CUSTOMERS: usize = 50;

fn event<C: Contract>(subject: &Subject, sequence: u64, fact: &C) -> Event {
    let source = Source::new("gateway/1").unwrap();
    let sequence = Sequence::new(sequence).unwrap();
    Event::from_contract(&source, subject, sequence, Timestamp::now(), fact).unwrap()
}

fn customer(number: usize) -> CustomerId {
    CustomerId::new(&format!("customer-{}", number % CUSTOMERS)).unwrap()
}

/// The events of customers with confirmed addresses, and of their confirmed orders.
fn events(orders: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for number in 0..CUSTOMERS {
        let confirmed = AddressConfirmed {
            address: EmailAddress::new(&format!("customer-{number}@example.com")).unwrap(),
            nonce: Label::new("n").unwrap(),
        };
        events.push(event(&customer(number).user_subject(), 1, &confirmed));
    }
    let price = "2.50".parse::<Money>().unwrap();
    let line = OrderLine::new(Sku::new("PIZZA").unwrap(), None, 1, price).unwrap();
    for number in 0..orders {
        let subject = InvoiceNo::new(&number.to_string()).unwrap().order_subject();
        let placed = OrderPlaced {
            placed_at: Timestamp::UNIX_EPOCH,
            customer: Some(customer(number)),
            country: Label::new("Italy").unwrap(),
            total: line.amount,
            lines: vec![line.clone()],
        };
        let confirmed = OrderConfirmed {
            restaurant: RestaurantId::new("luigi").unwrap(),
            promised_at: Timestamp::UNIX_EPOCH,
        };
        events.push(event(&subject, 1, &placed));
        events.push(event(&subject, 2, &confirmed));
    }
    events
}

/// The role in a process that is killed and restarted.
struct MailingRole {
    env: TestEnv,
    scratch: TempDir,
    store: SqliteStore,
    running: Option<RunningProgram>,
}

impl MailingRole {
    async fn new() -> Self {
        let scratch = TempDir::new("mails");
        let store = SqliteStore::open(&scratch.join("stores"), ROLE, &Options::default()).unwrap();
        Self {
            env: TestEnv::new("mails", &ROLES).await,
            scratch,
            store,
            running: None,
        }
    }

    fn start(&mut self, port: u16) {
        let url = format!("smtp+plain://127.0.0.1:{port}");
        let program = Program::consumers(&["run", ROLE, "--mail-url", &url])
            .broker(&self.env.amqp_url())
            .store(&self.scratch.join("stores"))
            .variable("DOORSTEP_MAIL_FROM", "doorstep@example.com")
            .variable("DOORSTEP_MAIL_TIMEOUT", "5s")
            .variable("DOORSTEP_MAIL_CONCURRENCY", "16")
            .variable("DOORSTEP_TASK_LEASE", "2s")
            // A mail that is interrupted again and again is no poison here.
            .variable("DOORSTEP_MAX_CRASHES", "100");
        self.running = Some(program.start(&self.scratch));
    }

    fn kill(&mut self) {
        assert!(self.running.take().unwrap().kill(), "it ended by itself");
    }

    /// Returns the status of each mail by its cause.
    async fn statuses(&self) -> BTreeMap<String, String> {
        let mut statuses = BTreeMap::new();
        let mut after = Some(EntityKey::new("mail/"));
        loop {
            let rows = self.store.entities(after.take(), 1000).await.unwrap();
            let Some(last) = rows.last() else {
                return statuses;
            };
            after = Some(last.key.clone());
            for row in rows {
                let Some(state) = row.state else { continue };
                let state: Value = serde_json::from_slice(&state).unwrap();
                if let Some(status) = state["mail"]["status"].as_str() {
                    let cause = state["mail"]["cause"].as_str().unwrap();
                    statuses.insert(cause.to_owned(), status.to_owned());
                }
            }
        }
    }

    /// Waits until every mail has an end, or waits for an operator.
    async fn all_have_ended(&self, mails: usize) -> BTreeMap<String, String> {
        let limit = SOON * 5 + Duration::from_millis(100) * u32::try_from(mails).unwrap();
        wait_for(format!("{mails} mails have ended"), limit, async || {
            let statuses = self.statuses().await;
            let tasks = self
                .store
                .tasks(TaskFilter::default(), None, 1)
                .await
                .unwrap();
            let open = statuses
                .values()
                .filter(|status| *status == "queued")
                .count();
            if statuses.len() == mails && open == 0 {
                return Ok(statuses);
            }
            Err(format!(
                "{} mails, {open} queued, {tasks:?}",
                statuses.len()
            ))
        })
        .await
    }
}

/// Returns the record of the mail server, once it has all mails that were sent: other programs write it late.
async fn recorded(
    server: &MailServer,
    statuses: &BTreeMap<String, String>,
) -> BTreeMap<String, usize> {
    let sent = statuses.iter().filter(|(_, status)| *status == "sent");
    let sent: Vec<String> = sent.map(|(cause, _)| subject(cause)).collect();
    wait_for("the server's record is complete", SOON, async || {
        let accepted = server.accepted();
        match sent.iter().find(|sent| !accepted.contains_key(*sent)) {
            None => Ok(accepted),
            Some(missing) => Err(missing.clone()),
        }
    })
    .await
}

/// Returns the subject of the mail for a cause.
fn subject(cause: &str) -> String {
    let order = cause.split('/').nth(1).unwrap();
    format!("Order {order} is confirmed")
}

/// Compares the status of each mail with what the mail server has accepted. Returns the number of mails by status.
fn compare(
    statuses: &BTreeMap<String, String>,
    accepted: &BTreeMap<String, usize>,
) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (cause, status) in statuses {
        let accepted = accepted.get(&subject(cause)).copied().unwrap_or(0);
        let expected = match &**status {
            "sent" => 1..=1,
            "failed" => 0..=0,
            "unknown" => 0..=1,
            other => panic!("{cause} is {other}"),
        };
        assert!(
            expected.contains(&accepted),
            "{cause} is {status}, accepted {accepted} times"
        );
        *counts.entry(status.clone()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_cause_has_one_mail_under_kills() {
    let mails = env::var(MAILS).map_or(DEFAULT_MAILS, |text| text.parse().unwrap());
    let kills = (mails / 50).clamp(6, 40);
    let mut server = MailServer::start(mails).await;
    let mut role = MailingRole::new().await;
    role.start(server.port);
    role.env.publish(&events(mails)).await;
    for kill in 0..kills {
        // Kills while mails are on their way: some are accepted since the last kill.
        let some = server.accepted().len() + mails / kills / 3;
        wait_for("more mails are accepted", SOON * 2, async || {
            let accepted = server.accepted().len();
            if accepted >= some.min(mails / 2) {
                Ok(())
            } else {
                Err(accepted)
            }
        })
        .await;
        random_moment(Duration::from_millis(500)).await;
        if kill % 2 == 0 {
            // Only the checkpoint can tell the next process that these mails are with the server.
            server.accept_without_reply().await;
            role.kill();
            server.reply();
            role.start(server.port);
        } else {
            server.go_away().await;
            random_moment(Duration::from_millis(500)).await;
            server.come_back().await;
        }
    }
    let statuses = role.all_have_ended(mails).await;
    let counts = compare(&statuses, &recorded(&server, &statuses).await);
    println!("{mails} mails under {kills} kills: {counts:?}");
    let of = |status| counts.get(status).copied().unwrap_or(0);
    assert!(of("sent") > 0);
    if server.is_scripted() {
        assert!(
            of("unknown") > 0 && of("failed") > 0,
            "no fault had an effect"
        );
    }
    assert_eq!(dead(&role.store).await.len(), of("failed"));
    let filter = TaskFilter::default();
    let tasks = role.store.tasks(filter, None, 100_000).await.unwrap();
    assert_eq!(tasks.len(), of("unknown"));
    let is_unknown = |task: &TaskRow| task.state == TaskState::Unknown;
    assert!(tasks.iter().all(is_unknown), "{tasks:?}");
}
