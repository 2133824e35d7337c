//! The HTTP gateway as a process of its own, with real roles on a real RabbitMQ.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod access_log;
mod away;
mod chaos;
#[path = "../collector/mod.rs"]
mod collector;
mod crowds;
mod feed;
mod gateway;
mod guesses;
mod health;
mod notifications;
mod orders;
mod positions;
mod reports;
mod restoring;
mod sessions;
mod shop;
mod traces;
mod users;

use std::time::Duration;

/// The timeout of waits for quick operations, generous for a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(60);
