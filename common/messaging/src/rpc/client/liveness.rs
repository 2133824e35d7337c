//! Finding out whether anybody answers, and whether there is room for queries, while somebody waits for long.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use lapin::{
    Channel,
    options::{BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Shared;
use crate::{
    connection::Connection,
    error::{ConnectErrorKind, reply},
    probe_channel::{ProbeChannel, ProbeResult},
    rpc::error::CallError,
    short_string::short_string,
    topology::RPC_MAX_LENGTH,
};

/// How long somebody has to wait, or nothing must come back, before the broker is asked.
const SLOW_CALL: Duration = Duration::from_secs(1);
/// How often it is asked then.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How often nobody must be there in a row: one who is started again is away for a moment.
const ABSENT_CHECKS: u32 = 2;

/// Asks the broker how many consumers the queues have of those roles that let somebody wait, and ends the requests to roles that have
/// none, and the queries to those whose queue is full: it may have dropped them, and says so of commands only. Where callers wait for less
/// than that, replies that do not come show that the broker has to be asked whether it is there.
/// Returns only if the broker does not answer any more, nor brings any reply: a slow link is no reason to give it up. Cancel-safe.
pub(super) async fn monitor(connection: &Connection, shared: &Shared, limit: Duration) -> String {
    let mut asker = ProbeChannel::new(connection, limit);
    let mut absent: BTreeMap<Box<str>, u32> = BTreeMap::new();
    let mut unheard = ReplySilence::default();
    let mut turn = interval(CHECK_INTERVAL);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let slow = shared.waiting.slow_roles(SLOW_CALL);
        absent.retain(|role, _| slow.contains(role));
        let asked = shared.next_number.load(Ordering::Relaxed);
        let heard = shared.counts.heard.get();
        if unheard.age(asked, heard, Instant::now()) >= SLOW_CALL && slow.is_empty() {
            unheard.since = None;
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
                let name = short_string(queue.as_str());
                channel
                    .queue_declare(name, options, FieldTable::default())
                    .await
            };
            let (consumers, ready) = match look(&mut asker, shared, passive).await {
                Ok(Some(ProbeResult::Yes(queue))) => {
                    (queue.consumer_count(), queue.message_count())
                }
                Ok(Some(ProbeResult::No(reply::NOT_FOUND, _))) => (0, 0),
                // We may not know, or what is known comes behind replies.
                Ok(_) => continue,
                Err(reason) => return reason,
            };
            let times = absent.entry(role.clone()).or_default();
            *times = if consumers == 0 { *times + 1 } else { 0 };
            if *times >= ABSENT_CHECKS {
                let error = CallError::NoResponder {
                    role: role.clone().into(),
                };
                shared.waiting.fail_role(&role, &error);
                absent.remove(&role);
            } else if ready >= RPC_MAX_LENGTH {
                let retry_after = shared.settings.retry_after;
                let error = CallError::Overloaded { retry_after };
                shared.waiting.fail_queries(&role, &error);
            }
        }
    }
}

/// Since when requests have gone out and nothing has come back.
#[derive(Default)]
struct ReplySilence {
    asked: u64,
    heard: u64,
    since: Option<Instant>,
}

impl ReplySilence {
    /// For how long, given how many requests were made so far and how many replies have come.
    fn age(&mut self, asked: u64, heard: u64, now: Instant) -> Duration {
        if self.heard != heard {
            self.since = None;
        } else if self.asked != asked {
            self.since.get_or_insert(now);
        }
        (self.asked, self.heard) = (asked, heard);
        self.since
            .map_or(Duration::ZERO, |since| now.duration_since(since))
    }
}

/// Asks one thing. Returns nothing if there is no answer but replies have come meanwhile, and why the connection is of no use if there is
/// neither.
async fn look<T>(
    asker: &mut ProbeChannel<'_>,
    shared: &Shared,
    question: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
) -> Result<Option<ProbeResult<T>>, String> {
    let heard = shared.counts.heard.get();
    match asker.try_method(question).await {
        Err(error) if error.kind() != ConnectErrorKind::Silent => Err(error.to_string()),
        Ok(ProbeResult::Silence) | Err(_) if shared.counts.heard.get() != heard => Ok(None),
        Ok(ProbeResult::Silence) | Err(_) => {
            let limit = asker.limit();
            Err(format!("no answer and no reply for {limit:?}"))
        }
        Ok(answer) => Ok(Some(answer)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_first_request_without_a_reply_and_any_reply_ends_it() {
        let begin = Instant::now();
        let mut unheard = ReplySilence::default();
        let mut age = |seconds, asked, heard| {
            let now = begin + Duration::from_secs(seconds);
            unheard.age(asked, heard, now).as_secs()
        };
        // Nobody has asked anything.
        assert_eq!([age(0, 0, 0), age(10, 0, 0)], [0, 0]);
        // The last of these was asked long ago, but the silence goes on.
        assert_eq!([age(11, 1, 0), age(12, 2, 0), age(20, 2, 0)], [0, 1, 9]);
        assert_eq!([age(21, 2, 1), age(22, 2, 1)], [0, 0]);
        assert_eq!([age(23, 3, 1), age(25, 3, 1)], [0, 2]);
    }
}
