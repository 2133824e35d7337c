//! The commands, one file each.

pub(crate) mod access_log;
pub(crate) mod attention;
pub(crate) mod dead_letters;
pub(crate) mod export;
pub(crate) mod health;
mod output_file;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod sources;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod streams;
pub(crate) mod tasks;
pub(crate) mod topology;

/// Logs that a second stop signal ends the program at once.
pub(crate) fn log_forced_exit() {
    tracing::warn!("ended at once: unacked deliveries will be redelivered");
}
