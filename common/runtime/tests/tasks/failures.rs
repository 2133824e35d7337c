//! Tasks that fail, crash their process, or whose end the role rejects.

use super::*;

pub async fn failed_task_is_a_dead_letter_until_its_replay_succeeds(store: impl Store) {
    let mut env = TestEnv::new(&store);
    env.start(1, "work", labor()).await;
    let lease = env.claim_one(1).await;
    assert_eq!(
        env.end(vec![failure(&lease, "no paper")]).await,
        [CommandResult::Ended]
    );
    assert_eq!((env.row("work").await, env.tasks_done().await), (None, 0));
    assert_eq!(env.heard().await, ["work Failed"]);
    let [dead] = env.dead().await.try_into().unwrap();
    assert_eq!(
        (dead.reason.as_str(), dead.detail.as_str()),
        ("task failed", "no paper")
    );
    assert_eq!(
        (&dead.task, dead.attempts, dead.blocks),
        (&Some(task_id("work")), 1, false)
    );
    let stands_for = dead.event.clone().unwrap();
    assert_eq!(stands_for.event_type, kind_of::<Labor>());
    assert_eq!(
        (&stands_for.data, &stands_for.subject),
        (&lease.row.input, &lease.row.subject)
    );
    assert_eq!(&stands_for.source, store.source());
    // Its copy names the task.
    let outbox = store.outbox(at(10), 10).await.unwrap();
    let copies = outbox.iter().filter_map(|row| match &row.kind {
        OutboxKind::DeadCopy { id, headers, .. } => Some((id, &headers["doorstep-task"])),
        OutboxKind::Event(_) => None,
    });
    assert_eq!(copies.collect::<Vec<_>>(), [(&dead.id, &"work".to_owned())]);
    // Its account is not blocked.
    env.deliver(2, Move::Add(1)).await;
    assert_eq!(ledger::entries(&store, ACCOUNT).await, ["shop 1", "shop 2"]);

    operate::replay(&store, &dead.id, at(20)).await.unwrap();
    assert_eq!(env.dead().await, []);
    let again = env.claim_one(2).await;
    assert_eq!((&again.row.input, again.row.dead), (&lease.row.input, 1));
    assert_eq!(
        env.end(vec![failure(&again, "no ink")]).await,
        [CommandResult::Ended]
    );
    let [dead] = env.dead().await.try_into().unwrap();
    assert_eq!((dead.detail.as_str(), dead.attempts), ("no ink", 2));
    operate::replay(&store, &dead.id, at(30)).await.unwrap();
    let again = env.claim_one(3).await;
    assert_eq!(
        env.end(vec![result(&again, "printed")]).await,
        [CommandResult::Ended]
    );
    assert_eq!(
        env.heard().await,
        ["work Failed", "work Failed", "work printed"]
    );
    assert_eq!(env.dead().await, []);
}

pub async fn each_failure_is_a_dead_letter_of_its_own(store: impl Store) {
    let mut env = TestEnv::new(&store);
    let failures = [GaveUp::Failed, GaveUp::Panicked, GaveUp::Exhausted];
    for (number, gave_up) in (1..).zip(failures) {
        // A task whose former one of the same id is still a dead letter.
        env.start(number, "work", labor()).await;
        let lease = env.claim_one(1).await;
        let detail = "text".to_owned();
        env.end(vec![end(&lease, TaskFinish::Failed { gave_up, detail })])
            .await;
    }
    let dead = env.dead().await;
    let reasons: Vec<_> = dead.iter().map(|dead| dead.reason.as_str()).collect();
    assert_eq!(reasons, ["task failed", "task panicked", "task gave up"]);
    let summary = store.summary(at(0)).await.unwrap();
    assert_eq!((summary.tally.dead_letters, summary.blocked), (3, 0));
}

pub async fn rejected_result_is_a_dead_letter_that_the_role_hears_of(store: impl Store) {
    let mut env = TestEnv::new(&store);
    let twists = [
        ("a", Twist::Spoiled),
        ("b", Twist::Panics),
        ("c", Twist::None),
    ];
    for (sequence, (id, twist)) in (1..).zip(twists) {
        env.start(sequence, id, Labor { errors: 0, twist }).await;
    }
    let leases = env.claim(1).await;
    let ends = leases.iter().map(|lease| result(lease, "done")).collect();
    assert_eq!(env.end(ends).await, [const { CommandResult::Ended }; 3]);
    let dead = env.dead().await;
    let told: Vec<_> = dead
        .iter()
        .map(|d| (d.reason.as_str(), d.detail.as_str()))
        .collect();
    let expected = [
        ("result rejected", "this result is rejected (spoiled)"),
        (
            "result rejected",
            "the handler panicked: this result makes the handler panic (failed)",
        ),
    ];
    assert_eq!(told, expected);
    // The dead letter has the task's input, so that a replay runs the task again.
    assert_eq!(dead[0].event.as_ref().unwrap().data, leases[0].row.input);
    assert_eq!(env.heard().await, ["c done", "a Failed", "b Failed"]);
    assert_eq!(
        (
            env.tasks_done().await,
            store.usage().await.unwrap().tasks.rows
        ),
        (1, 0)
    );
}

