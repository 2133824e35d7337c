//! The measurement of one mode in one scenario, with its own namespace, folder, consumers and clients. All of it is
//! deleted afterwards, also after a failure.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use doorstep_cli::{CliError, ShutdownSignal};
use doorstep_event::Source;
use doorstep_messaging::{
    BrokerSettings, ConnectError, ConnectErrorKind, Denial, Publisher, RpcClient,
    RpcClientSettings, Topology, delete,
};

use crate::{
    consumer_process::ConsumerProcess,
    items::WorkItem,
    load::{Transport, generate_load},
    progress::Progress,
    scenario::{Mode, OVERLOAD, Scenario},
    settings::CompareSettings,
    stats::Sample,
    store_reader::StoreReader,
    work::QUEUES,
};

/// The timeout of closing a connection.
const GRACE: Duration = Duration::from_secs(2);
/// The time that the consumers may take beyond the expected time of their work.
const DRAIN_MARGIN: Duration = Duration::from_secs(20);

/// One mode in one scenario.
pub(crate) struct Run<'a> {
    settings: &'a CompareSettings,
    broker: BrokerSettings,
    topology: Topology,
    folder: PathBuf,
    source: Source,
    scenario: Scenario,
    way: Mode,
}

impl<'a> Run<'a> {
    /// Creates a run; `run` names the comparison and `number` the part.
    ///
    /// # Errors
    /// The namespace is too long for a suffix.
    pub(crate) fn new(
        settings: &'a CompareSettings,
        run: &str,
        number: usize,
        scenario: Scenario,
        way: Mode,
    ) -> Result<Self, CliError> {
        let wrong = |e: String| CliError::settings(e);
        let namespace = format!("{}.{run}.{number}", settings.broker.namespace);
        let namespace = namespace
            .parse()
            .map_err(|e: doorstep_messaging::SettingsError| wrong(e.to_string()))?;
        let broker = BrokerSettings {
            namespace,
            ..settings.broker.clone()
        };
        Ok(Self {
            topology: Topology::for_roles(&broker.namespace, QUEUES),
            folder: std::env::temp_dir()
                .join(format!("doorstep-{run}"))
                .join(number.to_string()),
            source: Source::new(format!("compare/{run}/{number}"))
                .map_err(|e| wrong(e.to_string()))?,
            settings,
            broker,
            scenario,
            way,
        })
    }

    /// Measures, and cleans up.
    ///
    /// # Errors
    /// The broker is unreachable or its queues differ, the consumers do not start, a store cannot be read, or the user
    /// stops the program. A failed clean-up is reported on standard error.
    pub(crate) async fn measure(
        &self,
        items: &Arc<[WorkItem]>,
        progress: &Progress,
        stop: &mut ShutdownSignal,
    ) -> Result<Sample, CliError> {
        fs::create_dir_all(&self.folder).map_err(|e| {
            let folder = self.folder.display();
            CliError::cannot_create(format!("cannot create {folder}: {e}"))
        })?;
        let users = LoadClients::start(&self.broker, &self.topology);
        let ready = stop
            .or_cancelled(users.ready(self.broker.start_timeout))
            .await;
        // A client without access has declared nothing.
        let was_let_in = match &ready {
            Some(Err(error)) => matches!(
                error.kind(),
                ConnectErrorKind::Mismatch | ConnectErrorKind::Denied(Denial::Permission)
            ),
            Some(Ok(())) | None => true,
        };
        let played = match ready {
            Some(Ok(())) => {
                stop.or_cancelled(self.execute(&users, items, progress))
                    .await
            }
            Some(Err(error)) => Some(Err(CliError::broker(error.to_string()))),
            None => None,
        };
        if played.is_none() {
            progress
                .note("stopping, and deleting all declared queues; a second signal ends at once");
        }
        users.close().await;
        if was_let_in {
            self.clean_broker().await;
        }
        self.clean_folder();
        played.unwrap_or_else(|| Err(interrupted()))
    }

    async fn execute(
        &self,
        users: &LoadClients,
        items: &Arc<[WorkItem]>,
        progress: &Progress,
    ) -> Result<Sample, CliError> {
        let consumers = ConsumerProcess {
            broker: &self.broker,
            args: &self.settings.args.broker,
            folder: &self.folder,
            pace: self.settings.pace,
            scenario: self.scenario,
        };
        let mut working = Some(consumers.start().await?);
        let books = StoreReader::open(&self.folder)?;
        if self.scenario == Scenario::Down
            && let Some(working) = working.take()
        {
            working.kill().await?;
        }
        let heard = generate_load(
            &users.counter(self.way),
            &self.source,
            Arc::clone(items),
            progress,
        )
        .await?;
        if working.is_none() {
            working = Some(consumers.start().await?);
        }
        let answered = heard.iter().filter(|heard| heard.end.is_ok()).count();
        progress.step(format!(
            "{}, {}: {answered} of {} successful; waiting until all is done",
            self.scenario.label(),
            self.way.label(),
            heard.len(),
        ));
        let done = books.done(&heard, self.patience()).await?;
        if let Some(working) = working {
            working.kill().await?;
        }
        Ok(Sample::from_responses(
            self.scenario,
            self.way,
            &heard,
            &done,
        ))
    }

    /// Returns the time that the consumers may take after the load.
    fn patience(&self) -> Duration {
        self.settings.pace.lasts.mul_f64(OVERLOAD) + DRAIN_MARGIN
    }

    /// Deletes all exchanges and queues of the run.
    async fn clean_broker(&self) {
        if let Err(error) = delete(&self.broker, &self.topology).await {
            eprintln!(
                "warning: names that begin with {}. are left on the broker, delete them by hand: {error}",
                self.broker.namespace
            );
        }
    }

    /// Deletes the folder of the run.
    fn clean_folder(&self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("warning: {} is left: {error}", self.folder.display());
        }
    }
}

/// The clients of the broker on the users' side.
struct LoadClients {
    publisher: Publisher,
    requester: RpcClient,
}

impl LoadClients {
    fn start(broker: &BrokerSettings, topology: &Topology) -> Self {
        let name = |what| format!("{} compare: {what}", broker.namespace);
        let (publish, ask) = (name("publish"), name("ask"));
        Self {
            publisher: Publisher::start(broker, &publish, topology.clone()),
            requester: RpcClient::start(
                broker,
                &ask,
                topology.clone(),
                RpcClientSettings::default(),
            ),
        }
    }

    async fn ready(&self, limit: Duration) -> Result<(), ConnectError> {
        self.publisher.ready(limit).await?;
        self.requester.ready(limit).await
    }

    fn counter(&self, way: Mode) -> Transport {
        match way {
            Mode::Sync => Transport::Sync(self.requester.clone()),
            Mode::Async => Transport::Async(self.publisher.clone()),
        }
    }

    async fn close(self) {
        self.publisher.close(GRACE).await;
        self.requester.close(GRACE).await;
    }
}

fn interrupted() -> CliError {
    CliError::interrupted("interrupted: no results are kept")
}
