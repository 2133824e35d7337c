//! Scenes in which two programs meet on one stream, dead letter or entity, in every order of their steps.

use doorstep_event::{Event, EventType, Sender, headers::Decoded};
use doorstep_runtime::{
    DeliveryHistory, Engine, InboundMessage, Limits,
    operate::{self, OperateError},
};
use doorstep_store::{DeadLetterFilter, Store};

use super::{
    executor::finish,
    ledger::{self, Ledger, Move, event},
    scenes::{Ending, Play, Role, Scene, Setting, at},
    yielding_store::{Bug, Steps},
};

/// Returns the defaults, with a small cache: a scene starts very many engines.
fn limits() -> Limits {
    Limits {
        remembered_rows: 16,
        ..Limits::default()
    }
}

/// An owner that processes one batch.
fn works(batch: Vec<InboundMessage>) -> Role {
    Box::new(move |play| {
        let mut engine = Engine::new(Ledger, play.store.clone(), limits());
        let mut batch = engine.read_batch(batch.clone());
        Box::pin(async move {
            engine.process(&mut batch, at(), 0.5).await.unwrap();
        })
    })
}

/// An owner that processes due events, once.
fn works_due() -> Role {
    Box::new(|play| {
        let mut engine = Engine::new(Ledger, play.store.clone(), limits());
        Box::pin(async move {
            engine.process_due(at(), 0.5).await.unwrap();
        })
    })
}

/// An operator who replays the only dead letter.
fn replays(name: &'static str) -> Role {
    Box::new(move |play| {
        let (id, store, heard) = (dead_id(play), play.store.clone(), play.heard.clone());
        Box::pin(async move {
            let result = operate::replay(&store, &id, at()).await;
            heard.lock().unwrap().push((name, result));
        })
    })
}

/// An operator who skips the only dead letter.
fn skips(name: &'static str) -> Role {
    Box::new(move |play| {
        let (id, store, heard) = (dead_id(play), play.store.clone(), play.heard.clone());
        Box::pin(async move {
            let result = operate::skip(&store, &id, at()).await;
            heard.lock().unwrap().push((name, result));
        })
    })
}

/// Returns the id of the only dead letter, or that of a deleted one: an operator who starts anew names the same one
/// again.
fn dead_id(play: &Play) -> doorstep_store::DeadLetterId {
    let dead = finish(play.memory.dead_letters(DeadLetterFilter::All, None, 2)).unwrap();
    dead.into_iter().next().map_or_else(
        || doorstep_store::DeadLetterId("gone".into()),
        |dead| dead.id,
    )
}

fn delivery(event: Event) -> InboundMessage {
    InboundMessage::event(event, Sender::Anonymous)
}

fn shop(sequence: u64, fact: Move) -> InboundMessage {
    delivery(event("shop", "account/a", sequence, &fact))
}

/// Processes a batch an hour before the scene begins: its deferred events are due at the beginning.
fn worked_before(play: &Play, batch: Vec<InboundMessage>) {
    let mut engine = Engine::new(Ledger, play.memory.clone(), limits());
    let mut batch = engine.read_batch(batch);
    let earlier = at().checked_sub(std::time::Duration::from_mins(1)).unwrap();
    finish(engine.process(&mut batch, earlier, 0.5)).unwrap();
}

fn nothing() -> Setting {
    Box::new(|_| {})
}

/// Processes due events with a new owner until there are none. The clock is frozen: no event may have to wait for a
/// backoff or a sweep.
fn work_what_is_due(play: &Play) {
    let mut engine = Engine::new(Ledger, play.store.clone(), limits());
    for _ in 0..100 {
        if finish(engine.process_due(at(), 0.5)).unwrap().is_none() {
            return;
        }
    }
    panic!("there is always something due");
}

