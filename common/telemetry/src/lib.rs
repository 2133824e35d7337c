//! Observability of a program: log, metrics, traces, and a small HTTP endpoint for health.
//!
//! - [`log`]: lines on standard error, as text or JSON.
//! - [`metrics`]: exports the metrics of the `metrics` facade in Prometheus format.
//! - [`trace`]: exports spans to an OpenTelemetry collector, if configured.
//! - [`health`]: serves `/livez`, `/readyz` and `/metrics`, and queries them.
//!
//! The crates that do the work decide what to record; this crate only exports it. Programs use it, libraries do not.

pub mod health;
mod http;
pub mod log;
pub mod metrics;
mod process;
pub mod trace;

pub use http::{HttpLogin, HttpUrl, HttpUrlError};
