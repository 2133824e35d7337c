//! Events under sources of other users: the broker rejects them from users with the printed permissions, and roles
//! reject them from users who may publish anything.

use std::time::Duration;

use doorstep_broker::{User, UserPermissions};
use doorstep_contracts::{CancelledBy, Label, OrderCancelled};
use doorstep_event::{Event, Sequence, json};
use doorstep_messaging::{BrokerSettings, RawMessage, RawValue, UncheckedPublisher};
use doorstep_tests::{Ended, Program};
use serde_json::Value;
use tokio::task::block_in_place;

use crate::{
    operator::{moved, placed},
    topology::{EmptyVhost, same},
};

/// A cancellation that no customer has requested, as the next event of the order's own source.
fn cancelled(invoice: &str, sequence: u64) -> Event {
    let order = placed(invoice, 1);
    let fact = OrderCancelled {
        by: CancelledBy::Customer,
        reason: Label::new("forged").unwrap(),
    };
    let sequence = Sequence::new(sequence).unwrap();
    let time = order.time.unwrap();
    Event::from_contract(&order.source, &order.subject, sequence, time, &fact).unwrap()
}

impl EmptyVhost {
    /// Publishes as this user, with these arguments.
    async fn publish(&self, user: &User, options: &[&str], events: &[Event]) -> Ended {
        let lines = events
            .iter()
            .map(|event| json::write(event).unwrap() + "\n");
        let words = [&["publish", "--publish-timeout", "2s"], options].concat();
        Program::producer(&words)
            .broker(user.amqp_url())
            .input(lines.collect::<String>())
            .run(&self.scratch, Duration::from_secs(120))
            .await
    }

    async fn sent(&self, user: &User, options: &[&str], events: &[Event]) {
        let ended = self.publish(user, options, events).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }

    /// Creates a user with all permissions.
    fn mighty(&self, name: &str) -> User {
        let rights = UserPermissions {
            configure: ".*",
            write: ".*",
            read: ".*",
        };
        block_in_place(|| self.vhost.new_user(name, rights)).unwrap()
    }

    /// Runs a role until idle. Exit code 0, or 2 if dead letters are left.
    async fn worked(&self, role: &str, code: i32) {
        let ended = self
            .ran(None, &["run", role, "--exit-when-idle", "1s"])
            .await;
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    }

    /// Returns the reasons of a role's dead letters, none of which may block a stream.
    async fn rejected(&self, role: &str) -> Vec<String> {
        let words = ["dead-letters", "list", role, "--json"];
        let lines = self.output(None, &words).await;
        let rows = lines
            .lines()
            .map(|line| -> Value { serde_json::from_str(line).unwrap() });
        rows.map(|row| {
            assert_eq!(row["blocks"], false, "{row}");
            row["reason"].as_str().unwrap().to_owned()
        })
        .collect()
    }

