//! `cargo xtask soak`: messages of other publishers among very many events, while the consumers are killed, and a check
//! of the stores.

use std::path::{PathBuf, absolute};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use doorstep_broker::{Footprint, TEST_AMQP_URL, TEST_MANAGEMENT_URL};

use crate::workspace::{Profile, build_programs, exit_code, find_broker, program};

/// Send messages of other publishers, valid and invalid, among valid events while the consumers are killed, and check
/// the stores.
///
/// Deeply nested headers, ids that are not UTF-8, contradictions, times far ahead, forgeries and more, each shuffled
/// ROUNDS times among the valid events. At the end every valid event must be applied once, and every other one must be
/// a dead letter, once. Everything is in a virtual host of its own. Exit code 1 if anything differs. With the defaults
/// it takes less than a minute.
///
/// Example: cargo xtask soak
///          cargo xtask soak --events 100000 --rounds 20 --json target/soak.json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Soak {
    /// The number of valid events.
    #[arg(long, default_value_t = 2_000)]
    events: usize,
    /// The number of times that each other publisher sends its messages.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
    /// The number of times that the consumers are killed.
    #[arg(long, default_value_t = 5)]
    kills: usize,
    /// The same seed sends the same messages in the same order; the moments of the kills are random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The maximum time without progress, in seconds; restarts with each kill.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    max_stall: u64,
    /// Write the report to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Soak {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        build_programs(&["consumers", "doorstep-soak"])?;
        let found = find_broker("soak", Footprint::Full)?;
        let Ok(management) = found.broker().management() else {
            bail!(
                "the broker's management API is needed for a virtual host and a user of its own: name it in DOORSTEP_MANAGEMENT_URL"
            );
        };
        let mut soak = program(Profile::Dev, "doorstep-soak")?;
        soak.env(TEST_AMQP_URL, found.broker().amqp_url())
            .env(TEST_MANAGEMENT_URL, management.url_with_login())
            .args(["--events", &self.events.to_string()])
            .args(["--rounds", &self.rounds.to_string()])
            .args(["--kills", &self.kills.to_string()])
            .args(["--seed", &self.seed.to_string()])
            .args(["--max-stall", &self.max_stall.to_string()]);
        if let Some(file) = &self.json {
            // The program runs in another folder than this.
            let file = absolute(file).context("the folder for --json is unknown")?;
            soak.arg("--json").arg(file);
        }
        let status = soak.status().context("cannot run doorstep-soak")?;
        // The program has printed the differences.
        Ok(exit_code(status.success()))
    }
}