/// Processes due events, then checks that these entries are there and nothing is left over.
fn ends_with(account: &'static str, allowed: &[&[&str]]) -> Ending {
    let allowed: Vec<Vec<String>> = allowed
        .iter()
        .map(|entries| entries.iter().map(|e| (*e).to_owned()).collect())
        .collect();
    Box::new(move |play| {
        work_what_is_due(play);
        let entries = finish(ledger::entries(&play.memory, account));
        let summary = finish(play.memory.summary(at())).unwrap();
        if !allowed.contains(&entries) {
            return Err(format!("{account} has {entries:?}"));
        }
        if summary.usage.deferred.rows + summary.usage.dead_letters.rows + summary.blocked > 0 {
            return Err(format!("left over: {summary:?}"));
        }
        Ok(())
    })
}

/// Plays a scene with two actors, once with a crash at every step, and prints the number of orders.
#[track_caller]
fn play(actors: Vec<Role>, set: Setting, end: Ending) {
    let mut scene = Scene {
        set,
        actors,
        end,
        crashes: 0,
        steps: Steps::Around,
        bug: Bug::None,
    };
    let orders = scene.play_all().unwrap();
    scene.crashes = 1;
    scene.steps = Steps::Before;
    let with_crashes = scene.play_all().unwrap();
    println!("{orders} orders, {with_crashes} with a crash");
    // Two actors that read and commit, with a step before and after each, have no fewer orders.
    assert!(orders >= 252 && with_crashes >= 252);
}

#[test]
fn one_defers_while_another_applies_the_predecessor() {
    play(
        vec![
            works(vec![shop(2, Move::Add(1))]),
            works(vec![shop(1, Move::Add(1))]),
        ],
        nothing(),
        ends_with("account/a", &[&["shop 1", "shop 2"]]),
    );
}

#[test]
fn one_defers_while_another_applies_a_cached_predecessor() {
    play(
        vec![
            works(vec![shop(3, Move::Add(1))]),
            works(vec![shop(2, Move::Add(1))]),
        ],
        Box::new(|play| worked_before(play, vec![shop(1, Move::Add(1))])),
        ends_with("account/a", &[&["shop 1", "shop 2", "shop 3"]]),
    );
}

#[test]
fn one_defers_while_another_ignores_the_predecessor() {
    let mut ignored = event("shop", "account/a", 1, &Move::Add(1));
    ignored.event_type = EventType::new("account.ignored.v1").unwrap();
    play(
        vec![
            works(vec![shop(2, Move::Add(1))]),
            works(vec![delivery(ignored)]),
        ],
        nothing(),
        ends_with("account/a", &[&["shop 2"]]),
    );
}

#[test]
fn one_defers_while_another_applies_deferred_predecessors() {
    play(
        vec![
            works(vec![shop(3, Move::Add(1))]),
            works(vec![shop(1, Move::Add(1))]),
        ],
        Box::new(|play| worked_before(play, vec![shop(2, Move::Add(1))])),
        ends_with("account/a", &[&["shop 1", "shop 2", "shop 3"]]),
    );
}

/// The stream is blocked by its first event, defers the second, and continues once the operator has skipped.
fn ends_blocked_until_skipped() -> Ending {
    Box::new(|play| {
        work_what_is_due(play);
        let entries = finish(ledger::entries(&play.memory, "account/a"));
        let summary = finish(play.memory.summary(at())).unwrap();
        let held = summary.usage.deferred.rows;
        if entries != ["web 1"]
            || (held, summary.blocked, summary.usage.dead_letters.rows) != (1, 1, 1)
        {
            return Err(format!("{entries:?} and {summary:?}"));
        }
        finish(operate::skip(&play.memory, &dead_id(play), at())).map_err(|e| e.to_string())?;
        ends_with("account/a", &[&["web 1", "shop 2"]])(play)
    })
}

/// Two owners that only read an existing account do not conflict on it, nor on a known source: the conflict has to come
/// from the stream alone.
fn an_account_that_is_there() -> Setting {
    Box::new(|play| {
        let first = event("web", "account/a", 1, &Move::Add(1));
        let known = event("shop", "account/b", 1, &Move::Add(1));
        worked_before(play, vec![delivery(first), delivery(known)]);
    })
}

