//! Conversion of typed arguments to the work of a command. It makes the remaining checks, and reports all errors at once.

use doorstep_cli::{
    CliError, SettingsErrors, ShutdownSignal,
    backups::CopyJob,
    start::{Work, work},
};

use crate::{
    cli::{Command, StoreCommand, User, UserArgs},
    commands::{serve, store, user},
    domain::UserStatus,
    ended_at_once,
};

/// Checks a command and returns its work.
pub(crate) fn prepare(command: Command, wrong: &mut SettingsErrors) -> Option<Work> {
    match command {
        Command::Serve(args) if args.openapi => work(async { serve::print_openapi() }),
        Command::Serve(args) => {
            let broker = args.broker.check(wrong)?;
            work(async {
                let stop = ShutdownSignal::listen(ended_at_once)?;
                serve::run(*args, broker, stop).await
            })
        }
        Command::User(command) => prepare_user(command, wrong),
        Command::Store(command) => prepare_store(command, wrong),
    }
}

fn prepare_user(command: User, wrong: &mut SettingsErrors) -> Option<Work> {
    let set_status = |UserArgs { name, store }, status| {
        uninterrupted(async move { user::set_status(&store.folder, name, status).await })
    };
    match command {
        User::Add(args) => {
            let standing = wrong.check("--restaurant", args.role.at(args.restaurant))?;
            uninterrupted(async move { user::add(&args.store.folder, args.name, standing).await })
        }
        User::List(args) => {
            uninterrupted(async move { user::list(&args.store.folder, args.json).await })
        }
        User::Revoke(UserArgs { name, store }) => {
            uninterrupted(async move { user::revoke(&store.folder, name).await })
        }
        User::Password(UserArgs { name, store }) => {
            uninterrupted(async move { user::set_password(&store.folder, name).await })
        }
        User::Disable(args) => set_status(args, UserStatus::Disabled),
        User::Enable(args) => set_status(args, UserStatus::Active),
        User::Delete(args) => set_status(args, UserStatus::Deleted),
    }
}

fn prepare_store(command: StoreCommand, wrong: &mut SettingsErrors) -> Option<Work> {
    let (store, job) = match command {
        StoreCommand::Backup(args) => (args.place, CopyJob::Backup(args.copy)),
        StoreCommand::Restore(args) => (args.place, CopyJob::Restore(args.copy)),
        StoreCommand::Restored(args) => (args.place, args.copy.check(wrong)?),
        StoreCommand::Accept(args) => {
            let (source, by) = (None, args.copy.by(wrong)?);
            (args.place, CopyJob::Accept { source, by })
        }
    };
    uninterrupted(async move { store::run(&store.folder, job).await })
}

/// Lets a command end by itself: a first signal has no effect, a second one ends it at once.
fn uninterrupted(
    command: impl Future<Output = Result<(), CliError>> + Send + 'static,
) -> Option<Work> {
    work(async {
        let _stop = ShutdownSignal::listen(ended_at_once)?;
        command.await
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::{checkout::longest_order, cli::Cli};

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn default_shutdown_timeout_covers_an_order() {
        let cli = Cli::try_parse_from(["gateway", "serve"]).unwrap();
        let Command::Serve(args) = cli.command else {
            panic!("something else is served");
        };
        assert!(args.shutdown_timeout > longest_order(args.order_timeout));
    }
}
