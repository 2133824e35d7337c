//! The commands, one file each.

pub(crate) mod attention;
pub(crate) mod dead_letters;
pub(crate) mod export;
pub(crate) mod health;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod sources;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod streams;
pub(crate) mod topology;
