//! A gateway under test: its process, its store, its users.

use std::{net::SocketAddr, path::PathBuf};

use doorstep_store::{SqliteStore, Store, sqlite::Options};
use doorstep_tests::{Client, Ended, Program, RunningProgram, TempDir, wait_for};
use serde_json::{Value, json};

use crate::SOON;

/// An address without a listener.
pub const NO_BROKER: &str = "amqp://guest:guest@127.0.0.1:1/%2f";
/// The first operator of every gateway here.
pub const ROOT: &str = "root";
/// The password of all users.
pub const PASSWORD: &str = "correct horse battery staple";

/// A running gateway.
pub struct Gateway {
    program: Program,
    running: Option<RunningProgram>,
    client: Client,
    pub scratch: TempDir,
}

impl Gateway {
    /// Starts a gateway on this broker, with an operator.
    pub async fn start(hint: &str, amqp_url: &str) -> Self {
        Self::start_with(hint, amqp_url, &[]).await
    }

    /// Starts a gateway with more arguments.
    pub async fn start_with(hint: &str, amqp_url: &str, arguments: &[&str]) -> Self {
        let scratch = TempDir::new(hint);
        let added = Program::gateway(&["user", "add", ROOT, "--role", "operator"])
            .store(&store(&scratch))
            .input(format!("{PASSWORD}\n"))
            .run(&scratch, SOON)
            .await;
        assert_eq!(added.code, Some(0), "{}", added.stderr);
        let mut all = vec!["serve", "--listen", "127.0.0.1:0"];
        all.extend_from_slice(arguments);
        if !arguments.contains(&"--rate-limit") {
            all.extend(["--rate-limit", "1000"]);
        }
        let program = Program::gateway(&all)
            .broker(amqp_url)
            .store(&store(&scratch))
            .variable("DOORSTEP_LOG", "debug");
        let (running, client) = started(&program, &scratch).await;
        Self {
            program,
            running: Some(running),
            client,
            scratch,
        }
    }

    /// Returns a client without a login.
    pub fn nobody(&self) -> &Client {
        &self.client
    }

    /// Returns its health address, from its log.
    pub async fn health_address(&self) -> SocketAddr {
        address_said(self.running.as_ref().unwrap()).await
    }

    /// Runs a command of `gateway` on its store.
    pub async fn command(&self, arguments: &[&str]) -> Ended {
        let program = Program::gateway(arguments).store(&store(&self.scratch));
        program.run(&self.scratch, SOON).await
    }

    /// Returns the source of its events, from its store.
    pub fn source(&self) -> String {
        let folder = store(&self.scratch);
        let store = SqliteStore::open_read_only(&folder, "gateway", &Options::default()).unwrap();
        store.source().to_string()
    }

    /// Waits until it has logged this text.
    pub async fn says(&self, what: &str) {
        self.running.as_ref().unwrap().says(what, SOON).await;
    }

    /// Returns whether it has logged this text.
    pub fn has_said(&self, what: &str) -> bool {
        self.running.as_ref().unwrap().stderr().contains(what)
    }

    pub async fn log_in(&self, name: &str) -> Client {
        let login = json!({"name": name, "password": PASSWORD});
        let session = self.client.post("/v1/sessions", &login).await.expect(201);
        self.client.with_token(session["token"].as_str().unwrap())
    }

    /// Adds a user and logs in as that user.
    pub async fn user(&self, name: &str, role: &str) -> Client {
        let root = self.log_in(ROOT).await;
        let mut user = json!({"name": name, "role": role, "password": PASSWORD});
        if role == "restaurant" {
            user["restaurant"] = json!("luigi");
        }
        let _ = root.post("/v1/users", &user).await.expect(201);
        self.log_in(name).await
    }

    /// Returns all entities of its store.
    async fn states(&self) -> Vec<(String, Value)> {
        let folder = store(&self.scratch);
        let store = SqliteStore::open_read_only(&folder, "gateway", &Options::default()).unwrap();
        let entities = store.entities(None, 10_000).await.unwrap();
        let states = entities.iter().filter_map(|row| {
            let state = serde_json::from_slice(row.state.as_ref()?).unwrap();
            Some((row.key.to_string(), state))
        });
        states.collect()
    }

    /// Returns the number of orders without an outcome, from its store.
    pub async fn open_orders(&self) -> usize {
        let states = self.states().await;
        let open = |s: &Value| s["is"] == "order" && s["stage"]["stage"] == "open";
        states.iter().filter(|(_, state)| open(state)).count()
    }

    /// Returns the hash of a user's password, from its store.
    pub async fn password_hash(&self, name: &str) -> String {
        let key = format!("user/{name}");
        let states = self.states().await;
        let (_, user) = states.iter().find(|(of, _)| *of == key).unwrap();
        user["hash"].as_str().unwrap().to_owned()
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        assert!(self.running.take().unwrap().kill());
    }

    /// Restarts it after a kill or stop.
    pub async fn start_again(&mut self) {
        let (running, client) = started(&self.program, &self.scratch).await;
        self.running = Some(running);
        self.client = client;
    }

    /// Requests a graceful stop.
    pub fn terminate(&self) {
        self.running.as_ref().unwrap().terminate();
    }

    /// Stops it gracefully and returns its log.
    pub async fn stop(&mut self) -> String {
        self.terminate();
        self.has_stopped().await
    }

    /// Waits for the end of a graceful stop and returns its log.
    pub async fn has_stopped(&mut self) -> String {
        let running = self.running.take().unwrap();
        let ended = running.ended(SOON).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stderr
    }
}

/// Returns the health address of a program, from its log.
pub async fn address_said(running: &RunningProgram) -> SocketAddr {
    wait_for("the program answers for itself", SOON, async || {
        let log = running.stderr();
        let mut lines = log.split_inclusive('\n');
        let said = lines.find(|line| line.contains("answering /livez"));
        let said = said.and_then(|line| line.strip_suffix('\n')?.rsplit_once("address="));
        let address = said.and_then(|(_, address)| address.parse().ok());
        address.ok_or(log)
    })
    .await
}

/// Returns the path of its store.
fn store(scratch: &TempDir) -> PathBuf {
    scratch.join("store")
}

async fn started(program: &Program, scratch: &TempDir) -> (RunningProgram, Client) {
    let mut running = program.start(scratch);
    let address = wait_for("the gateway listens", SOON, async || {
        assert!(running.is_running(), "{}", running.stderr());
        let said = running.stdout();
        let address = said
            .split("http://")
            .nth(1)
            .and_then(|s| s.split(';').next());
        address.and_then(|a| a.parse().ok()).ok_or(said.clone())
    })
    .await;
    (running, Client::new(address))
}