#[test]
fn one_defers_while_another_dead_letters_the_predecessor() {
    play(
        vec![
            works(vec![shop(2, Move::Add(1))]),
            works(vec![shop(1, Move::Poison)]),
        ],
        an_account_that_is_there(),
        ends_blocked_until_skipped(),
    );
}

#[test]
fn every_order_finds_ignored_stream_versions() {
    let scene = Scene {
        set: an_account_that_is_there(),
        actors: vec![
            works(vec![shop(2, Move::Add(1))]),
            works(vec![shop(1, Move::Poison)]),
        ],
        end: ends_blocked_until_skipped(),
        crashes: 0,
        steps: Steps::Around,
        bug: Bug::IgnoresStreamVersions,
    };
    let wrong = scene.play_all().unwrap_err();
    println!("{wrong}");
}

#[test]
fn owners_process_the_same_deliveries() {
    let mut loose = event("web", "account/a", 1, &Move::Add(1));
    loose.sequence = None;
    loose.time = Some(at());
    let batch = || {
        vec![
            shop(1, Move::Add(1)),
            delivery(loose.clone()),
            shop(2, Move::Tell),
        ]
    };
    play(
        vec![works(batch()), works(batch())],
        nothing(),
        Box::new(|play| {
            ends_with("account/a", &[&["shop 1", "web 0", "shop 2"]])(play)?;
            let pending = finish(play.memory.outbox(at(), 10)).unwrap().len();
            (pending == 1)
                .then_some(())
                .ok_or(format!("{pending} events are emitted"))
        }),
    );
}

#[test]
fn owners_dead_letter_the_same_deliveries() {
    let unreadable = InboundMessage::new(
        Decoded::Undecodable {
            defect: "it has no attributes".into(),
            body: "rubbish".into(),
        },
        Sender::Anonymous,
    );
    let mut contender = event("shop", "account/b", 1, &Move::Add(1));
    contender.id = doorstep_event::EventId::new("again").unwrap();
    let batch = vec![
        unreadable,
        shop(1, Move::Poison),
        delivery(contender.clone()),
        delivery(contender),
    ];
    play(
        vec![works(batch.clone()), works(batch)],
        Box::new(|play| {
            let first = event("shop", "account/b", 1, &Move::Add(1));
            worked_before(play, vec![delivery(first)]);
        }),
        Box::new(|play| {
            work_what_is_due(play);
            let dead = finish(play.memory.dead_letters(DeadLetterFilter::All, None, 10)).unwrap();
            if dead.len() != 3 {
                return Err(format!("{dead:?}"));
            }
            for dead in dead {
                finish(operate::skip(&play.memory, &dead.id, at())).map_err(|e| e.to_string())?;
            }
            ends_with("account/b", &[&["shop 1"]])(play)
        }),
    );
}

#[test]
fn owners_move_amounts_between_the_same_accounts() {
    let there = event("shop", "account/a", 1, &Move::MoveTo("account/b".into(), 5));
    let back = event("shop", "account/b", 1, &Move::MoveTo("account/a".into(), 3));
    play(
        vec![works(vec![delivery(there)]), works(vec![delivery(back)])],
        nothing(),
        Box::new(|play| {
            let accounts = finish(ledger::accounts(&play.memory));
            let balances: Vec<_> = accounts.iter().map(|(_, a)| a.balance).collect();
            (balances == [2, -2])
                .then_some(())
                .ok_or(format!("{balances:?}"))
        }),
    );
}

#[test]
fn owners_emit_on_the_same_subject() {
    let tell = |source| vec![delivery(event(source, "account/a", 1, &Move::Tell))];
    play(
        vec![works(tell("shop")), works(tell("web"))],
        nothing(),
        Box::new(|play| {
            let pending = finish(play.memory.outbox(at(), 10)).unwrap();
            let numbers: Vec<_> = pending
                .iter()
                .map(|row| match &row.kind {
                    doorstep_store::OutboxKind::Event(event) => event.sequence.unwrap().get(),
                    other => panic!("{other:?}"),
                })
                .collect();
            (numbers == [1, 2])
                .then_some(())
                .ok_or(format!("{numbers:?}"))
        }),
    );
}

