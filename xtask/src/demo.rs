//! `cargo xtask demo`: some minutes of sales and deliveries, from nothing to a summary.

use std::io::{IsTerminal, stdout};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use doorstep_broker::{Broker, Footprint};

use crate::sandbox::Sandbox;
use crate::summary::Summary;
use crate::workspace::{build_programs, checked, find_broker, own_vhost, print_progress};

/// Play some minutes of sales and deliveries and show the result of each event.
///
/// Finds or starts a broker, builds, starts all roles, and plays seeded events with duplicates, disorder and a few
/// invalid messages. On a terminal it then stays up until Ctrl-C, so that you can look around; otherwise it ends.
/// Everything is in a virtual host of its own and in target/demo, both new with each demo.
///
/// Example: cargo xtask demo --seed 7
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Demo {
    /// The same seed plays the same events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The number of minutes of the shop's time to play.
    #[arg(long, default_value_t = 5)]
    minutes: u32,
    /// The number of seconds of the shop's time that pass in one real second.
    #[arg(long, default_value_t = 20)]
    speed: u32,
}

impl Demo {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let found = find_broker("demo", Footprint::Full)?;
        build_programs(&["producer", "consumers"])?;
        let broker = own_vhost(found.broker(), "demo")?;
        let stage = Sandbox::new("demo", broker.clone())?;

        let roles = stage.start_roles()?;
        print_progress(&format!(
            "roles are running; their log is {}",
            stage.log().display()
        ));
        self.play(&stage)?;
        print_progress("waiting until all events are handled");
        // The only consumer of the queues knows all unacknowledged deliveries, and need not wait for heartbeats of
        // others.
        roles.stop()?;
        stage.wait_until_idle()?;
        let summary = Summary::read(&stage)?;
        println!("\n{summary}");
        println!("sales report: {}", stage.page().display());
        println!("mails: {}", stage.mails().display());
        show_management(&broker);
        if !summary.adds_up() {
            bail!("the summary does not add up: see {}", stage.log().display());
        }
        if stdout().is_terminal() {
            let mut roles = stage.start_roles()?;
            println!(
                "look around with, for instance:\n{}",
                stage.command_line("consumers dead-letters list")
            );
            print_progress("the demo keeps running for you to look around; Ctrl-C ends it");
            // Ctrl-C ends this process in its wait, and the guards end the rest.
            let status = roles.wait()?;
            bail!(
                "the roles have ended ({status}); see {}",
                stage.log().display()
            );
        }
        Ok(ExitCode::SUCCESS)
    }

    fn play(&self, stage: &Sandbox) -> Result<()> {
        let status = stage
            .program("producer")?
            .arg("demo")
            .args(["--seed", &self.seed.to_string()])
            .args(["--minutes", &self.minutes.to_string()])
            .args(["--speed", &self.speed.to_string()])
            .arg("--report")
            .arg(stage.report())
            .status()
            .context("cannot run producer")?;
        checked("producer demo", status)
    }
}

fn show_management(broker: &Broker) {
    if let Ok(management) = broker.management() {
        println!(
            "management UI: {}  user {}  password {}",
            management.url(),
            management.user(),
            management.password()
        );
    }
}
