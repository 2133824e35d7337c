//! The consumer's work without a broker: events in memory are decoded, applied and committed. It shows where Doorstep's
//! time goes, since a profile of the whole shows mostly the client's.

use anyhow::{Result, ensure};
use doorstep_event::{Sender, Timestamp};
use doorstep_runtime::{Engine, InboundMessage, Limits};
use doorstep_store::sqlite::{Options, SqliteStore};

use crate::{
    counter::{self, Counter, QUEUES},
    events::Generator,
    figures::{Figure, Stopwatch},
    options::EngineArgs,
};

/// Processes this many events in batches, prints the cost, and checks every stream.
pub(crate) async fn engine(args: EngineArgs) -> Result<()> {
    let generator = Generator::new(args.streams)?;
    let batches = batches(&generator, &args)?;
    std::fs::create_dir_all(&args.folder)?;
    let store = SqliteStore::open(&args.folder, QUEUES.role, &Options::default())?;
    let engine = Engine::new(Counter::default(), store.clone(), Limits::default());
    let figure = tokio::spawn(work(engine, batches, args.events)).await??;
    counter::check(&store, &generator, args.events).await?;
    println!(
        "{:.0} events/s, {:.2} processor s per million",
        figure.events_per_second, figure.processor_seconds_per_million
    );
    Ok(())
}

fn batches(generator: &Generator, args: &EngineArgs) -> Result<Vec<Vec<InboundMessage>>> {
    (0..args.events)
        .step_by(args.batch.max(1))
        .map(|from| {
            let numbers = from..(from + args.batch.max(1)).min(args.events);
            numbers
                .map(|number| {
                    let event = generator.event(number)?;
                    Ok(InboundMessage::event(event, Sender::Anonymous))
                })
                .collect()
        })
        .collect()
}

async fn work(
    mut engine: Engine<Counter, SqliteStore>,
    batches: Vec<Vec<InboundMessage>>,
    events: usize,
) -> Result<Figure> {
    let watch = Stopwatch::start()?;
    let mut applied = 0;
    for batch in batches {
        let mut batch = engine.read_batch(batch);
        let worked = engine.process(&mut batch, Timestamp::now(), 0.5).await?;
        applied += worked.tally.applied;
    }
    ensure!(
        applied == events as u64,
        "{applied} of {events} events were applied"
    );
    watch.stop(events)
}
