//! Arguments that several programs take, and the settings that they lead to.

use std::{env, path::PathBuf};

use clap::Args;
use doorstep_messaging::{BrokerSettings, Namespace, trace};
use doorstep_telemetry::{
    HttpUrl,
    log::{self, LogFormat, LogSettings},
    trace::Tracing,
};
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    Wrong,
    health::HealthSettings,
    read::{address, window},
};

/// Where programs of all kinds look for a collector.
const USUAL_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Where the broker is, and what is Doorstep's there.
#[derive(Debug, Args)]
#[command(next_help_heading = "Broker")]
pub struct BrokerArgs {
    /// Where RabbitMQ is; several addresses, separated by commas, are tried in turn.
    #[arg(
        long,
        env = "DOORSTEP_AMQP_URL",
        value_name = "URL",
        default_value = "amqp://guest:guest@127.0.0.1:5672/%2f",
        hide_env_values = true
    )]
    pub amqp_url: String,

    /// What is Doorstep's there.
    #[command(flatten)]
    pub namespace: NamespaceArg,
}

impl BrokerArgs {
    /// Checks them.
    pub fn check(&self, wrong: &mut Wrong) -> Option<BrokerSettings> {
        // Each by itself, so that a wrong address does not hide a wrong namespace.
        let namespace = self.namespace.check(wrong);
        let settings = wrong.note(
            "--amqp-url (DOORSTEP_AMQP_URL)",
            BrokerSettings::new(&self.amqp_url, "doorstep"),
        );
        Some(BrokerSettings {
            namespace: namespace?,
            ..settings?
        })
    }
}

/// What is Doorstep's on the broker.
#[derive(Debug, Args)]
#[command(next_help_heading = "Broker")]
pub struct NamespaceArg {
    /// What the name of every exchange and queue starts with.
    #[arg(
        long,
        env = "DOORSTEP_NAMESPACE",
        value_name = "NAME",
        default_value = "doorstep"
    )]
    pub namespace: String,
}

impl NamespaceArg {
    /// Checks it.
    pub fn check(&self, wrong: &mut Wrong) -> Option<Namespace> {
        wrong.note("--namespace (DOORSTEP_NAMESPACE)", self.namespace.parse())
    }
}

/// Where stores are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// The folder with the stores, on a local file system.
    #[arg(
        long = "store",
        env = "DOORSTEP_STORE",
        value_name = "FOLDER",
        default_value = "./doorstep-data"
    )]
    pub folder: PathBuf,
}

/// Where a process with running roles answers for how they are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct EndpointArgs {
    /// Answer /livez, /readyz and /metrics on this address [default: nowhere]. Nobody is asked for a password: keep it to where only
    /// those reach it who may know.
    #[arg(long, env = "DOORSTEP_HEALTH_ADDR", value_name = "IP:PORT")]
    pub health_addr: Option<String>,

    /// How long one step of a role, such as working a batch, may take before /livez says that it is stuck.
    #[arg(
        long,
        env = "DOORSTEP_STUCK_AFTER",
        value_name = "TIME",
        default_value = "2m"
    )]
    pub stuck_after: String,
}

impl EndpointArgs {
    /// Checks them.
    pub fn check(&self, wrong: &mut Wrong) -> Option<Option<HealthSettings>> {
        let place = self.health_addr.as_deref().map(address).transpose();
        let place = wrong.note("--health-addr (DOORSTEP_HEALTH_ADDR)", place);
        let stuck_after = wrong.note(
            "--stuck-after (DOORSTEP_STUCK_AFTER)",
            window(&self.stuck_after),
        );
        let stuck_after = stuck_after?;
        Some(place?.map(|address| HealthSettings {
            address,
            stuck_after,
        }))
    }
}

/// What the program tells of itself. Without a filter, the log is what the program's own default says, see [`crate::start::parse`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryArgs {
    /// What to log on standard error, such as `warn` or `info,doorstep_messaging=debug`.
    #[arg(long, global = true, env = "DOORSTEP_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// How to log: `text`, or `json` with one object a line.
    #[arg(
        long,
        global = true,
        env = "DOORSTEP_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub log_format: String,

    /// Hand spans to the OpenTelemetry collector at this address, by OTLP over HTTP; OTEL_EXPORTER_OTLP_ENDPOINT is read, too.
    #[arg(
        long,
        global = true,
        env = "DOORSTEP_OTLP_ENDPOINT",
        value_name = "URL"
    )]
    pub otlp_endpoint: Option<String>,
}

impl TelemetryArgs {
    /// Checks them.
    pub fn check(&self, wrong: &mut Wrong) -> Option<TelemetrySettings> {
        let filter = self.log.as_deref().unwrap_or("info");
        let filter = wrong.note("--log (DOORSTEP_LOG)", log::filter(filter));
        let format = wrong.note(
            "--log-format (DOORSTEP_LOG_FORMAT)",
            self.log_format.parse::<LogFormat>(),
        );
        let ours = self.otlp_endpoint.clone();
        let ours = ours.map(|text| ("--otlp-endpoint (DOORSTEP_OTLP_ENDPOINT)", text));
        // What every program that OpenTelemetry knows is told by.
        let usual = || Some((USUAL_ENDPOINT, env::var(USUAL_ENDPOINT).ok()?));
        let endpoint = ours.or_else(usual).filter(|(_, text)| !text.is_empty());
        let collector = match endpoint {
            Some((name, text)) => wrong.note(name, text.parse::<HttpUrl>()).map(Some),
            None => Some(None),
        };
        Some(TelemetrySettings {
            log: LogSettings {
                filter: filter?,
                format: format?,
            },
            collector: collector?,
        })
    }
}

/// What to tell, and whom.
#[derive(Debug)]
pub struct TelemetrySettings {
    /// The log.
    pub log: LogSettings,
    /// Who takes spans.
    pub collector: Option<HttpUrl>,
}

impl TelemetrySettings {
    /// Starts to log, and to hand over spans in the name of `service` until what is returned is dropped.
    pub fn start<W>(self, service: &'static str, log_to: W) -> Option<Tracing>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        log::start(self.log, log_to);
        self.collector.map(|collector| {
            let tracing = Tracing::start(collector, service);
            trace::start();
            tracing
        })
    }
}
