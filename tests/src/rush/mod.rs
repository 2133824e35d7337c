//! A rush: very many orders by way of the gateway, some declined, refused, cancelled and asked for again, while gateway, payments and
//! restaurant are killed. Then the books of all roles must agree with what the customers were told, and with each other.
//!
//! - `plan`: what each customer wants, by a seed.
//! - `shop`: the processes, and who has an account.
//! - `play`: the customers.
//! - `blows`: the kills.
//! - `books`: what the roles say at the end, and what must be true of it.

mod blows;
mod books;
mod plan;
mod play;
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

use self::{books::Books, plan::Plan, play::Told, shop::Shop};
use crate::wait_for;

/// How large a rush is to be.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// How many orders are wanted.
    pub orders: usize,
    /// How many customers order at the same time.
    pub at_once: usize,
    /// The same seed wants the same. When the kills come is not part of it.
    pub seed: u64,
}

/// What a rush has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Orders that were wanted.
    pub wanted: usize,
    /// Of these, confirmed and not cancelled.
    pub confirmed: usize,
    /// Confirmed, and cancelled by the customer.
    pub cancelled: usize,
    /// Declined by payment, by the restaurant, or for what was asked.
    pub refused: usize,
    /// Orders that were begun, and abandoned since an answer did not come in time; the customer began another one.
    pub abandoned: usize,
    /// Requests that were sent again, since no answer or none for good had come, or just so.
    pub again: usize,
    /// Processes that were killed.
    pub kills: Kills,
    /// How long it took.
    pub took: Duration,
}

/// How often each process that somebody waits for was killed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kills {
    /// The gateway.
    pub gateway: usize,
    /// Those who hold the money.
    pub payments: usize,
    /// The kitchens.
    pub restaurant: usize,
}

impl Kills {
    /// How many there were.
    #[must_use]
    pub fn all(self) -> usize {
        self.gateway + self.payments + self.restaurant
    }

    /// How many there were of whoever was killed least.
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
            refused,
            abandoned,
            again,
            kills,
            took,
        } = self;
        let kills = kills.all();
        write!(
            f,
            "{wanted} wanted = {confirmed} confirmed + {cancelled} cancelled + {refused} refused; {abandoned} abandoned and ordered anew, \
             {again} requests sent again, {kills} processes killed, in {} s",
            took.as_secs()
        )
    }
}

/// How long the books may take to agree once all is answered.
const SETTLING: Duration = Duration::from_secs(120);

/// Plays a rush in the virtual host of this address, which has to be empty, and checks the books.
///
/// `progress` is told how many of the orders have their outcome, whenever one has.
///
/// # Panics
/// If the books are not right, with what is wrong.
pub async fn rush(
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
        let told = play_all(&shop, plans, size.at_once, each_was_killed, progress).await;
        done.send_replace(true);
        told
    };
    let (told, kills) = tokio::join!(playing, blows::run(&shop, over, each));
    shop.start_missing().await;
    // The books are right at some moment soon; until then something is still on its way.
    wait_for("the books agree", SETTLING, async || {
        Books::of(&shop).await.check(&told)
    })
    .await;
    shop.stop().await;
    let count = |what: fn(&Told) -> bool| told.iter().filter(|told| what(told)).count();
    Sums {
        wanted: told.len(),
        confirmed: count(Told::is_confirmed),
        cancelled: count(Told::is_cancelled),
        refused: count(Told::is_refused),
        abandoned: told.iter().map(|told| told.abandoned).sum(),
        again: told.iter().map(|told| told.again).sum(),
        kills,
        took: began.elapsed(),
    }
}

/// Lets so many customers order at the same time until nothing more is wanted. The last order of each waits for the last of the first kills, so
/// that also in a small rush there are orders before and after each.
async fn play_all(
    shop: &Arc<Shop>,
    plans: Vec<Plan>,
    at_once: usize,
    each_was_killed: watch::Receiver<bool>,
    progress: impl Fn(usize) + Send + Sync + 'static,
) -> Vec<Told> {
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
                let mut told = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(plan) = plans.get(at) else {
                        break;
                    };
                    if at >= last {
                        // Nobody is waited for who kills no more.
                        let _ = each_was_killed.wait_for(|each| *each).await;
                    }
                    told.push(play::order(&shop, number, plan).await);
                    progress(decided.fetch_add(1, Ordering::Relaxed) + 1);
                }
                told
            })
        })
        .collect();
    let mut told = Vec::new();
    for customer in customers {
        match customer.await {
            Ok(more) => told.extend(more),
            Err(e) => panic!("a customer failed: {e}"),
        }
    }
    told
}
