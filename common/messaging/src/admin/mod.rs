//! Administration of a broker, apart from messages: queue depths, the broker's version, and comparison with the topology.

pub(crate) mod inspect;
pub(crate) mod server_properties;
pub(crate) mod verify;
