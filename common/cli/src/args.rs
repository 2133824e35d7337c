//! Arguments that several programs take, and the settings made from them.

use std::{env, ffi::OsString, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use doorstep_messaging::{BrokerSettings, ClientFiles, Namespace, TlsSettings, UserId, trace};
use doorstep_telemetry::{
    HttpUrl,
    log::{self, LogFormat, LogSettings},
    trace::Tracing,
};
use doorstep_tls::{CA_FILE, CERT_FILE, KEY_FILE};
use tracing_subscriber::fmt::MakeWriter;

use crate::{
    SettingsErrors,
    health::HealthSettings,
    parse::{address, from_str, idle_window, password},
    variables,
};

/// The variable of the file with the broker's password.
const PASSWORD_FILE: &str = "DOORSTEP_AMQP_PASSWORD_FILE";

/// The variable with the collector's address, as OpenTelemetry specifies it.
const USUAL_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The broker's addresses, and the namespace there. `Debug` leaves the addresses out, since they hold passwords.
#[derive(Args)]
#[command(next_help_heading = "Broker")]
pub struct BrokerArgs {
    /// The addresses of RabbitMQ, separated by commas and tried in turn.
    #[arg(
        long,
        env = "DOORSTEP_AMQP_URL",
        value_name = "URL",
        default_value = "amqp://guest:guest@127.0.0.1:5672/%2f",
        hide_env_values = true
    )]
    pub amqp_url: String,

    /// A file with the password for these addresses, which then have none; the end of its line does not count.
    #[arg(long, env = PASSWORD_FILE, value_name = "FILE")]
    pub amqp_password_file: Option<PathBuf>,

    /// The brokers to trust by amqps.
    #[command(flatten)]
    pub tls: TlsArgs,

    /// The user id of published messages, if the broker knows the user by another name than the URL does; - for none
    /// [default: the URL's user]. Roles accept events of a source only from the user that first used it.
    #[arg(
        long,
        env = "DOORSTEP_USER_ID",
        value_name = "NAME",
        allow_hyphen_values = true,
        value_parser = from_str::<UserId>("-")
    )]
    pub user_id: Option<UserId>,

    /// The part of the broker that is Doorstep's.
    #[command(flatten)]
    pub namespace: NamespaceArg,
}

impl BrokerArgs {
    /// Validates them.
    pub fn check(&self, wrong: &mut SettingsErrors) -> Option<BrokerSettings> {
        let settings = wrong.check(
            "--amqp-url (DOORSTEP_AMQP_URL)",
            BrokerSettings::new(&self.amqp_url, "doorstep"),
        );
        let password = self.amqp_password_file.as_deref().map(password);
        let password = wrong.check(
            "--amqp-password-file (DOORSTEP_AMQP_PASSWORD_FILE)",
            password.transpose(),
        );
        let tls = self.tls.check(wrong);
        let settings = match (settings, password?) {
            (Some(settings), Some(password)) => wrong.check(
                "--amqp-url (DOORSTEP_AMQP_URL)",
                settings.with_password(&password),
            ),
            (settings, _) => settings,
        };
        let (settings, tls) = (settings?, tls?);
        let needs_certificate = settings.addresses.iter().any(|a| a.is_external());
        if needs_certificate && tls.client.is_none() {
            let missing: Result<(), _> = Err(
                "auth_mechanism=external logs in by a certificate, and none is named: give --tls-cert-file and --tls-key-file",
            );
            wrong.check("--amqp-url (DOORSTEP_AMQP_URL)", missing);
        }
        Some(BrokerSettings {
            namespace: self.namespace.namespace.clone(),
            user_id: self.user_id.clone().unwrap_or_default(),
            tls,
            ..settings
        })
    }

    /// Returns the same as environment variables for a child process, passwords included: every user of the machine can read arguments.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let path = |name, path: &Option<PathBuf>| Some((name, path.clone()?.into_os_string()));
        let variables = [
            Some(("DOORSTEP_AMQP_URL", OsString::from(&self.amqp_url))),
            path(PASSWORD_FILE, &self.amqp_password_file),
            path(CA_FILE, &self.tls.tls_ca_file),
            path(CERT_FILE, &self.tls.tls_cert_file),
            path(KEY_FILE, &self.tls.tls_key_file),
        ];
        variables.into_iter().flatten().collect()
    }
}

