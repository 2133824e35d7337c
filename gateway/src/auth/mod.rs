//! Authentication: passwords, tokens, and the user of a request.

mod authenticated_user;
mod login_attempt;
mod password;
mod signing_key;
mod token;

pub(crate) use authenticated_user::AuthenticatedUser;
pub(crate) use password::{MAX_CHARS, Password, PasswordPool, hash};
pub(crate) use signing_key::SigningKey;
pub(crate) use token::Tokens;
