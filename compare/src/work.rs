//! The work that is compared: two small roles, each of which does the same to what it is told by an event and to what it is asked by a
//! command. `checkouts` takes orders, `positions` takes the couriers' fixes; each item is an entity that says when it was done.

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
    /// The role that does it, and the subject whose events it takes.
    const QUEUES: RoleQueues;
    /// What it is told.
    type Fact: Contract + Clone + Send + Sync;
    /// What it is asked.
    type Command: RequestContract<Reply = Done> + Send + Sync;

    /// What is asked, in the words in which it would be told.
    fn told(command: &Self::Command) -> (Subject, &Self::Fact);
}

/// The reply to either command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Done {
    /// When it was done.
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

/// `positions.record.v1`: take note of where a courier is.
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

/// Taking orders.
pub(crate) struct Checkouts;

impl Workload for Checkouts {
    const QUEUES: RoleQueues = RoleQueues {
        role: "checkouts",
        subjects: &["order"],
        handles_requests: true,
    };
    type Fact = OrderPlaced;
    type Command = PlaceOrder;

    fn told(command: &PlaceOrder) -> (Subject, &OrderPlaced) {
        (command.order.order_subject(), &command.placed)
    }
}

/// Taking note of positions.
pub(crate) struct Positions;

impl Workload for Positions {
    const QUEUES: RoleQueues = RoleQueues {
        role: "positions",
        subjects: &["delivery"],
        handles_requests: true,
    };
    type Fact = DeliveryPositionRecorded;
    type Command = RecordPosition;

    fn told(command: &RecordPosition) -> (Subject, &DeliveryPositionRecorded) {
        (command.delivery.subject(), &command.fix)
    }
}

/// The queues of both roles.
pub(crate) const QUEUES: &[RoleQueues] = &[Checkouts::QUEUES, Positions::QUEUES];

/// What was done to one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Effect<F> {
    /// When it was done first.
    pub(crate) applied_at: Timestamp,
    /// How often it was done. More than once would be a mistake of the runtime.
    pub(crate) times: u32,
    /// What was done.
    fact: F,
}

/// A role that takes its time for each item.
pub(crate) struct WorkloadRole<T> {
    takes: Duration,
    trade: PhantomData<fn() -> T>,
}

impl<T: Workload> WorkloadRole<T> {
    /// A role that takes so long for each item.
    pub(crate) fn new(takes: Duration) -> Self {
        Self {
            takes,
            trade: PhantomData,
        }
    }

    /// The work, whoever wants it.
    fn work(&self, states: &mut States<Effect<T::Fact>>, fact: &T::Fact) -> Timestamp {
        if !self.takes.is_zero() {
            // What takes its time here stands for the slow work that is compared; no other handler may wait for anything. The runtime's
            // other tasks are given another thread meanwhile.
            tokio::task::block_in_place(|| std::thread::sleep(self.takes));
        }
        // Handlers have no clock but the one that they are given, which stands still during a batch. This one measures the batch itself.
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
        vec![EntityKey::from(&T::told(command).0)]
    }

    fn execute(
        &self,
        states: &mut States<Self::State>,
        _request: &Request,
        command: &T::Command,
        _now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        let applied_at = self.work(states, T::told(command).1);
        CommandOutcome::of::<T::Command>(&Done { applied_at }, Effects::none())
    }
}

#[cfg(test)]
mod tests {
    use doorstep_event::{RequestId, Sequence, Source};

    use super::*;

    #[test]
    fn the_same_is_done_to_what_is_told_and_to_what_is_asked() {
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
        let (mut told, mut asked) = (states(), states());
        worker.handle(&mut told, &event, &fix, now).unwrap();
        worker.execute(&mut asked, &request, &command, now).unwrap();
        for states in [&mut told, &mut asked] {
            let effect = states.get(&keys[0]).unwrap();
            assert_eq!((effect.times, &effect.fact), (1, &fix));
        }
        // Done twice would show.
        worker.handle(&mut told, &event, &fix, now).unwrap();
        assert_eq!(told.get(&keys[0]).unwrap().times, 2);
    }
}
