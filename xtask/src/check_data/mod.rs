//! `cargo xtask check-data`: real sales, pick-ups and web requests through producer, broker and roles, compared with the
//! results of another language from the same files. Then the same again while processes are killed and the broker is restarted.

mod chaos;
mod expected;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use doorstep_broker::{Broker, Footprint, NodeOptions, PrivateNode, install_if_possible};
use serde_json::Value;

use crate::sandbox::{Idle, Sandbox};
use crate::workspace::{build_programs, checked, own_vhost, print_progress, seconds};
use expected::Export;

const RETAIL: &str = "online_retail.csv.gz";
const RETAIL_SUM: &str = "541909 read = 541907 imported + 2 refused";
const RETAIL_REFUSED: [u64; 2] = [299_985, 299_986];
const RETAIL_DAYS: [&str; 2] = ["2010-12-01", "2011-12-09"];
const STOCKS: usize = 4_070;
const INVOICES: usize = 25_898;
const PICKUPS: &str = "lade_pickup.csv.gz";
const PICKUPS_SUM: &str = "6190 read = 6190 imported + 0 refused";
const DELIVERIES: usize = 6_190;
const ACCESS_LOG: &str = "apache_access.log.gz";
const ACCESS_LOG_SUM: &str = "10000 read = 9999 imported + 1 refused";
const ACCESS_LOG_REFUSED: [u64; 1] = [8_899];

/// Import the real data, and compare the roles' exports and reports with the results that awk and Python compute from
/// the files.
///
/// FOLDER contains online_retail.csv.gz, lade_pickup.csv.gz and apache_access.log.gz. Needs python3, and a
/// rabbitmq-server on this machine or the means to install one: the broker is restarted on the way, so it is always a
/// private node.
///
/// Example: cargo xtask check-data FOLDER
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CheckData {
    /// The folder with the files.
    folder: PathBuf,
}

impl CheckData {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let start = Instant::now();
        let folder = self
            .folder
            .canonicalize()
            .with_context(|| format!("there is no folder {}", self.folder.display()))?;
        let [retail, pickups, access_log] = [RETAIL, PICKUPS, ACCESS_LOG].map(|n| folder.join(n));
        for file in [&retail, &pickups, &access_log] {
            ensure!(file.is_file(), "there is no {}", file.display());
        }
        install_if_possible(print_progress)?;
        build_programs(&["producer", "consumers"])?;
        let mut node =
            PrivateNode::start(NodeOptions::named("check-data").footprint(Footprint::Full))?;

        let mut checks = 0;
        let mut passed = |what: &str| {
            checks += 1;
            print_progress(&format!("ok: {what} ({} so far)", seconds(start.elapsed())));
        };
        let undisturbed = check_sales(own_vhost(&node.broker(), "check-data")?, &retail)?;
        passed(
            "sales: counts, rejected rows, stocks, orders, returns and the report of the year agree to the last digit",
        );
        check_pickups(own_vhost(&node.broker(), "check-data")?, &pickups)?;
        passed(
            "pick-ups: every delivery is there with courier, times, fixes and window, no event is deferred, blocked or missing",
        );
        check_access_log(own_vhost(&node.broker(), "check-data")?, &access_log)?;
        passed("web requests: the sums by hour and endpoint agree, and the bad line is refused");
        chaos::run(&mut node, &retail, &undisturbed)?;
        passed(
            "sales with consumers, producer and broker killed: the exports are the same to the byte, also after a second import",
        );
        node.stop()?;
        println!("{checks} passed, 0 failed");
        Ok(ExitCode::SUCCESS)
    }
}

/// The exports of the roles that handle sales, and the report of the whole year in CSV.
#[derive(Debug, PartialEq, Eq)]
struct Exports {
    inventory: String,
    orders: String,
    report: String,
}

