//! A simulation of the real engine, relay and operator's commands, seeded and deterministic: two owners of one queue, crashes at every
//! step, channels that die, a store that fails, a broker that loses confirms - and checks that find a mistake if there is one.
//!
//! To run one seed alone: `DOORSTEP_SIMULATION_SEED=17 cargo test -p doorstep-runtime --test simulation SCHEDULES`, where SCHEDULES is
//! the name of the test that has failed. `DOORSTEP_SIMULATION_SCHEDULES=100000` runs as many.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod actors;
mod callers;
mod checker;
mod crashing_role;
mod ended;
mod executed;
mod executor;
mod exhaustive;
mod history;
mod input;
#[path = "../ledger/mod.rs"]
mod ledger;
mod queue;
mod scenes;
mod schedules;
mod seeded_rng;
mod shape;
mod task_runner;
mod task_scenes;
mod world;
mod yielding_store;

use schedules::{first_failure, run_all};
use shape::{Guard, Settling, Shape};
use world::Honesty;
use yielding_store::Bug;

/// Returns the number of schedules to run; more than usual if the environment asks for them.
fn how_many(usual: u64) -> u64 {
    let asked = std::env::var("DOORSTEP_SIMULATION_SCHEDULES");
    asked.map_or(usual, |text| text.parse().unwrap())
}

#[test]
fn schedules_apply_each_event_once_in_order() {
    let counts = run_all(0..how_many(700), Shape::from_seed);
    println!("{counts:?}");
    if std::env::var(schedules::SEED).is_err() {
        for what in [
            "await put off",
            "replay put off",
            "awaited in vain",
            "numbering conflict",
            "too old to tell",
            "breaks a rule",
            "unreadable",
            "held without a sequence",
            "conflict",
            "crash",
            "cut",
            "skip",
            "gap skipped",
            "replay against skip",
            "death",
            "poison",
            "executed",
            "executed beside events",
            "replied anew",
            "id reused",
            "expired",
            "refused",
            "scheduled",
        ] {
            let times = counts.get(what).copied().unwrap_or_default();
            // The others are frequent; this one needs a replay before the change that the dead letter waited for.
            let least = if what == "replay put off" { 5 } else { 20 };
            assert!(
                times >= least,
                "the schedules brought about {what} {times} times"
            );
        }
    }
}

#[test]
fn faultless_schedules_apply_each_event_once_in_order() {
    run_all(10_000_000..10_000_000 + how_many(500), |seed| Shape {
        crashes: false,
        cuts: false,
        deaths: false,
        errors: false,
        operator: seed % 2 == 0,
        task_deaths: false,
        slow_holders: false,
        unruly_broker: false,
        ..Shape::from_seed(seed)
    });
}

/// Asserts that the schedules find every one of these bugs; otherwise the simulation proves nothing.
#[track_caller]
fn finds(bug: impl Fn(Shape) -> Shape) {
    let found = first_failure(0..300, |seed| bug(Shape::from_seed(seed)));
    // The same seeds pass without the bug, as another test shows.
    let Some((seed, wrong)) = found else {
        panic!("no schedule has found the bug");
    };
    println!("found with seed {seed}: {wrong}");
}

#[test]
fn only_crashing_events_become_poison() {
    let counts = run_all(20_000_000..20_000_000 + how_many(500), |seed| Shape {
        crashes: false,
        ..Shape::from_seed(seed)
    });
    if std::env::var(schedules::SEED).is_err() {
        assert!(counts["poison"] >= 20, "{counts:?}");
    }
}

#[test]
fn schedules_find_an_engine_without_delivery_history() {
    finds(|shape| Shape {
        guard: Guard::Uninformed,
        ..shape
    });
}

#[test]
fn schedules_find_acks_before_the_commit() {
    finds(|shape| Shape {
        settling: Settling::BeforeTheCommit,
        ..shape
    });
}

#[test]
fn schedules_find_ignored_stream_versions() {
    finds(|shape| Shape {
        bug: Bug::IgnoresStreamVersions,
        ..shape
    });
}

#[test]
fn schedules_find_ignored_entity_versions() {
    finds(|shape| Shape {
        bug: Bug::IgnoresEntityVersions,
        ..shape
    });
}

#[test]
fn schedules_find_a_forgotten_next_event() {
    finds(|shape| Shape {
        bug: Bug::ForgetsNextHeld,
        ..shape
    });
}

