//! The kills: at random moments, each process that somebody waits for.

use std::time::Duration;

use rand::RngExt;
use tokio::{sync::watch, time::sleep};

use super::shop::{Part, Shop};

/// The pause before each, in milliseconds.
const PAUSE: std::ops::Range<u64> = 300..2_500;
/// How long what was killed stays away, in milliseconds.
const AWAY: std::ops::Range<u64> = 0..600;

/// Kills and starts again until the rush is over. Returns how many were killed.
pub(super) async fn run(shop: &Shop, mut over: watch::Receiver<bool>) -> usize {
    let mut kills = 0;
    let victims = [Part::Gateway, Part::Payments, Part::Restaurant];
    for turn in 0.. {
        let pause = Duration::from_millis(rand::rng().random_range(PAUSE));
        let away = Duration::from_millis(rand::rng().random_range(AWAY));
        // The wait may be cancelled, a kill with its start may not.
        tokio::select! {
            _ = over.wait_for(|over| *over) => break,
            () = sleep(pause) => {}
        }
        kills += usize::from(shop.kill(victims[turn % victims.len()]).await);
        sleep(away).await;
        shop.start_missing().await;
    }
    kills
}
