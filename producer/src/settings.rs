//! From what was typed to settings that hold: everything is checked, and everything that is wrong is told at once.

use std::{
    net::IpAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use doorstep_contracts::{Label, RestaurantId, check_text};
use doorstep_program::{
    CliError, SettingsErrors,
    args::TelemetrySettings,
    copies::CopyJob,
    parse::{address, duration, number},
};
use jiff::tz::Offset;

use crate::{
    cli::{
        Cli, Command, Import, ImportArgs, ServeArgs, SinkArgs, StoreCommand, User, UserAddArgs,
        UserArgs,
    },
    compare::{CompareSettings, WorkSettings},
    demo::DemoSettings,
    import::{
        Calendar, Dates, Decimal, Format, ImportSettings, Layout, Pickups, Reading, Retail,
        RowMapper, default_refused_path,
    },
    output::Target,
    publish_pipeline::BrokerTarget,
    serve::{RoleName, ServeSettings, UserJob, UserName, UserStatus},
};

/// All that the program needs to know.
#[derive(Debug)]
pub(crate) struct Settings {
    /// What to tell of itself.
    pub(crate) telemetry: TelemetrySettings,
    /// What to do.
    pub(crate) job: Job,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Import sales.
    Retail(ImportSettings, Reading, Target),
    /// Import pick-ups.
    Pickups(ImportSettings, Calendar, Target),
    /// Publish lines.
    Publish(Option<PathBuf>, Target),
    /// Play the demo.
    Demo(DemoSettings),
    /// Compare.
    Compare(CompareSettings),
    /// Be the consumers of a comparison.
    CompareWork(WorkSettings),
    /// Serve the gateway.
    Serve(Box<ServeSettings>),
    /// Print what the gateway offers.
    OpenApi,
    /// Look after users.
    User(UserJob),
    /// Look after the gateway's store in this folder.
    Store(PathBuf, CopyJob),
}

/// The years that a calendar of real deliveries can have.
const YEARS: RangeInclusive<i16> = 1900..=2200;

impl Settings {
    /// Checks what was typed.
    ///
    /// # Errors
    /// Lists all that is wrong, each with the name of its flag and how it is written.
    pub(crate) fn check(cli: Cli) -> Result<Self, CliError> {
        let mut wrong = SettingsErrors::default();
        let telemetry = cli.telemetry.check(&mut wrong);
        let job = match cli.command {
            Command::Import(Import::Retail(args)) => {
                let output = output(&args.import, &mut wrong);
                let import = import::<Retail>(args.import, &mut wrong);
                let country = args.country.as_deref().map(Label::new).transpose();
                let country = wrong.check("--country", country.map_err(|e| e.to_string()));
                let format = Format {
                    decimal: match args.decimal.as_str() {
                        "comma" => Decimal::Comma,
                        _ => Decimal::Point,
                    },
                    dates: match args.dates.as_deref() {
                        Some("us") => Dates::MonthFirst,
                        Some(_) => Dates::DayFirst,
                        None => Dates::Unknown,
                    },
                };
                (|| {
                    let country = country?;
                    Some(Job::Retail(import?, Reading { format, country }, output?))
                })()
            }
            Command::Import(Import::Pickups(args)) => {
                let year = wrong.check("--year (DOORSTEP_YEAR)", year(&args.year));
                let offset = wrong.check(
                    "--utc-offset (DOORSTEP_UTC_OFFSET)",
                    utc_offset(&args.utc_offset),
                );
                let calendar = year
                    .zip(offset)
                    .map(|(year, offset)| Calendar { year, offset });
                let output = output(&args.import, &mut wrong);
                let import = import::<Pickups>(args.import, &mut wrong);
                (|| Some(Job::Pickups(import?, calendar?, output?)))()
            }
            Command::Publish(args) => {
                let output = broker(&args.sink, &mut wrong);
                output.map(|output| Job::Publish(args.file, output))
            }
            Command::Demo(args) => {
                let seed = wrong.check("--seed", number(&args.seed, 0..=u64::MAX));
                let minutes = wrong.check("--minutes", number(&args.minutes, 1..=1440));
                let speed = wrong.check("--speed", number(&args.speed, 1..=10_000));
                let sink = sink(&args.sink, &mut wrong);
                (|| {
                    Some(Job::Demo(DemoSettings {
                        seed: seed?,
                        minutes: minutes?,
                        speed: speed?,
                        report: args.report,
                        broker: sink?.settings,
                    }))
                })()
            }
            Command::Compare(args) => args.check(&mut wrong).map(Job::Compare),
            Command::CompareWork(args) => args.check(&mut wrong).map(Job::CompareWork),
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
    let session = wrong.check("--session (DOORSTEP_SESSION)", session(&args.session));
    let rate = wrong.check("--rate (DOORSTEP_RATE)", number(&args.rate, 1..=1_000_000));
    let requests = wrong.check(
        "--requests (DOORSTEP_REQUESTS)",
        number(&args.requests, 1..=100_000),
    );
    let proxy = wrong.check("--proxy (DOORSTEP_PROXY)", proxy(args.proxy.as_deref()));
    let grace = wrong.check("--grace", duration(&args.grace));
    let answer_within = wrong.check(
        "--answer-within (DOORSTEP_ANSWER_WITHIN)",
        answer_within(&args.answer_within),
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
        grace: grace?,
        health: health?,
    })))
}

