//! The command line of the bench.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures Doorstep against the bare client, in interleaved rounds on one broker.
#[derive(Debug, Parser)]
#[command(name = "doorstep-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) options: OptionArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Consumes in a process of its own; started by the bench itself.
    #[command(hide = true)]
    Consumer(ConsumerArgs),
    /// Answers requests in a process of its own; started by the bench itself.
    #[command(hide = true)]
    Answerer(AnswererArgs),
    /// Processes events in memory, without a broker, for use with a profiler.
    #[command(hide = true)]
    Engine(EngineArgs),
}

/// Arguments of the measurement without a broker.
#[derive(Debug, Args)]
pub(crate) struct EngineArgs {
    /// A folder for the store, which must not contain one yet
    #[arg(long)]
    pub(crate) folder: PathBuf,
    #[arg(long, default_value_t = 100_000)]
    pub(crate) events: usize,
    #[arg(long, default_value_t = 1_000)]
    pub(crate) streams: usize,
    #[arg(long, default_value_t = 1_000)]
    pub(crate) batch: usize,
}

/// Arguments of a consumer in a process of its own.
#[derive(Debug, Args)]
pub(crate) struct ConsumerArgs {
    #[arg(long, env = "DOORSTEP_AMQP_URL", hide_env_values = true)]
    pub(crate) url: String,
    #[arg(long)]
    pub(crate) namespace: String,
    #[arg(long)]
    pub(crate) folder: PathBuf,
    #[arg(long)]
    pub(crate) events: usize,
    #[arg(long)]
    pub(crate) streams: usize,
}

/// Arguments of the server process.
#[derive(Debug, Args)]
pub(crate) struct AnswererArgs {
    #[arg(long, env = "DOORSTEP_AMQP_URL", hide_env_values = true)]
    pub(crate) url: String,
    #[arg(long)]
    pub(crate) namespace: String,
    /// The folder of the role's store.
    #[arg(long)]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct OptionArgs {
    /// The broker, as amqp://user:password@host:5672/vhost
    #[arg(long, env = "DOORSTEP_AMQP_URL", hide_env_values = true)]
    url: Option<String>,
    /// Events in each measurement
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// Rounds, each of which measures every shape once; one more is run first to warm up
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Streams that the events are spread over
    #[arg(long, default_value_t = 1_000)]
    streams: usize,
    /// Messages that wait when the consumer's memory is measured
    #[arg(long, default_value_t = 1_000_000)]
    waiting: usize,
    /// What to measure
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "rounds,rpc,headers,streams,memory"
    )]
    parts: Vec<Part>,
    /// A short run that shows that everything works; its figures are meaningless
    #[arg(long)]
    quick: bool,
    /// Where to write the figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// A folder on a local disk for the consumer's store; by default beside the program
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The interleaved rounds that yield the ratios.
    Rounds,
    /// Round trips of requests.
    Rpc,
    /// The bare client with messages without headers.
    Headers,
    /// Few streams and many.
    Streams,
    /// The consumer's memory with many messages waiting.
    Memory,
}

/// The validated options.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) events: usize,
    pub(crate) rounds: usize,
    pub(crate) warm_up: bool,
    pub(crate) streams: usize,
    /// The other numbers of streams to measure the consumer at, and the number of rounds.
    pub(crate) other_streams: [usize; 2],
    pub(crate) other_rounds: usize,
    pub(crate) waiting: usize,
    pub(crate) parts: Vec<Part>,
    pub(crate) quick: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) folder: PathBuf,
}

impl OptionArgs {
    pub(crate) fn checked(self) -> Result<Options> {
        let url = self
            .url
            .or_else(|| std::env::var("DOORSTEP_TEST_AMQP_URL").ok())
            .context("no broker: set DOORSTEP_AMQP_URL or give --url, or run `cargo xtask bench`, which finds or starts one")?;
        ensure!(
            self.events > 0 && self.rounds > 0 && self.streams > 0 && self.waiting > 0,
            "--events, --rounds, --streams and --waiting are numbers from 1"
        );
        let folder = match self.folder {
            Some(folder) => folder,
            None => {
                let program = std::env::current_exe().context("cannot find this program")?;
                program.with_file_name("doorstep-bench-stores")
            }
        };
        let quick = self.quick;
        Ok(Options {
            url,
            events: if quick { 2_000 } else { self.events },
            rounds: if quick { 1 } else { self.rounds },
            warm_up: !quick,
            streams: if quick { 50 } else { self.streams },
            other_streams: if quick { [10, 2_000] } else { [100, 100_000] },
            other_rounds: if quick { 1 } else { 2 },
            waiting: if quick { 5_000 } else { self.waiting },
            parts: self.parts,
            quick,
            json: self.json,
            folder,
        })
    }
}
