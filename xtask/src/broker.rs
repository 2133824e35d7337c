//! `cargo xtask broker`: a private RabbitMQ that stays up, for running the binaries by hand.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Subcommand;
use doorstep_broker::{NodeOptions, UpNode};

use crate::workspace::{print_progress, print_result, seconds};

const NAME: &str = "up";
const ABSENT: &str = "no broker is up; `cargo xtask broker up` starts one";

/// A private RabbitMQ that stays up, for running the binaries by hand.
///
/// It has its own name, ports, login and data folder, and touches no other broker on this machine.
///
/// Example:
///   cargo xtask broker up
///   export DOORSTEP_AMQP_URL=$(cargo xtask broker url)
///   ...
///   cargo xtask broker down
#[derive(Debug, Subcommand)]
#[command(verbatim_doc_comment)]
pub(crate) enum Command {
    /// Start it, unless it is up; print its address and its management UI.
    ///
    /// Data of an earlier start is kept until `down`.
    ///
    /// Example: cargo xtask broker up
    Up,
    /// Print nothing but its AMQP address, with user and password.
    ///
    /// Example: export DOORSTEP_AMQP_URL=$(cargo xtask broker url)
    Url,
    /// Stop it and delete its data.
    ///
    /// Example: cargo xtask broker down
    Down,
    /// Say whether it is up: exit code 0 if so, 1 if not.
    ///
    /// Example: cargo xtask broker status
    Status,
}

impl Command {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        match self {
            Self::Up => up(),
            Self::Url => url(),
            Self::Down => down(),
            Self::Status => status(),
        }
    }
}

fn up() -> Result<ExitCode> {
    let start = Instant::now();
    let before = UpNode::find(NAME)?.is_some_and(|node| node.is_running());
    let node = UpNode::up(NodeOptions::named(NAME), print_progress)?;
    if before {
        print_progress("the broker was up already");
    } else {
        print_progress(&format!("up in {}", seconds(start.elapsed())));
    }
    show(&node);
    Ok(ExitCode::SUCCESS)
}

fn url() -> Result<ExitCode> {
    let node = running()?.context(ABSENT)?;
    print_result(&node.broker().amqp_url());
    Ok(ExitCode::SUCCESS)
}

fn down() -> Result<ExitCode> {
    match UpNode::find(NAME)? {
        Some(node) => {
            node.down()?;
            print_progress("the broker is down, its data is deleted");
        }
        None => print_progress("no broker was up"),
    }
    Ok(ExitCode::SUCCESS)
}

fn status() -> Result<ExitCode> {
    match UpNode::find(NAME)? {
        Some(node) if node.is_running() => {
            show(&node);
            Ok(ExitCode::SUCCESS)
        }
        Some(node) => {
            let folder = node.folder().display();
            print_result(&format!(
                "the broker is not running; its data is in {folder}, and `cargo xtask broker up` starts it again"
            ));
            Ok(ExitCode::FAILURE)
        }
        None => {
            print_result(ABSENT);
            Ok(ExitCode::FAILURE)
        }
    }
}

fn running() -> Result<Option<UpNode>> {
    Ok(UpNode::find(NAME)?.filter(UpNode::is_running))
}

fn show(node: &UpNode) {
    let management = node.management();
    print_result(&format!("amqp        {}", node.broker().amqp_url()));
    print_result(&format!("management  {}", management.url()));
    print_result(&format!("user        {}", management.user()));
    print_result(&format!("password    {}", management.password()));
    print_result(&format!("folder      {}", node.folder().display()));
}
