//! A shop under test: a virtual host, all roles in two processes, a gateway, and a restaurant that is always open.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use doorstep_broker::{Signal, send_signal};
use doorstep_contracts::{
    DeliveryId, InvoiceNo, ROLES,
    requests::{ReadDelivery, ReadOrder, ReadPayment},
};
use doorstep_event::{Request, RequestContract, RequestId, Source, Timestamp};
use doorstep_messaging::{
    BrokerSettings, CallError, RoleQueues, RpcClient, RpcClientSettings, Topology,
};
use doorstep_tests::{
    Client, Ended, HttpResponse, Program, RunningProgram, TempDir, TestEnv, never_closed, wait_for,
};
use serde_json::{Value, json};

use crate::{
    SOON,
    gateway::{Gateway, ROOT, address_said},
};

/// The deadline of one request to a role.
const ANSWER: Duration = Duration::from_secs(5);

pub struct Shop {
    pub gateway: Gateway,
    kitchen: Option<RunningProgram>,
    kitchen_program: Program,
    others: Option<RunningProgram>,
    program: Program,
    scratch: TempDir,
    /// Last, so that it is deleted after everything in it.
    _env: Option<TestEnv>,
}

impl Shop {
    /// Opens a shop on the broker that all tests share.
    pub async fn open(hint: &str) -> Self {
        Self::open_with(hint, &[]).await
    }

    /// Opens a shop whose gateway has more arguments.
    pub async fn open_with(hint: &str, arguments: &[&str]) -> Self {
        let env = TestEnv::new(hint, &[]).await;
        let amqp_url = env.amqp_url();
        let mut shop = Self::on(hint, &amqp_url, arguments).await;
        shop._env = Some(env);
        shop
    }

    /// Opens a shop on this broker.
    pub async fn on(hint: &str, amqp_url: &str, arguments: &[&str]) -> Self {
        let scratch = TempDir::new(hint);
        let run = |roles: &[&str]| {
            let all = [&["run"], roles].concat();
            let program = Program::consumers(&all).broker(amqp_url);
            program.store(&scratch.join("roles"))
        };
        let kitchen_program = run(&["restaurant"]);
        let kitchen = kitchen_program.start(&scratch);
        let others = ["orders", "payments", "inventory", "tracking"];
        let program = run(&[&others[..], &["--health-addr", "127.0.0.1:0"]].concat());
        let others = program.start(&scratch);
        let gateway = Gateway::start_with(hint, amqp_url, arguments).await;
        let shop = Self {
            gateway,
            kitchen: Some(kitchen),
            kitchen_program,
            others: Some(others),
            program,
            scratch,
            _env: None,
        };
        shop.configure(1000).await;
        all_answer(amqp_url).await;
        shop
    }

    /// Configures the restaurant with this capacity, as soon as its role is serving.
    pub async fn configure(&self, capacity: u32) {
        let root = self.gateway.log_in(ROOT).await;
        let restaurant = json!({
            "name": "Da Luigi", "time_zone": "Europe/Rome", "opening_hours": never_closed(),
            "capacity": capacity, "minutes_to_prepare": 20,
            "menu": [
                {"sku": "MARGHERITA", "name": "Pizza Margherita", "price": "7.50"},
                {"sku": "TIRAMISU", "name": "Tiramisu", "price": "4.00"},
                {"sku": "TRUFFLES", "name": "White truffles", "price": "60000"},
            ],
        });
        wait_for("the restaurant is open", SOON, async || {
            let response = root
                .request("PUT", "/v1/restaurants/luigi", &[], Some(&restaurant))
                .await;
            if response.status == 204 {
                Ok(())
            } else {
                Err(response.text)
            }
        })
        .await;
    }

    /// Stops all roles and the gateway gracefully.
    pub async fn stop(&mut self) {
        self.gateway.stop().await;
        for roles in [self.kitchen.take(), self.others.take()] {
            let roles = roles.unwrap();
            roles.terminate();
            let ended = roles.ended(SOON).await;
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        }
    }

