//! A role with a task: a kind of task, its start and its result. docs/how-to/add-a-role.md shows it.
//!
//!     cargo run -p doorstep-runtime --example add_a_role_with_a_task
#![allow(clippy::unwrap_used, reason = "an example fails as a test does")]

// docs: begin task
use std::sync::{Arc, Mutex};

use doorstep_event::*;
use doorstep_runtime::{task::*, *};
use doorstep_store::{EntityKey, TaskId};
use serde::{Deserialize, Serialize};

/// Prints the label of a parcel.
#[derive(Serialize, Deserialize)]
struct PrintLabel(String);

impl Task for PrintLabel {
    const TYPE: &'static str = "depot.print_label.v1";
    type Resources = Arc<Mutex<Vec<String>>>; // A printer: the labels that it has printed.
    type Output = LabelPrinted;

    async fn run(
        self,
        context: TaskContext,
        printer: Self::Resources,
    ) -> Result<LabelPrinted, TaskError> {
        let jammed = |_| TaskError::Retry("the printer is jammed".to_owned());
        let mut labels = printer.lock().map_err(jammed)?;
        labels.push(context.idempotency_key().to_owned());
        Ok(LabelPrinted {
            parcel: self.0,
            number: labels.len(),
        })
    }
}

/// The result of the task: a command to the role.
#[derive(Serialize, Deserialize)]
struct LabelPrinted {
    parcel: String,
    number: usize,
}

impl RequestContract for LabelPrinted {
    const TYPE: &'static str = "depot.label_printed.v1";
    const ACT: RequestKind = RequestKind::Command;
    type Reply = ();
}
// docs: end task

// docs: begin role
#[derive(Serialize, Deserialize)]
struct ParcelStored;

impl Contract for ParcelStored {
    const TYPE: &'static str = "parcel.stored.v1";
}

struct Depot;

impl Role for Depot {
    type Payload = ParcelStored;
    type Command = LabelPrinted;
    type Query = Unsupported;
    type State = usize; // The number of a parcel's label.

    fn name(&self) -> &'static str {
        "depot"
    }
    fn read(&self, event: &Event) -> Result<Reading<ParcelStored>, ContractError> {
        ParcelStored::read(event).map(Reading::Handled)
    }
    fn keys(&self, event: &Event, _: &ParcelStored) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }
    fn handle(
        &self,
        _: &mut States<usize>,
        event: &Event,
        _: &ParcelStored,
        _: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let mut effects = Effects::none();
        let parcel = event.subject.to_string();
        let id = TaskId::new(format!("label/{parcel}"))?;
        effects.start(id, &event.subject, &PrintLabel(parcel))?;
        Ok(effects)
    }
    fn read_command(&self, request: &Request) -> Result<LabelPrinted, ContractError> {
        LabelPrinted::read(request)
    }
    fn command_keys(&self, _: &Request, printed: &LabelPrinted) -> Vec<EntityKey> {
        vec![EntityKey::new(printed.parcel.as_str())]
    }
    fn execute(
        &self,
        states: &mut States<usize>,
        _: &Request,
        printed: &LabelPrinted,
        _: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        *states.first_or_default() = printed.number;
        CommandOutcome::new::<LabelPrinted>(&(), Effects::none())
    }
}
// docs: end role

/// Delivers an event to a role on a store in memory, runs the role without a broker, and returns the number of the label.
async fn number_of_label(printer: Arc<Mutex<Vec<String>>>) -> usize {
    use doorstep_store::{MemoryStore, Store};

    let store = MemoryStore::new("depot");
    let (source, parcel) = (Source::new("scanner/1"), Subject::new("parcel/7").unwrap());
    let (first, now) = (Sequence::new(1).unwrap(), Timestamp::now());
    let event = Event::from_contract(&source.unwrap(), &parcel, first, now, &ParcelStored).unwrap();
    let mut engine = Engine::new(Depot, store.clone(), Limits::default());
    let delivery = InboundMessage::event(event, Sender::Anonymous);
    let mut batch = engine.read_batch(vec![delivery]);
    engine.process(&mut batch, now, 0.5).await.unwrap();

    let broker = doorstep_messaging::BrokerSettings::new("amqp://127.0.0.1:1", "example").unwrap();
    let settings = runner::RunSettings {
        topology: doorstep_messaging::Topology::for_roles(&broker.namespace, &[]),
        broker,
        limits: Limits::default(),
        process: HandlerLock::default(),
        shutdown_timeout: std::time::Duration::from_secs(2),
        requires_owner_record: true,
    };
    let tasks = TaskSet::new().with::<PrintLabel>(printer);
    let role = runner::start_without_queue(Depot, tasks, store.clone(), settings);
    let number = loop {
        let parcels = store.entities(None, 10).await.unwrap();
        match parcels.first().and_then(|parcel| parcel.state.as_ref()) {
            Some(number) => break serde_json::from_slice(number).unwrap(),
            None => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    };
    role.stop();
    role.join().await.unwrap();
    number
}

#[tokio::test]
async fn a_stored_parcel_gets_a_label() {
    let printer = Arc::new(Mutex::new(Vec::new()));
    assert_eq!(number_of_label(Arc::clone(&printer)).await, 1);
    let labels = printer.lock().unwrap();
    assert_eq!(*labels, ["example.depot/label/parcel/7"]);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    println!("label {}", number_of_label(Arc::default()).await);
}
