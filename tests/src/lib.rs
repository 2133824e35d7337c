//! The harness of the tests that run on a real RabbitMQ.
//!
//! - [`TestEnv`]: a virtual host of its own for each test, to publish into, run roles in and inspect.
//! - [`RoleProcess`]: a role on a runtime of its own, so that it can be ended as by a crash.
//! - [`Program`]: the real binaries, started, watched and killed.
//! - [`Client`]: HTTP, including malformed requests.
//! - [`ChaosProxy`]: a TCP proxy that cuts, stalls, slows down, half-closes and corrupts connections, at a chosen AMQP
//!   method ([`Point`]).
//! - [`FaultyStore`]: a store that fails, or hangs before or after a commit.
//! - [`TestChannel`]: a plain lapin channel, for messages that Doorstep never sends and for reading what arrived.
//! - [`RawAmqp`]: AMQP with arbitrary octets, which no client library writes.
//! - [`retail`]: sales in the form of the real file, with their expected results.
//! - [`chaos`]: thousands of orders through the gateway while processes are killed, and a check of the final states.
//! - [`soak`]: messages of other publishers among very many events while the consumers are killed, and a check of the
//!   final stores.
//! - [`ledger`]: a role whose events cause every kind of failure.
//! - [`works`]: a role whose tasks have every kind of end.
//! - [`wait_until`] and [`wait_for`]: the only places here that sleep.
//! - [`Watchdog`]: the scheduling delay of the runtime itself.
//!
//! All of it fails by a panic with a description, like a test.

#![allow(clippy::unwrap_used, reason = "a harness fails as a test does")]

pub mod chaos;
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
pub mod soak;
mod temp_dir;
mod test_channel;
mod test_env;
mod wait;
mod watchdog;
#[path = "../../common/runtime/tests/works/mod.rs"]
pub mod works;

pub use client::{Client, HttpResponse};
pub use faulty::{Fault, FaultyStore};
pub use hours::never_closed;
pub use management_view::ManagementView;
pub use programs::{Ended, Program, RunningProgram};
pub use proxy::{ChaosProxy, Direction, Point, WireFault};
pub use raw_amqp::{RawAmqp, RawProperties, nested_arrays, nested_tables};
pub use role_process::RoleProcess;
pub use temp_dir::TempDir;
pub use test_channel::{Taken, TestChannel};
pub use test_env::{LEDGER, LEDGER_WITH_RPC, TestEnv, WORKS, run_settings};
pub use wait::{random_moment, wait_for, wait_until};
pub use watchdog::Watchdog;
