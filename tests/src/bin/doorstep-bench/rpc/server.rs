//! The server process of all RPC variants.

use std::{process::Stdio, sync::Arc};

use anyhow::{Context, Result, ensure};
use doorstep_messaging::{BrokerSettings, Reply, RpcServer, RpcServerSettings, Topology};
use doorstep_runtime::{
    HandlerLock, Limits,
    runner::{self, Phase, RunSettings},
};
use doorstep_store::sqlite::{Options, SqliteStore};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{
    baseline, http,
    sample_role::{DEPOT, Depot},
};
use crate::{
    counter::QUEUES,
    env::{BenchEnv, TIMEOUT},
    options::AnswererArgs,
};

/// A handle to the server process.
pub(super) struct RpcServerProcess {
    pub(super) http_port: u16,
    child: Child,
    url: String,
    namespace: String,
}

impl RpcServerProcess {
    /// Starts it, and waits until it is serving.
    pub(super) async fn start(env: &BenchEnv) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let namespace = env.settings.namespace.to_string();
        let mut child = Command::new(program)
            .arg("answerer")
            // In the environment, since every user of the machine can read a command line.
            .env("DOORSTEP_AMQP_URL", &env.url)
            .args(["--namespace", &namespace])
            .arg("--folder")
            .arg(env.fresh_folder().await?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the server process")?;
        let output = child.stdout.take().context("its output")?;
        let mut line = String::new();
        let mut output = BufReader::new(output);
        timeout(TIMEOUT, output.read_line(&mut line))
            .await
            .context("the server process does not report that it is ready")??;
        let http_port = line
            .trim()
            .parse()
            .context("the server process has exited")?;
        Ok(Self {
            http_port,
            child,
            url: env.url.clone(),
            namespace,
        })
    }

    /// Ends it, and deletes what it has created.
    pub(super) async fn stop(mut self) -> Result<()> {
        // It exits when its standard input is closed.
        drop(self.child.stdin.take());
        let status = timeout(TIMEOUT, self.child.wait())
            .await
            .context("the server process does not exit")??;
        ensure!(status.success(), "the server process failed: {status}");
        baseline::delete_queue(&self.url, &self.namespace).await
    }
}

/// The body of the server process: serves until its input ends.
pub(crate) async fn answerer(args: AnswererArgs) -> Result<()> {
    let settings = BrokerSettings::new(&args.url, &args.namespace)?;
    let topology = Topology::for_roles(&settings.namespace, &[QUEUES, DEPOT]);
    let name = format!("{}: answer", settings.namespace);
    let responder = RpcServer::start(
        &settings,
        &name,
        topology.clone(),
        QUEUES.role,
        RpcServerSettings::default(),
        None,
    );
    responder.ready(TIMEOUT).await?;
    let depot = runner::start(
        Depot,
        SqliteStore::open(&args.folder, DEPOT.role, &Options::default())?,
        RunSettings {
            broker: settings.clone(),
            topology,
            limits: Limits::default(),
            process: HandlerLock::default(),
            shutdown_timeout: TIMEOUT,
            requires_owner_record: true,
        },
    );
    let mut status = depot.watch();
    let taking = status.wait_for(|status| status.phase == Phase::Consuming);
    timeout(TIMEOUT, taking)
        .await
        .context("the role does not start")??;
    let responder = Arc::new(responder);
    let answering = responder.clone();
    tokio::spawn(async move {
        while let Some(asked) = answering.next().await {
            let data = asked.request.data.clone();
            asked.reply.send(Reply::Result(Ok(data)));
        }
    });
    tokio::spawn(baseline::answer(&args.url, &args.namespace).await?);
    let (port, serving) = http::answer().await?;
    tokio::spawn(serving);
    println!("{port}");
    let mut nothing = Vec::new();
    tokio::io::stdin().read_to_end(&mut nothing).await?;
    responder.close(TIMEOUT).await;
    depot.stop();
    depot.join().await?;
    Ok(())
}
