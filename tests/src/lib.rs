//! The harness of the tests that run on a real RabbitMQ.
//!
//! - [`World`]: a virtual host of its own for each test, with whatever is needed to publish into it, run roles in it and look at it.
//! - [`RoleProcess`]: a role on a runtime of its own, so that it can be ended as a crash would end it.
//! - [`Program`]: the real binaries, started, watched and killed.
//! - [`Client`]: HTTP, also as no client should speak it.
//! - [`ChaosProxy`]: a wire that tests cut, stall, slow down, half-close and corrupt, at a chosen word of the conversation ([`Point`]).
//! - [`FaultyStore`]: a store that fails, or hangs between a commit and whatever should follow it.
//! - [`RawAmqp`]: bare AMQP, for messages that no part of Doorstep would send and for looking at what arrived.
//! - [`RawAmqp`]: AMQP with any octets, for messages that no client library writes.
//! - [`retail`]: sales in the form of the real file, and what they must come to.
//! - [`rush`]: very many orders by way of the gateway while everything is killed, and whether the books are right afterwards.
//! - [`soak`]: what other publishers send between very many events while the consumers are killed, and whether the stores are right afterwards.
//! - [`ledger`]: a role whose events bring every kind of trouble.
//! - [`wait_until`] and [`wait_for`]: the only places here that sleep.
//! - [`Watchdog`]: how much of a time the runtime itself was there.
//!
//! Everything here fails by panicking, as a test does, and says what it was about.

#![allow(clippy::unwrap_used, reason = "a harness fails as a test does")]

mod client;
mod faulty;
mod hours;
#[path = "../../common/runtime/tests/ledger/mod.rs"]
pub mod ledger;
mod management_view;
mod programs;
mod proxy;
mod raw_amqp;
pub mod retail;
mod role_process;
pub mod rush;
mod scratch;
pub mod soak;
mod test_channel;
mod test_env;
mod wait;
mod watchdog;

pub use client::{Answer, Client};
pub use faulty::{Fault, FaultyStore};
pub use hours::never_closed;
pub use management_view::ManagementView;
pub use programs::{Ended, Program, RunningProgram};
pub use proxy::{ChaosProxy, Direction, Point, WireFault};
pub use raw_amqp::{RawAmqp, RawProperties, nested_arrays, nested_tables};
pub use role_process::RoleProcess;
pub use scratch::TempDir;
pub use test_channel::{Taken, TestChannel};
pub use test_env::{LEDGER, LEDGER_WITH_RPC, TestEnv, run_settings};
pub use wait::{random_moment, wait_for, wait_until};
pub use watchdog::Watchdog;
