//! A mail server for tests, on real sockets. It speaks SMTP with STARTTLS, TLS and logins as far as senders need it, and a script decides at
//! each step of each connection what it does instead: another reply, garbage, a stall, a close, a reset.
//!
//! ```no_run
//! # async fn example() {
//! use doorstep_smtp::{Action, Offer, SmtpServer, Step};
//!
//! // Accepts the first mail, but closes the connection before its reply.
//! let server = SmtpServer::start(Offer::default(), |connection, step| match (connection, step) {
//!     (0, Step::Dot) => Action::Accept(Box::new(Action::Close)),
//!     _ => Action::Normal,
//! })
//! .await;
//! # let _ = server.port();
//! # }
//! ```

mod certificate;
mod lines;
mod record;
mod script;
mod server;
mod session;

pub use certificate::Certificate;
pub use record::{AcceptedMail, Command, Log};
pub use script::{Action, Offer, Step};
pub use server::SmtpServer;
