//! The commands of a checkout: `cargo xtask demo`, `test`, `bench`, `chaos`, `soak`, `check-data`, `mail`, `tidy`,
//! `docs`, `broker`.
//!
//! It is the first program that a newcomer compiles, so it depends on almost nothing of the workspace: Cargo builds and
//! runs the other programs separately.

mod bench;
mod broker;
mod chaos;
mod check_data;
mod demo;
mod docs;
mod mail;
mod report;
mod sandbox;
mod soak;
mod summary;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Commands for a checkout of Doorstep.
///
/// A command that needs a broker finds it in this order: the one that DOORSTEP_AMQP_URL names; a rabbitmq-server on
/// this machine, as a private node under target/; a Docker daemon, by docker-compose.yml; Debian's package, if this is
/// root or sudo needs no password.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Test(test::Test),
    Bench(bench::Bench),
    CheckData(check_data::CheckData),
    Chaos(chaos::Chaos),
    Soak(soak::Soak),
    Mail(mail::Mail),
    Tidy(tidy::Tidy),
    #[command(subcommand)]
    Docs(docs::Docs),
    #[command(subcommand)]
    Broker(broker::Command),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Demo(demo) => demo.run(),
        Command::Test(test) => test.run(),
        Command::Bench(bench) => bench.run(),
        Command::CheckData(check) => check.run(),
        Command::Chaos(chaos) => chaos.run(),
        Command::Soak(soak) => soak.run(),
        Command::Mail(mail) => mail.run(),
        Command::Tidy(tidy) => tidy.run(),
        Command::Docs(docs) => docs.run(),
        Command::Broker(command) => command.run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
