//! Who somebody is: passwords, tokens, and the caller of a request.

mod caller;
mod key;
mod known_networks;
mod name_queue;
mod password;
mod strangers;
mod token;

pub(crate) use caller::{Caller, under_way};
pub(crate) use key::Key;
pub(crate) use password::{MAX_CHARS, Password, Passwords, hash};
pub(crate) use strangers::{Stranger, Strangers};
pub(crate) use token::Tokens;
