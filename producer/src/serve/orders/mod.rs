//! Placing orders: begun, asked about, ended; and ended by somebody else where whoever began did not come to it.

mod flow;
mod under_way;
mod unfinished;

pub(crate) use flow::{Flow, Wanted, longest_order};
pub(crate) use under_way::UnderWay;
pub(crate) use unfinished::{LeftOrders, abandon_unfinished, leave_open};
