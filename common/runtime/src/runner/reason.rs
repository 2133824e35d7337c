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

/// The name of a reason; `/readyz` writes it in kebab-case.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr, strum::VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
pub enum ReasonName {
    BrokerBlocked,
    BrokerUnavailable,
    ClockJump,
    ConsumerCountUnknown,
    ConsumingSuspended,
    DeadLetterOverflow,
    DeadLetters,
    DeliveryUnacked,
    MarkerMissing,
    NoConsumer,
    NoConsumerConnection,
    NoPublisherConnection,
    NoQuarantineConnection,
    NoRpcClientConnection,
    NoRpcServerConnection,
    OutboxRefused,
    OutboxStalled,
    OwnerNotRecorded,
    PoliciesUnknown,
    PolicyLosesMessages,
    PossibleLoss,
    RowsDatedAhead,
    SourceRestored,
    Starting,
    Stopping,
    StoreFull,
    StoreLogKept,
    StoreNearlyFull,
    StoreRestored,
    StoreUnavailable,
    StreamGap,
    TaskLate,
    TaskUnknown,
    UnresolvedAfterRestore,
}

impl ReasonName {
    /// Every name.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The name as `/readyz` writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
