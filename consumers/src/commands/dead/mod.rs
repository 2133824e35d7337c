//! `consumers dead`: what was refused for good, and what to do with it.

mod list;
mod settle;
mod show;
mod view;

pub(crate) use list::list;
pub(crate) use settle::{replay, skip, skip_gap};
pub(crate) use show::show;
