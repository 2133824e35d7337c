//! `consumers topology`: what Doorstep declares on the broker, how the broker differs, and what users must be allowed to do.

mod definitions;
mod managed;
mod permissions;
mod show;
mod verify;

pub(crate) use definitions::definitions;
pub(crate) use permissions::{Asked, permissions};
pub(crate) use show::show;
pub(crate) use verify::verify;
