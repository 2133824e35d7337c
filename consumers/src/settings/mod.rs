//! From typed arguments to valid settings. Everything is validated, and all errors are reported at once.

pub(crate) mod dead_letters;
mod store;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use doorstep_cli::{
    CliError, SettingsErrors,
    args::TelemetrySettings,
    health::HealthSettings,
    management::Management,
    parse::{address, duration, idle_window, number},
};
use doorstep_event::{BrokerUser, Sequence, Source, StreamKey, Subject};
use doorstep_messaging::{BrokerSettings, Namespace, TopologyOwner, UserId};
use doorstep_runtime::{
    Limits,
    operate::{Attribution, Former},
};
use doorstep_telemetry::health::HealthCheck;

use self::dead_letters::{DeadLettersJob, Mode};
pub(crate) use self::store::StoreJob;
use crate::{
    cli::{
        Cli, Command, RunArgs,
        sources::Sources,
        streams::{SkipGapArgs, StreamsCommand},
        topology::TopologyCommand,
    },
    commands::topology::Asked,
    roles::{self, RoleEntry},
};
pub(crate) use crate::{output_format::OutputFormat, stores::StoreLocation};

/// The validated settings of the program.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) telemetry: TelemetrySettings,
    pub(crate) job: Action,
}

/// A command with its settings.
#[derive(Debug)]
pub(crate) enum Action {
    /// Run roles.
    Run(Box<RunJob>),
    /// Show the status of roles.
    Status {
        roles: Vec<RoleEntry>,
        /// The folder with their stores.
        folder: PathBuf,
        broker: Box<BrokerSettings>,
        form: OutputFormat,
    },
    /// Query the health of running roles.
    Health {
        /// The address of their health endpoint.
        address: SocketAddr,
        question: HealthCheck,
        form: OutputFormat,
    },
    /// Show one entity.
    Show {
        place: StoreLocation,
        key: String,
        form: OutputFormat,
    },
    /// Export all entities.
    Export {
        place: StoreLocation,
        /// The file to write, standard output if none.
        output: Option<PathBuf>,
    },
    DeadLetters(Box<DeadLettersJob>),
    /// Skip missing events.
    SkipGap {
        place: StoreLocation,
        gap: GapRange,
        by: Attribution,
        mode: Mode,
    },
    Store(StoreJob),
    /// List the sources that a role knows.
    SourcesList {
        place: StoreLocation,
        form: OutputFormat,
    },
    /// Transfer a source to another user.
    SourcesTransfer {
        /// The role that knows it.
        place: StoreLocation,
        source: Source,
        /// The new owner.
        to: BrokerUser,
        /// The treatment of the former owner.
        former: Former,
        by: Attribution,
    },
    /// Show the declared topology.
    TopologyShow {
        namespace: Namespace,
        form: OutputFormat,
    },
    /// Show the declared topology as a definitions file.
    TopologyDefinitions {
        namespace: Namespace,
        vhost: String,
        /// The users whose permissions to add.
        users_of: Option<Asked>,
    },
    /// Compare the broker with the declared topology.
    TopologyVerify(Box<VerifyJob>),
    /// Show the permissions that users need.
    TopologyPermissions {
        asked: Asked,
        form: OutputFormat,
    },
}

/// The settings of `run`.
#[derive(Debug)]
pub(crate) struct RunJob {
    pub(crate) roles: Vec<RoleEntry>,
    /// The folder with their stores.
    pub(crate) folder: PathBuf,
    pub(crate) broker: BrokerSettings,
    /// The broker's management API, if it is configured.
    pub(crate) management: Option<Management>,
    pub(crate) limits: Limits,
    /// The time in which a stopping role has to end.
    pub(crate) shutdown_timeout: Duration,
    /// True if the owner of the queues has to be recorded at the broker.
    pub(crate) requires_owner_record: bool,
    /// The idle time after which the program stops by itself.
    pub(crate) exit_when_idle: Option<Duration>,
    /// The health endpoint, if there is one.
    pub(crate) health: Option<HealthSettings>,
}

/// The settings of `topology verify`.
#[derive(Debug)]
pub(crate) struct VerifyJob {
    pub(crate) roles: Vec<RoleEntry>,
    pub(crate) broker: BrokerSettings,
    /// The broker's management API, if it is configured.
    pub(crate) management: Option<Management>,
    /// The common prefix of the users' names.
    pub(crate) prefix: String,
    pub(crate) form: OutputFormat,
}

/// A range of missing events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GapRange {
    pub(crate) stream: StreamKey,
    /// The first missing sequence.
    pub(crate) from: u64,
    /// The last missing sequence.
    pub(crate) to: u64,
}

