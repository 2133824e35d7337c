//! What goes wrong on a wire, and at which word of the conversation.

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the broker.
    ToBroker,
    /// From the broker to the client.
    ToClient,
}

/// A word of the conversation, just before which a fault sets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The broker lets the client into the virtual host.
    OpenOk,
    /// The broker has declared, or found, a queue.
    DeclareOk,
    /// The broker has taken a consumer on.
    ConsumeOk,
    /// The client binds a queue.
    Bind,
    /// The broker has bound a queue, or found it bound.
    BindOk,
    /// The client publishes.
    Publish,
    /// The broker confirms.
    Confirm,
    /// The broker delivers.
    Deliver,
    /// The client acknowledges.
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

    /// Class and number of the method. Confirm and acknowledgement are the same method in two directions.
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

/// What goes wrong with one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireFault {
    /// Both sides hear that it was reset.
    Cut,
    /// It stays open, and carries nothing any more in either direction.
    Stall,
    /// It carries so many bytes a second in each direction from here on.
    Slow(u32),
    /// That direction is ended in order; the other goes on.
    HalfClose(Direction),
    /// The frame says that it is of a type that there is none.
    CorruptType,
    /// The frame says that it is two gigabytes long.
    CorruptSize,
    /// The frame does not end as frames do.
    CorruptEnd,
    /// The acknowledgement is of a delivery that there was none of. The broker closes that channel, and nothing else. For [`Point::Ack`].
    UnknownTag,
}

impl WireFault {
    /// Each that befalls a wire once; a slow one carries 20 kB a second.
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
