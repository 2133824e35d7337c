//! The real binaries: started, watched, killed.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use doorstep_broker::{Guard, Signal, send_signal};

use crate::{TempDir, wait_for};

/// The command line of a binary of this workspace.
#[derive(Debug, Clone)]
pub struct Program {
    name: &'static str,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    input: Vec<u8>,
}

/// A binary that has exited.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// `consumers` with these arguments.
    #[must_use]
    pub fn consumers(arguments: &[&str]) -> Self {
        Self::named("consumers", arguments)
    }

    /// `compare` with these arguments.
    #[must_use]
    pub fn compare(arguments: &[&str]) -> Self {
        Self::named("compare", arguments)
    }

    /// `gateway` with these arguments.
    #[must_use]
    pub fn gateway(arguments: &[&str]) -> Self {
        Self::named("gateway", arguments)
    }

    /// `producer` with these arguments.
    #[must_use]
    pub fn producer(arguments: &[&str]) -> Self {
        Self::named("producer", arguments)
    }

    /// The [`ledger`](crate::ledger) in a process of its own.
    #[must_use]
    pub fn ledger() -> Self {
        Self::named("doorstep-ledger", &[])
    }

    /// The [`works`](crate::works) in a process of its own.
    #[must_use]
    pub fn works() -> Self {
        Self::named("doorstep-works", &[])
    }

    fn named(name: &'static str, arguments: &[&str]) -> Self {
        Self {
            name,
            arguments: arguments.iter().map(OsString::from).collect(),
            variables: Vec::new(),
            input: Vec::new(),
        }
    }

    /// Adds an argument of any kind.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    #[must_use]
    pub fn broker(self, amqp_url: &str) -> Self {
        self.variable("DOORSTEP_AMQP_URL", amqp_url)
    }

    /// Sets the folder of the stores.
    #[must_use]
    pub fn store(self, folder: &Path) -> Self {
        self.variable("DOORSTEP_DATA_DIR", folder)
    }

    #[must_use]
    pub fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = input.into();
        self
    }

    /// Starts it, with its output and current folder in `scratch`.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(&self, scratch: &TempDir) -> RunningProgram {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = |ending: &str| scratch.join(&format!("{}-{count}.{ending}", self.name));
        let (stdin, stdout, stderr) = (file("in"), file("out"), file("err"));
        let mut input = File::create(&stdin).unwrap();
        input.write_all(&self.input).unwrap();
        let mut command = Command::new(binary(self.name));
        command
            .args(&self.arguments)
            .current_dir(scratch.path())
            .stdin(File::open(&stdin).unwrap())
            .stdout(Stdio::from(File::create(&stdout).unwrap()))
            .stderr(Stdio::from(File::create(&stderr).unwrap()));
        // Isolates the program from the environment in which the tests run.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DOORSTEP_") {
                command.env_remove(name);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().unwrap();
        orders(|guard| guard.watch(child.id()).unwrap());
        RunningProgram {
            name: self.name,
            child: Some(child),
            stdout,
            stderr,
        }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it does not exit within the limit.
    pub async fn run(&self, scratch: &TempDir, limit: Duration) -> Ended {
        self.start(scratch).ended(limit).await
    }
}

/// A running binary. Dropping it kills it.
#[derive(Debug)]
pub struct RunningProgram {
    name: &'static str,
    child: Option<Child>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl RunningProgram {
    /// Its process id.
    ///
    /// # Panics
    /// Never: it has one until it has exited.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Returns true while it is running.
    ///
    /// # Panics
    /// If its state cannot be read.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Returns its standard error so far.
    ///
    /// # Panics
    /// If that cannot be read.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Waits until it has written this text to standard error.
    ///
    /// # Panics
    /// If it does not within the limit.
    pub async fn says(&self, what: &str, limit: Duration) {
        wait_for(format!("it says: {what}"), limit, async || {
            let log = self.stderr();
            if log.contains(what) { Ok(()) } else { Err(log) }
        })
        .await;
    }

    /// Returns its standard output so far.
    ///
    /// # Panics
    /// If that cannot be read.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// Sends it SIGTERM.
    ///
    /// # Panics
    /// If it has exited.
    pub fn terminate(&self) {
        send_signal(self.id(), Signal::Terminate).unwrap();
    }

    /// Kills it by SIGKILL and waits for its exit. Returns true if it was still running.
    ///
    /// # Panics
    /// If the system does not end it.
    pub fn kill(mut self) -> bool {
        let mut child = self.child.take().unwrap();
        let was_running = child.try_wait().unwrap().is_none();
        finish(&mut child);
        was_running
    }

    /// Waits for its exit.
    ///
    /// # Panics
    /// If it does not exit within the limit; its output is in the message.
    pub async fn ended(mut self, limit: Duration) -> Ended {
        let what = format!("{} ends", self.name);
        let status: ExitStatus = wait_for(what, limit, async || {
            match self.child.as_mut().unwrap().try_wait().unwrap() {
                Some(status) => Ok(status),
                None => Err(read(&self.stderr)),
            }
        })
        .await;
        let mut child = self.child.take().unwrap();
        finish(&mut child);
        Ended {
            code: status.code(),
            stdout: read(&self.stdout),
            stderr: read(&self.stderr),
        }
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            finish(&mut child);
        }
    }
}

/// Kills a child that may still be running and reaps it.
fn finish(child: &mut Child) {
    // Fails only if it has exited.
    let _ = child.kill();
    let _ = child.wait();
    orders(|guard| guard.forget(child.id()).unwrap());
}

/// Passes an order to the guard, which lets no program outlive the tests, however they end.
fn orders(give: impl FnOnce(&mut Guard)) {
    static GUARD: OnceLock<Mutex<Guard>> = OnceLock::new();
    let guard = GUARD.get_or_init(|| Mutex::new(Guard::start::<&str>(&[]).unwrap()));
    give(&mut guard.lock().unwrap_or_else(PoisonError::into_inner));
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}

/// Returns the path of a binary, next to the tests' own: Cargo puts those into a folder below.
fn binary(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let found = tests
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is not built: run the tests by `cargo xtask test`, or `cargo build -p {name}` before them")
    })
}
