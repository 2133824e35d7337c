//! Payments and restaurants as real processes, called over RPC and informed of orders by events, and their combined
//! results.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use doorstep_broker::{User, UserPermissions};
use doorstep_contracts::{
    CancelledBy, CustomerId, InvoiceNo, Label, Money, OrderCancelled, OrderConfirmed, OrderRefused,
    PaymentMethod, RefusedBy, RestaurantId,
    requests::{
        AuthorizePayment, ConfigureRestaurant, ConfirmOrder, HistoryKind, Menu, OrderStatus,
        OrderView, PaymentStatus, PaymentView, ReadMenu, ReadOrder, ReadPayment,
    },
};
use doorstep_event::{Contract, Event, Request, RequestContract, RequestId, Source, Timestamp};
use doorstep_messaging::{
    CallError, Message, PublishOutcome, Publisher, RpcClient, RpcClientSettings, Topology,
};
use doorstep_store::{SqliteStore, Store, sqlite::Options};
use doorstep_tests::{Client, RunningProgram, never_closed, run_settings, wait_for};
use serde_json::Value;
use tokio::sync::Notify;

use crate::{
    SOON,
    operator::{Office, event, placed},
    roles::summary,
};

const EVERYTHING: UserPermissions<'static> = UserPermissions {
    configure: ".*",
    write: ".*",
    read: ".*",
};

/// The environment of the roles, and their client.
struct Shop {
    office: Office,
    client: RpcClient,
}

impl Shop {
    async fn open(hint: &str, roles: &[&str]) -> (Self, RunningProgram) {
        let office = Office::new(hint).await;
        let settings = office.env.settings();
        let topology = Topology::for_roles(&settings.namespace, &crate::operator::ROLES);
        let client = RpcClient::start(
            settings,
            "test: ask",
            topology,
            RpcClientSettings::default(),
        );
        client.ready(SOON).await.unwrap();
        let words: Vec<&str> = ["run"].iter().chain(roles).copied().collect();
        let roles = office.consumers(&words).start(&office.scratch);
        (Self { office, client }, roles)
    }

    /// Calls with one id, and retries while no server is there.
    async fn call<C: RequestContract>(&self, id: &str, asked: &C) -> Result<C::Reply, CallError> {
        let now = Timestamp::now();
        let request = Request::from_contract(
            &Source::new("test/1").unwrap(),
            RequestId::new(id).unwrap(),
            now,
            now.checked_add(SOON).unwrap(),
            asked,
        );
        self.client.call_with_retry::<C>(request.unwrap()).await
    }

