//! An open load: users arrive independently of the responses to earlier users.
//!
//! Each response time starts at the moment at which the user wanted the item. So the figures include the delay of a
//! generator that falls behind, and of users who would have had to queue.

use std::{sync::Arc, time::Duration};

use doorstep_cli::CliError;
use doorstep_event::{Request, Source, Timestamp};
use doorstep_messaging::{CallError, Message, Publisher, RpcClient};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::{items::WorkItem, progress::Progress, scenario::OperationFailure, stats::Response};

/// The timeout of a call. There are no retries: their use depends on the user.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);

/// The client of one mode.
#[derive(Clone)]
pub(crate) enum Transport {
    /// Sends commands over RPC.
    Sync(RpcClient),
    /// Publishes events with confirms.
    Async(Publisher),
}

/// Sends the items at their times, and waits until each user has a response.
///
/// # Errors
/// A bug in this program.
pub(crate) async fn generate_load(
    counter: &Transport,
    source: &Source,
    items: Arc<[WorkItem]>,
    progress: &Progress,
) -> Result<Vec<Response>, CliError> {
    let start = Start::now();
    let mut users = JoinSet::new();
    let mut heard = Vec::with_capacity(items.len());
    for index in 0..items.len() {
        sleep_until(start.instant + items[index].at).await;
        let (counter, source, items) = (counter.clone(), source.clone(), Arc::clone(&items));
        users.spawn(async move { serve(&counter, &source, &items[index], start).await });
        while let Some(done) = users.try_join_next() {
            heard.push(joined(done)?);
        }
        progress.users(heard.len());
    }
    while let Some(done) = users.join_next().await {
        heard.push(joined(done)?);
        progress.users(heard.len());
    }
    Ok(heard)
}

/// The start of the load, by two clocks: the monotonic one that measures, and the wall clock that other processes
/// share.
#[derive(Clone, Copy)]
struct Start {
    instant: Instant,
    time: Timestamp,
}

impl Start {
    fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: Timestamp::now(),
        }
    }
}

async fn serve(
    counter: &Transport,
    source: &Source,
    item: &WorkItem,
    start: Start,
) -> Result<Response, CliError> {
    let mistake = |e: String| CliError::internal(format!("an item is invalid: {e}"));
    let end = match counter {
        Transport::Sync(requester) => {
            let request = request(source, item).map_err(mistake)?;
            requester
                .call_raw(request)
                .await
                .map(drop)
                .map_err(classify)
        }
        Transport::Async(publisher) => {
            let event = item.event(source, Timestamp::now());
            let event = event.map_err(|e| mistake(e.to_string()))?;
            let outcome = publisher.publish(Message::event(&event)).await;
            OperationFailure::of_outcome(outcome).map_or(Ok(()), Err)
        }
    };
    let wanted_at = start.time.saturating_add(item.at);
    Ok(Response {
        want: item.want(),
        subject: item.subject(),
        wanted_at: wanted_at.map_err(|e| mistake(e.to_string()))?,
        waited: (start.instant + item.at).elapsed(),
        end,
    })
}

fn request(source: &Source, item: &WorkItem) -> Result<Request, String> {
    let now = Timestamp::now();
    let deadline = now.saturating_add(DEADLINE).map_err(|e| e.to_string())?;
    item.request(source, now, deadline)
        .map_err(|e| e.to_string())
}

/// Classifies an error as the user sees it.
fn classify(error: CallError) -> OperationFailure {
    match error {
        CallError::Rejected(_) => OperationFailure::Refused,
        CallError::NoResponder { .. } => OperationFailure::NoResponder,
        CallError::TimedOut => OperationFailure::TimedOut,
        CallError::Overloaded { .. } => OperationFailure::Overloaded,
        CallError::Unreachable { .. } => OperationFailure::Unreachable,
        CallError::Malformed(_) => OperationFailure::Malformed,
    }
}

fn joined(
    done: Result<Result<Response, CliError>, tokio::task::JoinError>,
) -> Result<Response, CliError> {
    done.map_err(|e| CliError::internal(format!("the task of a user failed: {e}")))?
}
