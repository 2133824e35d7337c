//! A shop under test: a virtual host, all roles as two processes, a gateway, and a restaurant that is always open.

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
    Answer, Client, Ended, Program, RunningProgram, TempDir, TestEnv, never_closed, wait_for,
};
use serde_json::{Value, json};

use crate::{
    SOON,
    gateway::{Gateway, ROOT, address_said},
};

/// How long one question to a role may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A shop.
pub struct Shop {
    pub gateway: Gateway,
    kitchen: Option<RunningProgram>,
    kitchen_program: Program,
    others: Option<RunningProgram>,
    program: Program,
    scratch: TempDir,
    /// Last, so that it is deleted after everything in it.
    _world: Option<TestEnv>,
}

impl Shop {
    /// Opens one on the broker that all tests share.
    pub async fn open(hint: &str) -> Self {
        Self::open_with(hint, &[]).await
    }

    /// Opens one whose gateway has more arguments.
    pub async fn open_with(hint: &str, arguments: &[&str]) -> Self {
        let world = TestEnv::new(hint, &[]).await;
        let amqp_url = world.amqp_url();
        let mut shop = Self::on(hint, &amqp_url, arguments).await;
        shop._world = Some(world);
        shop
    }

    /// Opens one on this broker.
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
            _world: None,
        };
        shop.configure(1000).await;
        all_answer(amqp_url).await;
        shop
    }

    /// Opens the restaurant with so much capacity, as soon as somebody answers.
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
            let answer = root
                .ask("PUT", "/v1/restaurants/luigi", &[], Some(&restaurant))
                .await;
            if answer.status == 204 {
                Ok(())
            } else {
                Err(answer.text)
            }
        })
        .await;
    }

    /// Stops all roles and the gateway in order.
    pub async fn stop(&mut self) {
        self.gateway.stop().await;
        for roles in [self.kitchen.take(), self.others.take()] {
            let roles = roles.unwrap();
            roles.terminate();
            let ended = roles.ended(SOON).await;
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        }
    }

    /// Starts them again, and waits until the gateway reaches those that answer.
    pub async fn start(&mut self) {
        self.kitchen = Some(self.kitchen_program.start(&self.scratch));
        self.start_all_but_the_kitchen();
        self.gateway.start_again().await;
        all_answer(&self._world.as_ref().unwrap().amqp_url()).await;
        self.configure(1000).await;
    }

    /// Runs a command of `consumers` on the stores of the roles.
    pub async fn consumers(&self, arguments: &[&str]) -> Ended {
        let amqp_url = self._world.as_ref().unwrap().amqp_url();
        let program = Program::consumers(arguments).broker(&amqp_url);
        let program = program.store(&self.scratch.join("roles"));
        program.run(&self.scratch, SOON).await
    }

    /// Finds the address at which all roles but `restaurant` answer, by their log.
    pub async fn health_address(&self) -> SocketAddr {
        address_said(self.others.as_ref().unwrap()).await
    }

    /// Kills all roles but `restaurant`.
    pub fn kill_all_but_the_kitchen(&mut self) {
        assert!(self.others.take().unwrap().kill());
    }

    /// Starts them again.
    pub fn start_all_but_the_kitchen(&mut self) {
        self.others = Some(self.program.start(&self.scratch));
    }

    /// Freezes all roles but `restaurant`: their connections stay, and they do not answer.
    pub fn freeze_all_but_the_kitchen(&self) {
        send_signal(self.others.as_ref().unwrap().id(), Signal::Freeze).unwrap();
    }

    /// Lets them go on.
    pub fn thaw_all_but_the_kitchen(&self) {
        send_signal(self.others.as_ref().unwrap().id(), Signal::Thaw).unwrap();
    }

    /// All entities of a role.
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

    /// Waits until so many orders are known and all roles agree on what became of them: nothing is reserved, no money is held, and what
    /// is confirmed is sold and paid. Every order has to be a [`dinner`], and none is cancelled.
    pub async fn all_is_settled(&self, orders: usize) {
        let what = format!("{orders} orders are settled");
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

    /// The status of an order's payment, once `orders` and `payments` agree on it.
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

/// Waits until those beside the kitchen answer on this broker: whoever orders, or asks for an order, before is told to come again.
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
    let topology = Topology::of(&settings.namespace, &roles);
    let requester = RpcClient::start(
        &settings,
        "a test asks",
        topology,
        RpcClientSettings::default(),
    );
    requester.ready(SOON).await.unwrap();
    let order = InvoiceNo::new("unheard-of").unwrap();
    let payment = ReadPayment {
        order: order.clone(),
    };
    let delivery = ReadDelivery {
        order: DeliveryId::new("unheard-of").unwrap(),
    };
    refuses(&requester, &payment, "unknown_payment").await;
    refuses(&requester, &ReadOrder { order }, "unknown_order").await;
    refuses(&requester, &delivery, "unknown_delivery").await;
    requester.close(ANSWER).await;
}

/// Waits until this is refused with that code.
async fn refuses<C: RequestContract>(requester: &RpcClient, asked: &C, code: &str) {
    wait_for(format!("{} is answered", C::TYPE), SOON, async || {
        let now = Timestamp::now();
        let request = Request::from_contract(
            &Source::new("test/1").unwrap(),
            RequestId::new("a query").unwrap(),
            now,
            now + ANSWER,
            asked,
        );
        match requester.call_raw(request.unwrap()).await {
            Err(CallError::Refused(refused)) if refused.code == code => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Two pizzas and a dessert.
pub fn dinner(method: &str) -> Value {
    json!({
        "restaurant": "luigi", "method": method, "country": "Italy",
        "lines": [{"sku": "MARGHERITA", "quantity": 2}, {"sku": "TIRAMISU", "quantity": 1}],
    })
}

/// Places an order.
pub async fn place(client: &Client, key: &str, order: &Value) -> Answer {
    let key = [("Idempotency-Key", key)];
    client.ask("POST", "/v1/orders", &key, Some(order)).await
}

/// Places an order that is confirmed, and returns its number.
pub async fn placed(client: &Client, key: &str) -> String {
    let placed = place(client, key, &dinner("card/visa")).await.expect(201);
    placed["order"].as_str().unwrap().to_owned()
}

/// Places an order again and again until it is confirmed, and returns how many others were begun and abandoned before: each of them has used
/// up its key, and the next one has a key of its own.
pub async fn placed_at_last(client: &Client, key: &str, limit: Duration) -> usize {
    let mut abandoned = 0;
    wait_for("an order is placed at last", limit, async || {
        // What was refused and not begun may be sent again under the same key.
        let key = format!("{key}-{abandoned}");
        let answer = place(client, &key, &dinner("card/visa")).await;
        if answer.status == 201 {
            return Ok(());
        }
        if answer.json()["code"] == "order_abandoned" {
            abandoned += 1;
        }
        Err(answer.text)
    })
    .await;
    abandoned
}
