//! Conversion of arguments to valid settings. All invalid arguments are reported at once.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use doorstep_cli::{
    CliError, SettingsErrors,
    args::TelemetrySettings,
    parse::{duration, number},
};
use doorstep_contracts::Label;
use jiff::tz::Offset;

use crate::{
    cli::{Cli, Command, Import, ImportArgs, SinkArgs},
    demo::DemoSettings,
    import::{
        Calendar, Dates, Decimal, Format, ImportSettings, Layout, Pickups, Reading, Retail,
        RowMapper, default_refused_path,
    },
    output::Target,
    publish_pipeline::BrokerTarget,
};

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) telemetry: TelemetrySettings,
    pub(crate) job: Job,
}

/// The command to run.
#[derive(Debug)]
pub(crate) enum Job {
    Retail(ImportSettings, Reading, Target),
    Pickups(ImportSettings, Calendar, Target),
    Publish(Option<PathBuf>, Target),
    Demo(Box<DemoSettings>),
}

/// The years that a calendar of real deliveries can have.
const YEARS: RangeInclusive<i16> = 1900..=2200;

impl Settings {
    /// Checks the arguments.
    ///
    /// # Errors
    /// Lists every invalid argument, with its flag and the expected form.
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
                    Some(Job::Demo(Box::new(DemoSettings {
                        seed: seed?,
                        minutes: minutes?,
                        speed: speed?,
                        report: args.report,
                        broker: sink?.settings,
                    })))
                })()
            }
        };
        wrong.into_result((|| {
            Some(Self {
                telemetry: telemetry?,
                job: job?,
            })
        })())
    }
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
        // Events on standard output may never be published.
        history: (!args.to_stdout).then_some(args.store.folder),
        file: args.file,
    })
}

/// Reads `invoice=Order`: a column by its index, and its name in the file.
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
    // Without a broker its settings are not checked.
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
    // Checked one by one, so that one invalid value does not hide another.
    let settings = args.broker.check(wrong);
    let give_up_after = wrong.check(
        "--publish-timeout (DOORSTEP_PUBLISH_TIMEOUT)",
        duration(&args.publish_timeout),
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
        // The extreme time zones are 14 hours ahead and 12 behind.
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

/// Rejects a list that would overwrite its own input.
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
    use doorstep_cli::ExitReason;

    use super::*;

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
            "--publish-timeout",
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
            "--publish-timeout",
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
    fn dry_import_needs_no_broker() {
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

    #[test]
    fn import_options_reach_the_settings() {
        let words = "import retail x.csv --columns invoice=Order --columns price=Price --delimiter tab --decimal comma --dates us \
                     --country Italy --max-refused 2.5 --data-dir stores";
        let words: Vec<&str> = words.split_whitespace().collect();
        let Job::Retail(import, reading, _) = check(&words).unwrap().job else {
            panic!("not an import of sales");
        };
        let names = [(0, "Order".to_owned()), (5, "Price".to_owned())];
        assert_eq!(import.layout.names, names);
        assert_eq!(import.layout.delimiter, Some(b'\t'));
        assert_eq!(import.max_refused_percent.to_string(), "2.5");
        assert_eq!(import.history, Some(PathBuf::from("stores")));
        assert_eq!(reading.country.unwrap().as_str(), "Italy");
        let of = |decimal, dates| Format { decimal, dates };
        assert_eq!(reading.format, of(Decimal::Comma, Dates::MonthFirst));
        let Job::Retail(_, reading, _) = check(&["import", "retail", "x.csv", "--dates", "eu"])
            .unwrap()
            .job
        else {
            panic!("not an import of sales");
        };
        assert_eq!(reading.format, of(Decimal::Point, Dates::DayFirst));
    }
}