fn proxy(text: Option<&str>) -> Result<Option<IpAddr>, String> {
    let read = |text: &str| match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_canonical()),
        Err(_) => Err(format!("{text:?} is no IP address, such as 10.0.0.2")),
    };
    text.map(read).transpose()
}

/// The least and the most time that a login may last.
fn session(text: &str) -> Result<Duration, String> {
    let session = duration(text)?;
    let bounds = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);
    if bounds.contains(&session) {
        Ok(session)
    } else {
        Err(format!("{text:?} is not from 1s to 720h"))
    }
}

/// Long enough for two answers, and short enough for a request to end by itself.
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
    // Only names of the list can be typed.
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

fn import<M: RowMapper>(args: ImportArgs, wrong: &mut SettingsErrors) -> Option<ImportSettings> {
    let dataset = match args.dataset {
        Some(name) => wrong.check("--dataset", dataset(name)).map(Some),
        None => Some(None),
    };
    let refused = args
        .refused
        .unwrap_or_else(|| default_refused_path(&args.file));
    let refused = wrong.check("--refused", another_file(refused, &args.file));
    let names = args.columns.iter().map(|text| column::<M>(text)).collect();
    let names = wrong.check("--columns", names);
    let delimiter = args.delimiter.as_deref().map(delimiter).transpose();
    let delimiter = wrong.check("--delimiter", delimiter);
    let max_refused_percent = wrong.check("--max-refused", percent(&args.max_refused));
    Some(ImportSettings {
        layout: Layout {
            delimiter: delimiter?,
            names: names?,
        },
        dataset: dataset?,
        max_refused_percent: max_refused_percent?,
        refused: refused?,
        // What goes to standard output may never be published.
        history: (!args.to_stdout).then_some(args.store.folder),
        file: args.file,
    })
}

/// Reads `invoice=Order`: a column by its place, and its name in the file.
fn column<M: RowMapper>(text: &str) -> Result<(usize, String), String> {
    let keys = || -> Vec<_> { M::COLUMNS.iter().map(|column| column.key).collect() };
    let (key, name) = text
        .split_once('=')
        .filter(|(_, name)| !name.is_empty())
        .ok_or_else(|| format!("{text:?} is not of the form KEY=NAME"))?;
    let place = M::COLUMNS.iter().position(|column| column.key == key);
    let place =
        place.ok_or_else(|| format!("{key:?} is none of the columns {}", keys().join(", ")))?;
    Ok((place, name.to_owned()))
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text {
        "comma" => Ok(b','),
        "semicolon" => Ok(b';'),
        "tab" | r"\t" => Ok(b'\t'),
        "pipe" => Ok(b'|'),
        _ => match text.as_bytes() {
            [b'"' | b'\r' | b'\n'] | [] => Err(format!("{text:?} cannot separate columns")),
            [sign] if sign.is_ascii() => Ok(*sign),
            _ => Err(format!(
                "{text:?} is neither comma, semicolon, tab, pipe nor one character of one byte"
            )),
        },
    }
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.trim_end_matches('%').parse().ok();
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| format!("{text:?} is not a number from 0 to 100"))
}

fn output(args: &ImportArgs, wrong: &mut SettingsErrors) -> Option<Target> {
    // The broker's settings are not looked at where no broker is needed.
    if args.to_stdout {
        Some(Target::Lines)
    } else {
        broker(&args.sink, wrong)
    }
}

fn broker(args: &SinkArgs, wrong: &mut SettingsErrors) -> Option<Target> {
    sink(args, wrong).map(|sink| Target::Broker(Box::new(sink)))
}

