//! The HTTP transport: connections, bodies, problem documents.

pub(crate) mod body;
pub(crate) mod middleware;
pub(crate) mod origin;
pub(crate) mod problem;
pub(crate) mod rejection_log;
pub(crate) mod server;

pub(crate) use body::{
    PathParam, Unread, bounded_str, bounded_str_opt, is_presentable, is_short, known, whole_number,
};
pub(crate) use problem::Problem;
