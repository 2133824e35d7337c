//! Doorstep's promises on a real RabbitMQ, one promise for each test, each in a virtual host of its own.
//!
//! A single test binary, so that the tests wait concurrently rather than one file after the other.

#![allow(clippy::unwrap_used, reason = "all of this is tests")]

mod access_log;
mod bad_messages;
mod bench;
mod bindings;
mod broker_away;
mod calls;
mod checkout;
#[path = "../collector/mod.rs"]
mod collector;
mod compare;
mod consumer_timeout;
mod crash;
mod displaced;
mod end_to_end;
mod faults;
mod floods;
mod forged;
mod healing;
mod health;
mod mail_server;
mod mails;
mod operator;
mod other_publishers;
mod outbox;
mod owner;
mod poison;
mod policies;
mod process_crashes;
mod processes;
mod refusals;
mod reports;
mod requests;
mod role_failures;
mod roles;
mod settlement;
mod shared_store;
mod soak;
mod stopping;
mod stores;
mod stream;
mod task_commands;
mod task_deaths;
mod tasks;
mod tls;
mod topology;
mod traces;
mod ui;
mod undecodable;
mod unpublishable;
mod unreadable;
mod upgrade;
mod workbench;

use std::time::Duration;

/// The timeout of waits for quick operations, generous for a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(60);
