//! `consumers topology`: Doorstep's topology on the broker, the broker's differences, and the permissions that users
//! need.

mod definitions;
mod managed;
mod permissions;
mod show;
mod verify;

pub(crate) use definitions::definitions;
pub(crate) use permissions::{Asked, permissions};
pub(crate) use show::show;
pub(crate) use verify::{VerifyJob, verify};
