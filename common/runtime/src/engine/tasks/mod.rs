//! The decisions about tasks, as pure functions and values: no clock, no store, no thread.
//!
//! No wall clock decides on a lease. A holder stops by its own monotonic clock, and an observer waits longer by its
//! own, so that a take-over begins after the holder has stopped, even if the two clocks run at different rates.

mod end_command;
pub(crate) mod fate;
pub(crate) mod finished;
mod lease_watch;
mod own_leases;

pub use self::{
    fate::{AttemptEnd, GaveUp, NextStep, OnUnknown, TaskPolicy, TaskStep, first_step, next_step},
    lease_watch::LeaseWatch,
    own_leases::{LeaseStatus, OwnLeases},
};
