//! The kills: SIGKILL at random moments, to each process whose reply a customer needs.

use std::time::Duration;

use rand::RngExt;
use tokio::{sync::watch, time::sleep};

use super::{
    Kills,
    shop::{Part, Shop},
};

/// The pause before each kill, in milliseconds; also before the first kill of each process, so that a small run has
/// all of them.
const PAUSE: std::ops::Range<u64> = 300..2_500;
const INITIAL_PAUSE: std::ops::Range<u64> = 100..600;
/// The downtime of a killed process, in milliseconds.
const AWAY: std::ops::Range<u64> = 0..600;
/// The processes to kill, in turn.
const VICTIMS: [Part; 3] = [Part::Gateway, Part::Payments, Part::Restaurant];

/// Kills and restarts processes until the run is over, and signals when each was killed once.
pub(super) async fn run(
    shop: &Shop,
    mut over: watch::Receiver<bool>,
    each: watch::Sender<bool>,
) -> Kills {
    let mut kills = Kills::default();
    for turn in 0.. {
        let pause = if turn < VICTIMS.len() {
            INITIAL_PAUSE
        } else {
            PAUSE
        };
        let pause = Duration::from_millis(rand::rng().random_range(pause));
        let away = Duration::from_millis(rand::rng().random_range(AWAY));
        // The wait may be cancelled, a kill with its restart may not.
        tokio::select! {
            _ = over.wait_for(|over| *over) => break,
            () = sleep(pause) => {}
        }
        let victim = VICTIMS[turn % VICTIMS.len()];
        if shop.kill(victim).await {
            match victim {
                Part::Gateway => kills.gateway += 1,
                Part::Payments => kills.payments += 1,
                Part::Restaurant => kills.restaurant += 1,
                Part::Others => {}
            }
        }
        sleep(away).await;
        shop.start_missing().await;
        if kills.least() > 0 {
            each.send_replace(true);
        }
    }
    kills
}
