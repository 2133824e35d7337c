//! Command line: commands, options, and the text of `--help`.
//!
//! Values are parsed here, and their errors are collected with those of `settings`, so that all are reported at once.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use doorstep_cli::{
    args::{BrokerArgs, StoreArgs, TelemetryArgs},
    checked,
    parse::{duration_arg, number_arg},
};
use doorstep_contracts::Label;
use jiff::{fmt::strtime::BrokenDownTime, tz::Offset};

use crate::exit_codes::EXIT_CODES;

/// Doorstep's producer: publishes events from files and from standard input, every one confirmed.
#[derive(Debug, Parser)]
#[command(name = "producer", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Import a file of real data; it may be killed and run again.
    #[command(subcommand, after_help = EXIT_CODES)]
    Import(Import),

    /// Publish CloudEvents, one JSON object a line, from standard input or a file.
    ///
    /// Every line is checked before it is published: form, attributes, and the contract of its type. An invalid line is
    /// reported by its number and skipped, and the others are published; the exit code is then 65. Slow input is
    /// published as it arrives. Lines may have 1 MiB of data; empty ones are skipped. Gzip input is decompressed.
    #[command(after_help = PUBLISH_HELP)]
    Publish(PublishArgs),

    /// Publish some minutes of sales and deliveries, with duplicates, disorder and a few invalid messages.
    ///
    /// The same seed publishes the same events. They are counted, and written to a report if one is given; `consumers
    /// status` and `consumers dead-letters list` show their results. `cargo xtask demo` does all of it.
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
}

const DEMO_HELP: &str = "\
Example:
  producer demo --minutes 5 --speed 30 --seed 7";

const PUBLISH_HELP: &str = r#"Example:
  echo '{"specversion":"1.0","id":"1","source":"shop/1","type":"stock.adjusted.v1","subject":"stock/85123A","sequence":1,"data":{"delta":-6,"reason":"sale","reference":"order/536365"}}' | producer publish"#;

#[derive(Debug, Subcommand)]
pub(crate) enum Import {
    /// Import sales: each row adjusts a stock, each invoice is an order or a return.
    ///
    /// FILE is CSV, or CSV in gzip, with the columns InvoiceNo, StockCode, Description, Quantity, InvoiceDate,
    /// UnitPrice, CustomerID and Country, in any order, beside others. If the file names them differently, use
    /// --columns. Times are taken as UTC. A row that breaks a rule, such as a negative price, is rejected and listed
    /// with its line number and the reason; the rest goes on. The same rows make the same events every time. So an
    /// import that was killed, or is run twice, changes nothing that has arrived already. Of a file that has grown,
    /// only the new invoices are published. A file that contradicts an earlier import is rejected.
    #[command(after_help = RETAIL_HELP)]
    Retail(RetailArgs),

    /// Import courier pick-ups: each row is a delivery, assigned, with its GPS fixes by time, and picked up.
    ///
    /// FILE is CSV, or CSV in gzip, with the columns of the LaDe pick-up data: order_id, region_id, city, courier_id,
    /// accept_time, time_window_start, time_window_end, lng, lat, aoi_id, aoi_type, pickup_time, pickup_gps_time,
    /// pickup_gps_lng, pickup_gps_lat, accept_gps_time, accept_gps_lng, accept_gps_lat, ds. A GPS fix keeps its own
    /// time, even if that is before the assignment. A row that breaks a rule is rejected and listed with its line
    /// number and the reason; the rest goes on. The same file with the same options makes the same events every time.
    #[command(after_help = PICKUPS_HELP)]
    Pickups(PickupsArgs),

    /// Import the access log of a web server: each line is a served request.
    ///
    /// FILE is in the common or the combined log format, also in gzip. Clients are reduced to their networks (the first
    /// 24 bits of an IPv4 address, 48 of IPv6), queries and names of users are left out. A path is its own endpoint;
    /// from the thousandth endpoint on, others count as `other`. A line of another form, or of more than 64 KiB, is
    /// refused and listed with its number and the reason; the rest goes on. The same content makes the same events
    /// every time. A log that has grown is another one, so import it once it is rotated.
    #[command(after_help = ACCESS_LOG_HELP)]
    AccessLog(AccessLogArgs),
}

const RETAIL_HELP: &str = "\
Examples:
  producer import retail online_retail.csv.gz
  producer import retail --to-stdout sales.csv | head
  producer import retail --columns invoice=Order,sku=Article,price=Price --decimal comma --dates us --country Italy export.csv";

const PICKUPS_HELP: &str = "\
Example:
  producer import pickups --year 2022 --utc-offset +08:00 lade_pickup.csv.gz";

