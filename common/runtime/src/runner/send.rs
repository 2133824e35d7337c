//! The relay of a running role: sends its outbox whenever something is owed and the broker is there.

use std::{sync::Arc, time::Duration};

use doorstep_event::Timestamp;
use doorstep_messaging::{Message, Outcome, Publisher, QueueName};
use doorstep_store::{OutboxKind, Store};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout, timeout_at},
};

use super::{Pulse, Vitals};
use crate::{
    Limits,
    relay::{Outlet, Relayed, turn},
    told::{Meters, OutboxFlows, OutboxHindered, OutboxSent},
};

/// How often the outbox is looked at although nobody has said that something is owed: rows fall due again, other processes write.
const TICK: Duration = Duration::from_millis(500);

/// The broker as an outlet.
struct BrokerOutlet {
    publisher: Publisher,
    /// `None` where nobody has declared one: then there is nowhere to copy dead letters to, and nothing is owed.
    dead_queue: Option<QueueName>,
    meters: Meters,
}

impl Outlet for BrokerOutlet {
    async fn send(&self, rows: Vec<OutboxKind>) -> Vec<Outcome> {
        let mut sent = Vec::with_capacity(rows.len());
        let mut messages = Vec::with_capacity(rows.len());
        for row in rows {
            let message = match (row, &self.dead_queue) {
                (OutboxKind::Event(event), _) => Some(Message::event(&event)),
                (OutboxKind::DeadCopy { id, headers, body }, Some(queue)) => {
                    let headers = headers.into_iter().collect();
                    Some(Message::to_queue(queue.clone(), &id.0, headers, body))
                }
                (OutboxKind::DeadCopy { .. }, None) => None,
            };
            sent.push(message.is_some());
            messages.extend(message);
        }
        let began = Instant::now();
        let mut outcomes = self.publisher.publish_all(messages).await.into_iter();
        let outcomes = sent
            .into_iter()
            .map(|sent| match sent {
                true => outcomes.next().unwrap_or(Outcome::Disconnected),
                false => Outcome::Confirmed,
            })
            .collect();
        OutboxSent {
            meters: &self.meters,
            took: began.elapsed(),
        }
        .tell();
        outcomes
    }
}

/// Sends until the role stops; then sends what is still owed, within the grace period.
#[expect(
    clippy::too_many_arguments,
    reason = "a task is given what it needs, once"
)]
pub(super) async fn relay<S: Store>(
    role: &'static str,
    store: S,
    publisher: Publisher,
    dead_queue: Option<QueueName>,
    limits: Limits,
    owed: Arc<Notify>,
    vitals: Arc<Vitals>,
    meters: Meters,
    mut stopped: watch::Receiver<bool>,
    grace: Duration,
) {
    let outlet = BrokerOutlet {
        publisher,
        dead_queue,
        meters,
    };
    let mut trouble = None;
    loop {
        // Each may be cancelled: a notification and the stop signal are kept until they are taken.
        let stop = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => true,
            _ = timeout(TICK, owed.notified()) => false,
        };
        if stop {
            break;
        }
        // Where the broker is away, sending takes until that is certain; a stop does not wait for it beyond its grace. What is cut off
        // is sent again.
        let relayed = tokio::select! {
            relayed = send_all(&store, &outlet, &limits, &vitals.relay) => relayed,
            () = over(stopped.clone(), grace) => return,
        };
        // Told when it begins and when it ends, not with every try.
        if relayed.trouble != trouble {
            match &relayed.trouble {
                Some(outcome) => OutboxHindered {
                    role,
                    rows: relayed.unpaid,
                    outcome: *outcome,
                }
                .tell(),
                None => OutboxFlows { role }.tell(),
            }
            trouble = relayed.trouble;
        }
    }
    // The engine may still be finishing its batch: what that owes is sent, too, if there is time.
    let deadline = Instant::now() + grace;
    while Instant::now() < deadline {
        let sent = send_all(&store, &outlet, &limits, &vitals.relay);
        let Ok(relayed) = timeout_at(deadline, sent).await else {
            return;
        };
        if relayed.unpaid > 0 || timeout(TICK, owed.notified()).await.is_err() {
            break;
        }
    }
}

/// Waits until the role has been asked to stop and its grace is over.
async fn over(mut stopped: watch::Receiver<bool>, grace: Duration) {
    // An error is the end of the role, which is as good.
    let _ = stopped.wait_for(|stop| *stop).await;
    let _ = timeout(grace, std::future::pending::<()>()).await;
}

async fn send_all<S: Store>(
    store: &S,
    outlet: &BrokerOutlet,
    limits: &Limits,
    pulse: &Pulse,
) -> Relayed {
    loop {
        let _step = pulse.step();
        match turn(store, outlet, limits, Timestamp::now()).await {
            // A full turn is followed by the next at once, unless nothing got through.
            Ok(relayed) if relayed.unpaid == 0 && relayed.paid == limits.relay_rows => {}
            Ok(relayed) => return relayed,
            // The engine meets the same store and tells of it.
            Err(_) => return Relayed::default(),
        }
    }
}
