//! Events under another user's source, on the store in memory.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod ledger;

use doorstep_event::{BrokerUser, Epoch, Event, Sender, Sequence, Timestamp};
use doorstep_runtime::{
    BatchReport, DeliveryHistory, DryRun, Engine, InboundMessage, Limits,
    operate::{self, Former, OperateError},
};
use doorstep_store::{DeadLetter, DeadLetterFilter, FormerOwner, MemoryStore, SourceOwner, Store};
use ledger::{Ledger, Move, event};

fn at(hour: i64) -> Timestamp {
    Timestamp::from_second(1_795_255_200 + hour * 3_600).unwrap()
}

struct TestEnv {
    store: MemoryStore,
    engine: Engine<Ledger, MemoryStore>,
    hour: i64,
}

impl TestEnv {
    fn new() -> Self {
        let store = MemoryStore::new("ledger");
        Self {
            engine: Engine::new(Ledger, store.clone(), Limits::default()),
            store,
            hour: 0,
        }
    }

    /// Restarts the process, with an empty cache.
    fn restarted(&mut self) {
        self.engine = Engine::new(Ledger, self.store.clone(), Limits::default());
    }

    async fn deliver(&mut self, deliveries: Vec<(Event, Sender)>) -> BatchReport {
        self.deliver_as(DeliveryHistory::First, deliveries).await
    }

    async fn deliver_as(
        &mut self,
        past: DeliveryHistory,
        deliveries: Vec<(Event, Sender)>,
    ) -> BatchReport {
        let batch = deliveries.into_iter().map(|(event, sender)| {
            let incoming = InboundMessage::event(event, sender);
            (incoming, past)
        });
        let mut batch = self.engine.read_deliveries(batch);
        let mut worked = BatchReport::default();
        while !batch.is_done() {
            let step = self.engine.process(&mut batch, at(self.hour), 0.5).await;
            let tally = step.unwrap().tally;
            worked.tally.applied += tally.applied;
            worked.tally.dead_letters += tally.dead_letters;
            worked.tally.duplicates += tally.duplicates;
        }
        worked
    }

    async fn entries(&self) -> Vec<String> {
        ledger::entries(&self.store, "account/a").await
    }

    async fn dead(&self) -> Vec<DeadLetter> {
        self.store
            .dead_letters(DeadLetterFilter::All, None, 100)
            .await
            .unwrap()
    }

    async fn owner(&self, source: &str) -> Option<SourceOwner> {
        let rows = self.store.sources(None, 100).await.unwrap();
        let row = rows.into_iter().find(|row| row.source.as_str() == source);
        row.and_then(|row| row.owner)
    }
}

fn user(name: &str) -> Sender {
    Sender::User(BrokerUser::new(name))
}

fn add(sequence: u64) -> Event {
    event("shop", "account/a", sequence, &Move::Add(1))
}

/// Returns an event at the same sequence, with other data and another id.
fn forged(sequence: u64) -> Event {
    let mut event = event("shop", "account/a", sequence, &Move::Add(1_000));
    event.id = format!("forged-{sequence}").parse().unwrap();
    event
}

#[tokio::test]
async fn forgery_is_rejected_at_every_sequence() {
    for thief in [user("thief"), Sender::Anonymous] {
        let mut env = TestEnv::new();
        env.deliver(vec![(add(1), user("shop")), (add(2), user("shop"))])
            .await;
        // A past one, the last one, the next one, a later one, and one without a sequence.
        let mut loose = forged(9);
        loose.sequence = None;
        loose.time = Some(at(0));
        let forgeries = [forged(1), forged(2), forged(3), forged(5), loose];
        let forgeries = forgeries.map(|event| (event, thief.clone())).into();
        let worked = env.deliver(forgeries).await;
        assert_eq!((worked.tally.dead_letters, worked.tally.duplicates), (5, 0));
        // The owner's own events continue as before.
        let own = [5, 3, 4].map(|n| (add(n), user("shop"))).into();
        let worked = env.deliver(own).await;
        assert_eq!((worked.tally.applied, worked.tally.duplicates), (3, 0));
        let entries: Vec<String> = (1..=5).map(|n| format!("shop {n}")).collect();
        assert_eq!(env.entries().await, entries);
        for dead in env.dead().await {
            assert_eq!((&*dead.reason, dead.blocks), ("foreign source", false));
            assert!(dead.detail.contains("\"shop\""), "{}", dead.detail);
        }
    }
}

