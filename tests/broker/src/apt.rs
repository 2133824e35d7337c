//! Installs Debian's package of RabbitMQ without starting its service.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::folder::{private_folder, target_folder};
use crate::installed::Installed;

const QUESTION_BOUND: Duration = Duration::from_secs(10);
/// The script limits each of its own steps; this is the safety net.
const INSTALL_BOUND: Duration = Duration::from_secs(40 * 60);
const SHOWN_LINES: usize = 8;

/// Installs the package. Debian's way to prevent packages from starting services is a program at a fixed path. An
/// existing file there is restored at the end, however the installation ends. Services of this installation are not
/// enabled at boot either, since no broker on the usual port was requested.
///
/// The first attempt omits `apt-get update`, which is slow and mostly unnecessary.
const SCRIPT: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
saved=$policy.before-doorstep
restore() {
  rm -f "$policy"
  [ ! -e "$saved" ] || mv "$saved" "$policy"
}
[ ! -e "$policy" ] || [ -e "$saved" ] || mv "$policy" "$saved"
trap restore EXIT
trap 'exit 1' HUP INT TERM
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"

new_units=
for unit in rabbitmq-server.service epmd.service epmd.socket; do
  [ -e "/lib/systemd/system/$unit" ] || new_units="$new_units $unit"
done
export DEBIAN_FRONTEND=noninteractive
install() {
  timeout 900 apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 rabbitmq-server
}
install || {
  timeout 600 apt-get update -q -o DPkg::Lock::Timeout=300
  install
}
if command -v systemctl >/dev/null; then
  for unit in $new_units; do systemctl --quiet disable "$unit" || true; done
elif command -v update-rc.d >/dev/null; then
  case $new_units in *rabbitmq*) update-rc.d rabbitmq-server disable || true ;; esac
fi
"#;

/// The means to install packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    Root,
    /// `sudo` permits it without a password.
    Sudo,
}

/// Returns `None` if this is no Debian, or installing packages needs a password.
pub(crate) fn rights() -> Option<Privilege> {
    if !Path::new("/etc/debian_version").exists() || !Path::new("/usr/bin/apt-get").exists() {
        return None;
    }
    let user = command::run(Command::new("id").arg("-u"), QUESTION_BOUND).ok()?;
    if user.stdout.trim() == "0" {
        return Some(Privilege::Root);
    }
    command::succeeds(Command::new("sudo").args(["-n", "true"]), QUESTION_BOUND)
        .then_some(Privilege::Sudo)
}

/// Installs `rabbitmq-server`; takes about a minute. The full output is kept in the target folder.
///
/// # Errors
/// If the package cannot be installed, with the end of apt-get's output.
pub(crate) fn install(rights: Privilege) -> Result<()> {
    let mut install = match rights {
        Privilege::Root => Command::new("sh"),
        Privilege::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "sh"]);
            sudo
        }
    };
    let ran = command::run(install.args(["-c", SCRIPT]), INSTALL_BOUND)?;
    let output = format!("{}\n{}", ran.stdout, ran.stderr);
    let log = target_folder()?.join("doorstep-broker");
    private_folder(&log)?;
    let log = log.join("apt-get.log");
    fs::write(&log, &output).with_context(|| format!("cannot write {}", log.display()))?;
    let lines: Vec<&str> = output
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n  ");
    ensure!(
        ran.status.success(),
        "apt-get could not install rabbitmq-server; all of its output is in {}, the end of it:\n  {last}",
        log.display()
    );
    Ok(())
}

/// Installs Debian's package of RabbitMQ if none is installed and that is possible: an [`InstalledNode`](crate::InstalledNode) needs one.
/// `say` gets a line before that.
///
/// # Errors
/// If none is installed and none can be, with the remedy.
pub fn install_if_possible(say: fn(&str)) -> Result<()> {
    if Installed::find()?.is_some() {
        return Ok(());
    }
    let rights = rights().context(
        "no rabbitmq-server is installed: `sudo apt-get install rabbitmq-server` on Debian and Ubuntu, \
         `brew install rabbitmq` on macOS",
    )?;
    say("installing rabbitmq-server by apt-get (about a minute)");
    install(rights)
}