/// The maximum prefetch of a quorum queue.
const MAX_PREFETCH: u16 = 2_000;
/// The maximum of events in a commit: larger batches only take memory.
const MAX_BATCH: usize = 100_000;
/// With a maximum of one, healthy events would be rejected together with the poison message. Each further attempt may
/// cost a process.
const MIN_TRIALS: u32 = 2;
const MAX_TRIALS: u32 = 100;

impl Settings {
    /// Validates the arguments.
    ///
    /// # Errors
    /// All errors, each with the name of its flag and variable and the expected form.
    pub(crate) fn check(cli: Cli) -> Result<Self, CliError> {
        let mut wrong = SettingsErrors::default();
        let telemetry = cli.telemetry.check(&mut wrong);
        let job = job(cli.command, &mut wrong);
        wrong.into_result((|| {
            Some(Self {
                telemetry: telemetry?,
                job: job?,
            })
        })())
    }
}

fn job(command: Command, wrong: &mut SettingsErrors) -> Option<Action> {
    match command {
        Command::Run(args) => run(*args, wrong),
        Command::Status(args) => Some(Action::Status {
            roles: roles::chosen(&args.roles),
            folder: args.store.folder,
            broker: Box::new(args.broker.check(wrong)?),
            form: form(args.json),
        }),
        Command::Health(args) => Some(Action::Health {
            address: wrong.check(
                "--health-addr (DOORSTEP_HEALTH_ADDR)",
                address(&args.health_addr),
            )?,
            question: if args.live {
                HealthCheck::Alive
            } else {
                HealthCheck::Ready
            },
            form: form(args.json),
        }),
        Command::Show(args) => Some(Action::Show {
            place: place(args.role, args.store.folder, wrong)?,
            key: args.key,
            form: form(args.json),
        }),
        Command::Export(args) => Some(Action::Export {
            place: place(args.role, args.store.folder, wrong)?,
            output: args.output,
        }),
        Command::DeadLetters(command) => {
            dead_letters::dead_letters(command, wrong).map(|job| Action::DeadLetters(Box::new(job)))
        }
        Command::Streams(StreamsCommand::SkipGap(args)) => skip_gap(args, wrong),
        Command::Store(command) => store::store(command, wrong).map(Action::Store),
        Command::Sources(command) => sources(command, wrong),
        Command::Topology(command) => topology(command, wrong),
    }
}

fn sources(command: Sources, wrong: &mut SettingsErrors) -> Option<Action> {
    Some(match command {
        Sources::List(args) => Action::SourcesList {
            place: place(args.place.role, args.place.store.folder, wrong)?,
            form: form(args.json),
        },
        Sources::Transfer(args) => {
            let place = place(args.place.role, args.place.store.folder, wrong);
            let source = wrong.check("SOURCE", args.source.parse());
            let to = wrong.check("--to", args.to.parse::<UserId>());
            let by = args.record.by(wrong);
            let to = match to? {
                UserId::Named(user) => user,
                UserId::OfAddress | UserId::Absent => BrokerUser::new(args.to),
            };
            Action::SourcesTransfer {
                place: place?,
                source: source?,
                to,
                former: if args.refuse_former {
                    Former::Refused
                } else {
                    Former::Accepted
                },
                by: by?,
            }
        }
    })
}

fn topology(command: TopologyCommand, wrong: &mut SettingsErrors) -> Option<Action> {
    Some(match command {
        TopologyCommand::Show(args) => {
            let namespace = args.namespace.check(wrong)?;
            if args.definitions {
                let users_of = args.users.then(|| Asked {
                    namespace: namespace.clone(),
                    vhost: args.vhost.clone(),
                    prefix: args.user.unwrap_or_else(|| namespace.to_string()),
                    declared_by: TopologyOwner::Others,
                });
                Action::TopologyDefinitions {
                    namespace,
                    vhost: args.vhost,
                    users_of,
                }
            } else {
                Action::TopologyShow {
                    namespace,
                    form: form(args.json),
                }
            }
        }
        TopologyCommand::Verify(args) => {
            let broker = args.broker.check(wrong);
            let management = args.management.check(wrong, broker.as_ref());
            let (broker, management) = (broker?, management?);
            Action::TopologyVerify(Box::new(VerifyJob {
                roles: roles::chosen(&args.roles),
                prefix: args.user.unwrap_or_else(|| broker.namespace.to_string()),
                broker,
                management,
                form: form(args.json),
            }))
        }
        TopologyCommand::Permissions(args) => {
            let namespace = args.namespace.check(wrong)?;
            Action::TopologyPermissions {
                asked: Asked {
                    prefix: args.user.unwrap_or_else(|| namespace.to_string()),
                    namespace,
                    vhost: args.vhost,
                    declared_by: if args.declared {
                        TopologyOwner::Others
                    } else {
                        TopologyOwner::Programs
                    },
                },
                form: form(args.json),
            }
        }
    })
}

