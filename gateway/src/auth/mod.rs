//! Authentication: passwords, tokens, signed links, and the user of a request.

mod authenticated_user;
mod links;
mod login_attempt;
mod password;
mod signing_key;
mod token;

pub(crate) use authenticated_user::AuthenticatedUser;
pub(crate) use links::{LinkError, LinkPurpose, Links};
pub(crate) use password::{MAX_CHARS, Password, PasswordPool, hash};
pub(crate) use signing_key::SigningKey;
pub(crate) use token::Tokens;
