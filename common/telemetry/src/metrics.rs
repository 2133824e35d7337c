//! Exports the metrics of the other crates in Prometheus's text format.
//!
//! Without [`Metrics::install`], the facade's handles are no-ops and cost almost nothing. A handle created before stays a no-op forever, so
//! a program installs first and then starts its roles.

use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::process;

/// Bucket bounds that OpenTelemetry's messaging conventions recommend for durations, and smaller ones: a commit takes less than a
/// millisecond.
const SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
];
/// Bucket bounds for events per batch.
const EVENTS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0,
];

/// The version and profile of the build, with the value 1.
const BUILD_INFO: &str = "doorstep_build_info";

/// All metrics of this process: its counters and gauges, its CPU time, memory and open files under Prometheus's standard names, and its
/// build.
#[derive(Clone, derive_more::Debug)]
#[debug("Metrics")]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Starts collecting. Call once per program.
    ///
    /// # Errors
    /// Fails if a collector is already installed.
    pub fn install() -> Result<Self, MetricsError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), EVENTS)?
            .install_recorder()?;
        describe();
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION"), "profile" => profile).set(1.0);
        Ok(Self(handle))
    }

    /// Renders all metrics in Prometheus's text format.
    #[must_use]
    pub fn render(&self) -> String {
        process::update();
        self.0.render()
    }

    /// Sorts recorded values into their buckets. Until then they are stored individually, so call it every few seconds, even if no scraper
    /// reads the metrics.
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}

/// Describes the metrics that every process has.
pub fn describe() {
    process::describe();
    describe_gauge!(BUILD_INFO, "1, with the version and kind of the build");
}

#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be collected: {0}")]
pub struct MetricsError(#[from] BuildError);

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn process_and_build_have_standard_names() {
        let text = Metrics::install().unwrap().render();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            let line = line.unwrap_or_else(|| panic!("{name} is not in {text}"));
            line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        for name in [
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
            "process_start_time_seconds ",
        ] {
            assert!(value(name) > 0.0, "{name} in {text}");
        }
        // It may have used less than a tick so far.
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        assert!(value("process_max_fds ") >= value("process_open_fds "));
        let info = format!("{BUILD_INFO}{{version=\"{}\",", env!("CARGO_PKG_VERSION"));
        assert!((value(&info) - 1.0).abs() < f64::EPSILON, "{text}");
    }
}