impl Exports {
    fn read(stage: &Sandbox) -> Result<Self> {
        Ok(Self {
            inventory: stage.output(&["export", "inventory"])?,
            orders: stage.output(&["export", "orders"])?,
            report: report(stage, &["--csv", "/dev/stdout"])?,
        })
    }
}

fn check_sales(broker: Broker, file: &Path) -> Result<Exports> {
    let stage = Sandbox::new("check-data", broker)?;
    let roles = stage.start_roles()?;
    import(&stage, &["import", "retail"], file, RETAIL_SUM)?;
    check_refused(&stage, &RETAIL_REFUSED)?;
    roles.stop()?;
    all_applied(&stage)?;
    let exports = Exports::read(&stage)?;
    let lines = [
        Export {
            role: "inventory",
            text: &exports.inventory,
            count: STOCKS,
        },
        Export {
            role: "orders",
            text: &exports.orders,
            count: INVOICES,
        },
    ];
    expected::compare(file, "retail.awk", &lines)?;
    let figures: Value = serde_json::from_str(&report(&stage, &["--json"])?)?;
    expected::compare_report(file, "retail_report.py", &figures["total"], &exports.report)?;
    Ok(exports)
}

/// Returns the report of all sales in one of its forms.
fn report(stage: &Sandbox, form: &[&str]) -> Result<String> {
    let period = [
        "report",
        "sales",
        "--from",
        RETAIL_DAYS[0],
        "--to",
        RETAIL_DAYS[1],
    ];
    stage.output(&[&period, form].concat())
}

fn check_pickups(broker: Broker, file: &Path) -> Result<()> {
    let stage = Sandbox::new("check-data", broker)?;
    import(&stage, &["import", "pickups"], file, PICKUPS_SUM)?;
    all_applied(&stage)?;
    let text = stage.output(&["export", "tracking"])?;
    let lines = [Export {
        role: "tracking",
        text: &text,
        count: DELIVERIES,
    }];
    expected::compare(file, "pickups.awk", &lines)
}

fn check_access_log(broker: Broker, file: &Path) -> Result<()> {
    let stage = Sandbox::new("check-data", broker)?;
    import(&stage, &["import", "access-log"], file, ACCESS_LOG_SUM)?;
    check_refused(&stage, &ACCESS_LOG_REFUSED)?;
    all_applied(&stage)?;
    let report = stage.output(&["show", "access_log", "--json"])?;
    expected::compare_lines(file, "access_log.awk", &report)
}

const REFUSED: &str = "refused.jsonl";

/// Checks the numbers of the lines that the last import has refused.
fn check_refused(stage: &Sandbox, expected: &[u64]) -> Result<()> {
    let list =
        fs::read_to_string(stage.folder().join(REFUSED)).context("no list of refused lines")?;
    let lines: Vec<u64> = list
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line)?;
            row["line"]
                .as_u64()
                .with_context(|| format!("no line number in {line}"))
        })
        .collect::<Result<_>>()?;
    ensure!(
        lines == expected,
        "refused lines are {lines:?}, not {expected:?}"
    );
    Ok(())
}

/// Imports a file and checks the printed total.
fn import(stage: &Sandbox, command: &[&str], file: &Path, sum: &str) -> Result<()> {
    let output = stage
        .program("producer")?
        .args(command)
        .arg(file)
        .arg("--refused")
        .arg(stage.folder().join(REFUSED))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .context("cannot run producer")?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if let Err(error) = checked("producer import", output.status) {
        bail!("{error}; its output:\n{said}");
    }
    ensure!(
        said.contains(sum),
        "producer import did not print {sum:?} but:\n{said}"
    );
    Ok(())
}

fn all_applied(stage: &Sandbox) -> Result<()> {
    match stage.wait_until_idle()? {
        Idle::AllApplied => Ok(()),
        Idle::NotAllApplied => bail!(
            "an event is blocked, missing or a dead letter: see {}",
            stage.log().display()
        ),
    }
}
