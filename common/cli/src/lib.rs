//! The parts that Doorstep's programs share, so that the same thing is typed, checked and ended the same way in each.
//!
//! - [`start`]: from the command line to the exit code.
//! - [`args`]: shared arguments, each with its conversion to settings.
//! - [`SettingsErrors`] and [`parse`]: validation of arguments, which reports all errors at once.
//! - [`CliError`] and [`ExitReason`]: the failures of a program and their exit codes.
//! - [`MessageLimiter`]: messages of which many may be alike.
//! - [`OperatorArgs`], [`ReasonArgs`]: the operator and the reason, for the record.
//! - [`backups`]: copies of a store, made, restored and accepted.
//! - [`completions`]: scripts for shells.
//! - [`health`]: the health of the running roles, served on an address of the process.
//! - [`management`]: the broker's management API, read only.
//! - [`output`]: standard output, whose reader may close it early.
//! - [`reference`]: reference pages made from the code.
//! - [`variables`]: environment variables that nothing reads.
//! - [`topology`]: the queues of all roles.
//! - [`ShutdownSignal`]: the user's request to stop.

pub mod args;
pub mod backups;
pub mod completions;
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
pub use operator::{OperatorArgs, ReasonArgs};
pub use repeats::MessageLimiter;
pub use shutdown::ShutdownSignal;
pub use topology::{role_queues, topology};
pub use validation::{SettingsErrors, checked};
