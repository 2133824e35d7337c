//! Metrics of the process under Prometheus's standard names. Linux provides them in /proc; other systems have none.

use metrics::{describe_gauge, gauge};

const CPU: &str = "process_cpu_seconds_total";
const MEMORY: &str = "process_resident_memory_bytes";
const OPEN_FDS: &str = "process_open_fds";
const MAX_FDS: &str = "process_max_fds";
const STARTED: &str = "process_start_time_seconds";

/// Describes the metrics. All are gauges, because counters of the facade have no fractions.
pub(crate) fn describe() {
    describe_gauge!(CPU, "Processor time of the process, user and system");
    describe_gauge!(MEMORY, "Memory of the process that is not swapped out");
    describe_gauge!(OPEN_FDS, "Open file descriptors");
    describe_gauge!(MAX_FDS, "Most file descriptors that may be open");
    describe_gauge!(
        STARTED,
        "Start of the process, in seconds since the epoch of Unix"
    );
}

/// Updates the metrics. One that cannot be read keeps its value.
pub(crate) fn update() {
    #[cfg(target_os = "linux")]
    if let Ok(process) = procfs::process::Process::myself() {
        linux::update(&process);
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use procfs::{
        boot_time_secs, page_size,
        process::{LimitValue, Process},
        ticks_per_second,
    };

    use super::{CPU, MAX_FDS, MEMORY, OPEN_FDS, STARTED, gauge};

    pub(super) fn update(process: &Process) {
        if let Ok(stat) = process.stat() {
            let seconds = |ticks: u64| ticks as f64 / ticks_per_second() as f64;
            gauge!(CPU).set(seconds(stat.utime + stat.stime));
            gauge!(MEMORY).set((stat.rss * page_size()) as f64);
            if let Ok(boot) = boot_time_secs() {
                gauge!(STARTED).set(boot as f64 + seconds(stat.starttime));
            }
        }
        if let Ok(open) = process.fd_count() {
            gauge!(OPEN_FDS).set(open as f64);
        }
        if let Ok(limits) = process.limits() {
            let max = match limits.max_open_files.soft_limit {
                LimitValue::Value(max) => max as f64,
                LimitValue::Unlimited => f64::INFINITY,
            };
            gauge!(MAX_FDS).set(max);
        }
    }
}
