//! Reasons that keep a role from being ready, under names that are stable: docs/operations/readiness has a page for each.

/// A reason why a role is degraded or not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadinessReason {
    /// The name under which it is documented.
    pub name: ReasonName,
    /// The sentence for operators.
    pub message: String,
}

impl ReadinessReason {
    /// A reason with this sentence.
    #[must_use]
    pub fn new(name: ReasonName, message: impl Into<String>) -> Self {
        Self {
            name,
            message: message.into(),
        }
    }
}

macro_rules! reasons {
    ($($name:ident => $text:literal),+ $(,)?) => {
        /// The name of a reason, in kebab-case.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ReasonName {
            $(#[doc = $text] $name),+
        }

        impl ReasonName {
            /// Every name.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The name as `/readyz` writes it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text),+
                }
            }
        }
    };
}

reasons! {
    BrokerBlocked => "broker-blocked",
    BrokerUnavailable => "broker-unavailable",
    ClockJump => "clock-jump",
    ConsumerCountUnknown => "consumer-count-unknown",
    ConsumingSuspended => "consuming-suspended",
    DeadLetterOverflow => "dead-letter-overflow",
    DeadLetters => "dead-letters",
    DeliveryUnacked => "delivery-unacked",
    MarkerMissing => "marker-missing",
    NoConsumer => "no-consumer",
    NoConsumerConnection => "no-consumer-connection",
    NoPublisherConnection => "no-publisher-connection",
    NoQuarantineConnection => "no-quarantine-connection",
    NoRpcClientConnection => "no-rpc-client-connection",
    NoRpcServerConnection => "no-rpc-server-connection",
    OutboxRefused => "outbox-refused",
    OutboxStalled => "outbox-stalled",
    OwnerNotRecorded => "owner-not-recorded",
    PoliciesUnknown => "policies-unknown",
    PolicyLosesMessages => "policy-loses-messages",
    PossibleLoss => "possible-loss",
    RowsDatedAhead => "rows-dated-ahead",
    SourceRestored => "source-restored",
    Starting => "starting",
    Stopping => "stopping",
    StoreFull => "store-full",
    StoreLogKept => "store-log-kept",
    StoreNearlyFull => "store-nearly-full",
    StoreRestored => "store-restored",
    StoreUnavailable => "store-unavailable",
    StreamGap => "stream-gap",
    UnresolvedAfterRestore => "unresolved-after-restore",
}
