//! This checkout: its folders, its Cargo, and the broker of a command.

use std::env;
use std::ffi::OsString;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use doorstep_broker::{
    Broker, BrokerOrigin, Footprint, Found, Options, find_or_start, start_image, target_folder,
};

/// Returns the folder of the root manifest.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns a command for the Cargo that runs this, in the root folder.
///
/// Removes the variables that Cargo sets for the programs that it runs: build scripts of dependencies watch some of
/// them and would rebuild their crates each time.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let told = [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
        ];
        if told.iter().any(|start| text.starts_with(start)) || text == "CARGO_PRIMARY_PACKAGE" {
            cargo.env_remove(&name);
        }
    }
    cargo.current_dir(root());
    cargo
}

/// Runs a build with Cargo's own progress on the terminal.
pub(crate) fn build(arguments: &[&str]) -> Result<()> {
    print_progress("building (minutes the first time, seconds after that)");
    let start = Instant::now();
    let status = cargo()
        .arg("build")
        .args(arguments)
        .status()
        .context("cannot run cargo")?;
    checked("cargo build", status)?;
    print_progress(&format!("built in {}", seconds(start.elapsed())));
    Ok(())
}

/// Builds these programs and nothing else.
///
/// They are built as members of the whole workspace: with the features that its other members ask for, they share every library with the
/// tests, and none is built twice.
pub(crate) fn build_programs(names: &[&str]) -> Result<()> {
    let mut arguments = vec!["--workspace", "--exclude", "xtask"];
    arguments.extend(names.iter().flat_map(|name| ["--bin", name]));
    build(&arguments)
}

/// Returns a command for a program of this checkout.
pub(crate) fn program(profile: Profile, name: &str) -> Result<Command> {
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => "release",
    };
    let path = target_folder()?.join(folder).join(name);
    let mut program = Command::new(path);
    program.current_dir(root());
    Ok(program)
}

/// The folder of Cargo's output, by build profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// Finds or starts a broker for the command `name`, and reports which.
pub(crate) fn find_broker(name: &str, footprint: Footprint) -> Result<Found> {
    let start = Instant::now();
    let found = find_or_start(&Options::named(name, print_progress).footprint(footprint))?;
    match found.way() {
        BrokerOrigin::Given => print_progress(&format!("broker: {}", found.way())),
        BrokerOrigin::Installed | BrokerOrigin::Compose | BrokerOrigin::Image => {
            let took = seconds(start.elapsed());
            print_progress(&format!("broker: {}, up in {took}", found.way()));
        }
    }
    Ok(found)
}

/// Starts a broker of this image for the command `name`.
pub(crate) fn image_broker(image: &str, name: &str) -> Result<Found> {
    let start = Instant::now();
    let found = start_image(image, &Options::named(name, print_progress))?;
    let took = seconds(start.elapsed());
    print_progress(&format!("broker: {} {image}, up in {took}", found.way()));
    Ok(found)
}

/// Returns an empty virtual host for a command, `doorstep-NAME`. If the broker's management API cannot be used, it is
/// the virtual host of the broker's address, and only names separate the command from its other users.
pub(crate) fn own_vhost(broker: &Broker, name: &str) -> Result<Broker> {
    let Ok(management) = broker.management() else {
        return Ok(broker.clone());
    };
    let vhost = format!("doorstep-{name}");
    management.delete_vhost(&vhost)?;
    management.create_vhost(&vhost)?;
    Ok(broker.with_vhost(&vhost))
}

pub(crate) fn checked(what: &str, status: ExitStatus) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    match status.code() {
        Some(code) => bail!("{what} failed with exit code {code}"),
        None => bail!("{what} failed: {status}"),
    }
}

/// Returns the exit code of a command that has printed its failures itself.
pub(crate) fn exit_code(is_success: bool) -> ExitCode {
    if is_success {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Prints a line of progress on standard error: standard output is for results.
pub(crate) fn print_progress(line: &str) {
    eprintln!("{line}");
}

/// Prints a line of a result on standard output. If a reader such as `head` closes it, that is no error.
pub(crate) fn print_result(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}

pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = time.as_secs();
    format!("{} min {} s", whole / 60, whole % 60)
}
