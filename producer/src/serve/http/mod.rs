//! What has to do with HTTP and with nothing else: connections, bodies, problem documents, limits.

pub(crate) mod body;
pub(crate) mod layers;
pub(crate) mod listen;
pub(crate) mod origin;
mod patient;
pub(crate) mod problem;
pub(crate) mod rate;
pub(crate) mod refusal_log;
pub(crate) mod shares;

pub(crate) use body::{Named, Unread, is_presentable, is_short, known, short, short_if_any, whole};
pub(crate) use problem::Problem;