pub async fn outcome_that_the_role_refuses_ends_the_task(store: impl Store) {
    let mut env = TestEnv::new(&store);
    for (sequence, id) in (1..).zip(["a", "b", "c"]) {
        env.start(sequence, id, labor()).await;
    }
    let leases = env.claim(1).await;
    let ends = vec![
        failure(&leases[0], "panic"),
        failure(&leases[1], "reject"),
        end(
            &leases[2],
            TaskFinish::Unknown {
                error: "panic".to_owned(),
            },
        ),
    ];
    assert_eq!(env.end(ends).await, [const { CommandResult::Ended }; 3]);
    assert_eq!((env.heard().await.len(), env.dead().await.len()), (0, 2));
    assert_eq!((env.row("a").await, env.row("b").await), (None, None));
    assert_eq!(env.row("c").await.unwrap().state, TaskState::Unknown);
}

/// A ledger that does not know outcomes.
struct Deaf;

impl Role for Deaf {
    type Payload = Move;
    type Command = doorstep_runtime::Unsupported;
    type Query = ledger::QueryAccount;
    type State = Account;

    fn name(&self) -> &'static str {
        Ledger.name()
    }

    fn read(&self, event: &Event) -> Result<Reading<Move>, ContractError> {
        Ledger.read(event)
    }

    fn keys(&self, event: &Event, fact: &Move) -> Vec<EntityKey> {
        Ledger.keys(event, fact)
    }

    fn handle(
        &self,
        states: &mut States<Account>,
        event: &Event,
        fact: &Move,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        Ledger.handle(states, event, fact, now)
    }
}

pub async fn outcome_unknown_to_the_role_ends_the_task(store: impl Store) {
    let mut env = TestEnv::with(Deaf, &store);
    for (sequence, id) in (1..).zip(["a", "b", "c", "d", "e"]) {
        env.start(sequence, id, labor()).await;
    }
    let leases = env.claim(1).await;
    let ends = vec![
        failure(&leases[0], "text"),
        end(&leases[1], TaskFinish::Directed(TaskDirective::Cancel)),
        end(&leases[2], TaskFinish::Directed(TaskDirective::Done)),
        end(
            &leases[3],
            TaskFinish::Unknown {
                error: "text".to_owned(),
            },
        ),
        // A result is never dropped.
        result(&leases[4], "done"),
    ];
    assert_eq!(env.end(ends).await, [const { CommandResult::Ended }; 5]);
    let reasons: Vec<_> = env
        .dead()
        .await
        .into_iter()
        .map(|dead| dead.reason)
        .collect();
    assert_eq!(reasons, ["task failed", "result rejected"]);
    assert_eq!(store.usage().await.unwrap().tasks.rows, 1);
}

/// Lets the process of the tasks' holder die, as other processes see it.
async fn crash<S: Store>(store: &S, number: u64) {
    let holders = store.task_holders().await.unwrap();
    let row = holders
        .iter()
        .find(|row| row.holder == holder(number))
        .unwrap();
    store
        .take_over_tasks(row.holder, row.beat, at(50))
        .await
        .unwrap();
}

pub async fn crashed_task_ends_alone(store: impl Store) {
    let mut env = TestEnv::new(&store);
    env.start(1, "a", labor()).await;
    drop(env.claim_one(1).await);
    crash(&store, 1).await;
    let candidate = env.claim_one(2).await;
    assert_eq!(candidate.row.crashes, 1);
    env.start(2, "b", labor()).await;
    env.start(3, "c", labor()).await;
    let fresh = env.claim(3).await;
    let commits = env.commits().await;
    let mut ends: Vec<_> = fresh.iter().map(|lease| result(lease, "done")).collect();
    ends.insert(0, result(&candidate, "done"));
    assert_eq!(env.end(ends).await, [const { CommandResult::Ended }; 3]);
    assert_eq!(env.heard().await, ["b done", "c done", "a done"]);
    assert_eq!(env.commits().await, commits + 2);
}

pub async fn poison_ends_with_or_without_the_role(store: impl Store) {
    let mut env = TestEnv::new(&store);
    for (sequence, tell) in [(1, true), (2, false)] {
        env.start(sequence, "work", labor()).await;
        drop(env.claim_one(1).await);
        crash(&store, 1).await;
        let lease = env.claim_one(1).await;
        let poison = end(&lease, TaskFinish::Poison { tell });
        assert_eq!(env.end(vec![poison]).await, [CommandResult::Ended]);
        assert_eq!(env.row("work").await, None);
    }
    assert_eq!(env.heard().await, ["work Failed"]);
    for dead in env.dead().await {
        assert_eq!(dead.reason, "poison");
        assert_eq!(
            dead.detail,
            "the process ended 1 times while it ran this task"
        );
        assert!(operate::is_poison(&dead));
    }
    assert_eq!(env.dead().await.len(), 2);
}