#[tokio::test]
async fn each_distinct_forgery_is_a_dead_letter() {
    let mut env = TestEnv::new();
    env.deliver(vec![(add(1), user("shop"))]).await;
    let mut other = forged(2);
    other.data = add(2).data;
    let thief = user("thief");
    let batch = [forged(2), other, forged(2)].map(|event| (event, thief.clone()));
    let worked = env.deliver(batch.into()).await;
    assert_eq!((worked.tally.dead_letters, worked.tally.duplicates), (2, 1));
}

#[tokio::test]
async fn redelivered_forgery_raises_no_crash_count() {
    let mut env = TestEnv::new();
    env.deliver(vec![(add(1), user("shop"))]).await;
    for past in [DeliveryHistory::Redelivered, DeliveryHistory::LimitExceeded] {
        let worked = env.deliver_as(past, vec![(add(2), user("thief"))]).await;
        assert_eq!(worked.tally.applied, 0);
    }
    let ask = doorstep_store::ReadSet {
        crash_counts: vec![(add(2).source, add(2).id)],
        ..doorstep_store::ReadSet::default()
    };
    assert_eq!(env.store.load(ask).await.unwrap().crash_counts, [0]);
    env.deliver(vec![(add(2), user("shop"))]).await;
    assert_eq!(env.entries().await, ["shop 1", "shop 2"]);
}

#[tokio::test]
async fn bypassing_the_exchange_is_rejected_and_owns_nothing() {
    let mut env = TestEnv::new();
    let direct = || Sender::Bypass("the default exchange".into());
    let worked = env.deliver(vec![(add(1), direct())]).await;
    assert_eq!(worked.tally.dead_letters, 1);
    let dead = env.dead().await;
    assert_eq!(dead[0].reason, "not from the exchange");
    assert!(dead[0].detail.contains("the default exchange"));
    assert_eq!(env.owner("shop").await, None);
    env.deliver(vec![(add(1), user("shop"))]).await;
    assert_eq!(env.entries().await, ["shop 1"]);
}

#[tokio::test]
async fn backlog_without_user_ids_is_applied() {
    let mut env = TestEnv::new();
    let nobody = Sender::Anonymous;
    env.deliver(vec![(add(1), nobody.clone()), (add(3), nobody.clone())])
        .await;
    assert_eq!(env.owner("shop").await.unwrap().user, None);
    // From here on the program sends its user id; earlier messages come late and twice.
    env.deliver(vec![(add(4), user("shop"))]).await;
    let owner = env.owner("shop").await.unwrap();
    assert_eq!(owner.former, Some(FormerOwner::Nobody));
    env.restarted();
    let late = [1, 2, 3].map(|n| (add(n), nobody.clone())).into();
    let worked = env.deliver_as(DeliveryHistory::Redelivered, late).await;
    assert_eq!((worked.tally.dead_letters, worked.tally.duplicates), (0, 2));
    while env.engine.process_due(at(0), 0.5).await.unwrap().is_some() {}
    let all = ["shop 1", "shop 2", "shop 3", "shop 4"];
    assert_eq!(env.entries().await, all);
    // Long after that, only copies are accepted.
    env.hour = 25;
    let worked = env.deliver(vec![(add(2), nobody.clone())]).await;
    assert_eq!((worked.tally.dead_letters, worked.tally.duplicates), (0, 1));
    let worked = env.deliver(vec![(add(5), nobody)]).await;
    assert_eq!((worked.tally.dead_letters, worked.tally.applied), (1, 0));
    env.deliver(vec![(add(5), user("shop"))]).await;
    assert_eq!(env.entries().await.len(), 5);
}

