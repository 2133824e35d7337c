//! The work that the consumers have done, read from their stores.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use doorstep_cli::CliError;
use doorstep_store::{EntityKey, SqliteStore, Store, StoreError, sqlite::Options};
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    items::Operation,
    stats::{Completions, Done, Response},
};

/// The number of entities that one read returns.
const PAGE: usize = 1000;
/// The interval of polls while work is outstanding.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The time without progress after which items with an error count as not done. A consumer begins nothing after its
/// deadline, and a batch takes less than this.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// The time without progress after which consumers with outstanding work count as stalled.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The stores of both roles, opened for reading.
pub(crate) struct StoreReader(Vec<SqliteStore>);

impl StoreReader {
    /// Opens the stores in this folder.
    ///
    /// # Errors
    /// They cannot be opened.
    pub(crate) fn open(folder: &Path) -> Result<Self, CliError> {
        let open =
            |want: Operation| SqliteStore::open_read_only(folder, want.role(), &Options::default());
        Operation::ALL
            .into_iter()
            .map(open)
            .collect::<Result<_, StoreError>>()
            .map(Self)
            .map_err(CliError::from)
    }

    /// Waits until the consumers have done all acknowledged items and make no more progress, within a limit.
    ///
    /// # Errors
    /// A store cannot be read.
    pub(crate) async fn done(
        &self,
        heard: &[Response],
        patience: Duration,
    ) -> Result<Done, CliError> {
        let began = Instant::now();
        let mut looks = interval(POLL_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut count, mut since) = (0, Instant::now());
        loop {
            looks.tick().await;
            let completions = self.completions().await?;
            if completions.len() != count {
                (count, since) = (completions.len(), Instant::now());
            }
            let is_pending = heard
                .iter()
                .filter(|heard| heard.end.is_ok())
                .any(|heard| !completions.contains_key(heard.subject.as_str()));
            let is_all = count == heard.len();
            let quiet = if is_pending {
                STALL_TIMEOUT
            } else {
                SETTLE_TIME
            };
            let drained = is_all || since.elapsed() >= quiet;
            if drained || began.elapsed() >= patience {
                return Ok(Done {
                    completions,
                    drained,
                });
            }
        }
    }

    async fn completions(&self) -> Result<Completions, CliError> {
        let mut completions = Completions::new();
        for store in &self.0 {
            let mut after: Option<EntityKey> = None;
            loop {
                let page = store.entities(after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.key.clone());
                for row in &page {
                    let state = row.state.as_deref().unwrap_or_default();
                    let completion = serde_json::from_slice(state).map_err(|e| {
                        let key = &row.key;
                        CliError::internal(format!("cannot decode {key}: {e}"))
                    })?;
                    completions.insert(row.key.as_str().to_owned(), completion);
                }
            }
        }
        Ok(completions)
    }
}
