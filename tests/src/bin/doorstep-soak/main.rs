//! Messages of other publishers, valid and invalid, shuffled among very many valid events, while the consumers are
//! killed. Run by `cargo xtask soak`.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use doorstep_broker::shared;
use doorstep_tests::soak::{Size, soak};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::block_in_place;

/// Sends messages of other publishers among valid events while the consumers are killed, and checks the stores.
#[derive(Debug, Parser)]
struct Cli {
    /// The number of valid events.
    #[arg(long)]
    events: usize,
    /// The number of times that each other publisher sends its messages.
    #[arg(long)]
    rounds: usize,
    /// The number of times that the consumers are killed.
    #[arg(long)]
    kills: usize,
    /// The same seed sends the same messages in the same order.
    #[arg(long)]
    seed: u64,
    /// The longest time without progress, in seconds.
    #[arg(long)]
    max_stall: u64,
    /// Writes the report to this file as well.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let size = Size {
        events: cli.events.max(1),
        rounds: cli.rounds,
        kills: cli.kills,
        seed: cli.seed,
        max_stall: Duration::from_secs(cli.max_stall),
    };
    let vhost = block_in_place(|| shared()?.new_vhost("soak"))?;
    let bar = bar(size.events);
    let report = soak(&vhost, size, |sent| bar.set_position(sent as u64)).await;
    bar.finish_and_clear();
    println!("{report}");
    if let Some(file) = &cli.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(file, json + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(if report.differences.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn bar(events: usize) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(4);
    let bar = ProgressBar::with_draw_target(Some(events as u64), target);
    let template = "[{bar:30}] {pos} of {len} events, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_secs(1));
    bar
}
