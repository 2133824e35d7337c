//! Finding out whether anybody answers, while somebody waits for long.

use std::{collections::BTreeMap, time::Duration};

use lapin::{
    Channel,
    options::{BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::time::{MissedTickBehavior, interval};

use super::Shared;
use crate::{
    asker::{Answer, Asker},
    connection::Connection,
    error::{ConnectErrorKind, reply},
    message::short,
    rpc::error::AskError,
};

/// How long somebody has to wait, or a confirm must not come, before the broker is asked.
const LONG: Duration = Duration::from_secs(1);
/// How often it is asked then.
const TURN: Duration = Duration::from_millis(500);
/// How often nobody must be there in a row: one who is started again is away for a moment.
const TIMES: u32 = 2;

/// Asks the broker how many consumers the queues have of those roles that let somebody wait, and ends the requests to roles that have
/// none. Where callers wait for less than that, confirms that do not come show that the broker has to be asked whether it is there.
/// Returns only if the broker does not answer any more, nor brings any reply: a slow link is no reason to give it up. Cancel-safe.
pub(super) async fn watch(connection: &Connection, shared: &Shared, limit: Duration) -> String {
    let mut asker = Asker::new(connection, limit);
    let mut absent: BTreeMap<Box<str>, u32> = BTreeMap::new();
    let mut turn = interval(TURN);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let slow = shared.waiting.slow_roles(LONG);
        absent.retain(|role, _| slow.contains(role));
        let unconfirmed = shared.gate.unconfirmed_for();
        if slow.is_empty() && unconfirmed.is_some_and(|age| age >= LONG) {
            // Says nothing new, and needs no permission.
            let question = async |channel: Channel| {
                let options = BasicQosOptions::default();
                channel.basic_qos(1, options).await
            };
            if let Err(reason) = look(&mut asker, shared, question).await {
                return reason;
            }
        }
        for role in slow {
            let queue = shared.broker.namespace.rpc_queue(&role);
            let passive = async move |channel: Channel| {
                let options = QueueDeclareOptions {
                    passive: true,
                    durable: true,
                    ..QueueDeclareOptions::default()
                };
                let name = short(queue.as_str());
                channel
                    .queue_declare(name, options, FieldTable::default())
                    .await
            };
            let consumers = match look(&mut asker, shared, passive).await {
                Ok(Some(Answer::Yes(queue))) => queue.consumer_count(),
                Ok(Some(Answer::No(reply::NOT_FOUND, _))) => 0,
                // We may not know, or what is known comes behind replies.
                Ok(_) => continue,
                Err(reason) => return reason,
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

/// Asks one thing. Returns nothing if there is no answer but replies have come meanwhile, and why the connection is of no use if there is
/// neither.
async fn look<T>(
    asker: &mut Asker<'_>,
    shared: &Shared,
    question: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
) -> Result<Option<Answer<T>>, String> {
    let heard = shared.counts.heard.get();
    match asker.ask(question).await {
        Err(error) if error.kind() != ConnectErrorKind::Silent => Err(error.to_string()),
        Ok(Answer::Silence) | Err(_) if shared.counts.heard.get() != heard => Ok(None),
        Ok(Answer::Silence) | Err(_) => {
            let limit = asker.limit();
            Err(format!("no answer and no reply for {limit:?}"))
        }
        Ok(answer) => Ok(Some(answer)),
    }
}
