//! Finding out whether anybody answers, while somebody waits for long.

use std::{collections::BTreeMap, time::Duration};

use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};
use tokio::time::{MissedTickBehavior, interval};

use super::Shared;
use crate::{
    asker::{Answer, Asker},
    connection::Connection,
    error::{ConnectErrorKind, reply},
    message::short,
    rpc::error::AskError,
};

/// How long somebody has to wait before the broker is asked.
const LONG: Duration = Duration::from_secs(1);
/// How often it is asked then.
const TURN: Duration = Duration::from_millis(500);
/// How often nobody must be there in a row: one who is started again is away for a moment.
const TIMES: u32 = 2;

/// Asks the broker how many consumers the queues have of those roles that let somebody wait, and ends the requests to roles that have
/// none. Returns only if the broker does not answer any more, nor brings any reply: a slow link is no reason to give it up. Cancel-safe.
pub(super) async fn watch(connection: &Connection, shared: &Shared, limit: Duration) -> String {
    let mut asker = Asker::new(connection, limit);
    let mut absent: BTreeMap<Box<str>, u32> = BTreeMap::new();
    let mut turn = interval(TURN);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let slow = shared.waiting.slow_roles(LONG);
        absent.retain(|role, _| slow.contains(role));
        for role in slow {
            let queue = shared.broker.namespace.rpc_queue(&role);
            let look = async move |channel: Channel| {
                let passive = QueueDeclareOptions {
                    passive: true,
                    durable: true,
                    ..QueueDeclareOptions::default()
                };
                let name = short(queue.as_str());
                channel
                    .queue_declare(name, passive, FieldTable::default())
                    .await
            };
            let heard = shared.counts.heard.get();
            let came_meanwhile = || shared.counts.heard.get() != heard;
            let consumers = match asker.ask(look).await {
                Ok(Answer::Yes(queue)) => queue.consumer_count(),
                Ok(Answer::No(reply::NOT_FOUND, _)) => 0,
                // We may not know.
                Ok(Answer::No(..)) => continue,
                Ok(Answer::Silence) if came_meanwhile() => continue,
                Ok(Answer::Silence) => return silence(limit),
                Err(error) if error.kind() != ConnectErrorKind::Silent => return error.to_string(),
                Err(_) if came_meanwhile() => continue,
                Err(_) => return silence(limit),
            };
            let times = absent.entry(role.clone()).or_default();
            *times = if consumers == 0 { *times + 1 } else { 0 };
            if *times >= TIMES {
                let error = AskError::NoResponder {
                    role: role.clone().into(),
                };
                shared.waiting.end_all(Some(&role), &error);
                absent.remove(&role);
            }
        }
    }
}

fn silence(limit: Duration) -> String {
    format!("no answer and no reply for {limit:?}")
}
