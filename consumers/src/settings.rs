//! From typed arguments to work that can begin: all that is left to validate is validated, and all errors are reported at once.

use doorstep_cli::{
    SettingsErrors,
    backups::CopyJob,
    start::{Work, work},
};
use doorstep_messaging::BrokerSettings;
use doorstep_runtime::Limits;

use crate::{
    cli::{
        Command, RunArgs, dead_letters::DeadLettersCommand, sources::Sources, store::StoreCommand,
        streams::StreamsCommand, tasks::TasksCommand, topology::TopologyCommand,
    },
    commands::{
        dead_letters, export, health, report,
        run::{self, RunJob},
        show, sources, status, store, streams, tasks,
        topology::{self, VerifyJob},
    },
    roles,
};

/// Validates a command and returns its work.
pub(crate) fn prepare(command: Command, wrong: &mut SettingsErrors) -> Option<Work> {
    match command {
        Command::Run(args) => work(run::run(run_job(*args, wrong)?)),
        Command::Status(args) => work(status::status(args.broker.check(wrong)?, args)),
        Command::Health(args) => work(health::health(args)),
        Command::Show(args) => work(show::show(args)),
        Command::Export(args) => work(export::export(args)),
        Command::Report(args) => work(report::report(args.scope(wrong)?, args)),
        Command::DeadLetters(command) => prepare_dead_letters(command, wrong),
        Command::Streams(StreamsCommand::SkipGap(args)) => {
            work(streams::skip_gap(args.skip.by(wrong)?, args))
        }
        Command::Tasks(command) => prepare_tasks(command, wrong),
        Command::Store(command) => prepare_store(command, wrong),
        Command::Sources(Sources::List(args)) => work(sources::list(args)),
        Command::Sources(Sources::Transfer(args)) => {
            work(sources::transfer(args.record.by(wrong)?, args))
        }
        Command::Topology(command) => prepare_topology(command, wrong),
    }
}

fn run_job(args: RunArgs, wrong: &mut SettingsErrors) -> Option<RunJob> {
    let broker = args.broker.check(wrong);
    let management = args.management.check(wrong, broker.as_ref());
    let mail = args.mail.check(&args.store.folder, wrong);
    Some(RunJob {
        roles: roles::chosen(&args.roles),
        broker: BrokerSettings {
            prefetch: args.prefetch,
            ack_timeout: args.ack_timeout,
            rpc_callers: args.rpc_callers.clone(),
            ..broker?
        },
        management: management?,
        mail: mail?,
        limits: Limits {
            batch_size: args.batch_size,
            max_crashes: args.max_crashes,
            deferred: Limits::max_deferred_of(args.max_deferred),
            dead_letter_copy_ttl: args.dead_letter_copy_ttl,
            task_lease: args.task_lease,
            running_tasks: args.max_running_tasks,
            ..Limits::default()
        },
        args,
    })
}

fn prepare_dead_letters(command: DeadLettersCommand, wrong: &mut SettingsErrors) -> Option<Work> {
    use DeadLettersCommand as Dead;

    match command {
        Dead::List(args) => work(dead_letters::list(args)),
        Dead::Show(args) => work(dead_letters::show(args)),
        Dead::Edit(args) => work(dead_letters::edit(args.change.record.by(wrong)?, args)),
        Dead::Replay(args) => work(dead_letters::replay(args.record.by(wrong)?, args)),
        Dead::Skip(args) => work(dead_letters::skip(args.skip.by(wrong)?, args)),
        Dead::Export(args) => work(dead_letters::export(args)),
        Dead::Import(args) => work(dead_letters::import(args.change.record.by(wrong)?, args)),
        Dead::Audit(args) => work(dead_letters::audit(args)),
    }
}

fn prepare_tasks(command: TasksCommand, wrong: &mut SettingsErrors) -> Option<Work> {
    match command {
        TasksCommand::List(args) => work(tasks::list(args)),
        TasksCommand::Show(args) => work(tasks::show(args)),
        TasksCommand::Cancel(args) => work(tasks::cancel(args.record.by(wrong)?, args)),
        TasksCommand::Retry(args) => work(tasks::retry(args.record.by(wrong)?, args)),
        TasksCommand::Resolve(args) => work(tasks::resolve(args.decision.by(wrong)?, args)),
    }
}

fn prepare_store(command: StoreCommand, wrong: &mut SettingsErrors) -> Option<Work> {
    let (place, job) = match command {
        StoreCommand::TakeOver(args) => {
            let (broker, by) = (args.broker.check(wrong), args.record.by(wrong));
            return work(store::take_over(args.place, broker?, by?));
        }
        StoreCommand::Backup(args) => (args.place, CopyJob::Backup(args.copy)),
        StoreCommand::Restore(args) => (args.place, CopyJob::Restore(args.copy)),
        StoreCommand::Restored(args) => (args.place, args.copy.check(wrong)?),
        StoreCommand::Accept(args) => {
            let (source, by) = (args.source, args.record.by(wrong)?);
            (args.place, CopyJob::Accept { source, by })
        }
    };
    work(store::copy(place, job))
}

fn prepare_topology(command: TopologyCommand, wrong: &mut SettingsErrors) -> Option<Work> {
    match command {
        TopologyCommand::Show(args) => work(async move { topology::show(&args) }),
        TopologyCommand::Verify(args) => {
            let broker = args.broker.check(wrong);
            let management = args.management.check(wrong, broker.as_ref());
            let (broker, management) = (broker?, management?);
            work(topology::verify(VerifyJob {
                roles: roles::chosen(&args.roles),
                prefix: args.user.unwrap_or_else(|| broker.namespace.to_string()),
                broker,
                management,
                json: args.json,
            }))
        }
        TopologyCommand::Permissions(args) => work(async move { topology::permissions(args) }),
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
        assert_eq!(job.args.exit_when_idle, None);
        let job = typed_run(&["run", "orders", "--exit-when-idle", "3s"]);
        assert_eq!(job.roles.len(), 1);
        assert_eq!(job.args.exit_when_idle, Some(Duration::from_secs(3)));
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
        assert_eq!(args.range, (3, 5));
        assert_eq!(args.stream().to_string(), "stock/85123A from shop/1");
    }

    #[test]
    fn bounds_of_tasks_are_applied() {
        let job = typed_run(&["run", "--task-lease", "2s", "--max-running-tasks", "1024"]);
        let limits = job.limits;
        assert_eq!(limits.task_lease, Duration::from_secs(2));
        assert_eq!(limits.running_tasks, 1_024);
        for wrong in [["--task-lease", "1999ms"], ["--max-running-tasks", "0"]] {
            typed(&[&["run"], &wrong[..]].concat());
            let errors = SettingsErrors::of_arguments().into_result(Some(()));
            assert!(errors.is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn dead_copy_ttl_is_applied() {
        let job = typed_run(&["run", "--dead-letter-copy-ttl", "2h"]);
        assert_eq!(job.limits.dead_letter_copy_ttl, Duration::from_hours(2));
    }
}
