//! Measures Doorstep against the bare client on your own broker, and checks that every event was applied once and in order.
//!
//! Run by `cargo xtask bench`, which finds or starts a broker. Everything happens in a namespace of its own, which is deleted at
//! the end. The figures of one run are comparable with each other only: both sides are measured in turn, on one broker, and what
//! counts is the ratio within a round.
//!
//! - `rounds` is the order of things: what is measured, after what.
//! - `bare` is the client alone, in its best known shape; `ours` is Doorstep.
//! - `rpc` measures round trips of requests.
//! - `memory` runs a consumer in a process of its own.
//! - `report` prints the table and writes the JSON.

mod bare;
mod counter;
mod engine;
mod events;
mod figures;
mod memory;
mod options;
mod ours;
mod progress;
mod report;
mod rounds;
mod rpc;
mod world;

use anyhow::Result;
use clap::Parser;

use options::{Cli, Command};
use world::World;

fn main() -> Result<()> {
    let cli = Cli::parse();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            // What is measured runs in tasks of its own: the thread that blocks here would be a slow place for it.
            match cli.command {
                Some(Command::Consumer(options)) => memory::consumer(options).await,
                Some(Command::Answerer(options)) => rpc::answerer(options).await,
                Some(Command::Engine(options)) => engine::engine(options).await,
                None => measure(cli.options.checked()?).await,
            }
        })
}

async fn measure(options: options::Options) -> Result<()> {
    let world = World::create(&options).await?;
    let measured = tokio::select! {
        measured = rounds::run(&world, &options) => measured,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped, nothing was measured to the end")),
    };
    world.delete().await;
    let figures = measured?;
    print!("{}", report::table(&figures, &options));
    if let Some(path) = &options.json {
        report::write_json(path, &figures, &options)?;
    }
    Ok(())
}