fn run(args: RunArgs, wrong: &mut SettingsErrors) -> Option<Action> {
    // Validated separately, so that one error does not hide another.
    let broker = args.broker.check(wrong);
    let prefetch = wrong.check(
        "--prefetch (DOORSTEP_PREFETCH)",
        number(&args.prefetch, 1..=MAX_PREFETCH),
    );
    let ack_timeout = wrong.check(
        "--ack-timeout (DOORSTEP_ACK_TIMEOUT)",
        idle_window(&args.ack_timeout),
    );
    let batch = wrong.check(
        "--batch-size (DOORSTEP_BATCH_SIZE)",
        number(&args.batch_size, 1..=MAX_BATCH),
    );
    let trials = wrong.check(
        "--max-crashes (DOORSTEP_MAX_CRASHES)",
        number(&args.max_crashes, MIN_TRIALS..=MAX_TRIALS),
    );
    let shutdown_timeout = wrong.check("--shutdown-timeout", duration(&args.shutdown_timeout));
    let exit_when_idle = match args.exit_when_idle {
        Some(text) => wrong
            .check("--exit-when-idle", idle_window(&text))
            .map(Some),
        None => Some(None),
    };
    let health = args.health.check(wrong);
    let management = args.management.check(wrong, broker.as_ref());
    let max_held = wrong.check(
        "--max-deferred (DOORSTEP_MAX_DEFERRED)",
        number(&args.max_deferred, 1_000..=1_000_000_000),
    );
    let dead_copy_ttl = wrong.check(
        "--dead-letter-copy-ttl (DOORSTEP_DEAD_LETTER_COPY_TTL)",
        dead_copy_ttl(&args.dead_letter_copy_ttl),
    );
    Some(Action::Run(Box::new(RunJob {
        roles: roles::chosen(&args.roles),
        folder: args.store.folder,
        broker: BrokerSettings {
            prefetch: prefetch?,
            ack_timeout: ack_timeout?,
            rpc_callers: args
                .rpc_callers
                .map(|users| users.into_iter().map(BrokerUser::new).collect()),
            ..broker?
        },
        management: management?,
        limits: Limits {
            batch_size: batch?,
            max_crashes: trials?,
            deferred: Limits::max_deferred_of(max_held?),
            dead_letter_copy_ttl: dead_copy_ttl?,
            ..Limits::default()
        },
        shutdown_timeout: shutdown_timeout?,
        requires_owner_record: !args.without_owner_record,
        exit_when_idle: exit_when_idle?,
        health: health?,
    })))
}

/// Long enough for alerts to see a copy, and short enough for the broker, which counts milliseconds in 32 bits.
fn dead_copy_ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if (Duration::from_mins(1)..=Duration::from_hours(49 * 24)).contains(&ttl) {
        Ok(ttl)
    } else {
        Err(format!("{text:?} is not from 1m to 1176h"))
    }
}

fn place(name: String, folder: PathBuf, wrong: &mut SettingsErrors) -> Option<StoreLocation> {
    // The parser accepts only names of the list.
    let role = roles::chosen(std::slice::from_ref(&name)).pop();
    let role = wrong.check(
        "ROLE",
        role.ok_or_else(|| format!("{name:?} is not a role")),
    );
    Some(StoreLocation {
        role: role?,
        folder,
    })
}

fn form(json: bool) -> OutputFormat {
    if json {
        OutputFormat::Json
    } else {
        OutputFormat::Text
    }
}

/// Parses `3..5`, both ends included, or `3` for a single one.
fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let read = |text: &str| text.parse::<Sequence>().ok().map(Sequence::get);
    match (read(from), read(to)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        _ => Err(format!("{text:?} is not a range of sequences such as 3..5")),
    }
}

