//! A consumer in a process of its own, so that its memory can be measured alone.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use doorstep_messaging::{BrokerSettings, Topology};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::{
    counter::QUEUES, doorstep, env::BenchEnv, events::Generator, figures::peak_megabytes,
    options::ConsumerArgs, rpc::DEPOT,
};

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Consumed {
    pub(crate) peak_mb: f64,
    pub(crate) events: usize,
    pub(crate) events_per_second: f64,
    pub(crate) processor_seconds_per_million: f64,
}

/// Starts a consumer for the messages in the queue, and waits until it has handled all of them.
pub(crate) async fn measure(env: &BenchEnv, streams: usize, events: usize) -> Result<Consumed> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let child = Command::new(program)
        .arg("consumer")
        // In the environment, since every user of the machine can read a command line.
        .env("DOORSTEP_AMQP_URL", &env.url)
        .args(["--namespace", env.settings.namespace.as_str()])
        .arg("--folder")
        .arg(env.fresh_folder().await?)
        .args([
            "--events",
            &events.to_string(),
            "--streams",
            &streams.to_string(),
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    // It has timeouts of its own.
    let output = child.await.context("cannot start the consumer")?;
    ensure!(
        output.status.success(),
        "the consumer failed: {}",
        output.status
    );
    serde_json::from_slice(&output.stdout).context("the consumer's report")
}

/// The body of the consumer process.
pub(crate) async fn consumer(args: ConsumerArgs) -> Result<()> {
    let settings = BrokerSettings::new(&args.url, &args.namespace)?;
    let topology = Topology::for_roles(&settings.namespace, &[QUEUES, DEPOT]);
    let generator = Generator::new(args.streams)?;
    let figure =
        doorstep::consume(&settings, &topology, &args.folder, &generator, args.events).await?;
    let consumed = Consumed {
        peak_mb: peak_megabytes()?,
        events: figure.events,
        events_per_second: figure.events_per_second,
        processor_seconds_per_million: figure.processor_seconds_per_million,
    };
    println!("{}", serde_json::to_string(&consumed)?);
    Ok(())
}
