//! The kills: at random moments, each process that somebody waits for.

use std::time::Duration;

use rand::RngExt;
use tokio::{sync::watch, time::sleep};

use super::{
    Kills,
    shop::{Part, Shop},
};

/// The pause before each, in milliseconds, and before the first one of each process, so that a small rush has them all.
const PAUSE: std::ops::Range<u64> = 300..2_500;
const FIRST_PAUSE: std::ops::Range<u64> = 100..600;
/// How long what was killed stays away, in milliseconds.
const AWAY: std::ops::Range<u64> = 0..600;
/// Who is killed, in turn.
const VICTIMS: [Part; 3] = [Part::Gateway, Part::Payments, Part::Restaurant];

/// Kills and starts again until the rush is over, and says when each was killed once.
pub(super) async fn run(
    shop: &Shop,
    mut over: watch::Receiver<bool>,
    each: watch::Sender<bool>,
) -> Kills {
    let mut kills = Kills::default();
    for turn in 0.. {
        let pause = if turn < VICTIMS.len() {
            FIRST_PAUSE
        } else {
            PAUSE
        };
        let pause = Duration::from_millis(rand::rng().random_range(pause));
        let away = Duration::from_millis(rand::rng().random_range(AWAY));
        // The wait may be cancelled, a kill with its start may not.
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
