//! From typed arguments to work that can begin: all that is left to validate is validated, and all errors are reported at once.

use doorstep_cli::{
    SettingsErrors,
    backups::CopyJob,
    start::{Work, work},
};
use doorstep_event::BrokerUser;
use doorstep_messaging::{BrokerSettings, TopologyOwner, UserId};
use doorstep_runtime::{Limits, operate::Former};
use doorstep_telemetry::health::HealthCheck;

use crate::{
    cli::{
        Command, RunArgs, dead_letters::DeadLettersCommand, sources::Sources, store::StoreCommand,
        streams::StreamsCommand, topology::TopologyCommand,
    },
    commands::{
        dead_letters::{self, Mode, Replay, Selection},
        export, health,
        run::{self, RunJob},
        show, sources, status, store, streams,
        topology::{self, PermissionsQuery, VerifyJob},
    },
    output_format::OutputFormat,
    roles,
};

/// Validates a command and returns its work.
pub(crate) fn prepare(command: Command, wrong: &mut SettingsErrors) -> Option<Work> {
    match command {
        Command::Run(args) => work(run::run(run_job(*args, wrong)?)),
        Command::Status(args) => {
            let broker = args.broker.check(wrong)?;
            work(async move {
                let roles = roles::chosen(&args.roles);
                status::status(&roles, &args.store.folder, &broker, form(args.json)).await
            })
        }
        Command::Health(args) => {
            let question = if args.live {
                HealthCheck::Alive
            } else {
                HealthCheck::Ready
            };
            work(health::health(args.health_addr, question, form(args.json)))
        }
        Command::Show(args) => {
            work(async move { show::show(&args.place, &args.key, form(args.json)).await })
        }
        Command::Export(args) => {
            work(async move { export::export(&args.place, args.output).await })
        }
        Command::DeadLetters(command) => prepare_dead_letters(command, wrong),
        Command::Streams(StreamsCommand::SkipGap(args)) => {
            let gap = args.gap();
            let by = args.who.by(args.reason.as_deref(), wrong)?;
            let mode = Mode::from_flag(args.dry_run);
            work(async move { streams::skip_gap(&args.place, &gap, &by, mode).await })
        }
        Command::Store(command) => prepare_store(command, wrong),
        Command::Sources(command) => prepare_sources(command, wrong),
        Command::Topology(command) => prepare_topology(command, wrong),
    }
}

fn run_job(args: RunArgs, wrong: &mut SettingsErrors) -> Option<RunJob> {
    let broker = args.broker.check(wrong);
    let management = args.management.check(wrong, broker.as_ref());
    Some(RunJob {
        roles: roles::chosen(&args.roles),
        folder: args.store.folder,
        broker: BrokerSettings {
            prefetch: args.prefetch,
            ack_timeout: args.ack_timeout,
            rpc_callers: args.rpc_callers,
            ..broker?
        },
        management: management?,
        limits: Limits {
            batch_size: args.batch_size,
            max_crashes: args.max_crashes,
            deferred: Limits::max_deferred_of(args.max_deferred),
            dead_letter_copy_ttl: args.dead_letter_copy_ttl,
            ..Limits::default()
        },
        shutdown_timeout: args.shutdown_timeout,
        requires_owner_record: !args.without_owner_record,
        exit_when_idle: args.exit_when_idle,
        health: args.health.settings(),
    })
}

fn prepare_dead_letters(command: DeadLettersCommand, wrong: &mut SettingsErrors) -> Option<Work> {
    use DeadLettersCommand as Dead;

    match command {
        Dead::List(args) => work(async move {
            let roles = roles::chosen(args.role.as_slice());
            dead_letters::list(
                &roles,
                &args.store.folder,
                args.by_kind,
                args.limit,
                form(args.json),
            )
            .await
        }),
        Dead::Show(args) => {
            work(async move { dead_letters::show(&args.place, args.id, form(args.json)).await })
        }
        Dead::Edit(args) => {
            let by = args.record.by(wrong)?;
            let ids = args.id.into_iter().collect();
            let chosen = args
                .fingerprint
                .map_or(Selection::Ids(ids), Selection::Group);
            let mode = Mode::from_flag(args.dry_run);
            work(async move {
                dead_letters::edit(&args.place, &chosen, args.patch.as_deref(), &by, mode).await
            })
        }
        Dead::Replay(args) => {
            let by = args.record.by(wrong)?;
            let replay = Replay {
                chosen: match (args.fingerprint, args.all) {
                    (Some(group), _) => Selection::Group(group),
                    (None, true) => Selection::All,
                    (None, false) => Selection::Ids(args.ids),
                },
                rate: args.rate,
                waits: !args.no_wait,
            };
            let mode = Mode::from_flag(args.dry_run);
            work(async move { dead_letters::replay(&args.place, &replay, &by, mode).await })
        }
        Dead::Skip(args) => {
            let by = args.who.by(args.reason.as_deref(), wrong)?;
            let ids = Selection::Ids(args.ids);
            let chosen = args.fingerprint.map_or(ids, Selection::Group);
            let mode = Mode::from_flag(args.dry_run);
            work(async move { dead_letters::skip(&args.place, &chosen, &by, mode).await })
        }
        Dead::Export(args) => {
            let chosen = args.fingerprint.map_or(Selection::All, Selection::Group);
            work(async move { dead_letters::export(&args.place, &chosen).await })
        }
        Dead::Import(args) => {
            let by = args.record.by(wrong)?;
            let mode = Mode::from_flag(args.dry_run);
            work(async move { dead_letters::import(&args.place, &args.file, &by, mode).await })
        }
        Dead::Audit(args) => {
            work(async move { dead_letters::audit(&args.place, args.limit, form(args.json)).await })
        }
    }
}