    /// Restarts them, and waits until the gateway reaches the serving roles.
    pub async fn start(&mut self) {
        self.kitchen = Some(self.kitchen_program.start(&self.scratch));
        self.start_all_but_the_kitchen();
        self.gateway.start_again().await;
        all_answer(&self._env.as_ref().unwrap().amqp_url()).await;
        self.configure(1000).await;
    }

    /// Runs a command of `consumers` on the stores of the roles.
    pub async fn consumers(&self, arguments: &[&str]) -> Ended {
        let amqp_url = self._env.as_ref().unwrap().amqp_url();
        let program = Program::consumers(arguments).broker(&amqp_url);
        let program = program.store(&self.scratch.join("roles"));
        program.run(&self.scratch, SOON).await
    }

    /// Starts another role on the stores of the others.
    pub fn start_role(&self, role: &str, arguments: &[&str]) -> RunningProgram {
        let amqp_url = self._env.as_ref().unwrap().amqp_url();
        let program = Program::consumers(&[&["run", role], arguments].concat()).broker(&amqp_url);
        let program = program.store(&self.scratch.join("roles"));
        program
            .variable("DOORSTEP_LOG", "trace")
            .start(&self.scratch)
    }

    /// Returns the health address of all roles but `restaurant`, from their log.
    pub async fn health_address(&self) -> SocketAddr {
        address_said(self.others.as_ref().unwrap()).await
    }

    /// Kills all roles but `restaurant`.
    pub fn kill_all_but_the_kitchen(&mut self) {
        assert!(self.others.take().unwrap().kill());
    }

    /// Restarts all roles but `restaurant`.
    pub fn start_all_but_the_kitchen(&mut self) {
        self.others = Some(self.program.start(&self.scratch));
    }

    /// Freezes all roles but `restaurant`: their connections stay open, and they do not answer.
    pub fn freeze_all_but_the_kitchen(&self) {
        send_signal(self.others.as_ref().unwrap().id(), Signal::Freeze).unwrap();
    }

    /// Resumes them.
    pub fn thaw_all_but_the_kitchen(&self) {
        send_signal(self.others.as_ref().unwrap().id(), Signal::Thaw).unwrap();
    }

    /// Returns all entities of a role.
    pub async fn entities(&self, role: &str) -> BTreeMap<String, Value> {
        let export = Program::consumers(&["export", role]).store(&self.scratch.join("roles"));
        let ended = export.run(&self.scratch, SOON).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let lines = ended.stdout.lines().map(|line| {
            let mut entity: Value = serde_json::from_str(line).unwrap();
            (
                entity["key"].as_str().unwrap().to_owned(),
                entity["state"].take(),
            )
        });
        lines.collect()
    }

    /// Waits until this many orders are known and all roles agree on their outcomes: no stock is reserved, no money is
    /// held, and confirmed orders are sold and paid. Every order must be a [`dinner`] that was not cancelled.
    pub async fn all_is_consistent(&self, orders: usize) {
        let what = format!("{orders} orders are consistent");
        wait_for(what, SOON, async || {
            let known = self.entities("orders").await;
            let stock = self.entities("inventory").await;
            let payments = self.entities("payments").await;
            let having = |status: &str| known.values().filter(|o| o["status"] == status).count();
            let paid = |status: &str| {
                let of = |p: &&Value| p["payment"]["status"] == status;
                payments.values().filter(of).count()
            };
            let reserved = stock
                .values()
                .any(|s| s["reserved"].as_i64().unwrap_or(0) != 0);
            let sold = stock
                .get("stock/TIRAMISU")
                .map_or(0, |s| s["sold"].as_u64().unwrap());
            let confirmed = having("confirmed");
            let settled = known.len() == orders
                && having("placed") == 0
                && !reserved
                && paid("authorized") + paid("awaited") == 0
                && paid("captured") == confirmed
                && sold == confirmed as u64;
            if settled {
                Ok(())
            } else {
                Err(format!("{known:?} {stock:?} {payments:?}"))
            }
        })
        .await;
    }

