//! `doorstep-messaging` on a real broker: its promises, and its error messages.
//!
//! Each test has a virtual host of its own on the shared broker. Those that disturb a broker start one of their own.

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
