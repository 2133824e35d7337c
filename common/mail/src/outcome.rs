//! The outcome of an attempt to send a mail.

/// The outcome of one attempt. Its texts are for operators: printable ASCII of at most a few hundred characters, without the recipient's
/// address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailOutcome {
    /// The server, or the folder, has accepted the mail.
    Sent {
        /// The server's text, which often has its number of the mail; or the path of the file.
        reply: String,
    },
    /// The mail was not accepted, and a later attempt may succeed.
    Retry { why: String },
    /// The mail was not accepted since the server refuses this client, user or sender. A later attempt can succeed once an operator has
    /// corrected a setting.
    Misconfigured { why: String },
    /// The server has refused this mail or its recipient for good.
    Failed {
        /// The reply code, 500 to 599.
        code: u16,
        /// The server's text.
        text: String,
    },
    /// The mail was transmitted, completely or in part, but the reply to it is missing. Another attempt may be a second mail.
    Unknown { why: String },
}
