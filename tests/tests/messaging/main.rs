//! `doorstep-messaging` on a real broker: what it promises, and what it says when something is wrong.
//!
//! Each test has a virtual host of its own on the shared broker. Those that harm a broker start one of their own.

mod consuming;
mod declaring;
mod faults;
mod outages;
mod publishing;
mod reaching;
mod rpc;
mod rpc_faults;
mod rpc_poison;
mod support;
mod verifying;
