//! Detects missing servers and full queues while callers wait for long.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use doorstep_event::RequestKind;
use lapin::{Channel, options::BasicQosOptions, types::FieldTable};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Shared, pending_calls::PendingCall};
use crate::{
    amqp::{PASSIVE_QUEUE, short_string},
    connection::{
        Connection,
        error::{ConnectErrorKind, reply},
        probe_channel::{ProbeChannel, ProbeResult},
    },
    rpc::error::CallError,
    topology::RPC_MAX_LENGTH,
};

/// Waiting time of a call, or silence after requests, that triggers a check.
const SLOW_CALL: Duration = Duration::from_secs(1);
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Consecutive checks without a consumer before calls fail. A restarting server is absent for a moment.
const ABSENT_CHECKS: u32 = 2;

/// Checks the request queues of roles with slow calls. Fails the calls to roles without consumers, and the queries to roles whose queue is
/// full: the broker may have dropped them, and reports that only for commands. If callers use shorter timeouts, missing replies trigger a
/// check of the broker instead. Returns only if the broker neither responds nor delivers replies, because a slow connection is no reason to
/// drop it. Cancel-safe.
pub(super) async fn monitor(connection: &Connection, shared: &Shared, limit: Duration) -> String {
    let mut probe = ProbeChannel::new(connection, limit);
    let mut absent: BTreeMap<Box<str>, u32> = BTreeMap::new();
    let mut silence = ReplySilence::default();
    let mut turn = interval(CHECK_INTERVAL);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let slow = shared.pending_calls.slow_roles(SLOW_CALL);
        absent.retain(|role, _| slow.contains(role));
        let sent = shared.next_number.load(Ordering::Relaxed);
        let received = shared.counts.received.get();
        if silence.age(sent, received, Instant::now()) >= SLOW_CALL && slow.is_empty() {
            silence.since = None;
            // Changes nothing, and needs no permission.
            let round_trip = async |channel: Channel| {
                let options = BasicQosOptions::default();
                channel.basic_qos(1, options).await
            };
            if let Err(reason) = check(&mut probe, shared, round_trip).await {
                return reason;
            }
        }
        for role in slow {
            let queue = shared.broker.namespace.rpc_queue(&role);
            let passive = async move |channel: Channel| {
                let name = short_string(queue.as_str());
                channel
                    .queue_declare(name, PASSIVE_QUEUE, FieldTable::default())
                    .await
            };
            let (consumers, ready) = match check(&mut probe, shared, passive).await {
                Ok(Some(ProbeResult::Accepted(queue))) => {
                    (queue.consumer_count(), queue.message_count())
                }
                Ok(Some(ProbeResult::Rejected(reply::NOT_FOUND, _))) => (0, 0),
                // Permission is missing, or the response is queued behind replies.
                Ok(_) => continue,
                Err(reason) => return reason,
            };
            let times = absent.entry(role.clone()).or_default();
            *times = if consumers == 0 { *times + 1 } else { 0 };
            if *times >= ABSENT_CHECKS {
                let error = CallError::NoResponder {
                    role: role.clone().into(),
                };
                shared.pending_calls.fail(&error, |call| call.role == role);
                absent.remove(&role);
            } else if ready >= RPC_MAX_LENGTH {
                let retry_after = shared.settings.retry_after;
                let error = CallError::Overloaded { retry_after };
                let is_query = |call: &PendingCall| call.act == RequestKind::Query;
                shared
                    .pending_calls
                    .fail(&error, |call| call.role == role && is_query(call));
            }
        }
    }
}

/// Time since requests were sent without any reply.
#[derive(Default)]
struct ReplySilence {
    sent: u64,
    received: u64,
    since: Option<Instant>,
}

impl ReplySilence {
    /// Returns the duration of the silence, given the total numbers of requests and replies.
    fn age(&mut self, sent: u64, received: u64, now: Instant) -> Duration {
        if self.received != received {
            self.since = None;
        } else if self.sent != sent {
            self.since.get_or_insert(now);
        }
        (self.sent, self.received) = (sent, received);
        self.since
            .map_or(Duration::ZERO, |since| now.duration_since(since))
    }
}

/// Sends one request to the broker. Returns `None` if it does not respond but replies arrive meanwhile, and the reason to drop the
/// connection if neither happens.
async fn check<T>(
    probe: &mut ProbeChannel<'_>,
    shared: &Shared,
    request: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
) -> Result<Option<ProbeResult<T>>, String> {
    let received = shared.counts.received.get();
    match probe.try_method(request).await {
        Err(error) if error.kind() != ConnectErrorKind::Silent => Err(error.to_string()),
        Ok(ProbeResult::TimedOut) | Err(_) if shared.counts.received.get() != received => Ok(None),
        Ok(ProbeResult::TimedOut) | Err(_) => {
            let limit = probe.limit();
            Err(format!("no response and no reply for {limit:?}"))
        }
        Ok(result) => Ok(Some(result)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_lasts_from_first_request_to_any_reply() {
        let begin = Instant::now();
        let mut silence = ReplySilence::default();
        let mut age = |seconds, sent, received| {
            let now = begin + Duration::from_secs(seconds);
            silence.age(sent, received, now).as_secs()
        };
        // No request has been sent yet.
        assert_eq!([age(0, 0, 0), age(10, 0, 0)], [0, 0]);
        // The last request was long ago, but the silence continues.
        assert_eq!([age(11, 1, 0), age(12, 2, 0), age(20, 2, 0)], [0, 1, 9]);
        assert_eq!([age(21, 2, 1), age(22, 2, 1)], [0, 0]);
        assert_eq!([age(23, 3, 1), age(25, 3, 1)], [0, 2]);
    }
}
