//! Conversion of typed arguments to the work of a command. It makes the remaining checks, and reports all errors at once.

use std::path::{Path, PathBuf};

use doorstep_cli::{
    SettingsErrors, ShutdownSignal,
    start::{Work, work},
};

use crate::{
    cli::{AccessLogArgs, Command, Import, ImportArgs, PickupsArgs, RetailArgs, SinkArgs},
    demo,
    import::{
        self, AccessLogSettings, Calendar, Dates, Decimal, Format, ImportSettings, Layout, Pickups,
        Reading, Retail, RowMapper, default_refused_path,
    },
    output::Target,
    publish,
    publish_pipeline::BrokerTarget,
    stop::ended_at_once,
};

/// Checks a command and returns its work.
pub(crate) fn prepare(command: Command, wrong: &mut SettingsErrors) -> Option<Work> {
    let stop = || ShutdownSignal::listen(ended_at_once);
    match command {
        Command::Import(Import::Retail(args)) => {
            let (settings, reading, output) = retail(args, wrong)?;
            work(async move { import::run(Retail::new(reading), settings, output, stop()?).await })
        }
        Command::Import(Import::Pickups(args)) => {
            let (settings, calendar, output) = pickups(args, wrong)?;
            work(
                async move { import::run(Pickups::new(calendar), settings, output, stop()?).await },
            )
        }
        Command::Import(Import::AccessLog(args)) => {
            let (settings, output) = access_log(args, wrong)?;
            work(async move { import::run_access_log(settings, output, stop()?).await })
        }
        Command::Publish(args) => {
            let output = broker(&args.sink, wrong)?;
            work(async move { publish::run(args.file, output, stop()?).await })
        }
        Command::Demo(args) => {
            let broker = args.sink.broker.check(wrong)?;
            work(async move { demo::run(args, broker, stop()?).await })
        }
    }
}

fn retail(
    args: RetailArgs,
    wrong: &mut SettingsErrors,
) -> Option<(ImportSettings, Reading, Target)> {
    let output = output(args.import.to_stdout, &args.import.sink, wrong);
    let import = import_settings::<Retail>(args.import, wrong);
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
    let country = args.country;
    Some((import?, Reading { format, country }, output?))
}

fn pickups(
    args: PickupsArgs,
    wrong: &mut SettingsErrors,
) -> Option<(ImportSettings, Calendar, Target)> {
    let calendar = Calendar {
        year: args.year,
        offset: args.utc_offset,
    };
    let output = output(args.import.to_stdout, &args.import.sink, wrong);
    let import = import_settings::<Pickups>(args.import, wrong);
    Some((import?, calendar, output?))
}

fn access_log(
    args: AccessLogArgs,
    wrong: &mut SettingsErrors,
) -> Option<(AccessLogSettings, Target)> {
    let output = output(args.to_stdout, &args.sink, wrong);
    let settings = AccessLogSettings {
        rejected: rejected_list(args.refused, &args.file, wrong)?,
        file: args.file,
    };
    Some((settings, output?))
}

/// Returns the path of the list of rejected rows.
fn rejected_list(
    path: Option<PathBuf>,
    input: &Path,
    wrong: &mut SettingsErrors,
) -> Option<PathBuf> {
    let path = path.unwrap_or_else(|| default_refused_path(input));
    wrong.check("--refused", another_file(path, input))
}

fn import_settings<M: RowMapper>(
    args: ImportArgs,
    wrong: &mut SettingsErrors,
) -> Option<ImportSettings> {
    let rejected = rejected_list(args.refused, &args.file, wrong);
    let names = args.columns.iter().map(|text| column::<M>(text)).collect();
    let names = wrong.check("--columns", names);
    Some(ImportSettings {
        layout: Layout {
            delimiter: args.delimiter,
            names: names?,
        },
        dataset: args.dataset,
        max_refused_percent: args.max_refused,
        rejected: rejected?,
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

fn output(to_stdout: bool, sink: &SinkArgs, wrong: &mut SettingsErrors) -> Option<Target> {
    // Without a broker its address and its files are not checked.
    if to_stdout {
        Some(Target::Lines)
    } else {
        broker(sink, wrong)
    }
}

fn broker(args: &SinkArgs, wrong: &mut SettingsErrors) -> Option<Target> {
    let target = BrokerTarget {
        settings: args.broker.check(wrong)?,
        give_up_after: args.publish_timeout,
    };
    Some(Target::Broker(Box::new(target)))
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
    use crate::cli::Cli;

    fn typed(words: &[&str]) -> Cli {
        Cli::try_parse_from(["producer"].iter().chain(words)).unwrap()
    }

    fn typed_retail(words: &[&str]) -> (ImportSettings, Reading, Target) {
        let Command::Import(Import::Retail(args)) = typed(words).command else {
            panic!("not an import of sales");
        };
        retail(args, &mut SettingsErrors::of_arguments()).unwrap()
    }

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn all_settings_errors_are_reported_together() {
        let cli = typed(&[
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
        ]);
        let mut wrong = SettingsErrors::of_arguments();
        let telemetry = cli.telemetry.check(&mut wrong);
        let ready = telemetry.zip(prepare(cli.command, &mut wrong));
        let failure = wrong.into_result(ready.map(drop)).unwrap_err();
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
    fn dry_import_needs_no_broker() {
        let settings = typed_retail(&[
            "import",
            "retail",
            "x.csv",
            "--to-stdout",
            "--amqp-url",
            "?",
        ]);
        assert!(matches!(
            settings,
            (
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
        let (import, reading, _) = typed_retail(&words);
        let names = [(0, "Order".to_owned()), (5, "Price".to_owned())];
        assert_eq!(import.layout.names, names);
        assert_eq!(import.layout.delimiter, Some(b'\t'));
        assert_eq!(import.max_refused_percent.to_string(), "2.5");
        assert_eq!(import.history, Some(PathBuf::from("stores")));
        assert_eq!(reading.country.unwrap().as_str(), "Italy");
        let of = |decimal, dates| Format { decimal, dates };
        assert_eq!(reading.format, of(Decimal::Comma, Dates::MonthFirst));
        let (_, reading, _) = typed_retail(&["import", "retail", "x.csv", "--dates", "eu"]);
        assert_eq!(reading.format, of(Decimal::Point, Dates::DayFirst));
    }
}