    /// Calls until the answer is the expected one.
    async fn shows<C: RequestContract>(
        &self,
        what: &str,
        asked: &C,
        is: impl Fn(&C::Reply) -> bool,
    ) -> C::Reply {
        wait_for(what.to_owned(), SOON, async || {
            match self.call("a query", asked).await {
                Ok(reply) if is(&reply) => Ok(reply),
                Ok(reply) => Err(serde_json::to_string(&reply).unwrap()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Returns the balance of each account, and the number of its postings.
    async fn accounts(&self) -> BTreeMap<String, (String, u64)> {
        let export = self.office.output(&["export", "payments"]).await;
        let all: BTreeMap<String, (String, u64)> = export
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter_map(|row| {
                let name = row["key"]
                    .as_str()
                    .unwrap()
                    .strip_prefix("account/")?
                    .to_owned();
                let balance = row["state"]["balance"].as_str().unwrap().to_owned();
                Some((name, (balance, row["state"]["postings"].as_u64().unwrap())))
            })
            .collect();
        let balances = all.values().map(|(balance, _)| balance.parse().unwrap());
        assert_eq!(Money::sum(balances), Ok(Money::ZERO), "{all:?}");
        all
    }

    async fn publish(&self, events: &[Event]) {
        self.office.env.publish(events).await;
    }
}

fn order(no: &str) -> InvoiceNo {
    InvoiceNo::new(no).unwrap()
}

fn authorize(no: &str, hold_seconds: Option<u32>) -> AuthorizePayment {
    AuthorizePayment {
        order: order(no),
        customer: CustomerId::new("17850").unwrap(),
        amount: "2.51".parse().unwrap(),
        method: PaymentMethod::new("card/visa").unwrap(),
        hold_seconds,
    }
}

fn about<C: Contract>(no: &str, sequence: u64, fact: &C) -> Event {
    event(order(no).order_subject().as_str(), sequence, fact)
}

fn confirmed() -> OrderConfirmed {
    OrderConfirmed {
        restaurant: RestaurantId::new("trattoria").unwrap(),
        promised_at: Timestamp::now(),
    }
}

fn cancelled() -> OrderCancelled {
    OrderCancelled {
        by: CancelledBy::Customer,
        reason: Label::new("ordered twice").unwrap(),
    }
}

fn is_payment(status: PaymentStatus) -> impl Fn(&PaymentView) -> bool {
    move |payment| payment.status == status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_authorization_holds_money_once() {
    let (shop, roles) = Shop::open("authorize", &["payments"]).await;
    let first = shop.call("a", &authorize("1", None)).await.unwrap();
    let asked = authorize("1", None);
    let again = (0..20).map(|_| shop.call("a", &asked));
    for reply in futures_util::future::join_all(again).await {
        assert_eq!(reply.unwrap(), first);
    }
    // Many concurrent calls: with each id, again with it, and with another one; meanwhile the process is killed and the
    // next one starts.
    let asked: Vec<_> = (0..100)
        .map(|n| authorize(&format!("2{n}"), None))
        .collect();
    let (answered, one_more) = (AtomicUsize::new(0), Notify::new());
    let asking = asked.iter().enumerate().map(|(n, asked)| {
        let (shop, answered, one_more) = (&shop, &answered, &one_more);
        async move {
            for id in [format!("{n}"), format!("{n}"), format!("{n} anew")] {
                shop.call(&id, asked).await.unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
                one_more.notify_one();
            }
        }
    });
    let restarting = async {
        one_more.notified().await;
        assert!(roles.kill());
        let answered = answered.load(Ordering::Relaxed);
        assert!(answered < 300, "all was answered before the kill");
        shop.office
            .consumers(&["run", "payments"])
            .start(&shop.office.scratch)
    };
    let (_, _roles) = tokio::join!(futures_util::future::join_all(asking), restarting);
    // The next process knows the replies of the killed one.
    assert_eq!(shop.call("a", &authorize("1", None)).await.unwrap(), first);
    let other = shop.call("a", &authorize("9", None)).await.unwrap_err();
    assert!(
        matches!(&other, CallError::Rejected(r) if r.code == "id_reused"),
        "{other}"
    );
    let accounts = shop.accounts().await;
    assert_eq!(accounts["held"], ("253.51".to_owned(), 101));
    assert_eq!(accounts["cards"], ("-253.51".to_owned(), 101));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uncaptured_hold_expires() {
    let (shop, _roles) = Shop::open("lapse", &["payments", "orders"]).await;
    shop.publish(&[placed("1", 1)]).await;
    shop.call("a", &authorize("1", Some(1))).await.unwrap();
    let payment = ReadPayment { order: order("1") };
    shop.shows("it has lapsed", &payment, is_payment(PaymentStatus::Voided))
        .await;
    let asked = ReadOrder { order: order("1") };
    let has_heard = |view: &OrderView| view.payment == Some(PaymentStatus::Voided);
    let view = shop.shows("the order knows", &asked, has_heard).await;
    let output: Vec<_> = view.history.iter().map(|e| (e.number, e.what)).collect();
    assert_eq!(
        output,
        [
            (1, HistoryKind::Placed),
            (2, HistoryKind::PaymentAuthorized),
            (3, HistoryKind::PaymentVoided),
        ]
    );
    assert_eq!(view.history[2].detail.as_deref(), Some("2.51, lapsed"));
    assert_eq!(shop.accounts().await["held"], ("0.00".to_owned(), 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_order_is_charged_nothing() {
    let (shop, _roles) = Shop::open("refused", &["payments", "orders"]).await;
    let rejected = OrderRefused {
        by: RefusedBy::Restaurant,
        reason: Label::new("at_capacity").unwrap(),
    };
    shop.call("a", &authorize("1", None)).await.unwrap();
    shop.publish(
        &["1", "2"]
            .map(|no| [placed(no, 1), about(no, 2, &rejected)])
            .concat(),
    )
    .await;
    for no in ["1", "2"] {
        let payment = ReadPayment { order: order(no) };
        shop.shows(
            "no money is held",
            &payment,
            is_payment(PaymentStatus::Voided),
        )
        .await;
    }
    let late = shop.call("b", &authorize("2", None)).await.unwrap_err();
    assert!(
        matches!(&late, CallError::Rejected(r) if r.code == "order_closed"),
        "{late}"
    );
    // A confirmed order is captured, and refunded if it is cancelled.
    shop.call("c", &authorize("3", None)).await.unwrap();
    shop.publish(&[placed("3", 1), about("3", 2, &confirmed())])
        .await;
    let payment = ReadPayment { order: order("3") };
    shop.shows(
        "it is captured",
        &payment,
        is_payment(PaymentStatus::Captured),
    )
    .await;
    assert_eq!(shop.accounts().await["sales"].0, "2.51");
    shop.publish(&[about("3", 3, &cancelled())]).await;
    shop.shows(
        "it is refunded",
        &payment,
        is_payment(PaymentStatus::Refunded),
    )
    .await;
    let asked = ReadOrder { order: order("3") };
    let view = shop
        .shows("the order knows", &asked, |view| {
            view.payment == Some(PaymentStatus::Refunded)
        })
        .await;
    assert_eq!(view.status, OrderStatus::Cancelled);
    let accounts = shop.accounts().await;
    assert!(
        accounts.values().all(|(balance, _)| balance == "0.00"),
        "{accounts:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_order_frees_its_capacity() {
    let (shop, _roles) = Shop::open("kitchen", &["restaurant"]).await;
    let golden = include_str!(
        "../../../common/contracts/golden/requests/restaurant.configure.v1.request.json"
    );
    let mut kitchen: ConfigureRestaurant = serde_json::from_str(golden).unwrap();
    kitchen.opening_hours = serde_json::from_value(never_closed()).unwrap();
    kitchen.capacity = 10;
    shop.call("open", &kitchen).await.unwrap();
    let confirm = |no: &str| ConfirmOrder {
        order: order(no),
        restaurant: kitchen.restaurant.clone(),
        pieces: 6,
    };
    let promise = shop.call("1", &confirm("1")).await.unwrap();
    assert!(promise.promised_at > Timestamp::now());
    assert_eq!(shop.call("1", &confirm("1")).await.unwrap(), promise);
    let full = shop.call("2", &confirm("2")).await.unwrap_err();
    assert!(
        matches!(&full, CallError::Rejected(r) if r.code == "at_capacity"),
        "{full}"
    );
    shop.publish(&[
        placed("1", 1),
        about("1", 2, &confirmed()),
        about("1", 3, &cancelled()),
    ])
    .await;
    let menu = ReadMenu {
        restaurant: kitchen.restaurant.clone(),
    };
    shop.shows("there is room", &menu, |menu: &Menu| menu.taken == 0)
        .await;
    // A rejection is not stored, so the same request may be repeated.
    shop.call("2", &confirm("2")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_reused_after_a_restore_are_dead_letters() {
    let words = ["payments", "orders", "--health-addr", "127.0.0.1:0"];
    let (shop, roles) = Shop::open("careless", &words).await;
    let office = &shop.office;
    let opened = |role| {
        let folder = office.scratch.join("stores");
        SqliteStore::open_read_only(&folder, role, &Options::default()).unwrap()
    };
    let has_applied = async |count: u64| {
        wait_for(format!("{count} are applied"), SOON, async || {
            let applied = summary(&opened("orders")).await.tally.applied;
            if applied == count {
                Ok(())
            } else {
                Err(applied)
            }
        })
        .await;
    };
    shop.publish(&["1", "2", "3"].map(|no| placed(no, 1))).await;
    let _ = shop.call("a", &authorize("1", None)).await.unwrap();
    has_applied(4).await;
    let file = office.scratch.join("payments.backup");
    let file = file.to_str().unwrap();
    office
        .output(&["store", "backup", "payments", "--to", file])
        .await;
    let _ = shop.call("b", &authorize("2", None)).await.unwrap();
    has_applied(5).await;
    roles.terminate();
    assert_eq!(roles.ended(SOON).await.code, Some(0));
    let restore = ["store", "restore", "payments", "--from", file];
    office
        .output(&[&restore[..], &["--move-aside"]].concat())
        .await;

    let roles = office.consumers(&[&["run"], &words[..]].concat());
    let roles = roles
        .variable("DOORSTEP_LOG_FORMAT", "json")
        .start(&office.scratch);
    // It does not know the second payment and reuses its sequence. The third has a stream of its own.
    let _ = shop.call("c", &authorize("2", None)).await.unwrap();
    let _ = shop.call("d", &authorize("3", None)).await.unwrap();
    has_applied(6).await;
    let dead = wait_for("there is a dead letter", SOON, async || {
        let dead = office.dead("orders").await;
        if dead.is_empty() { Err(()) } else { Ok(dead) }
    })
    .await;
    let reasons: Vec<&str> = dead.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(reasons, ["numbering conflict"]);
    let source = opened("payments").source().to_string();
    wait_for(
        "both are degraded, and the source is named",
        SOON,
        async || {
            let log = roles.stderr();
            let said = log.lines().find(|line| line.contains("answering /livez"));
            let line: Value = serde_json::from_str(said.ok_or(log.clone())?).map_err(|_| log)?;
            let address = line["address"].as_str().unwrap_or_default();
            let ready = Client::new(address.parse().unwrap()).get("/readyz").await;
            let reply = ready.json();
            let role = |name: &str| {
                let mut all = reply["roles"].as_array().into_iter().flatten();
                all.find(|role| role["role"] == name).cloned()
            };
            let (orders, payments) = (role("orders").unwrap(), role("payments").unwrap());
            let degraded = orders["status"] == "degraded" && payments["status"] == "degraded";
            if degraded && orders.to_string().contains(&source) {
                Ok(())
            } else {
                Err(ready.text)
            }
        },
    )
    .await;
}

/// Waits until a role has this many dead letters, all because of another user's source.
async fn foreign(office: &Office, role: &str, count: usize) {
    wait_for(
        format!("{role} has {count} dead letters"),
        SOON,
        async || {
            let dead = office.dead(role).await;
            let foreign = dead.iter().filter(|(_, reason)| reason == "foreign source");
            if (foreign.count(), dead.len()) == (count, count) {
                Ok(())
            } else {
                Err(dead)
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_cancellation_refunds_nothing() {
    let (shop, _roles) = Shop::open("refund", &["payments", "orders"]).await;
    let office = &shop.office;
    let thief = office.env.user("thief", EVERYTHING);
    shop.call("a", &authorize("1", None)).await.unwrap();
    shop.publish(&[placed("1", 1), about("1", 2, &confirmed())])
        .await;
    let payment = ReadPayment { order: order("1") };
    let captured = is_payment(PaymentStatus::Captured);
    shop.shows("it is captured", &payment, &captured).await;
    let asked = ReadOrder { order: order("1") };
    let is_confirmed = |view: &OrderView| view.status == OrderStatus::Confirmed;
    shop.shows("it is confirmed", &asked, is_confirmed).await;

    // The next event of the order's own source, and one far ahead.
    let settings = run_settings(thief.amqp_url(), &crate::operator::ROLES);
    let publisher = Publisher::start(&settings.broker, "test: forge", settings.topology);
    publisher.ready(SOON).await.unwrap();
    for sequence in [3, 7] {
        let forged = Message::event(&about("1", sequence, &cancelled()));
        assert_eq!(publisher.publish(forged).await, PublishOutcome::Confirmed);
    }
    for role in ["orders", "payments"] {
        foreign(office, role, 2).await;
    }
    assert!(captured(&shop.call("b", &payment).await.unwrap()));
    assert!(is_confirmed(&shop.call("c", &asked).await.unwrap()));
    assert_eq!(shop.accounts().await["sales"].0, "2.51");

    // The owner's event is the next one, as if the others had never come.
    shop.publish(&[about("1", 3, &cancelled())]).await;
    let refunded = is_payment(PaymentStatus::Refunded);
    shop.shows("it is refunded", &payment, refunded).await;
    assert_eq!(shop.accounts().await["sales"].0, "0.00");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_an_unlisted_user_is_rejected() {
    let office = Office::new("callers").await;
    let gateway = office.env.user("gateway", EVERYTHING);
    let thief = office.env.user("thief", EVERYTHING);
    let client = async |user: &User| {
        let settings = run_settings(user.amqp_url(), &crate::operator::ROLES);
        let asks = RpcClientSettings::default();
        let client = RpcClient::start(&settings.broker, "test: ask", settings.topology, asks);
        client.ready(SOON).await.unwrap();
        client
    };
    let words = ["run", "payments", "--health-addr", "127.0.0.1:0"];
    let words = [&words[..], &["--rpc-callers", gateway.name()]].concat();
    let roles = office
        .consumers(&words)
        .variable("DOORSTEP_LOG_FORMAT", "json")
        .start(&office.scratch);
    let shop = Shop {
        client: client(&thief).await,
        office,
    };
    for id in ["a", "b"] {
        let rejected = shop.call(id, &authorize("1", None)).await.unwrap_err();
        let says = rejected.to_string();
        assert!(
            matches!(&rejected, CallError::Rejected(r) if r.code == "forbidden"),
            "{says}"
        );
        assert!(says.contains(thief.name()), "{says}");
    }
    let shop = Shop {
        client: client(&gateway).await,
        office: shop.office,
    };
    // Nothing was done, so the id is free.
    shop.call("a", &authorize("1", None)).await.unwrap();
    assert_eq!(shop.accounts().await["held"], ("2.51".to_owned(), 1));
    roles.says("--rpc-callers", SOON).await;
    let log = roles.stderr();
    let output = log.lines().find(|line| line.contains("--rpc-callers"));
    assert!(
        output.is_some_and(|line| line.contains(thief.name())),
        "{log}"
    );
    let counted = r#"doorstep_rpc_forbidden_total{role="payments"} 2"#;
    wait_for("they are counted", SOON, async || {
        let said = log.lines().find(|line| line.contains("answering /livez"));
        let line: Value = serde_json::from_str(said.ok_or("no address")?).map_err(|_| "no JSON")?;
        let address = line["address"].as_str().unwrap_or_default();
        let metrics = Client::new(address.parse().unwrap()).get("/metrics").await;
        if metrics.text.contains(counted) {
            Ok(())
        } else {
            Err("not counted")
        }
    })
    .await;
}