const ACCESS_LOG_HELP: &str = "\
Example:
  producer import access-log access.log.1.gz --refused refused.jsonl";

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// File to import, .csv or .csv.gz. It is read twice, so it cannot be a pipe.
    pub(crate) file: PathBuf,

    /// Name of the data set, which names the events' source instead of the rows and keeps it apart from all other
    /// imports. Rows already imported must stay as they are; new rows are appended, in whole invoices.
    #[arg(long, value_name = "NAME", value_parser = checked(dataset, "x"))]
    pub(crate) dataset: Option<String>,

    /// Names of columns in this file, as KEY=NAME. Retail has the keys invoice, sku, description, quantity, date,
    /// price, customer and country; pick-ups have their usual names.
    #[arg(long, value_name = "KEY=NAME", value_delimiter = ',')]
    pub(crate) columns: Vec<String>,

    /// Delimiter of columns: comma, semicolon, tab, pipe, or any other character of one byte [default: the one of these
    /// four that the header uses].
    #[arg(long, value_name = "SIGN", value_parser = checked(delimiter, "comma"))]
    pub(crate) delimiter: Option<u8>,

    /// Percentage of rejected rows above which the file counts as one of another kind and nothing is published: exit
    /// code 65.
    #[arg(long, value_name = "PERCENT", default_value = "50", value_parser = checked(percent, "50"))]
    pub(crate) max_refused: f64,

    /// Path of the list of rejected rows, as JSON lines [default: NAME.refused.jsonl in the current folder]. Every run
    /// overwrites it.
    #[arg(long, value_name = "PATH")]
    pub(crate) refused: Option<PathBuf>,

    /// Print the events on standard output, as `producer publish` reads them, instead of publishing them. This needs no
    /// broker, and records no import.
    #[arg(long)]
    pub(crate) to_stdout: bool,

    #[command(flatten)]
    pub(crate) sink: SinkArgs,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RetailArgs {
    #[command(flatten)]
    pub(crate) import: ImportArgs,

    /// Decimal separator of numbers.
    #[arg(long, value_parser = ["point", "comma"], default_value = "point")]
    pub(crate) decimal: String,

    /// Order in a date such as 12/1/2010: us is month/day, eu is day/month. Without it such a date is rejected;
    /// 2010-12-01 and 1.12.2010 are always read.
    #[arg(long, value_parser = ["us", "eu"])]
    pub(crate) dates: Option<String>,

    /// Country of rows that name none.
    #[arg(long, value_name = "NAME", value_parser = checked(Label::new, "x"))]
    pub(crate) country: Option<Label>,
}

#[derive(Debug, Args)]
pub(crate) struct PickupsArgs {
    #[command(flatten)]
    pub(crate) import: ImportArgs,

    /// Year of the assignments: the file's times have none. A time that would be half a year away from its assignment
    /// belongs to the year before or after.
    #[arg(
        long,
        env = "DOORSTEP_YEAR",
        value_name = "YEAR",
        default_value = "2022",
        allow_hyphen_values = true, value_parser = number_arg(YEARS))]
    pub(crate) year: i16,

    /// Offset of the file's clock from UTC. The cities of the LaDe data are eight hours ahead.
    #[arg(
        long,
        env = "DOORSTEP_UTC_OFFSET",
        value_name = "+HH:MM",
        default_value = "+08:00",
        allow_hyphen_values = true, value_parser = checked(utc_offset, "+00:00"))]
    pub(crate) utc_offset: Offset,
}

#[derive(Debug, Args)]
pub(crate) struct AccessLogArgs {
    /// File to import. It is read twice, so it cannot be a pipe.
    pub(crate) file: PathBuf,

    /// Path of the list of refused lines, as JSON lines of number and reason [default: NAME.refused.jsonl in the
    /// current folder]. Every run overwrites it.
    #[arg(long, value_name = "PATH")]
    pub(crate) refused: Option<PathBuf>,

    /// Print the events on standard output, as `producer publish` reads them, instead of publishing them. This needs no
    /// broker.
    #[arg(long)]
    pub(crate) to_stdout: bool,

    #[command(flatten)]
    pub(crate) sink: SinkArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// File to read; standard input if left out, or for `-`.
    pub(crate) file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) sink: SinkArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Seed of the scenario: the same seed publishes the same events.
    #[arg(long, value_name = "NUMBER", default_value = "1", value_parser = number_arg(0..=u64::MAX))]
    pub(crate) seed: u64,

    /// Minutes of the shop's time to play, from 1 to 1440.
    #[arg(long, value_name = "MINUTES", default_value = "5", value_parser = number_arg(1..=1440_u32))]
    pub(crate) minutes: u32,

    /// Factor by which the shop's time is faster than real time, from 1 to 10000.
    #[arg(long, value_name = "TIMES", default_value = "20", value_parser = number_arg(1..=10_000_u32))]
    pub(crate) speed: u32,

    /// Path of the JSON report of the published events.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) sink: SinkArgs,
}

/// Arguments of the events' target.
#[derive(Debug, Args)]
#[command(next_help_heading = "Broker")]
pub(crate) struct SinkArgs {
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,

    /// Time without a confirm after which the program gives up; until then it publishes unconfirmed events again and
    /// again.
    #[arg(
        long,
        env = "DOORSTEP_PUBLISH_TIMEOUT",
        value_name = "TIME",
        default_value = "5m", value_parser = duration_arg())]
    pub(crate) publish_timeout: Duration,
}

/// The years that a calendar of real deliveries can have.
const YEARS: RangeInclusive<i16> = 1900..=2200;

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

/// Reads an offset such as `+08:00`.
fn utc_offset(text: &str) -> Result<Offset, String> {
    let read = BrokenDownTime::parse("%:z", text).ok();
    read.and_then(|time| time.offset())
        // The extreme time zones are 14 hours ahead and 12 behind.
        .filter(|offset| text.len() == 6 && offset.seconds().abs() < 15 * 3600)
        .ok_or_else(|| format!("{text:?} is not an offset such as +08:00 or -05:30"))
}

fn dataset(name: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if name.is_empty() || name.len() > 100 || !name.bytes().all(is_plain) {
        return Err(format!(
            "{name:?} is not made of letters, digits, dot, dash and underscore, at most 100 of them"
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;
    use doorstep_cli::{
        reference::{assert_section, command_line, settings},
        variables::unknown_to_warnings,
    };

    use super::*;

    #[test]
    fn every_argument_variable_is_known() {
        assert_eq!(unknown_to_warnings(&Cli::command()), BTreeSet::new());
    }

    #[test]
    fn reference_pages_of_the_command_line() {
        let program = Cli::command();
        assert_section("settings.md", "producer", &settings(&program));
        assert_section("cli-producer.md", "commands", &command_line(program));
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
}