fn sink(args: &SinkArgs, wrong: &mut SettingsErrors) -> Option<BrokerTarget> {
    // Each by itself, so that one that is wrong does not hide another.
    let settings = args.broker.check(wrong);
    let give_up_after = wrong.check(
        "--give-up-after (DOORSTEP_GIVE_UP_AFTER)",
        duration(&args.give_up_after),
    );
    Some(BrokerTarget {
        settings: settings?,
        give_up_after: give_up_after?,
    })
}

fn year(text: &str) -> Result<i16, String> {
    text.parse()
        .ok()
        .filter(|year| YEARS.contains(year))
        .ok_or_else(|| {
            format!(
                "{text:?} is not a year from {} to {}",
                YEARS.start(),
                YEARS.end()
            )
        })
}

/// Reads `+08:00`.
fn utc_offset(text: &str) -> Result<Offset, String> {
    let read = || {
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+')?),
        };
        let (hours, minutes) = rest.split_once(':')?;
        let number = |s: &str, most: i32| {
            let is_two_digits = s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
            s.parse::<i32>()
                .ok()
                .filter(|n| is_two_digits && *n <= most)
        };
        // The furthest clocks on earth are 14 hours ahead and 12 behind.
        let seconds = number(hours, 14)? * 3600 + number(minutes, 59)? * 60;
        Offset::from_seconds(sign * seconds).ok()
    };
    read().ok_or_else(|| format!("{text:?} is not an offset such as +08:00 or -05:30"))
}

fn dataset(name: String) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 100 || !name.bytes().all(is_plain) {
        return Err(format!(
            "{name:?} is not made of letters, digits, dot, dash and underscore, at most 100 of them"
        ));
    }
    Ok(name)
}

/// Refuses to write a list over the very file that it is about.
fn another_file(list: PathBuf, input: &Path) -> Result<PathBuf, String> {
    let is_same = match (list.canonicalize(), input.canonicalize()) {
        (Ok(list), Ok(input)) => list == input,
        _ => list == input,
    };
    if is_same {
        return Err(format!(
            "{} is the file to import, name another",
            list.display()
        ));
    }
    if list.is_dir() {
        return Err(format!("{} is a folder, name a file", list.display()));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use doorstep_program::ExitReason;

    use super::*;
    use crate::serve::longest_order;

    fn check(words: &[&str]) -> Result<Settings, CliError> {
        let words = ["producer"].iter().chain(words);
        Settings::check(Cli::try_parse_from(words).unwrap())
    }

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn all_wrong_settings_are_told_at_once() {
        let failure = check(&[
            "--log",
            "a=b=c",
            "import",
            "pickups",
            "x.csv",
            "--amqp-url",
            "http://nowhere",
            "--namespace",
            "Not A Name",
            "--give-up-after",
            "soon",
            "--year",
            "22",
            "--utc-offset",
            "8",
            "--dataset",
            "a/b",
            "--refused",
            "x.csv",
        ])
        .unwrap_err();
        assert_eq!(failure.reason, ExitReason::Settings);
        let said = failure.to_string();
        for name in [
            "8 settings are wrong",
            "--log",
            "--amqp-url (DOORSTEP_AMQP_URL)",
            "--namespace",
            "--give-up-after",
            "--year",
            "--utc-offset",
            "--dataset",
            "--refused",
        ] {
            assert!(said.contains(name), "{name} in {said}");
        }
    }

    #[test]
    fn offsets_are_hours_and_minutes_with_a_sign() {
        let seconds = |text: &str| utc_offset(text).map(Offset::seconds);
        assert_eq!(seconds("+08:00"), Ok(8 * 3600));
        assert_eq!(seconds("-05:30"), Ok(-(5 * 3600 + 30 * 60)));
        for bad in [
            "", "8", "+8:00", "08:00", "+08", "+15:00", "+08:60", "+-8:00",
        ] {
            assert!(utc_offset(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_stop_leaves_an_order_the_time_that_it_may_take() {
        let Job::Serve(settings) = check(&["serve"]).unwrap().job else {
            panic!("something else is served");
        };
        assert!(settings.grace > longest_order(settings.answer_within));
    }

    #[test]
    fn an_import_without_a_broker_does_not_ask_for_one() {
        let settings = check(&[
            "import",
            "retail",
            "x.csv",
            "--to-stdout",
            "--amqp-url",
            "?",
        ]);
        assert!(matches!(
            settings.unwrap().job,
            Job::Retail(
                ImportSettings {
                    dataset: None,
                    history: None,
                    ..
                },
                _,
                Target::Lines
            )
        ));
    }
}
