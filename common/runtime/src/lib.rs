//! The engine of a role: takes deliveries, calls pure handlers, commits, acks and relays the outbox.
//!
//! - [`Role`] is the trait that a new consumer service implements: pure functions over state types.
//! - [`task`] is for what a role does outside its store: mails, files, calls.
//! - [`Engine`] processes batches of events against a [`doorstep_store::Store`]; it knows no broker, so a simulation
//!   can run it.
//! - [`relay`] publishes the outbox.
//! - [`operate`] is replay, skip and edit, as transactions on the store.
//! - [`runner`] connects all of it with the broker: start, loop, pause, stop.
//!
//! Nothing here knows an order, and nothing here names lapin or SQL.

mod dead_letter;
pub mod engine;
pub mod limits;
pub mod operate;
pub mod relay;
pub mod role;
pub mod runner;
pub mod task;
pub mod telemetry;

pub use dead_letter::shape;
pub use engine::{
    BatchCursor, BatchReport, CommandResult, Commands, DeliveryHistory, DryRun, Engine,
    HandlerLock, InboundMessage, Queries,
};
pub use limits::Limits;
pub use role::{
    CommandOutcome, Effects, HandlerError, NewEvent, Reading, Role, Scheduled, States, TaskView,
    Unsupported, reply,
};