#[test]
fn one_defers_while_another_changes_its_entity() {
    let mut loose = event("pay", "account/a", 1, &Move::AfterOpen);
    loose.sequence = None;
    loose.time = Some(at());
    let numbered = event("pay", "account/a", 1, &Move::AfterOpen);
    for (awaiting, name) in [(numbered, "pay 1"), (loose, "pay 0")] {
        let awaiting = delivery(awaiting);
        let end = || ends_with("account/a", &[&["shop 1", name]]);
        play(
            vec![
                works(vec![awaiting.clone()]),
                works(vec![shop(1, Move::Open)]),
            ],
            nothing(),
            end(),
        );
        // The same with an event deferred earlier that falls due just now.
        let held = awaiting.clone();
        play(
            vec![works_due(), works(vec![shop(1, Move::Open)])],
            Box::new(move |play| worked_before(play, vec![held.clone()])),
            end(),
        );
    }
}

#[test]
fn every_order_finds_forgotten_waiting_events() {
    let scene = Scene {
        set: nothing(),
        actors: vec![
            works(vec![delivery(event(
                "pay",
                "account/a",
                1,
                &Move::AfterOpen,
            ))]),
            works(vec![shop(1, Move::Open)]),
        ],
        end: ends_with("account/a", &[&["shop 1", "pay 1"]]),
        crashes: 0,
        steps: Steps::Around,
        bug: Bug::ForgetsAwaiting,
    };
    let wrong = scene.play_all().unwrap_err();
    println!("{wrong}");
}

/// An account whose first event is a dead letter that could now be applied, and whose second is deferred behind it.
fn a_mended_dead_letter() -> Setting {
    Box::new(|play| {
        let batch = vec![
            shop(1, Move::PoisonUntilFixed),
            shop(2, Move::Add(1)),
            delivery(event("callers", "account/a", 1, &Move::Fix)),
        ];
        worked_before(play, batch);
    })
}

/// Exactly one operator has won, the other has learnt that the dead letter is already resolved, and the winner's change
/// is there.
fn ends_with_one_winner() -> Ending {
    Box::new(|play| {
        let heard = play.heard.lock().unwrap().clone();
        let lost = heard
            .iter()
            .filter(|(_, r)| matches!(r, Err(OperateError::AlreadySettled(_))))
            .count();
        let [winner] = play.winners()[..] else {
            return Err(format!("{heard:?}"));
        };
        if lost + 1 != heard.len() {
            return Err(format!("{heard:?}"));
        }
        let expected: &[&str] = match winner {
            "replay" => &["callers 1", "shop 1", "shop 2"],
            _ => &["callers 1", "shop 2"],
        };
        ends_with("account/a", &[expected])(play)
    })
}

fn either_way() -> Ending {
    ends_with(
        "account/a",
        &[&["callers 1", "shop 1", "shop 2"], &["callers 1", "shop 2"]],
    )
}

/// Plays two operators in every order. With crashes they may not know the winner, but there is exactly one.
#[track_caller]
fn play_operators(actors: fn() -> Vec<Role>) {
    let scene = |crashes, end| Scene {
        set: a_mended_dead_letter(),
        actors: actors(),
        end,
        crashes,
        steps: if crashes == 0 {
            Steps::Around
        } else {
            Steps::Before
        },
        bug: Bug::None,
    };
    let orders = scene(0, ends_with_one_winner()).play_all().unwrap();
    let with_crashes = scene(1, either_way()).play_all().unwrap();
    println!("{orders} orders, {with_crashes} with a crash");
    assert!(orders >= 900 && with_crashes >= 900);
}

#[test]
fn concurrent_replay_and_skip_have_one_winner() {
    play_operators(|| vec![replays("replay"), skips("skip")]);
}

#[test]
fn concurrent_replays_have_one_winner() {
    play_operators(|| vec![replays("replay"), replays("replay")]);
}

#[test]
fn concurrent_skips_have_one_winner() {
    play_operators(|| vec![skips("skip"), skips("skip")]);
}

