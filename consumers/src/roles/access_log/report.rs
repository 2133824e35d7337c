//! Requests by endpoint and hour, summed from hours and minutes in the order of their keys.

use serde::Serialize;

use super::{PeriodCounts, hour_of};

/// The requests of one endpoint in one hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct EndpointHour {
    /// The hour in UTC, such as `2026-11-30T10:00Z`.
    pub(crate) hour: String,
    pub(crate) endpoint: String,
    pub(crate) requests: u64,
    pub(crate) client_errors: u64,
    pub(crate) server_errors: u64,
    pub(crate) bytes: u64,
    /// In microseconds, as are the others; absent if no response time is known.
    pub(crate) p50_us: Option<u64>,
    pub(crate) p99_us: Option<u64>,
}

/// Sums entities. Keys of one hour follow each other, so it holds no more than one hour's endpoints.
#[derive(Debug, Default)]
pub(crate) struct HourlyReport {
    hour: String,
    sum: PeriodCounts,
    requests: u64,
    dropped: u64,
}

/// An entity that the role cannot have written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("entity {0:?} is damaged")]
pub(crate) struct DamagedEntity(String);

impl HourlyReport {
    /// Adds an entity, and returns the previous hour once the first of the next one has come.
    ///
    /// # Errors
    /// The role has not written the entity.
    pub(crate) fn add(
        &mut self,
        key: &str,
        state: &[u8],
    ) -> Result<Vec<EndpointHour>, DamagedEntity> {
        let damaged = || DamagedEntity(key.to_owned());
        let counts: PeriodCounts = serde_json::from_slice(state).map_err(|_| damaged())?;
        let period = key.strip_prefix("requests/").ok_or_else(damaged)?;
        let hour = hour_of(period).unwrap_or(period);
        let mut complete = Vec::new();
        if hour != self.hour {
            complete = self.finish_hour();
            hour.clone_into(&mut self.hour);
        }
        self.requests += counts.endpoints.values().map(|c| c.requests).sum::<u64>();
        self.dropped = self.dropped.saturating_add(counts.dropped);
        self.sum.merge(&counts);
        Ok(complete)
    }

    /// Returns the last hour, sorted by requests, the most first.
    pub(crate) fn finish_hour(&mut self) -> Vec<EndpointHour> {
        let hour = format!("{}:00Z", self.hour);
        let sum = std::mem::take(&mut self.sum);
        let mut rows: Vec<_> = sum
            .endpoints
            .into_iter()
            .map(|(endpoint, counts)| {
                let quantiles = counts.durations.quantiles([0.5, 0.99]);
                EndpointHour {
                    hour: hour.clone(),
                    endpoint,
                    requests: counts.requests,
                    client_errors: counts.client_errors,
                    server_errors: counts.server_errors,
                    bytes: counts.bytes,
                    p50_us: quantiles.map(|[p50, _]| p50),
                    p99_us: quantiles.map(|[_, p99]| p99),
                }
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.requests));
        rows
    }

    /// Returns the number of all requests so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// Returns the number of requests so far whose events were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}
