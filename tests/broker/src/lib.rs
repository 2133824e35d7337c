//! Finds a RabbitMQ for tests, demo and bench, or starts an isolated one.
//!
//! - [`find_or_start`] tries the possible brokers in a fixed order and reports each step.
//! - [`PrivateNode`] is an isolated RabbitMQ: own name, ports, data, cookie, user and password, listening on 127.0.0.1
//!   only. Tests kill, stop, freeze and restart it.
//! - [`Management`] calls the management HTTP API: virtual hosts, users, permissions, and any other path.
//! - [`shared`] is the broker that the tests of one run share. Each test creates a [`Vhost`] of its own on it, and a
//!   [`User`] to try permissions.
//!
//! This crate needs no async runtime and hardly any dependency, so that the first line of `cargo xtask demo` appears
//! within seconds of the first build. It contains no AMQP client: it only checks that a broker answers.
//!
//! Everything that this crate starts ends with the process that started it, even if that process is killed: see
//! [`Guard`].

mod address;
mod apt;
mod broker;
mod command;
mod compose;
mod container;
mod daemon;
mod dead_lettering;
mod find;
mod folder;
mod guard;
mod http;
mod installed;
mod management;
mod node;
mod ports;
mod process;
mod shared;
mod state;
mod test_node;
mod user;
mod wait;

pub use address::{AmqpAddress, percent_encoded};
pub use apt::install_if_possible;
pub use broker::{Broker, Vhost};
pub use daemon::UpNode;
pub use dead_lettering::outlive_worker_crashes;
pub use find::{BrokerOrigin, Found, Options, find_or_start, start_image};
pub use folder::target_folder;
pub use guard::Guard;
pub use management::Management;
pub use node::{Data, Footprint, InstalledNode, NodeOptions, NodeTls};
pub use ports::Ports;
pub use process::{Signal, send_signal};
pub use shared::{TEST_AMQP_URL, TEST_MANAGEMENT_URL, shared};
pub use test_node::{PrivateNode, TEST_IMAGE};
pub use user::{User, UserPermissions};
pub use wait::until;