fn prepare_store(command: StoreCommand, wrong: &mut SettingsErrors) -> Option<Work> {
    let (place, job) = match command {
        StoreCommand::TakeOver(args) => {
            let broker = args.broker.check(wrong);
            let by = args.who.by(Some(&args.reason), wrong);
            let (broker, by) = (broker?, by?);
            return work(async move { store::take_over(&args.place, &broker, by).await });
        }
        StoreCommand::Backup(args) => (args.place, Some(CopyJob::Backup(args.copy))),
        StoreCommand::Restore(args) => (args.place, Some(CopyJob::Restore(args.copy))),
        StoreCommand::Restored(args) => (args.place, args.copy.check(wrong)),
        StoreCommand::Accept(args) => (args.place, args.accept.check(args.source, wrong)),
    };
    let job = job?;
    work(async move { store::copy(&place, job).await })
}

fn prepare_sources(command: Sources, wrong: &mut SettingsErrors) -> Option<Work> {
    match command {
        Sources::List(args) => {
            work(async move { sources::list(&args.place, form(args.json)).await })
        }
        Sources::Transfer(args) => {
            let to = wrong.check("--to", args.to.parse::<UserId>());
            let by = args.record.by(wrong)?;
            let to = match to? {
                UserId::Named(user) => user,
                UserId::OfAddress | UserId::Absent => BrokerUser::new(args.to),
            };
            let former = if args.refuse_former {
                Former::Refused
            } else {
                Former::Accepted
            };
            work(
                async move { sources::transfer(&args.place, &args.source, &to, former, &by).await },
            )
        }
    }
}

fn prepare_topology(command: TopologyCommand, wrong: &mut SettingsErrors) -> Option<Work> {
    match command {
        TopologyCommand::Show(args) => {
            let namespace = args.namespace.namespace;
            if !args.definitions {
                return work(async move { topology::show(&namespace, form(args.json)) });
            }
            let users_of = args.users.then(|| PermissionsQuery {
                namespace: namespace.clone(),
                vhost: args.vhost.clone(),
                prefix: args.user.unwrap_or_else(|| namespace.to_string()),
                declared_by: TopologyOwner::Others,
            });
            work(async move { topology::definitions(&namespace, &args.vhost, users_of.as_ref()) })
        }
        TopologyCommand::Verify(args) => {
            let broker = args.broker.check(wrong);
            let management = args.management.check(wrong, broker.as_ref());
            let (broker, management) = (broker?, management?);
            let job = VerifyJob {
                roles: roles::chosen(&args.roles),
                prefix: args.user.unwrap_or_else(|| broker.namespace.to_string()),
                broker,
                management,
                form: form(args.json),
            };
            work(async move { topology::verify(&job).await })
        }
        TopologyCommand::Permissions(args) => {
            let namespace = args.namespace.namespace;
            let asked = PermissionsQuery {
                prefix: args.user.unwrap_or_else(|| namespace.to_string()),
                namespace,
                vhost: args.vhost,
                declared_by: if args.declared {
                    TopologyOwner::Others
                } else {
                    TopologyOwner::Programs
                },
            };
            work(async move { topology::permissions(&asked, form(args.json)) })
        }
    }
}

fn form(json: bool) -> OutputFormat {
    if json {
        OutputFormat::Json
    } else {
        OutputFormat::Text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory, Parser};

    use doorstep_cli::ExitReason;

    use super::*;
    use crate::cli::Cli;

    fn typed(words: &[&str]) -> Cli {
        Cli::try_parse_from(["consumers"].iter().chain(words)).unwrap()
    }

    fn typed_run(words: &[&str]) -> RunJob {
        let Command::Run(args) = typed(words).command else {
            panic!("not a run");
        };
        run_job(*args, &mut SettingsErrors::of_arguments()).unwrap()
    }

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        fn check_help(command: &clap::Command, names: &str) {
            let leaf = command.get_subcommands().next().is_none();
            let after = command.get_after_help().map(ToString::to_string);
            if leaf {
                assert!(after.is_some_and(|text| text.contains(names)), "{names}");
            }
            for sub in command.get_subcommands() {
                check_help(sub, &format!("{names} {}", sub.get_name()));
            }
        }
        check_help(&Cli::command(), "consumers");
    }

    #[test]
    fn all_settings_errors_are_reported_together() {
        let cli = typed(&[
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
        ]);
        let mut wrong = SettingsErrors::of_arguments();
        let telemetry = cli.telemetry.check(&mut wrong);
        let ready = telemetry.zip(prepare(cli.command, &mut wrong));
        let failure = wrong.into_result(ready.map(drop)).unwrap_err();
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
        let job = typed_run(&["run"]);
        assert_eq!(job.roles.len(), roles::ALL.len());
        assert_eq!(job.exit_when_idle, None);
        let job = typed_run(&["run", "orders", "--exit-when-idle", "3s"]);
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
        let Command::Streams(StreamsCommand::SkipGap(args)) = typed(&words).command else {
            panic!("not a gap");
        };
        let gap = args.gap();
        assert_eq!((gap.from, gap.to), (3, 5));
        assert_eq!(gap.stream.to_string(), "stock/85123A from shop/1");
    }

    #[test]
    fn dead_copy_ttl_is_applied() {
        let job = typed_run(&["run", "--dead-letter-copy-ttl", "2h"]);
        assert_eq!(job.limits.dead_letter_copy_ttl, Duration::from_hours(2));
    }
}
