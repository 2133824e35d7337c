//! The processes of a chaos run, and the accounts of its users.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde_json::json;
use tokio::sync::{Mutex, watch};

use super::plan::MENU;
use crate::{Client, Program, RunningProgram, TempDir, never_closed, wait_for};

const SOON: Duration = Duration::from_secs(60);
const PASSWORD: &str = "correct horse battery staple";
/// The number of customers with an account.
const CUSTOMERS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Gateway,
    Payments,
    Restaurant,
    /// The roles whose replies no customer waits for.
    Others,
}

impl Part {
    const ALL: [Self; 4] = [
        Self::Gateway,
        Self::Payments,
        Self::Restaurant,
        Self::Others,
    ];

    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Gateway => &["serve", "--listen", "127.0.0.1:0", "--rate-limit", "10000"],
            Self::Payments => &["run", "payments"],
            Self::Restaurant => &["run", "restaurant"],
            Self::Others => &["run", "orders", "inventory", "tracking"],
        }
    }
}

/// All processes of a chaos run.
pub(super) struct Shop {
    amqp_url: String,
    scratch: TempDir,
    running: Mutex<Vec<(Part, RunningProgram)>>,
    /// The gateway's address while it is listening.
    gateway: watch::Sender<Option<SocketAddr>>,
    tokens: Vec<String>,
}

impl Shop {
    /// Starts all processes, opens the restaurants and logs the customers in.
    pub(super) async fn open(amqp_url: &str) -> Self {
        let mut shop = Self {
            amqp_url: amqp_url.to_owned(),
            scratch: TempDir::new("chaos"),
            running: Mutex::new(Vec::new()),
            gateway: watch::Sender::new(None),
            tokens: Vec::new(),
        };
        let added = Program::gateway(&["user", "add", "root", "--role", "operator"])
            .store(&shop.store())
            .input(format!("{PASSWORD}\n"))
            .run(&shop.scratch, SOON)
            .await;
        assert_eq!(added.code, Some(0), "{}", added.stderr);
        shop.start_missing().await;
        let root = shop.log_in("root").await;
        let nobody = shop.client().await;
        let root = nobody.with_token(&root);
        for number in 0..CUSTOMERS {
            let name = format!("customer-{number}");
            let user = json!({"name": name, "role": "customer", "password": PASSWORD});
            let _ = root.post("/v1/users", &user).await.expect(201);
            let token = shop.log_in(&name).await;
            shop.tokens.push(token);
        }
        shop.open_restaurants(&root).await;
        shop
    }

    /// Opens one restaurant that always has capacity, one that soon has none left, and one that never opens.
    async fn open_restaurants(&self, root: &Client) {
        let always = never_closed();
        let menu: Vec<_> = MENU
            .iter()
            .map(|(sku, price)| json!({"sku": sku, "name": sku.to_lowercase(), "price": price}))
            .collect();
        for (name, hours, capacity) in [
            ("luigi", always.clone(), 100_000),
            ("nook", always, 40),
            ("night", json!([]), 100_000),
        ] {
            let restaurant = json!({
                "name": name, "time_zone": "Europe/Rome", "opening_hours": hours, "capacity": capacity,
                "minutes_to_prepare": 1, "menu": menu,
            });
            let path = format!("/v1/restaurants/{name}");
            wait_for(format!("{name} is open"), SOON, async || {
                let response = root.try_ask("PUT", &path, &[], &restaurant).await;
                // At first the restaurant role may not be serving yet.
                match response {
                    Some(response) if response.status == 204 => Ok(()),
                    other => Err(other),
                }
            })
            .await;
        }
    }

    async fn log_in(&self, name: &str) -> String {
        let login = json!({"name": name, "password": PASSWORD});
        let client = self.client().await;
        let session = client.post("/v1/sessions", &login).await.expect(201);
        let token = session["token"].as_str();
        token
            .unwrap_or_else(|| panic!("no token in {session}"))
            .to_owned()
    }

    /// Returns a customer's client once the gateway is listening.
    pub(super) async fn customer(&self, number: usize) -> Client {
        let token = &self.tokens[number % self.tokens.len()];
        self.client().await.with_token(token)
    }

    async fn client(&self) -> Client {
        let mut gateway = self.gateway.subscribe();
        let listens = gateway.wait_for(Option::is_some);
        match tokio::time::timeout(SOON, listens).await {
            Ok(Ok(address)) => Client::new(address.expect("somewhere")),
            _ => panic!("the gateway is not listening within {SOON:?}"),
        }
    }

    /// Kills a process. Returns true if it was running.
    pub(super) async fn kill(&self, part: Part) -> bool {
        let mut running = self.running.lock().await;
        let Some(at) = running.iter().position(|(other, _)| *other == part) else {
            return false;
        };
        if part == Part::Gateway {
            self.gateway.send_replace(None);
        }
        running.remove(at).1.kill()
    }

    /// Starts the processes that are not running.
    pub(super) async fn start_missing(&self) {
        let mut running = self.running.lock().await;
        for part in Part::ALL {
            if running.iter().any(|(other, _)| *other == part) {
                continue;
            }
            let program = match part {
                Part::Gateway => Program::gateway(part.arguments()),
                _ => Program::consumers(part.arguments()),
            };
            let mut started = program
                .broker(&self.amqp_url)
                .store(&self.store())
                .start(&self.scratch);
            if part == Part::Gateway {
                let address = listening(&mut started).await;
                self.gateway.send_replace(Some(address));
            }
            running.push((part, started));
        }
    }

    /// Stops all processes gracefully.
    pub(super) async fn stop(&self) {
        for (part, program) in self.running.lock().await.drain(..) {
            program.terminate();
            let ended = program.ended(SOON).await;
            assert_eq!(ended.code, Some(0), "{part:?}: {}", ended.stderr);
        }
    }

    /// Returns the output of an operator's command.
    pub(super) async fn output(&self, arguments: &[&str]) -> String {
        let ended = Program::consumers(arguments)
            .store(&self.store())
            .run(&self.scratch, SOON)
            .await;
        assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.stderr);
        ended.stdout
    }

    fn store(&self) -> PathBuf {
        self.scratch.join("store")
    }
}

async fn listening(gateway: &mut RunningProgram) -> SocketAddr {
    wait_for("the gateway listens", SOON, async || {
        assert!(gateway.is_running(), "{}", gateway.stderr());
        let said = gateway.stdout();
        let address = said.split("http://").nth(1);
        let address = address.and_then(|rest| rest.split(';').next()?.parse().ok());
        address.ok_or(said)
    })
    .await
}