#[tokio::test]
async fn transfer_takes_effect_despite_a_cached_owner() {
    let mut env = TestEnv::new();
    env.deliver(vec![(add(1), user("shop"))]).await;
    let source = add(1).source;
    let to = BrokerUser::new("shop-eu");
    let transfer = async |former| {
        let store = env.store.clone();
        operate::transfer(&store, &source, &to, former, at(0)).await
    };
    let before = transfer(Former::Accepted).await.unwrap();
    assert_eq!(before, Some(BrokerUser::new("shop")));
    let again = transfer(Former::Accepted).await;
    assert!(matches!(again, Err(OperateError::OwnedAlready { .. })));
    let batch = vec![(add(2), user("shop")), (add(3), user("shop-eu"))];
    assert_eq!(env.deliver(batch).await.tally.applied, 2);
    let transfer = operate::transfer(&env.store, &source, &to, Former::Refused, at(0));
    transfer.await.unwrap();
    let worked = env.deliver(vec![(add(4), user("shop"))]).await;
    assert_eq!((worked.tally.applied, worked.tally.dead_letters), (0, 1));
    let worked = env.deliver(vec![(add(4), user("shop-eu"))]).await;
    assert_eq!(worked.tally.applied, 1);
    assert_eq!(env.entries().await.len(), 4);
    let unknown = "mill".parse().unwrap();
    let transfer = operate::transfer(&env.store, &unknown, &to, Former::Accepted, at(0));
    let unknown = transfer.await;
    assert!(matches!(unknown, Err(OperateError::UnknownSource(_))));
}

#[tokio::test]
async fn forgery_does_not_report_a_restored_source() {
    let mut env = TestEnv::new();
    env.deliver(vec![(add(1), user("shop"))]).await;
    let mut forged = forged(1);
    forged.epoch = Epoch::new(7, 7);
    env.deliver(vec![(forged, user("thief"))]).await;
    assert_eq!(env.dead().await.len(), 1);
    let summary = env.store.summary(at(0)).await.unwrap();
    assert_eq!(summary.restored_sources, []);
}

#[tokio::test]
async fn replay_after_transfer_takes_the_stream_position() {
    let mut env = TestEnv::new();
    env.deliver(vec![(add(1), user("shop"))]).await;
    // The program continues as another user before its source is transferred; a forger sends something, too.
    let renamed = [3, 2].map(|n| (add(n), user("shop-eu"))).into();
    assert_eq!(env.deliver(renamed).await.tally.dead_letters, 2);
    env.deliver(vec![(forged(4), user("thief"))]).await;
    let replayed = async |env: &TestEnv| {
        let mut rejected = 0;
        for dead in env.dead().await {
            match operate::replay(&env.store, &dead.id, at(0)).await {
                Ok(()) => {}
                Err(OperateError::Foreign { .. }) => rejected += 1,
                Err(other) => panic!("{other}"),
            }
        }
        rejected
    };
    assert_eq!(replayed(&env).await, 3);
    let (source, to) = (add(1).source, BrokerUser::new("shop-eu"));
    operate::transfer(&env.store, &source, &to, Former::Accepted, at(0))
        .await
        .unwrap();
    for dead in env.dead().await {
        let event = dead.event.clone().unwrap();
        let wanted = match event.sequence.map(Sequence::get) {
            Some(2) => DryRun::Applied { emitted: 0 },
            Some(3) => DryRun::Behind,
            _ => DryRun::Refused {
                reason: dead.reason.clone(),
                detail: dead.detail.clone(),
            },
        };
        let rehearsal = env.engine.dry_run(&dead, event, at(0)).await.unwrap();
        assert_eq!(rehearsal, wanted);
    }
    assert_eq!(replayed(&env).await, 1);
    while env.engine.process_due(at(0), 0.5).await.unwrap().is_some() {}
    assert_eq!(env.entries().await, ["shop 1", "shop 2", "shop 3"]);
    env.deliver(vec![(add(4), user("shop-eu"))]).await;
    assert_eq!(env.entries().await.len(), 4);
    let dead = env.dead().await;
    assert_eq!(dead.len(), 1);
    // The sequence was used since, so the event has no position, whoever owns the source.
    let to = BrokerUser::new("thief");
    operate::transfer(&env.store, &source, &to, Former::Accepted, at(0))
        .await
        .unwrap();
    let taken = operate::replay(&env.store, &dead[0].id, at(0)).await;
    assert!(matches!(taken, Err(OperateError::NotReplayable { .. })));
}