    async fn owner(&self, role: &str) -> Value {
        let words = ["sources", "list", role, "--json"];
        let line = self.output(None, &words).await;
        serde_json::from_str(line.lines().next().unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn printed_permissions_limit_programs_to_their_families() {
    let place = EmptyVhost::new("families");
    place.import().await;
    let permitted = place.permitted(&["--declared"]).await;
    let pickups = place.user(&permitted, "u-pickups", same);
    let retail = place.user(&permitted, "u-retail", same);
    place.sent(&retail, &[], &[placed("1", 1)]).await;
    for forged in [cancelled("1", 2), moved("A", 1, -3)] {
        let kind = forged.event_type.to_string();
        let ended = place.publish(&pickups, &[], &[forged]).await;
        assert_eq!(ended.code, Some(65), "{}", ended.stderr);
        for part in [&*kind, "rabbitmqctl set_topic_permissions"] {
            assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
        }
    }
    place.worked("orders", 0).await;
    let order = place.output(None, &["show", "orders", "order/1"]).await;
    assert!(!order.contains("ancelled"), "{order}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_under_another_users_source_are_dead_letters() {
    let place = EmptyVhost::new("forged");
    place.import().await;
    let (shop, thief) = (place.mighty("shop"), place.mighty("thief"));
    place
        .sent(&shop, &[], &[placed("1", 1), moved("A", 1, -10)])
        .await;
    for role in ["orders", "inventory"] {
        place.worked(role, 0).await;
        assert_eq!(place.owner(role).await["user"], shop.name());
    }
    // The order is not cancelled, and the sequences of the stock still belong to its source.
    let forged = [cancelled("1", 2), moved("A", 2, -1_000)];
    place.sent(&thief, &[], &forged).await;
    place
        .sent(&shop, &["--user-id", "-"], &[moved("A", 3, -2_000)])
        .await;
    place.worked("orders", 2).await;
    place.worked("inventory", 2).await;
    assert_eq!(place.rejected("orders").await, ["foreign source"]);
    assert_eq!(place.rejected("inventory").await, ["foreign source"; 2]);
    let order = place.output(None, &["show", "orders", "order/1"]).await;
    assert!(!order.contains("ancelled"), "{order}");
    place
        .sent(&shop, &[], &[moved("A", 2, -3), moved("A", 3, -3)])
        .await;
    place.worked("inventory", 2).await;
    let stock = place.output(None, &["show", "inventory", "stock/A"]).await;
    assert!(stock.contains("-16"), "{stock}");
    assert_eq!(place.rejected("inventory").await.len(), 2);

    // The program continues under another user once its source is transferred to that user.
    let renamed = place.mighty("renamed");
    let source = place.owner("inventory").await["source"]
        .as_str()
        .unwrap()
        .to_owned();
    let words = [
        "sources",
        "transfer",
        "inventory",
        &source,
        "--to",
        renamed.name(),
    ];
    place.output(None, &words).await;
    let owner = place.owner("inventory").await;
    assert_eq!(owner["user"], renamed.name());
    assert_eq!(owner["former"]["user"], shop.name());
    place.sent(&renamed, &[], &[moved("A", 4, -1)]).await;
    place.worked("inventory", 2).await;
    let stock = place.output(None, &["show", "inventory", "stock/A"]).await;
    assert!(stock.contains("-17"), "{stock}");

    // Its earlier events under yet another user are rejected, and applied once the source belongs to that one.
    let moved_on = place.mighty("moved-on");
    place.sent(&moved_on, &[], &[moved("A", 5, -1)]).await;
    place.worked("inventory", 2).await;
    let words = ["dead-letters", "list", "inventory", "--json"];
    let rows = place.output(None, &words).await;
    let mut rows = rows
        .lines()
        .map(|line| -> Value { serde_json::from_str(line).unwrap() });
    let is_of = |row: &Value| row["detail"].as_str().unwrap().contains(moved_on.name());
    let row = rows.find(is_of).unwrap();
    let replay = [
        "dead-letters",
        "replay",
        "inventory",
        row["id"].as_str().unwrap(),
        "--no-wait",
    ];
    let rejected = place.ran(None, &replay).await;
    assert_eq!(rejected.code, Some(65), "{}", rejected.stderr);
    assert!(
        rejected.stderr.contains("sources transfer"),
        "{}",
        rejected.stderr
    );
    let words = [
        "sources",
        "transfer",
        "inventory",
        &source,
        "--to",
        moved_on.name(),
    ];
    place.output(None, &words).await;
    place.output(None, &replay).await;
    place.worked("inventory", 2).await;
    let stock = place.output(None, &["show", "inventory", "stock/A"]).await;
    assert!(stock.contains("-18"), "{stock}");
    let audit = place
        .output(None, &["dead-letters", "audit", "inventory"])
        .await;
    assert!(
        audit.contains("transfer") && audit.contains(&source),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_not_from_the_exchange_are_dead_letters() {
    let place = EmptyVhost::new("bypass");
    place.import().await;
    let thief = place.mighty("thief");
    let settings = BrokerSettings::new(thief.amqp_url(), "doorstep").unwrap();
    let mut raw = UncheckedPublisher::connect(&settings, "a test")
        .await
        .unwrap();
    let event = moved("A", 1, -1_000);
    let headers: Vec<_> = doorstep_event::headers::write(&event)
        .into_iter()
        .map(|(name, value)| (name.to_owned(), RawValue::Text(value)))
        .collect();
    for queue in ["doorstep.inventory.0", "doorstep.inventory.quarantine"] {
        let message = RawMessage {
            routing_key: queue.to_owned(),
            headers: headers.clone(),
            body: event.data.clone(),
            ..RawMessage::default()
        };
        let outcome = raw.publish(message).await;
        assert_eq!(outcome, doorstep_messaging::PublishOutcome::Confirmed);
    }
    place.worked("inventory", 2).await;
    // The same message by the same route.
    assert_eq!(place.rejected("inventory").await, ["not from the exchange"]);
    let shop = place.mighty("shop");
    place.sent(&shop, &[], &[moved("A", 1, -10)]).await;
    place.worked("inventory", 2).await;
    assert_eq!(place.owner("inventory").await["user"], shop.name());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_without_user_ids_survives_the_upgrade() {
    let place = EmptyVhost::new("upgrade");
    place.import().await;
    let shop = place.mighty("shop");
    let without: &[&str] = &["--user-id", "-"];
    place
        .sent(&shop, without, &[moved("A", 1, -10), moved("B", 1, -10)])
        .await;
    place.worked("inventory", 0).await;
    assert_eq!(place.owner("inventory").await["user"], Value::Null);
    // The backlog of the previous version, then the program's new events, then late ones.
    place
        .sent(&shop, without, &[moved("A", 2, -1), moved("B", 3, -1)])
        .await;
    place.sent(&shop, &[], &[moved("A", 3, -1)]).await;
    place.sent(&shop, without, &[moved("B", 2, -1)]).await;
    place.worked("inventory", 0).await;
    for subject in ["stock/A", "stock/B"] {
        let stock = place.output(None, &["show", "inventory", subject]).await;
        assert!(stock.contains("-12"), "{stock}");
    }
    assert_eq!(place.owner("inventory").await["user"], shop.name());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_user_id_fails_at_start() {
    let place = EmptyVhost::new("user-id");
    place.import().await;
    let shop = place.mighty("shop");
    let ended = place
        .publish(&shop, &["--user-id", "other"], &[placed("1", 1)])
        .await;
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("DOORSTEP_USER_ID"),
        "{}",
        ended.stderr
    );
    let words = ["run", "orders", "--user-id", "other"];
    let ended = place.ran(Some(&shop), &words).await;
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("DOORSTEP_USER_ID"),
        "{}",
        ended.stderr
    );
}
