//! The compared work: two small roles, each of which does the same for an event and for a command.
//!
//! `checkouts` takes orders, `positions` takes the couriers' fixes. Each item is an entity that records the time of its
//! completion.

use std::{marker::PhantomData, time::Duration};

use doorstep_contracts::{DeliveryId, DeliveryPositionRecorded, InvoiceNo, OrderPlaced};
use doorstep_event::{
    Contract, ContractError, Event, Rejection, Request, RequestContract, RequestKind, Subject,
    Timestamp,
};
use doorstep_messaging::RoleQueues;
use doorstep_runtime::{CommandOutcome, Effects, HandlerError, Reading, Role, States, Unsupported};
use doorstep_store::EntityKey;
use serde::{Deserialize, Serialize};

/// One of the two kinds of work.
pub(crate) trait Workload: Send + Sync + 'static {
    /// The role that does it, and the subject of its events.
    const QUEUES: RoleQueues;
    /// The event of an item.
    type Fact: Contract + Clone + Send + Sync;
    /// The command of an item.
    type Command: RequestContract<Reply = Done> + Send + Sync;

    /// Returns the event that is equivalent to a command.
    fn event_for(command: &Self::Command) -> (Subject, &Self::Fact);
}

/// The reply to either command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Done {
    /// The time of the completion.
    pub(crate) applied_at: Timestamp,
}

/// `checkouts.place.v1`: take this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaceOrder {
    pub(crate) order: InvoiceNo,
    pub(crate) placed: OrderPlaced,
}

impl RequestContract for PlaceOrder {
    const TYPE: &'static str = "checkouts.place.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = Done;

    fn check(&self) -> Result<(), String> {
        self.placed.check()
    }
}

/// `positions.record.v1`: record a courier's position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordPosition {
    pub(crate) delivery: DeliveryId,
    pub(crate) fix: DeliveryPositionRecorded,
}

impl RequestContract for RecordPosition {
    const TYPE: &'static str = "positions.record.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = Done;
}

/// The work of taking orders.
pub(crate) struct Checkouts;

impl Workload for Checkouts {
    const QUEUES: RoleQueues = RoleQueues {
        role: "checkouts",
        subjects: &["order"],
        handles_requests: true,
    };
    type Fact = OrderPlaced;
    type Command = PlaceOrder;

    fn event_for(command: &PlaceOrder) -> (Subject, &OrderPlaced) {
        (command.order.order_subject(), &command.placed)
    }
}

/// The work of recording positions.
pub(crate) struct Positions;

impl Workload for Positions {
    const QUEUES: RoleQueues = RoleQueues {
        role: "positions",
        subjects: &["delivery"],
        handles_requests: true,
    };
    type Fact = DeliveryPositionRecorded;
    type Command = RecordPosition;

    fn event_for(command: &RecordPosition) -> (Subject, &DeliveryPositionRecorded) {
        (command.delivery.subject(), &command.fix)
    }
}

/// The queues of both roles.
pub(crate) const QUEUES: &[RoleQueues] = &[Checkouts::QUEUES, Positions::QUEUES];

/// The effect of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Effect<F> {
    /// The time of the first completion.
    pub(crate) applied_at: Timestamp,
    /// The number of completions. More than one would be a bug of the runtime.
    pub(crate) times: u32,
    /// The payload of the item.
    fact: F,
}

/// A role that takes its time for each item.
pub(crate) struct WorkloadRole<T> {
    takes: Duration,
    trade: PhantomData<fn() -> T>,
}

impl<T: Workload> WorkloadRole<T> {
    /// Creates a role that takes this long for each item.
    pub(crate) fn new(takes: Duration) -> Self {
        Self {
            takes,
            trade: PhantomData,
        }
    }

    /// Does the work of an event or a command.
    fn work(&self, states: &mut States<Effect<T::Fact>>, fact: &T::Fact) -> Timestamp {
        if !self.takes.is_zero() {
            // This sleep is the slow work that is compared; no other handler may wait for anything. The runtime's other
            // tasks get another thread meanwhile.
            tokio::task::block_in_place(|| std::thread::sleep(self.takes));
        }
        // Handlers have only the clock that they are given, which stands still during a batch. This one measures the
        // batch itself.
        let now = Timestamp::now();
        let effect = states.first_mut().get_or_insert_with(|| Effect {
            applied_at: now,
            times: 0,
            fact: fact.clone(),
        });
        effect.times += 1;
        effect.applied_at
    }
}

impl<T: Workload> Role for WorkloadRole<T> {
    type Payload = T::Fact;
    type Command = T::Command;
    type Query = Unsupported;
    type State = Effect<T::Fact>;

    fn name(&self) -> &'static str {
        T::QUEUES.role
    }

    fn read(&self, event: &Event) -> Result<Reading<T::Fact>, ContractError> {
        T::Fact::read(event).map(Reading::Handled)
    }

    fn keys(&self, event: &Event, _fact: &T::Fact) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        states: &mut States<Self::State>,
        _event: &Event,
        fact: &T::Fact,
        _now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        self.work(states, fact);
        Ok(Effects::none())
    }

    fn read_command(&self, request: &Request) -> Result<T::Command, ContractError> {
        T::Command::read(request)
    }

    fn command_keys(&self, _request: &Request, command: &T::Command) -> Vec<EntityKey> {
        vec![EntityKey::from(&T::event_for(command).0)]
    }

    fn execute(
        &self,
        states: &mut States<Self::State>,
        _request: &Request,
        command: &T::Command,
        _now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        let applied_at = self.work(states, T::event_for(command).1);
        CommandOutcome::new::<T::Command>(&Done { applied_at }, Effects::none())
    }
}

#[cfg(test)]
mod tests {
    use doorstep_event::{RequestId, Sequence, Source};

    use super::*;

    #[test]
    fn events_and_commands_have_equal_effects() {
        let source = Source::new("test").unwrap();
        let now = Timestamp::now();
        let fix = DeliveryPositionRecorded {
            position: doorstep_contracts::Position::new(0.0, 51.5).unwrap(),
            recorded_at: now,
        };
        let delivery = DeliveryId::new("7").unwrap();
        let worker = WorkloadRole::<Positions>::new(Duration::ZERO);
        let first = Sequence::new(1).unwrap();
        let event = Event::from_contract(&source, &delivery.subject(), first, now, &fix).unwrap();
        let command = RecordPosition {
            delivery,
            fix: fix.clone(),
        };
        let id = RequestId::new("1").unwrap();
        let request = Request::from_contract(&source, id, now, now, &command).unwrap();

        let command = worker.read_command(&request).unwrap();
        let keys = worker.keys(&event, &fix);
        assert_eq!(keys, worker.command_keys(&request, &command));
        let states = || States::new(vec![(keys[0].clone(), None)]);
        let (mut by_event, mut by_command) = (states(), states());
        worker.handle(&mut by_event, &event, &fix, now).unwrap();
        worker
            .execute(&mut by_command, &request, &command, now)
            .unwrap();
        for states in [&mut by_event, &mut by_command] {
            let effect = states.get(&keys[0]).unwrap();
            assert_eq!((effect.times, &effect.fact), (1, &fix));
        }
        // A second execution would show.
        worker.handle(&mut by_event, &event, &fix, now).unwrap();
        assert_eq!(by_event.get(&keys[0]).unwrap().times, 2);
    }
}