#[test]
fn operator_wins_against_a_working_owner() {
    let delivers: fn() -> Role = || {
        let duplicate = shop(1, Move::PoisonUntilFixed);
        works(vec![duplicate, shop(3, Move::Add(1))])
    };
    for (operator, entries) in [
        (
            replays("replay"),
            ["callers 1", "shop 1", "shop 2", "shop 3"].as_slice(),
        ),
        (skips("skip"), &["callers 1", "shop 2", "shop 3"]),
    ] {
        let scene = Scene {
            set: a_mended_dead_letter(),
            actors: vec![operator, delivers()],
            end: Box::new(|play| {
                if play.winners().len() != 1 {
                    return Err(format!("{:?}", play.heard.lock().unwrap()));
                }
                ends_with("account/a", &[entries])(play)
            }),
            crashes: 0,
            steps: Steps::Before,
            bug: Bug::None,
        };
        println!("{} orders", scene.play_all().unwrap());
    }
}

/// An owner that processes one batch, whose clock is then ten days ahead and prunes by that.
fn works_and_prunes(batch: Vec<InboundMessage>) -> Role {
    Box::new(move |play| {
        let mut engine = Engine::new(Ledger, play.store.clone(), limits());
        let mut batch = engine.read_batch(batch.clone());
        let store = play.store.clone();
        Box::pin(async move {
            engine.process(&mut batch, at(), 0.5).await.unwrap();
            let days = std::time::Duration::from_hours(240);
            let ahead = at().checked_add(days).unwrap();
            let pruned = store.prune_seen(limits().oldest_seen(ahead), 9);
            pruned.await.unwrap();
        })
    })
}

#[test]
fn redelivery_while_its_id_is_pruned_applies_once() {
    let loose = || {
        let mut event = event("shop", "account/a", 1, &Move::Add(1));
        event.sequence = None;
        event.time = Some(at());
        vec![delivery(event)]
    };
    let scene = |bug| Scene {
        set: nothing(),
        actors: vec![works(loose()), works_and_prunes(loose())],
        end: Box::new(|play| {
            let entries = finish(ledger::entries(&play.memory, "account/a"));
            match entries.len() {
                1 => Ok(()),
                times => Err(format!("applied {times} times")),
            }
        }),
        crashes: 0,
        steps: Steps::Around,
        bug,
    };
    println!("{} orders", scene(Bug::None).play_all().unwrap());
    scene(Bug::ForgetsPruning).play_all().unwrap_err();
}

/// An owner that processes poison candidates, whose clock is then ten days ahead and prunes crash counts by that.
fn processes_candidates_and_prunes(batch: Vec<InboundMessage>) -> Role {
    Box::new(move |play| {
        let mut engine = Engine::new(Ledger, play.store.clone(), limits());
        let suspects = batch
            .iter()
            .cloned()
            .map(|event| (event, DeliveryHistory::Redelivered));
        let mut batch = engine.read_deliveries(suspects);
        let store = play.store.clone();
        Box::pin(async move {
            while !batch.is_done() {
                engine.process(&mut batch, at(), 0.5).await.unwrap();
            }
            let days = std::time::Duration::from_hours(240);
            let ahead = at().checked_add(days).unwrap();
            let pruned = store.prune_crash_counts(limits().oldest_seen(ahead), 9);
            pruned.await.unwrap();
        })
    })
}

#[test]
fn pruning_crash_counts_during_an_attempt_applies_once() {
    let loose = || {
        let mut event = event("shop", "account/a", 1, &Move::Add(1));
        event.sequence = None;
        event.time = Some(at());
        vec![delivery(event)]
    };
    let scene = Scene {
        set: nothing(),
        actors: vec![
            processes_candidates_and_prunes(loose()),
            processes_candidates_and_prunes(loose()),
        ],
        end: Box::new(|play| {
            let entries = finish(ledger::entries(&play.memory, "account/a"));
            match entries.len() {
                1 => Ok(()),
                times => Err(format!("applied {times} times")),
            }
        }),
        crashes: 0,
        steps: Steps::Before,
        bug: Bug::None,
    };
    println!("{} orders", scene.play_all().unwrap());
}
