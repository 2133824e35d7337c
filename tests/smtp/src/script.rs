//! The steps at which a script is asked, and its actions.

use crate::Certificate;

/// A step of a connection, named after what the client has just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The client has connected: a greeting is due.
    Connect,
    /// EHLO or HELO.
    Hello,
    /// STARTTLS.
    StartTls,
    /// The client begins a TLS handshake.
    Handshake,
    /// AUTH, with or without an initial response.
    Auth,
    /// The user of AUTH LOGIN.
    User,
    /// The password of AUTH LOGIN.
    Password,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The first line of the mail.
    FirstLine,
    /// The final dot of the mail.
    Dot,
    /// QUIT.
    Quit,
    /// Any other command.
    Other,
}

/// The action at a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The proper reply. At [`Step::Dot`] the mail is accepted.
    Normal,
    /// Another reply, of one line or several, without the last line end. After `354`, the server reads a mail.
    Reply(String),
    /// These bytes in place of a reply.
    Raw(Vec<u8>),
    /// At [`Step::Dot`]: accepts the mail, then takes another action instead of the reply.
    Accept(Box<Action>),
    /// Silence until the client ends the connection.
    Stall,
    /// A line without an end, until the client ends the connection.
    Endless,
    /// The end of the connection.
    Close,
    /// The end of the connection by a reset.
    Reset,
}

impl Action {
    /// Returns [`Action::Reply`].
    #[must_use]
    pub fn reply(text: &str) -> Self {
        Self::Reply(text.to_owned())
    }
}

/// The abilities that the server offers.
#[derive(Debug, Clone, Default)]
pub struct Offer {
    /// The certificate for TLS; without one there is no TLS.
    pub certificate: Option<Certificate>,
    /// TLS from the first byte on, instead of STARTTLS.
    pub implicit_tls: bool,
    /// The user and password that MAIL requires.
    pub login: Option<(String, String)>,
    /// The mechanisms of AUTH, such as `PLAIN LOGIN`; empty offers none.
    pub mechanisms: String,
}