    /// Waits until `orders` and `payments` agree on this status of an order's payment.
    pub async fn payment_becomes(&self, client: &Client, order: &str, status: &str) {
        let path = format!("/v1/orders/{order}");
        wait_for(format!("the payment is {status}"), SOON, async || {
            let seen = client.get(&path).await;
            match seen.status {
                200 if seen.json()["payment"] == status => Ok(()),
                _ => Err(seen.text),
            }
        })
        .await;
    }
}

/// Waits until the roles besides the kitchen serve requests on this broker: before that, clients get a `Retry-After`.
async fn all_answer(amqp_url: &str) {
    let settings = BrokerSettings::new(amqp_url, "doorstep").unwrap();
    let roles: Vec<RoleQueues> = ROLES
        .iter()
        .map(|role| RoleQueues {
            role: role.name,
            subjects: role.subjects,
            handles_requests: role.handles_requests,
        })
        .collect();
    let topology = Topology::for_roles(&settings.namespace, &roles);
    let client = RpcClient::start(
        &settings,
        "a test asks",
        topology,
        RpcClientSettings::default(),
    );
    client.ready(SOON).await.unwrap();
    let order = InvoiceNo::new("unheard-of").unwrap();
    let payment = ReadPayment {
        order: order.clone(),
    };
    let delivery = ReadDelivery {
        order: DeliveryId::new("unheard-of").unwrap(),
    };
    is_rejected(&client, &payment, "unknown_payment").await;
    is_rejected(&client, &ReadOrder { order }, "unknown_order").await;
    is_rejected(&client, &delivery, "unknown_delivery").await;
    client.close(ANSWER).await;
}

/// Waits until this request is rejected with that code.
async fn is_rejected<C: RequestContract>(client: &RpcClient, asked: &C, code: &str) {
    wait_for(format!("{} is answered", C::TYPE), SOON, async || {
        let now = Timestamp::now();
        let request = Request::from_contract(
            &Source::new("test/1").unwrap(),
            RequestId::new("a query").unwrap(),
            now,
            now + ANSWER,
            asked,
        );
        match client.call_raw(request.unwrap()).await {
            Err(CallError::Rejected(rejected)) if rejected.code == code => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Returns an order of two pizzas and a dessert.
pub fn dinner(method: &str) -> Value {
    json!({
        "restaurant": "luigi", "method": method, "country": "Italy",
        "lines": [{"sku": "MARGHERITA", "quantity": 2}, {"sku": "TIRAMISU", "quantity": 1}],
    })
}

pub async fn place(client: &Client, key: &str, order: &Value) -> HttpResponse {
    let key = [("Idempotency-Key", key)];
    client
        .request("POST", "/v1/orders", &key, Some(order))
        .await
}

/// Places an order that must be confirmed, and returns its number.
pub async fn placed(client: &Client, key: &str) -> String {
    let placed = place(client, key, &dinner("card/visa")).await.expect(201);
    placed["order"].as_str().unwrap().to_owned()
}

/// Retries an order until it is confirmed, and returns the number of orders begun and abandoned before: each of them
/// has used up its key, and the next one has a new key.
pub async fn placed_at_last(client: &Client, key: &str, limit: Duration) -> usize {
    let mut abandoned = 0;
    wait_for("an order is placed at last", limit, async || {
        // A request rejected before the order was begun may be repeated with the same key.
        let key = format!("{key}-{abandoned}");
        let response = place(client, &key, &dinner("card/visa")).await;
        if response.status == 201 {
            return Ok(());
        }
        if response.json()["code"] == "order_abandoned" {
            abandoned += 1;
        }
        Err(response.text)
    })
    .await;
    abandoned
}
