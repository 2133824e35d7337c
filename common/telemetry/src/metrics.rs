//! What the other crates count, in the text form that Prometheus reads.
//!
//! Without [`Metrics::install`] the facade's counters lead nowhere and cost next to nothing. A handle that a crate has made before
//! leads nowhere for ever, so a program installs first and starts its roles afterwards.

use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::process;

/// The bounds that the messaging conventions recommend for durations, and some below: a commit takes less than a millisecond.
const SECONDS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
];
/// How many events make a batch.
const EVENTS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0,
];

/// The version and the kind of the build, with the value 1.
const BUILD_INFO: &str = "doorstep_build_info";

/// All metrics of this process: what is counted in it, its processor time, memory and open files by the names that Prometheus has for
/// them, and its build.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Collects from here on. For once in a program.
    ///
    /// # Errors
    /// There is a collector already.
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

    /// All of them, as Prometheus reads them.
    #[must_use]
    pub fn render(&self) -> String {
        process::show();
        self.0.render()
    }

    /// Sorts measured values into their buckets. Until that is done they are kept one by one, so it is done every few seconds, whether
    /// anybody reads the metrics or not.
    pub fn tidy(&self) {
        self.0.run_upkeep();
    }
}

/// Describes the metrics that every process has.
pub fn describe() {
    process::describe();
    describe_gauge!(BUILD_INFO, "1, with the version and kind of the build");
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// Metrics cannot be collected.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be collected: {0}")]
pub struct MetricsError(#[from] BuildError);

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_process_and_its_build_are_told_by_their_usual_names() {
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
        // It may have taken less than a tick so far.
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        assert!(value("process_max_fds ") >= value("process_open_fds "));
        let info = format!("{BUILD_INFO}{{version=\"{}\",", env!("CARGO_PKG_VERSION"));
        assert!((value(&info) - 1.0).abs() < f64::EPSILON, "{text}");
    }
}
