//! A chaos run: thousands of orders through the gateway, some of them declined, rejected, cancelled or repeated, while
//! gateway, payments and restaurant are killed. Afterwards the states of all roles must agree with each other and with
//! the customers' answers.
//!
//! - `plan`: the order of each customer, generated from a seed.
//! - `shop`: the processes and the accounts.
//! - `play`: the customers.
//! - `kills`: the kills.
//! - `reconcile`: the final states of the roles, and the rules that they must satisfy.

mod kills;
mod plan;
mod play;
mod reconcile;
mod shop;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use self::{plan::Plan, play::CustomerView, reconcile::Reconciliation, shop::Shop};
use crate::wait_for;

/// The size of a chaos run.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub orders: usize,
    /// The number of customers that order concurrently.
    pub at_once: usize,
    /// The seed of the orders. The moments of the kills do not depend on it.
    pub seed: u64,
}

/// The result of a chaos run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    pub wanted: usize,
    /// Of these, confirmed and not cancelled.
    pub confirmed: usize,
    /// Confirmed, and cancelled by the customer.
    pub cancelled: usize,
    /// Declined by payments, rejected by the restaurant, or invalid.
    pub rejected: usize,
    /// Orders begun and then abandoned because an answer was late; the customer began another one.
    pub abandoned: usize,
    /// Requests repeated because no final answer had arrived, or on purpose.
    pub again: usize,
    pub kills: Kills,
    pub took: Duration,
}

/// The number of kills of each process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kills {
    pub gateway: usize,
    pub payments: usize,
    pub restaurant: usize,
}

impl Kills {
    #[must_use]
    pub fn all(self) -> usize {
        self.gateway + self.payments + self.restaurant
    }

    /// Returns the number of kills of the process killed least often.
    #[must_use]
    pub fn least(self) -> usize {
        self.gateway.min(self.payments).min(self.restaurant)
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            wanted,
            confirmed,
            cancelled,
            rejected,
            abandoned,
            again,
            kills,
            took,
        } = self;
        let kills = kills.all();
        write!(
            f,
            "{wanted} planned = {confirmed} confirmed + {cancelled} cancelled + {rejected} rejected; {abandoned} abandoned and ordered again, \
             {again} requests repeated, {kills} processes killed, in {} s",
            took.as_secs()
        )
    }
}

/// The time in which the roles' states must agree after the last answer.
const SETTLING: Duration = Duration::from_secs(120);

/// Runs in the virtual host of this address, which must be empty, and checks the roles' states.
///
/// `progress` gets the number of decided orders whenever an order is decided.
///
/// # Panics
/// If the states contradict each other, with the contradiction.
pub async fn run(
    amqp_url: &str,
    size: Size,
    progress: impl Fn(usize) + Send + Sync + 'static,
) -> Sums {
    let began = Instant::now();
    let shop = Arc::new(Shop::open(amqp_url).await);
    let plans = Plan::all(size.orders, size.seed);
    let (done, over) = watch::channel(false);
    let (each, each_was_killed) = watch::channel(false);
    let playing = async {
        let views = play_all(&shop, plans, size.at_once, each_was_killed, progress).await;
        done.send_replace(true);
        views
    };
    let (views, kills) = tokio::join!(playing, kills::run(&shop, over, each));
    shop.start_missing().await;
    // The states agree soon; until then messages are still in flight.
    wait_for("the roles' states agree", SETTLING, async || {
        Reconciliation::read(&shop).await.check(&views)
    })
    .await;
    shop.stop().await;
    let count = |what: fn(&CustomerView) -> bool| views.iter().filter(|views| what(views)).count();
    Sums {
        wanted: views.len(),
        confirmed: count(CustomerView::is_confirmed),
        cancelled: count(CustomerView::is_cancelled),
        rejected: count(CustomerView::is_rejected),
        abandoned: views.iter().map(|views| views.abandoned).sum(),
        again: views.iter().map(|views| views.again).sum(),
        kills,
        took: began.elapsed(),
    }
}

/// Runs this many customers concurrently until every planned order is placed. The last order of each waits for the last
/// of the first kills, so that even a small run has orders before and after each kill.
async fn play_all(
    shop: &Arc<Shop>,
    plans: Vec<Plan>,
    at_once: usize,
    each_was_killed: watch::Receiver<bool>,
    progress: impl Fn(usize) + Send + Sync + 'static,
) -> Vec<CustomerView> {
    let last = plans.len().saturating_sub(at_once);
    let plans = Arc::new(plans);
    let next = Arc::new(AtomicUsize::new(0));
    let decided = Arc::new(AtomicUsize::new(0));
    let progress = Arc::new(progress);
    let customers: Vec<_> = (0..at_once)
        .map(|number| {
            let (shop, plans, next) = (shop.clone(), plans.clone(), next.clone());
            let (decided, progress) = (decided.clone(), progress.clone());
            let mut each_was_killed = each_was_killed.clone();
            tokio::spawn(async move {
                let mut views = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(plan) = plans.get(at) else {
                        break;
                    };
                    if at >= last {
                        // An error means that the killing task has ended: nothing to wait for.
                        let _ = each_was_killed.wait_for(|each| *each).await;
                    }
                    views.push(play::order(&shop, number, plan).await);
                    progress(decided.fetch_add(1, Ordering::Relaxed) + 1);
                }
                views
            })
        })
        .collect();
    let mut views = Vec::new();
    for customer in customers {
        match customer.await {
            Ok(more) => views.extend(more),
            Err(e) => panic!("a customer failed: {e}"),
        }
    }
    views
}