#[test]
fn schedules_find_a_relay_that_deletes_unconfirmed_rows() {
    finds(|shape| Shape {
        honesty: Honesty::SaysConfirmed,
        ..shape
    });
}

#[test]
fn schedules_find_a_relay_that_trusts_timeouts() {
    finds(|shape| Shape {
        honesty: Honesty::TimedOutIsConfirmed,
        ..shape
    });
}

#[test]
fn schedules_find_a_relay_that_trusts_blocked_publishes() {
    finds(|shape| Shape {
        honesty: Honesty::BlockedIsConfirmed,
        ..shape
    });
}

#[test]
fn schedules_find_a_store_that_loses_cursors() {
    finds(|shape| Shape {
        bug: Bug::LosesCursors,
        ..shape
    });
}

#[test]
fn schedules_find_a_store_that_loses_replies() {
    finds(|shape| Shape {
        bug: Bug::LosesReplies,
        ..shape
    });
}

#[test]
fn schedules_find_scheduled_events_that_fire_again() {
    finds(|shape| Shape {
        bug: Bug::KeepsScheduled,
        ..shape
    });
}

#[test]
fn schedules_find_replies_before_the_commit() {
    finds(|shape| Shape {
        bug: Bug::WritesLate,
        ..shape
    });
}

#[test]
fn schedules_find_a_store_that_loses_ids() {
    finds(|shape| Shape {
        bug: Bug::LosesSeenIds,
        ..shape
    });
}

#[test]
fn jumping_clocks_let_nothing_be_applied_twice() {
    let counts = run_all(30_000_000..30_000_000 + how_many(500), jumping);
    println!("{counts:?}");
    if std::env::var(schedules::SEED).is_err() {
        for what in [
            "clock set",
            "too old to tell",
            "command too old",
            "executed",
        ] {
            assert!(counts[what] >= 20, "{what}: {counts:?}");
        }
    }
}

#[test]
fn schedules_find_a_store_that_forgets_pruning_times() {
    finds(|shape| Shape {
        bug: Bug::ForgetsPruning,
        ..jumping(shape.seed)
    });
}

fn jumping(seed: u64) -> Shape {
    Shape {
        jumps: true,
        ..Shape::from_seed(seed)
    }
}

#[test]
fn schedules_end_each_task_once() {
    let counts = run_all(40_000_000..40_000_000 + how_many(400), with_tasks);
    println!("{counts:?}");
    if std::env::var(schedules::SEED).is_err() {
        for what in [
            "claimed",
            "taken over",
            "lease lost",
            "found itself gone",
            "blocked beyond its lease",
            "retried",
            "released",
            "cancelled",
            "result after cancel",
            "poison task",
            "unknown",
            "settled",
            "replayed task",
            "result rejected",
            "task failed",
            "task gave up",
        ] {
            let times = counts.get(what).copied().unwrap_or_default();
            assert!(
                times >= 10,
                "the schedules brought about {what} {times} times"
            );
        }
    }
}

#[test]
fn only_killing_tasks_become_poison() {
    let counts = run_all(50_000_000..50_000_000 + how_many(300), |seed| Shape {
        crashes: false,
        deaths: false,
        ..with_tasks(seed)
    });
    if std::env::var(schedules::SEED).is_err() {
        assert!(counts["poison task"] >= 20, "{counts:?}");
    }
}

#[test]
fn jumping_clocks_end_each_task_once() {
    run_all(60_000_000..60_000_000 + how_many(200), |seed| Shape {
        jumps: true,
        ..with_tasks(seed)
    });
}

#[test]
fn schedules_find_ignored_tokens() {
    finds_in_tasks(Bug::IgnoresTokens);
}

#[test]
fn schedules_find_lost_ends_of_tasks() {
    finds_in_tasks(Bug::LosesTaskEnds);
}

#[test]
fn schedules_find_tasks_that_end_twice() {
    finds_in_tasks(Bug::EndsTwice);
}

#[test]
fn schedules_find_reused_tokens() {
    finds_in_tasks(Bug::ReusesTokens);
}

#[track_caller]
fn finds_in_tasks(bug: Bug) {
    finds(|shape| Shape {
        bug,
        ..with_tasks(shape.seed)
    });
}

fn with_tasks(seed: u64) -> Shape {
    Shape {
        tasks: true,
        slow_input: true,
        slow_holders: true,
        blocking_tasks: seed.is_multiple_of(2),
        second_relay: false,
        events: 40,
        commands: 12,
        moves: 1_500,
        ..Shape::from_seed(seed)
    }
}
