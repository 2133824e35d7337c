//! The live feed of an order: events arrive as they happen, and a reopened feed resumes.

use doorstep_tests::Client;
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::{
    SOON,
    gateway::ROOT,
    shop::{Shop, placed},
};

/// An open feed.
pub(crate) struct Feed {
    stream: TcpStream,
    text: String,
    read: usize,
}

/// An event of a feed.
#[derive(Debug)]
pub(crate) struct FeedEvent {
    id: Option<u64>,
    pub(crate) name: String,
    pub(crate) data: Value,
}

impl Feed {
    async fn open(client: &Client, order: &str, last: Option<u64>) -> Self {
        let last = last.map(|id| id.to_string());
        let headers: Vec<_> = last
            .iter()
            .map(|id| ("Last-Event-ID", id.as_str()))
            .collect();
        Self::open_at(client, &format!("/v1/orders/{order}/feed"), &headers).await
    }

    /// Opens the feed of this path.
    pub(crate) async fn open_at(client: &Client, path: &str, headers: &[(&str, &str)]) -> Self {
        Self {
            stream: client.open("GET", path, headers).await,
            text: String::new(),
            read: 0,
        }
    }

    /// Returns the next event.
    pub(crate) async fn next(&mut self) -> FeedEvent {
        loop {
            let rest = &self.text[self.read..];
            if let Some(end) = rest.find("\n\n") {
                let event = rest[..end].to_owned();
                self.read += end + 2;
                let field = |name: &str| {
                    let lines = event.lines().find_map(|line| line.strip_prefix(name));
                    lines.map(|value| value.trim_start().to_owned())
                };
                if let Some(name) = field("event:") {
                    return FeedEvent {
                        id: field("id:").map(|id| id.parse().unwrap()),
                        name,
                        data: serde_json::from_str(&field("data:").unwrap()).unwrap(),
                    };
                }
                continue;
            }
            let mut bytes = [0; 4096];
            let count = timeout(SOON, self.stream.read(&mut bytes)).await;
            let count = count.expect("no event arrives on the feed").unwrap();
            assert_ne!(count, 0, "the feed has ended: {}", self.text);
            self.text
                .push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    /// Reads until the server ends it.
    pub(crate) async fn ends(&mut self) {
        let reading = async {
            let mut bytes = [0; 4096];
            while self.stream.read(&mut bytes).await.unwrap() > 0 {}
        };
        timeout(SOON, reading)
            .await
            .expect("the feed is still open");
    }

    /// Returns all events until these have arrived. Events of different roles arrive in any order.
    async fn until(&mut self, what: &[&str]) -> Vec<FeedEvent> {
        let mut all = Vec::new();
        let has = |all: &[FeedEvent], what: &str| {
            all.iter().any(|seen: &FeedEvent| seen.data["what"] == what)
        };
        while !what.iter().all(|what| has(&all, what)) {
            all.push(self.next().await);
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reopened_feed_resumes() {
    let mut shop = Shop::open("feed").await;
    let ada = shop.gateway.user("ada", "customer").await;
    let bea = shop.gateway.user("bea", "courier").await;
    let number = placed(&ada, "k").await;
    let mut feed = Feed::open(&ada, &number, None).await;
    let seen = feed
        .until(&[
            "placed",
            "confirmed",
            "payment_authorized",
            "payment_captured",
        ])
        .await;
    // A comment arrives immediately, and the headers forbid proxies to buffer or cache the feed.
    let (head, body) = feed.text.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    for header in ["x-accel-buffering: no", "cache-control: no-store"] {
        assert!(head.contains(header), "{head}");
    }
    let comment = body.find(": open\n\n");
    assert!(comment.is_some() && comment < body.find("event:"), "{body}");
    let numbers: Vec<u64> = seen.iter().map(|t| t.id.unwrap()).collect();
    let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "{seen:?}");
    assert!(seen.iter().all(|t| t.name == "order"), "{seen:?}");
    let last = *numbers.last().unwrap();
    drop(feed);

    // No client is connected while the order is assigned; the gateway is even killed meanwhile.
    let delivery = format!("/v1/deliveries/{number}");
    let _ = bea
        .post(&format!("{delivery}/assignment"), &json!({}))
        .await
        .expect(204);
    shop.gateway.kill();
    shop.gateway.start_again().await;
    let ada = shop.gateway.log_in("ada").await;
    let bea = shop.gateway.log_in("bea").await;
    let mut feed = Feed::open(&ada, &number, Some(last)).await;
    let seen = feed.next().await;
    assert_eq!((seen.name.as_str(), seen.id), ("delivery", None));
    assert_eq!(seen.data["courier"], "bea");

    // Events now arrive immediately.
    let fix = json!({"order": number, "longitude": 9.19, "latitude": 45.46, "recorded_at": "2025-11-24T12:00:00Z"});
    let _ = bea
        .post("/v1/positions", &json!({"positions": [fix]}))
        .await
        .expect(202);
    let seen = feed.next().await;
    assert_eq!(seen.data["position"]["latitude"], 45.46, "{seen:?}");
    let cancel = json!({"reason": "changed my mind"});
    let _ = ada
        .post(&format!("/v1/orders/{number}/cancellation"), &cancel)
        .await
        .expect(200);
    let seen = feed.until(&["cancelled", "payment_refunded"]).await;
    assert!(
        seen.iter().all(|t| t.id.is_none_or(|id| id > last)),
        "{seen:?}"
    );

    let wrong = [("Last-Event-ID", "first")];
    let path = format!("/v1/orders/{number}/feed");
    ada.request("GET", &path, &wrong, None)
        .await
        .is_problem(400, "malformed");

    // A feed ends with the session that has opened it, and with no other: by disabling its user, or by a logout.
    let root = shop.gateway.log_in(ROOT).await;
    let mut disabled = Feed::open(&ada, &number, None).await;
    let _ = disabled.next().await;
    let disable = json!({"disabled": true});
    let _ = root
        .request("PATCH", "/v1/users/ada", &[], Some(&disable))
        .await
        .expect(200);
    disabled.ends().await;
    let mut watched = Feed::open(&root, &number, None).await;
    let _ = watched.next().await;
    let out = root.request("DELETE", "/v1/sessions", &[], None).await;
    let _ = out.expect(204);
    watched.ends().await;

    // A stop ends feeds rather than waiting for them.
    let _ = shop.gateway.stop().await;
}
