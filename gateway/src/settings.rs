//! Conversion of arguments to valid settings. All invalid arguments are reported at once.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use doorstep_cli::{
    CliError, SettingsErrors,
    args::TelemetrySettings,
    copies::CopyJob,
    parse::{address, duration, number},
};
use doorstep_contracts::{RestaurantId, check_text};

use crate::{
    cli::{Cli, Command, ServeArgs, StoreCommand, User, UserAddArgs, UserArgs},
    commands::{serve::ServeSettings, user::UserJob},
    domain::{UserName, UserStatus},
    routes::RoleName,
};

/// The settings of the program.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) telemetry: TelemetrySettings,
    pub(crate) job: Job,
}

#[derive(Debug)]
pub(crate) enum Job {
    Serve(Box<ServeSettings>),
    /// Print the OpenAPI document and exit.
    OpenApi,
    User(UserJob),
    /// Back up or restore the gateway's store in this folder.
    Store(PathBuf, CopyJob),
}

impl Settings {
    /// Checks the arguments.
    ///
    /// # Errors
    /// Lists every invalid argument, with its flag and the expected form.
    pub(crate) fn check(cli: Cli) -> Result<Self, CliError> {
        let mut wrong = SettingsErrors::default();
        let telemetry = cli.telemetry.check(&mut wrong);
        let job = match cli.command {
            Command::Serve(args) if args.openapi => Some(Job::OpenApi),
            Command::Serve(args) => serve(*args, &mut wrong),
            Command::User(User::Add(args)) => user_add(args, &mut wrong),
            Command::User(User::List(args)) => Some(Job::User(UserJob::List {
                folder: args.store.folder,
                json: args.json,
            })),
            Command::User(User::Revoke(args)) => named_user(args, &mut wrong, |folder, name| {
                UserJob::Revoke { folder, name }
            }),
            Command::User(User::Password(args)) => named_user(args, &mut wrong, |folder, name| {
                UserJob::SetPassword { folder, name }
            }),
            Command::User(User::Disable(args)) => {
                user_status(args, &mut wrong, UserStatus::Disabled)
            }
            Command::User(User::Enable(args)) => user_status(args, &mut wrong, UserStatus::Active),
            Command::User(User::Delete(args)) => user_status(args, &mut wrong, UserStatus::Deleted),
            Command::Store(command) => store(command, &mut wrong),
        };
        wrong.into_result((|| {
            Some(Self {
                telemetry: telemetry?,
                job: job?,
            })
        })())
    }
}

fn serve(args: ServeArgs, wrong: &mut SettingsErrors) -> Option<Job> {
    let listen = wrong.check("--listen (DOORSTEP_LISTEN)", address(&args.listen));
    let session = wrong.check(
        "--session-ttl (DOORSTEP_SESSION_TTL)",
        session(&args.session_ttl),
    );
    let rate = wrong.check(
        "--rate-limit (DOORSTEP_RATE_LIMIT)",
        number(&args.rate_limit, 1..=1_000_000),
    );
    let requests = wrong.check(
        "--max-concurrent-requests (DOORSTEP_MAX_CONCURRENT_REQUESTS)",
        number(&args.max_concurrent_requests, 1..=100_000),
    );
    let proxy = wrong.check(
        "--trusted-proxy (DOORSTEP_TRUSTED_PROXY)",
        proxy(args.trusted_proxy.as_deref()),
    );
    let shutdown_timeout = wrong.check("--shutdown-timeout", duration(&args.shutdown_timeout));
    let answer_within = wrong.check(
        "--order-timeout (DOORSTEP_ORDER_TIMEOUT)",
        answer_within(&args.order_timeout),
    );
    let broker = args.broker.check(wrong);
    let health = args.health.check(wrong);
    Some(Job::Serve(Box::new(ServeSettings {
        listen: listen?,
        folder: args.store.folder,
        broker: broker?,
        session: session?,
        rate: rate?,
        requests: requests?,
        proxy: proxy?,
        answer_within: answer_within?,
        shutdown_timeout: shutdown_timeout?,
        health: health?,
    })))
}

fn proxy(text: Option<&str>) -> Result<Option<IpAddr>, String> {
    let read = |text: &str| match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical()),
        Err(_) => Err(format!("{text:?} is not an IP address, such as 10.0.0.2")),
    };
    text.map(read).transpose()
}

/// The bounds on the lifetime of a session.
fn session(text: &str) -> Result<Duration, String> {
    let session = duration(text)?;
    let bounds = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);
    if bounds.contains(&session) {
        Ok(session)
    } else {
        Err(format!("{text:?} is not from 1s to 720h"))
    }
}

/// Long enough for two replies, and short enough for a request to end by itself.
fn answer_within(text: &str) -> Result<Duration, String> {
    let within = duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(20)).contains(&within) {
        Ok(within)
    } else {
        Err(format!("{text:?} is not from 100ms to 20s"))
    }
}

fn named_user(
    args: UserArgs,
    wrong: &mut SettingsErrors,
    job: impl FnOnce(PathBuf, UserName) -> UserJob,
) -> Option<Job> {
    let name = wrong.check("NAME", args.name.parse())?;
    Some(Job::User(job(args.store.folder, name)))
}

fn user_status(args: UserArgs, wrong: &mut SettingsErrors, status: UserStatus) -> Option<Job> {
    named_user(args, wrong, |folder, name| UserJob::SetStatus {
        folder,
        name,
        status,
    })
}

fn store(command: StoreCommand, wrong: &mut SettingsErrors) -> Option<Job> {
    let (store, job) = match command {
        StoreCommand::Backup(args) => (args.store, Some(args.copy.job())),
        StoreCommand::Restore(args) => (args.store, Some(args.copy.job())),
        StoreCommand::Restored(args) => (args.store, args.copy.check(wrong)),
        StoreCommand::Accept(args) => (args.store, args.copy.check(None, wrong)),
    };
    Some(Job::Store(store.folder, job?))
}

fn user_add(args: UserAddArgs, wrong: &mut SettingsErrors) -> Option<Job> {
    let name = wrong.check("NAME", args.name.parse());
    // clap accepts only names of the list.
    let role = match args.role.as_str() {
        "customer" => RoleName::Customer,
        "courier" => RoleName::Courier,
        "restaurant" => RoleName::Restaurant,
        _ => RoleName::Operator,
    };
    let restaurant = args.restaurant.as_deref().map(restaurant);
    let standing = match restaurant.transpose() {
        Ok(restaurant) => role.at(restaurant).map_err(str::to_owned),
        Err(error) => Err(error),
    };
    let standing = wrong.check("--restaurant", standing);
    Some(Job::User(UserJob::Add {
        folder: args.store.folder,
        name: name?,
        standing: standing?,
    }))
}

fn restaurant(text: &str) -> Result<RestaurantId, String> {
    check_text(text).map_err(|e| e.to_string())?;
    RestaurantId::new(text).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::checkout::longest_order;

    fn check(words: &[&str]) -> Result<Settings, CliError> {
        let words = ["gateway"].iter().chain(words);
        Settings::check(Cli::try_parse_from(words).unwrap())
    }

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn default_shutdown_timeout_covers_an_order() {
        let Job::Serve(settings) = check(&["serve"]).unwrap().job else {
            panic!("something else is served");
        };
        assert!(settings.shutdown_timeout > longest_order(settings.answer_within));
    }
}
