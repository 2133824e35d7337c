//! Faults of a connection, and the AMQP methods at which they set in.

/// The direction of a byte stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToBroker,
    ToClient,
}

/// The AMQP method just before which a fault sets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// `connection.open-ok`: the broker admits the client to the virtual host.
    OpenOk,
    /// `queue.declare-ok`.
    DeclareOk,
    /// `basic.consume-ok`.
    ConsumeOk,
    /// `queue.bind`.
    Bind,
    /// `queue.bind-ok`.
    BindOk,
    /// `basic.publish`.
    Publish,
    /// `basic.ack` of the broker: a confirm.
    Confirm,
    /// `basic.deliver`.
    Deliver,
    /// `basic.ack` of the client.
    Ack,
}

impl Point {
    pub(super) fn direction(self) -> Direction {
        match self {
            Self::OpenOk
            | Self::DeclareOk
            | Self::BindOk
            | Self::ConsumeOk
            | Self::Confirm
            | Self::Deliver => Direction::ToClient,
            Self::Bind | Self::Publish | Self::Ack => Direction::ToBroker,
        }
    }

    /// Returns class and number of the method. A confirm and an acknowledgement are the same method in two directions.
    pub(super) fn method(self) -> (u16, u16) {
        match self {
            Self::OpenOk => (10, 41),
            Self::DeclareOk => (50, 11),
            Self::Bind => (50, 20),
            Self::BindOk => (50, 21),
            Self::ConsumeOk => (60, 21),
            Self::Publish => (60, 40),
            Self::Deliver => (60, 60),
            Self::Confirm | Self::Ack => (60, 80),
        }
    }
}

/// A fault of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireFault {
    /// Both sides see a reset.
    Cut,
    /// It stays open and forwards nothing in either direction.
    Stall,
    /// It forwards this many bytes a second in each direction from here on.
    Slow(u32),
    /// That direction is ended in order; the other goes on.
    HalfClose(Direction),
    /// The frame's type is invalid.
    CorruptType,
    /// The frame's size says two gigabytes.
    CorruptSize,
    /// The frame's end octet is invalid.
    CorruptEnd,
    /// The acknowledgement's delivery tag does not exist. The broker closes only that channel. For [`Point::Ack`].
    UnknownTag,
}

impl WireFault {
    /// One of each; the slow one forwards 20 kB a second.
    pub const ALL: [Self; 8] = [
        Self::Cut,
        Self::Stall,
        Self::Slow(20_000),
        Self::HalfClose(Direction::ToBroker),
        Self::HalfClose(Direction::ToClient),
        Self::CorruptType,
        Self::CorruptSize,
        Self::CorruptEnd,
    ];
}
