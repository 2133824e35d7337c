//! `cargo xtask mail`: mails under kills, against mail servers that others have written.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use doorstep_broker::{Broker, Footprint, TEST_AMQP_URL, TEST_MANAGEMENT_URL, target_folder};

use crate::workspace::{
    build_programs, cargo, checked, find_broker, print_progress, print_result, root,
};

/// The test, which `cargo xtask test` runs against a scripted server.
const TEST: &str = "each_cause_has_one_mail_under_kills";
const AIOSMTPD: &str = "aiosmtpd==1.4.6";
/// The control socket of a running opensmtpd.
const OPENSMTPD_SOCKET: &str = "/var/run/smtpd.sock";
const OPENSMTPD_QUEUE: &str = "/var/spool/smtpd/queue";

/// Send thousands of mails while the role and the mail server are killed, and compare them with what the server has.
///
/// Each order has exactly one mail, or its state is unknown, or it is a dead letter. The servers are aiosmtpd, by pip
/// into a folder under target/, and Debian's opensmtpd, if this is root. One that cannot be had is skipped, with the
/// reason. Also runs the test with the scripted server of `cargo xtask test`.
///
/// Example: cargo xtask mail --mails 2000
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Mail {
    /// The number of mails for each server.
    #[arg(long, default_value_t = 10_000)]
    mails: usize,
}

impl Mail {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        build_programs(&["consumers"])?;
        let found = find_broker("mail", Footprint::Full)?;
        let broker = found.broker();
        self.test("the scripted server", None, broker)?;
        match aiosmtpd() {
            Ok(command) => self.test("aiosmtpd", Some(&command), broker)?,
            Err(reason) => print_result(&format!("aiosmtpd: skipped ({reason:#})")),
        }
        match opensmtpd() {
            Ok(command) => {
                let tested = self.test("opensmtpd", Some(&command), broker);
                clear_opensmtpd();
                tested?;
            }
            Err(reason) => print_result(&format!("opensmtpd: skipped ({reason:#})")),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn test(&self, name: &str, server: Option<&str>, broker: &Broker) -> Result<()> {
        print_progress(&format!("{name}: {} mails", self.mails));
        let mut test = cargo();
        test.args([
            "test",
            "--quiet",
            "-p",
            "doorstep-tests",
            "--test",
            "integration",
        ])
        .args(["--", "--exact", "--show-output"])
        .arg(format!("mails::{TEST}"))
        .env(TEST_AMQP_URL, broker.amqp_url())
        .env("DOORSTEP_TEST_MAILS", self.mails.to_string());
        if let Ok(management) = broker.management() {
            test.env(TEST_MANAGEMENT_URL, management.url_with_login());
        }
        if let Some(server) = server {
            test.env("DOORSTEP_TEST_MAIL_SERVER", server);
        }
        let output = test.stderr(Stdio::inherit()).output();
        let output = output.context("cannot run cargo")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            print_result(&text);
        }
        checked(name, output.status)?;
        let told = text.lines().find(|line| line.contains("mails under"));
        let told = told.with_context(|| format!("there is no test {TEST}"))?;
        print_result(&format!("{name}: {told}"));
        Ok(())
    }
}

/// Returns the command that starts aiosmtpd.
fn aiosmtpd() -> Result<String> {
    let folder = target_folder()?.join("aiosmtpd");
    let python = folder.join("bin/python");
    if !python.is_file() {
        quiet(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    }
    quiet(Command::new(&python).args(["-m", "pip", "install", "--quiet", AIOSMTPD]))?;
    let script = root()
        .join("xtask/mail/aiosmtpd_server.py")
        .canonicalize()?;
    Ok(format!("{} {}", python.display(), script.display()))
}

/// Returns the command that starts opensmtpd, which is installed if this is root.
fn opensmtpd() -> Result<String> {
    if Path::new(OPENSMTPD_SOCKET).exists() {
        bail!("it is in use on this machine: {OPENSMTPD_SOCKET} is there");
    }
    if !Path::new("/usr/sbin/smtpd").is_file() {
        let packages = ["install", "--yes", "--no-install-recommends", "opensmtpd"];
        let mut install = Command::new("apt-get");
        quiet(
            install
                .args(packages)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )?;
    }
    let queue = fs::read_dir(OPENSMTPD_QUEUE)
        .with_context(|| format!("only root can run it: {OPENSMTPD_QUEUE} cannot be read"))?;
    if queue.count() > 0 {
        bail!("it is in use on this machine: {OPENSMTPD_QUEUE} has mails");
    }
    let script = root().join("xtask/mail/opensmtpd.sh").canonicalize()?;
    Ok(script.display().to_string())
}

/// Removes the mails of the test, which opensmtpd would deliver one day, and the socket of the killed server. Neither was
/// there before.
fn clear_opensmtpd() {
    let _ = fs::remove_file(OPENSMTPD_SOCKET);
    let mails = fs::read_dir(OPENSMTPD_QUEUE)
        .into_iter()
        .flatten()
        .flatten();
    for mail in mails {
        // A mail that stays is told by the next run.
        let _ = fs::remove_dir_all(mail.path());
    }
}

/// Runs a command; its last line of output is the error if it fails.
fn quiet(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let program = command.get_program().to_string_lossy().into_owned();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("{program}: {}", text.lines().last().unwrap_or("failed"));
    }
    Ok(())
}
