//! The programs of the RabbitMQ installed on this machine.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command;

/// The folders in which packages install RabbitMQ and Erlang, beyond the search path of an ordinary user.
const SERVER_FOLDERS: [&str; 8] = [
    "/usr/lib/rabbitmq/bin",
    "/usr/sbin",
    "/usr/local/sbin",
    "/usr/local/lib/rabbitmq/bin",
    "/opt/rabbitmq/sbin",
    "/opt/homebrew/sbin",
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
];
const ERLANG_FOLDERS: [&str; 6] = [
    "/usr/bin",
    "/bin",
    "/usr/local/bin",
    "/usr/lib/erlang/bin",
    "/opt/homebrew/bin",
    "/opt/erlang/bin",
];
const ERL_BOUND: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
pub(crate) struct Installed {
    pub(crate) server: PathBuf,
    pub(crate) ctl: PathBuf,
    pub(crate) epmd: PathBuf,
    /// The search path with which the programs find Erlang.
    pub(crate) search_path: String,
}

impl Installed {
    /// Returns `None` if there is no RabbitMQ.
    ///
    /// # Errors
    /// If RabbitMQ is there, but Erlang is missing.
    pub(crate) fn find() -> Result<Option<Self>> {
        let search_path = extended_search_path();
        let own: Vec<PathBuf> = env::split_paths(&search_path).collect();
        let candidates = own.iter().cloned().chain(SERVER_FOLDERS.map(PathBuf::from));
        let Some(server) = candidates.filter_map(|folder| real_server(&folder)).next() else {
            return Ok(None);
        };
        let epmd = own
            .iter()
            .map(|folder| folder.join("epmd"))
            .find(|program| program.is_file())
            .map_or_else(|| epmd_of_erlang(&search_path), Ok)
            .with_context(|| {
                format!(
                    "{} is installed, but Erlang is incomplete",
                    server.display()
                )
            })?;
        Ok(Some(Self {
            ctl: server.with_file_name("rabbitmqctl"),
            server,
            epmd,
            search_path,
        }))
    }
}

/// Returns the server's own script in `folder`. Packages also install a wrapper of the same name, which changes to the
/// service's user and its data. The wrapper is a link to another name, or lacks the other scripts beside it.
fn real_server(folder: &Path) -> Option<PathBuf> {
    let script = folder.join("rabbitmq-server").canonicalize().ok()?;
    let named = script.file_name()? == "rabbitmq-server";
    let beside = |name: &str| script.with_file_name(name).is_file();
    (named && beside("rabbitmq-env") && beside("rabbitmqctl")).then_some(script)
}

fn extended_search_path() -> String {
    let mut path = env::var("PATH").unwrap_or_default();
    for folder in ERLANG_FOLDERS {
        if !path.split(':').any(|entry| entry == folder) {
            path.push(':');
            path.push_str(folder);
        }
    }
    path
}

/// Asks Erlang itself, for installations with epmd only in their own folder.
fn epmd_of_erlang(search_path: &str) -> Result<PathBuf> {
    let script = r#"io:format("~s/erts-~s/bin/epmd", [code:root_dir(), erlang:system_info(version)]), halt()."#;
    let told = command::run(
        Command::new("erl")
            .args(["-noshell", "-eval", script])
            .env("PATH", search_path),
        ERL_BOUND,
    )?;
    let program = PathBuf::from(told.stdout.trim());
    program
        .is_file()
        .then_some(program)
        .context("epmd is missing")
}
