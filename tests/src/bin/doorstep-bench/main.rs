//! Measures Doorstep against the bare client on your own broker, and checks that every event was applied once and in
//! order.
//!
//! Run by `cargo xtask bench`, which finds or starts a broker. All queues are in a namespace of their own, which is
//! deleted at the end. Compare figures only within one run: both sides are measured in turn on one broker, and only the
//! ratio within a round is meaningful.
//!
//! - `rounds` is the order of the measurements.
//! - `bare` is the client alone, in its fastest known form; `ours` is Doorstep.
//! - `rpc` measures round trips of requests.
//! - `memory` runs a consumer in a process of its own.
//! - `report` prints the table and writes the JSON.

mod baseline;
mod counter;
mod doorstep;
mod engine;
mod env;
mod events;
mod figures;
mod memory;
mod options;
mod progress;
mod report;
mod rounds;
mod rpc;

use anyhow::Result;
use clap::Parser;

use env::BenchEnv;
use options::{Cli, Command};

fn main() -> Result<()> {
    let cli = Cli::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            // Measurements run in spawned tasks, since the thread that blocks here would slow them down.
            match cli.command {
                Some(Command::Consumer(options)) => memory::consumer(options).await,
                Some(Command::Answerer(options)) => rpc::answerer(options).await,
                Some(Command::Engine(options)) => engine::engine(options).await,
                None => measure(cli.options.checked()?).await,
            }
        })
}

async fn measure(options: options::Options) -> Result<()> {
    let env = BenchEnv::create(&options).await?;
    let measured = tokio::select! {
        measured = rounds::run(&env, &options) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped before a measurement was complete")),
    };
    env.delete().await;
    let figures = measured?;
    print!("{}", report::table(&figures, &options));
    if let Some(path) = &options.json {
        report::write_json(path, &figures, &options)?;
    }
    Ok(())
}
