//! How a program tells how it is: its log, its metrics, its traces, and the small HTTP endpoint that answers for it.
//!
//! - [`log`]: lines on standard error, as text or JSON.
//! - [`metrics`]: what the other crates count by the `metrics` facade, in the form that Prometheus reads.
//! - [`trace`]: spans to an OpenTelemetry collector, if one is named.
//! - [`health`]: `/livez`, `/readyz` and `/metrics` on an address, and the question that asks one.
//!
//! What is told is decided where it happens, in the crates that do the work; here is only the way out. A library never names this
//! crate, only a program does.

pub mod health;
mod http;
pub mod log;
pub mod metrics;
mod process;
pub mod trace;

pub use http::{HttpLogin, HttpUrl, HttpUrlError};