impl fmt::Debug for BrokerArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerArgs")
            .field("tls", &self.tls)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// The servers to trust, and the certificate to show them.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Trust servers whose certificate one of these authorities has signed (PEM) [default: the system's authorities].
    #[arg(long, global = true, env = CA_FILE, value_name = "FILE")]
    pub tls_ca_file: Option<PathBuf>,

    /// Show servers this certificate, with intermediate ones behind it (PEM). `auth_mechanism=external` in the broker's address
    /// logs in by it.
    #[arg(long, global = true, env = CERT_FILE, value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,

    /// The key of that certificate (PEM, without a passphrase).
    #[arg(long, global = true, env = KEY_FILE, value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
}

impl TlsArgs {
    /// Validates them: every file has to be usable.
    pub fn check(&self, wrong: &mut SettingsErrors) -> Option<TlsSettings> {
        let client = match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(certificate), Some(key)) => Some(Some(ClientFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            })),
            (None, None) => Some(None),
            (Some(_), None) => wrong.check(
                "--tls-key-file (DOORSTEP_TLS_KEY_FILE)",
                Err("is missing: name the key of the certificate"),
            ),
            (None, Some(_)) => wrong.check(
                "--tls-cert-file (DOORSTEP_TLS_CERT_FILE)",
                Err("is missing: name the certificate of the key"),
            ),
        };
        let settings = TlsSettings {
            ca_file: self.tls_ca_file.clone(),
            client: client?,
        };
        match settings.check() {
            Ok(()) => Some(settings),
            Err(errors) => {
                for error in errors {
                    wrong.check::<(), _>("TLS (DOORSTEP_TLS_*_FILE)", Err(error));
                }
                None
            }
        }
    }
}

/// The part of the broker that is Doorstep's.
#[derive(Debug, Args)]
#[command(next_help_heading = "Broker")]
pub struct NamespaceArg {
    /// The prefix of every exchange's and queue's name.
    #[arg(
        long,
        env = "DOORSTEP_NAMESPACE",
        value_name = "NAME",
        default_value = "doorstep",
        value_parser = from_str::<Namespace>("doorstep")
    )]
    pub namespace: Namespace,
}

/// The folder of the stores.
#[derive(Debug, Args)]
#[command(next_help_heading = "Store")]
pub struct StoreArgs {
    /// The folder with the stores, on a local file system.
    #[arg(
        long = "data-dir",
        env = "DOORSTEP_DATA_DIR",
        value_name = "FOLDER",
        default_value = "./doorstep-data"
    )]
    pub folder: PathBuf,
}

/// The health endpoint of a process with running roles.
#[derive(Debug, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct EndpointArgs {
    /// Serve /livez, /readyz and /metrics on this address [default: nowhere]. There is no password: let only those
    /// reach it who may know.
    #[arg(long, env = "DOORSTEP_HEALTH_ADDR", value_name = "IP:PORT", value_parser = address())]
    pub health_addr: Option<SocketAddr>,

    /// The time limit of one step of a role, such as a batch, after which /livez reports it as stuck.
    #[arg(
        long,
        env = "DOORSTEP_LIVENESS_TIMEOUT",
        value_name = "TIME",
        default_value = "2m",
        value_parser = idle_window()
    )]
    pub liveness_timeout: Duration,
}

impl EndpointArgs {
    /// Returns the settings of the endpoint, if there is one.
    #[must_use]
    pub fn settings(&self) -> Option<HealthSettings> {
        let stuck_after = self.liveness_timeout;
        self.health_addr.map(|address| HealthSettings {
            address,
            stuck_after,
        })
    }
}

/// The options of log and spans, with the TLS by which spans go out.
#[derive(Debug, Args)]
pub struct TelemetryArgs {
    #[command(flatten)]
    options: TelemetryOptions,

    /// The collectors to trust by https.
    #[command(flatten)]
    tls: TlsArgs,
}

impl TelemetryArgs {
    pub fn check(&self, wrong: &mut SettingsErrors) -> Option<TelemetrySettings> {
        self.options.check(&self.tls, wrong)
    }
}

