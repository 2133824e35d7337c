//! What Doorstep's programs have in common, so that the same thing is typed, checked and ended the same way in each.
//!
//! - [`start`]: from the command line to the exit code.
//! - [`args`]: arguments that several programs take, each with what makes settings of it.
//! - [`SettingsErrors`] and [`read`]: checking what was typed, and telling everything that is wrong at once.
//! - [`CliError`] and [`ExitReason`]: why a program ends without having done its work, and its exit code.
//! - [`Repeats`]: messages of which many may be alike.
//! - [`OperatorArgs`]: who does it, for the record.
//! - [`copies`]: copies of a store, made, put back and accepted.
//! - [`health`]: how the running roles are, on an address of the process.
//! - [`management`]: the broker's management API, read only.
//! - [`output`]: standard output, whose reader may have had enough.
//! - [`reference`]: reference pages made from the code.
//! - [`variables`]: those of the environment that nothing reads.
//! - [`topology`]: the queues of all roles.
//! - [`ShutdownSignal`]: the user's wish to stop.

pub mod args;
pub mod copies;
mod failure;
pub mod health;
pub mod management;
mod operator;
pub mod output;
pub mod parse;
pub mod reference;
mod repeats;
mod shutdown;
pub mod start;
mod topology;
mod validation;
pub mod variables;

pub use failure::{CliError, ExitReason};
pub use operator::OperatorArgs;
pub use repeats::Repeats;
pub use shutdown::ShutdownSignal;
pub use topology::topology;
pub use validation::SettingsErrors;