fn skip_gap(args: SkipGapArgs, wrong: &mut SettingsErrors) -> Option<Action> {
    let by = args.who.by(args.reason.as_deref(), wrong);
    let place = place(args.place.role, args.place.store.folder, wrong);
    let subject = wrong.check("SUBJECT", args.subject.parse::<Subject>());
    let source = wrong.check("--source", args.source.parse::<Source>());
    let range = wrong.check("FROM..TO", range(&args.range));
    let (from, to) = range?;
    Some(Action::SkipGap {
        place: place?,
        gap: GapRange {
            stream: StreamKey {
                source: source?,
                subject: subject?,
            },
            from,
            to,
        },
        by: by?,
        mode: dead_letters::mode(args.dry_run),
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use doorstep_cli::ExitReason;

    use super::*;

    fn check(words: &[&str]) -> Result<Settings, CliError> {
        let words = ["consumers"].iter().chain(words);
        Settings::check(Cli::try_parse_from(words).unwrap())
    }

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        fn look(command: &clap::Command, names: &str) {
            let leaf = command.get_subcommands().next().is_none();
            let after = command.get_after_help().map(ToString::to_string);
            if leaf {
                assert!(after.is_some_and(|text| text.contains(names)), "{names}");
            }
            for sub in command.get_subcommands() {
                look(sub, &format!("{names} {}", sub.get_name()));
            }
        }
        look(&Cli::command(), "consumers");
    }

    #[test]
    fn all_wrong_settings_are_told_at_once() {
        let failure = check(&[
            "run",
            "--log",
            "a=b=c",
            "--log-format",
            "xml",
            "--amqp-url",
            "http://user:secret@nowhere",
            "--namespace",
            "Not A Name",
            "--prefetch",
            "2001",
            "--ack-timeout",
            "0s",
            "--batch-size",
            "0",
            "--max-crashes",
            "1",
            "--shutdown-timeout",
            "soon",
            "--exit-when-idle",
            "1ms",
            "--otlp-endpoint",
            "ftp://collector",
            "--health-addr",
            "9100",
            "--liveness-timeout",
            "0s",
            "--management-url",
            "http://ops:secret@",
        ])
        .unwrap_err();
        assert_eq!(failure.reason, ExitReason::Settings);
        let said = failure.to_string();
        for name in [
            "14 settings are wrong",
            "--otlp-endpoint (DOORSTEP_OTLP_ENDPOINT)",
            "--health-addr (DOORSTEP_HEALTH_ADDR)",
            "--liveness-timeout (DOORSTEP_LIVENESS_TIMEOUT)",
            "--log (DOORSTEP_LOG)",
            "--log-format (DOORSTEP_LOG_FORMAT)",
            "--amqp-url (DOORSTEP_AMQP_URL)",
            "--namespace (DOORSTEP_NAMESPACE)",
            "--prefetch (DOORSTEP_PREFETCH)",
            "--ack-timeout (DOORSTEP_ACK_TIMEOUT)",
            "--batch-size (DOORSTEP_BATCH_SIZE)",
            "--max-crashes (DOORSTEP_MAX_CRASHES)",
            "--shutdown-timeout",
            "--exit-when-idle",
            "--management-url (DOORSTEP_MANAGEMENT_URL)",
        ] {
            assert!(said.contains(name), "{name} in {said}");
        }
        assert!(!said.contains("secret"), "{said}");
    }

    #[test]
    fn without_names_all_roles_are_run() {
        let Action::Run(job) = check(&["run"]).unwrap().job else {
            panic!("not a run");
        };
        assert_eq!(job.roles.len(), roles::ALL.len());
        assert_eq!(job.exit_when_idle, None);
        let Action::Run(job) = check(&["run", "orders", "--exit-when-idle", "3s"])
            .unwrap()
            .job
        else {
            panic!("not a run");
        };
        assert_eq!(job.roles.len(), 1);
        assert_eq!(job.exit_when_idle, Some(Duration::from_secs(3)));
    }

    #[test]
    fn a_gap_is_named_by_stream_and_sequences() {
        let words = [
            "streams",
            "skip-gap",
            "inventory",
            "stock/85123A",
            "3..5",
            "--source",
            "shop/1",
            "--reason",
            "till 7 burnt",
        ];
        let Action::SkipGap { gap, .. } = check(&words).unwrap().job else {
            panic!("not a gap");
        };
        assert_eq!((gap.from, gap.to), (3, 5));
        assert_eq!(gap.stream.to_string(), "stock/85123A from shop/1");
        for bad in ["5..3", "0..1", "a..b", "3..", "..5", "3-5", ""] {
            assert!(range(bad).is_err(), "{bad}");
        }
        assert_eq!(range("7"), Ok((7, 7)));
    }

    #[test]
    fn dead_copy_ttl_is_applied() {
        let Action::Run(job) = check(&["run", "--dead-letter-copy-ttl", "2h"]).unwrap().job else {
            panic!("not a run");
        };
        assert_eq!(job.limits.dead_letter_copy_ttl, Duration::from_hours(2));
    }
}