/// The options of log and spans. Without a filter, the log is what the program's own default says, see [`crate::start::program`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryOptions {
    /// The filter of the log on standard error, such as `warn` or `info,doorstep_messaging=debug`.
    #[arg(long, global = true, env = "DOORSTEP_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// The format of the log: `text`, or `json` with one object a line.
    #[arg(
        long,
        global = true,
        env = "DOORSTEP_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        value_parser = from_str::<LogFormat>("text")
    )]
    pub log_format: LogFormat,

    /// Export spans to the OpenTelemetry collector at this address, by OTLP over HTTP or HTTPS;
    /// OTEL_EXPORTER_OTLP_ENDPOINT is read, too.
    #[arg(
        long,
        global = true,
        env = "DOORSTEP_OTLP_ENDPOINT",
        value_name = "URL"
    )]
    pub otlp_endpoint: Option<String>,
}

impl TelemetryOptions {
    /// Returns the settings; a collector with https is reached with these settings of TLS.
    pub fn check(&self, tls: &TlsArgs, wrong: &mut SettingsErrors) -> Option<TelemetrySettings> {
        let filter = self.log.as_deref().unwrap_or("info");
        let filter = wrong.check("--log (DOORSTEP_LOG)", log::filter(filter));
        let ours = self.otlp_endpoint.clone();
        let ours = ours.map(|text| ("--otlp-endpoint (DOORSTEP_OTLP_ENDPOINT)", text));
        // The variable that every program with OpenTelemetry reads.
        let usual = || Some((USUAL_ENDPOINT, env::var(USUAL_ENDPOINT).ok()?));
        let endpoint = ours.or_else(usual).filter(|(_, text)| !text.is_empty());
        let collector = match endpoint {
            Some((name, text)) => match wrong.check(name, text.parse::<HttpUrl>()) {
                Some(url) if url.is_encrypted() => {
                    tls.check(wrong).map(|tls| Some(url.with_tls(tls)))
                }
                url => url.map(Some),
            },
            None => Some(None),
        };
        Some(TelemetrySettings {
            log: LogSettings {
                filter: filter?,
                format: self.log_format,
            },
            collector: collector?,
        })
    }
}

/// The settings of log and traces.
#[derive(Debug)]
pub struct TelemetrySettings {
    pub log: LogSettings,
    /// The receiver of spans.
    pub collector: Option<HttpUrl>,
}

impl TelemetrySettings {
    /// Starts logging, warns of unread variables, and exports spans in the name of `service` until the returned value
    /// is dropped.
    pub fn start<W>(self, service: &'static str, log_to: W) -> Option<Tracing>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        log::start(self.log, log_to);
        variables::warn_of_unread();
        self.collector.map(|collector| {
            let tracing = Tracing::start(collector, service);
            trace::start();
            tracing
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        broker: BrokerArgs,
    }

    #[derive(Parser)]
    struct TypedTelemetry {
        #[command(flatten)]
        telemetry: TelemetryArgs,
    }

    #[test]
    fn https_collectors_use_the_tls_settings() {
        let folder = env::temp_dir().join(format!("doorstep-collector-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let ca_file = folder.join("ca.pem");
        let made = rcgen::generate_simple_self_signed(["collector".to_owned()]).unwrap();
        std::fs::write(&ca_file, made.cert.pem()).unwrap();
        let words = ["x", "--otlp-endpoint", "https://collector", "--tls-ca-file"];
        let words = words.map(OsString::from).into_iter();
        let typed = TypedTelemetry::parse_from(words.chain([ca_file.clone().into()]));
        let settings = typed.telemetry.check(&mut SettingsErrors::default());
        std::fs::remove_dir_all(folder).unwrap();
        let trusting = TlsSettings {
            ca_file: Some(ca_file),
            client: None,
        };
        let url: HttpUrl = "https://collector".parse().unwrap();
        assert_eq!(settings.unwrap().collector, Some(url.with_tls(trusting)));
    }

    #[test]
    fn child_programs_get_all_broker_files() {
        let words = "x --amqp-password-file p --tls-ca-file a --tls-cert-file c --tls-key-file k";
        let typed = Typed::parse_from(words.split(' '));
        let variables = typed.broker.variables();
        let files: Vec<_> = variables.as_slice()[1..]
            .iter()
            .map(|(name, file)| (*name, file.to_str().unwrap()))
            .collect();
        assert_eq!(
            files,
            [
                (PASSWORD_FILE, "p"),
                (CA_FILE, "a"),
                (CERT_FILE, "c"),
                (KEY_FILE, "k")
            ]
        );
    }
}
