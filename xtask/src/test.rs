//! `cargo xtask test`: every test, on a broker that is found or started for the run.

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write, stderr};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use doorstep_broker::{
    Broker, Footprint, TEST_AMQP_URL, TEST_IMAGE, TEST_MANAGEMENT_URL, install_if_possible,
    target_folder,
};

use crate::report::{Counts, Report, Section};
use crate::workspace::{
    cargo, checked, exit_code, find_broker, image_broker, print_progress, print_result, seconds,
};

/// A run without output for this long hangs.
const SILENCE_BOUND: Duration = Duration::from_secs(10 * 60);
const SHOWN_LINES: usize = 300;
/// The number of concurrent tests of a test binary, unless it is set already.
const THREADS: &str = "RUST_TEST_THREADS";
/// Most tests on a broker mostly wait, so there may be more of them than processors.
const TESTS_AT_A_TIME: usize = 6;

/// Run every test, or those whose names contain a FILTER.
///
/// Builds, finds or starts a broker, runs `cargo test --workspace` on it and stops it again. Prints a line for each test
/// binary, below it what its tests have measured, the details only where something failed, and a summary. All of the
/// output is kept in target/doorstep-test.log. Exit code 0 if all passed, 1 otherwise.
///
/// Example: cargo xtask test
///          cargo xtask test dead_letter blocked
///          cargo xtask test --image rabbitmq:4-management
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Test {
    /// Run only tests whose names contain this; several may be given.
    filter: Vec<String>,
    /// Test release builds, which take much longer to build.
    #[arg(long)]
    release: bool,
    /// Run every RabbitMQ of the tests in a container of this image, for example rabbitmq:4.3-management. Needs Docker.
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
}

impl Test {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let start = Instant::now();
        print_progress("building the tests (minutes the first time, seconds after that)");
        // The integration tests run the programs, which Cargo does not build for the tests of another package. Built as
        // members of the whole workspace, they share their dependencies with the tests.
        let mut programs = self.cargo("build");
        programs.args(["--exclude", "xtask", "--bins"]);
        let mut tests = self.cargo("test");
        tests.arg("--no-run");
        for mut build in [programs, tests] {
            if !stderr().is_terminal() {
                build.arg("--quiet");
            }
            let built = build.status().context("cannot run cargo")?;
            checked("building the tests", built)?;
        }
        print_progress(&format!("built in {}", seconds(start.elapsed())));

        let found = match &self.image {
            Some(image) => image_broker(image, "test")?,
            None => find_broker("test", Footprint::Small)?,
        };
        // Some tests need an installed RabbitMQ, even if the others use another broker.
        if let Err(error) = install_if_possible(print_progress) {
            print_progress(&format!(
                "tests that restart a broker cannot run: {error:#}"
            ));
        }
        let tally = self.run_tests(found.broker())?;
        drop(found);

        let Counts {
            passed,
            failed,
            ignored,
            time: _,
        } = tally;
        let ignored = match ignored {
            0 => String::new(),
            ignored => format!(", {ignored} ignored"),
        };
        let took = seconds(start.elapsed());
        print_result(&format!(
            "{passed} passed, {failed} failed{ignored} in {took}"
        ));
        if passed + failed == 0 {
            print_progress(&format!(
                "no test name contains {}",
                self.filter.join(" or ")
            ));
        }
        // A run without a test shows nothing, so it is no success.
        Ok(exit_code(passed > 0 && failed == 0))
    }

    fn cargo(&self, command: &str) -> Command {
        let mut cargo = cargo();
        cargo.args([command, "--workspace"]);
        if self.release {
            cargo.arg("--release");
        }
        cargo
    }

    fn run_tests(&self, broker: &Broker) -> Result<Counts> {
        let path = target_folder()?.join("doorstep-test.log");
        let mut log =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut cargo = self.cargo("test");
        cargo.arg("--no-fail-fast");
        if let Some(image) = &self.image {
            cargo.env(TEST_IMAGE, image);
        }
        if env::var_os(THREADS).is_none() {
            cargo.env(THREADS, TESTS_AT_A_TIME.to_string());
        }
        // The measurements of passing tests are in their output.
        cargo.args(["--", "--show-output"]).args(&self.filter);
        let (mut child, lines) = started(cargo, broker)?;
        let mut report = Report::default();
        let mut tally = Counts::default();
        loop {
            match lines.recv_timeout(SILENCE_BOUND) {
                Ok(line) => {
                    writeln!(log, "{line}")?;
                    report
                        .take(line)
                        .iter()
                        .for_each(|section| add(&mut tally, section));
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ = child.kill();
                    let section = report.end().unwrap_or_default();
                    add(&mut tally, &section);
                    bail!(
                        "the tests have printed nothing for {}",
                        seconds(SILENCE_BOUND)
                    );
                }
            }
        }
        report
            .end()
            .iter()
            .for_each(|section| add(&mut tally, section));
        let status = child.wait().context("cannot wait for cargo")?;
        if !status.success() && tally.failed == 0 {
            report.other.iter().for_each(|line| print_result(line));
            checked("cargo test", status)?;
        }
        if tally.failed > 0 {
            print_result(&format!("all of the output is in {}", path.display()));
        }
        Ok(tally)
    }
}

/// Starts `cargo` with the broker's address and with both of its outputs in one pipe, in the order of writing.
///
/// The command with its ends of the pipe is dropped, so that the output ends with the process.
fn started(mut cargo: Command, broker: &Broker) -> Result<(Child, Receiver<String>)> {
    let (output, pipe) = io::pipe()?;
    cargo
        .env(TEST_AMQP_URL, broker.amqp_url())
        .stdin(Stdio::null())
        .stdout(pipe.try_clone()?)
        .stderr(pipe);
    if let Ok(management) = broker.management() {
        cargo.env(TEST_MANAGEMENT_URL, management.url_with_login());
    }
    let child = cargo.spawn().context("cannot run cargo")?;
    let (sender, receiver) = mpsc::sync_channel(1000);
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok((child, receiver))
}

/// Adds the counts of a section, and prints its result.
fn add(tally: &mut Counts, section: &Section) {
    // A crash has no result and counts as one failure.
    let crash = Counts {
        failed: 1,
        ..Counts::default()
    };
    let counts = section.result.as_ref().unwrap_or(&crash);
    tally.passed += counts.passed;
    tally.failed += counts.failed;
    tally.ignored += counts.ignored;
    if section.has_failed() {
        print_result(&format!("FAILED  {}", section.name));
        let details: Vec<&str> = section.details().collect();
        let shown = &details[details.len().saturating_sub(SHOWN_LINES)..];
        shown
            .iter()
            .for_each(|line| print_result(&format!("  {line}")));
    } else if counts.passed > 0 {
        let (passed, name, time) = (counts.passed, &section.name, &counts.time);
        print_result(&format!("ok  {passed:>4}  {name}  {time}"));
        let measured = section.measured();
        measured.for_each(|what| print_result(&format!("          {what}")));
    }
}
