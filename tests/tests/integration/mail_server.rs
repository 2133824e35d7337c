//! A mail server that is killed and comes back: a scripted one, or another program.

use std::{
    collections::BTreeMap,
    env, fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use doorstep_smtp::{Action, Offer, SmtpServer, Step};
use doorstep_tests::{TempDir, wait_until};

use crate::SOON;

/// The variable with the command of a mail server, which gets a port and a file: it writes the subject of each accepted
/// mail there. `cargo xtask mail` sets it.
const COMMAND: &str = "DOORSTEP_TEST_MAIL_SERVER";

/// The replies and faults of the mail server: for one in three connections a fault at some step. Faults that only delay a
/// mail come early, so that the last mails do not wait for one more attempt each.
fn fault(connection: usize, mails: usize, step: Step) -> Action {
    let is_early = connection < mails / 2;
    // Spreads the faults without a random number, so that a failed run can be told from its log.
    let pick = connection.wrapping_mul(0x9E37_79B9) >> 4;
    match (pick % 24, step) {
        (0, Step::Connect) if is_early => Action::reply("421 busy"),
        (1, Step::Rcpt) if is_early => Action::reply("450 later"),
        (2, Step::Data) => Action::reply("550 no such mailbox"),
        (3, Step::Dot) => Action::reply("554 refused"),
        (4, Step::Dot) if is_early => Action::reply("451 later"),
        (5, Step::Mail) if is_early => Action::Reset,
        (6, Step::Dot) => Action::Accept(Box::new(Action::Close)),
        (7, Step::Dot) => Action::Accept(Box::new(Action::Reset)),
        (8, Step::FirstLine) => Action::Close,
        (9, Step::Dot) if pick.is_multiple_of(5) => Action::Accept(Box::new(Action::Stall)),
        _ => Action::Normal,
    }
}

/// A mail server on one port, with the record of all its lives.
pub(crate) struct MailServer {
    pub(crate) port: u16,
    mails: usize,
    connections: Arc<AtomicUsize>,
    /// True while the server accepts mails without a reply.
    is_mute: Arc<AtomicBool>,
    living: Option<Living>,
    /// The subjects of mails that a scripted server accepted in earlier lives.
    accepted: Vec<String>,
    folder: TempDir,
}

/// A running server.
enum Living {
    Scripted(SmtpServer),
    Process(Process),
}

/// A server in a process of its own. Dropping it kills it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl MailServer {
    /// Starts a server for this number of mails.
    pub(crate) async fn start(mails: usize) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut server = Self {
            port: free.local_addr().unwrap().port(),
            mails,
            connections: Arc::default(),
            is_mute: Arc::default(),
            living: None,
            accepted: Vec::new(),
            folder: TempDir::new("mail-server"),
        };
        drop(free);
        server.come_back().await;
        server
    }

    /// Returns whether its faults are those of [`fault`]. Other programs may have none.
    pub(crate) fn is_scripted(&self) -> bool {
        matches!(self.living, Some(Living::Scripted(_)))
    }

    /// Starts it again, on the same port.
    pub(crate) async fn come_back(&mut self) {
        let living = match env::var(COMMAND) {
            Ok(command) => Living::Process(self.start_process(&command).await),
            Err(_) => Living::Scripted(self.start_scripted().await),
        };
        self.living = Some(living);
    }

    async fn start_scripted(&self) -> SmtpServer {
        let all = Arc::clone(&self.connections);
        let mails = self.mails;
        let is_mute = Arc::clone(&self.is_mute);
        let numbers = Mutex::new(BTreeMap::new());
        let script = move |connection: usize, step: Step| {
            if step == Step::Dot && is_mute.load(Ordering::Relaxed) {
                return Action::Accept(Box::new(Action::Stall));
            }
            let mut numbers = numbers.lock().unwrap();
            let next = || all.fetch_add(1, Ordering::Relaxed);
            let connection = *numbers.entry(connection).or_insert_with(next);
            fault(connection, mails, step)
        };
        SmtpServer::start_at(self.port, Offer::default(), script).await
    }

    async fn start_process(&self, command: &str) -> Process {
        let mut words = command.split_whitespace();
        let child = Command::new(words.next().unwrap())
            .args(words)
            .arg(self.port.to_string())
            .arg(self.folder.join("accepted"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(child);
        let address = ("127.0.0.1", self.port);
        wait_until("the mail server listens", SOON, async || {
            TcpStream::connect(address).is_ok()
        })
        .await;
        process
    }

    /// Waits until a scripted server has accepted a mail without replying to it. It replies to none until
    /// [`MailServer::reply`].
    pub(crate) async fn accept_without_reply(&self) {
        if self.is_scripted() {
            self.is_mute.store(true, Ordering::Relaxed);
            let before = self.accepted().len();
            // The first may have been accepted before, the others not.
            wait_until("mails are accepted", SOON, async || {
                self.accepted().len() > before + 1
            })
            .await;
        }
    }

    pub(crate) fn reply(&self) {
        self.is_mute.store(false, Ordering::Relaxed);
    }

    /// Ends all connections at once, and takes no more.
    pub(crate) async fn go_away(&mut self) {
        match self.living.take().unwrap() {
            Living::Scripted(server) => {
                let ended = server.end().await;
                self.accepted
                    .extend(ended.iter().map(|mail| subject(&mail.data)));
            }
            Living::Process(process) => drop(process),
        }
    }

    /// Returns how often a mail with each subject was accepted.
    pub(crate) fn accepted(&self) -> BTreeMap<String, usize> {
        let mut subjects = self.accepted.clone();
        match self.living.as_ref().unwrap() {
            Living::Scripted(server) => {
                subjects.extend(server.accepted().iter().map(|mail| subject(&mail.data)));
            }
            Living::Process(_) => {
                let text = fs::read_to_string(self.folder.join("accepted")).unwrap_or_default();
                subjects.extend(text.lines().map(str::to_owned));
            }
        }
        let mut counts = BTreeMap::new();
        for subject in subjects {
            *counts.entry(subject).or_default() += 1;
        }
        counts
    }
}

fn subject(mail: &[u8]) -> String {
    let mail = mail_parser::MessageParser::default().parse(mail).unwrap();
    mail.subject().unwrap().to_owned()
}
