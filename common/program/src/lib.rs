//! What Doorstep's programs have in common, so that the same thing is typed, checked and ended the same way in each.
//!
//! - [`start`]: from the command line to the exit code.
//! - [`args`]: arguments that several programs take, each with what makes settings of it.
//! - [`Wrong`] and [`read`]: checking what was typed, and telling everything that is wrong at once.
//! - [`Failure`] and [`Reason`]: why a program ends without having done its work, and its exit code.
//! - [`Repeats`]: messages of which many may be alike.
//! - [`WhoArgs`]: who does it, for the record.
//! - [`copies`]: copies of a store, made, put back and accepted.
//! - [`health`]: how the running roles are, on an address of the process.
//! - [`management`]: the broker's management API, read only.
//! - [`output`]: standard output, whose reader may have had enough.
//! - [`variables`]: those of the environment that nothing reads.
//! - [`Stop`]: the user's wish to stop.

pub mod args;
pub mod copies;
mod failure;
pub mod health;
pub mod management;
pub mod output;
pub mod read;
mod repeats;
pub mod start;
mod stop;
pub mod variables;
mod who;
mod wrong;

pub use failure::{Failure, Reason};
pub use repeats::Repeats;
pub use stop::Stop;
pub use who::WhoArgs;
pub use wrong::Wrong;
