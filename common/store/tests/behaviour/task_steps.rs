//! Random changes of tasks for `equivalence.rs`: parts of commits, and steps of the processes that run tasks.

use doorstep_store::{
    Beat, Candidates, ClaimTasks, Claimed, IfLive, NewTask, Store, TaskChange, TaskDirective,
    TaskEnd, TaskFate, TaskFilter, TaskProgress, TaskRow, TaskState, TaskToken,
};
use proptest::{collection::vec, option, prelude::*};

use crate::fixtures::*;

/// A change of a task within a commit.
#[derive(Debug, Clone)]
pub enum TaskPart {
    Start {
        which: u8,
        other_kind: bool,
        conflict: bool,
    },
    Cancel(u8),
    End {
        which: u8,
        stale: bool,
        fate: u8,
        due: u8,
    },
    Decide {
        which: u8,
        stale: bool,
        directive: u8,
    },
}

/// A step of a process that runs tasks.
#[derive(Debug, Clone)]
pub enum TaskStep {
    Claim {
        holder: u8,
        most: u8,
        room: u8,
        one: bool,
        forgets: bool,
    },
    Beat {
        holder: u8,
        reports: Vec<Report>,
    },
    TakeOver {
        holder: u8,
        stale: bool,
    },
    EndHolder(u8),
    Clamp(u8),
}

#[derive(Debug, Clone)]
pub struct Report {
    which: u8,
    stale: bool,
    done: u8,
    checkpoint: Option<u8>,
}

/// The reply to a step.
#[derive(Debug, PartialEq)]
pub enum TaskResult {
    Claimed(Claimed),
    Beat(Beat),
    TakenOver(Option<u64>),
    Clamped(u64),
    Ended,
}

pub fn task_part() -> impl Strategy<Value = TaskPart> {
    let stale = || prop::bool::weighted(0.05);
    prop_oneof![
        4 => (0..6_u8, any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(which, other_kind, conflict)| TaskPart::Start { which, other_kind, conflict }),
        1 => (0..6_u8).prop_map(TaskPart::Cancel),
        4 => (0..6_u8, stale(), 0..5_u8, 0..60_u8)
            .prop_map(|(which, stale, fate, due)| TaskPart::End { which, stale, fate, due }),
        2 => (0..6_u8, stale(), 0..4_u8)
            .prop_map(|(which, stale, directive)| TaskPart::Decide { which, stale, directive }),
    ]
}

pub fn task_step() -> impl Strategy<Value = TaskStep> {
    let report = (
        0..6_u8,
        prop::bool::weighted(0.1),
        0..9_u8,
        option::of(0..9_u8),
    );
    let report = report.prop_map(|(which, stale, done, checkpoint)| Report {
        which,
        stale,
        done,
        checkpoint,
    });
    let holder = || 1..4_u8;
    prop_oneof![
        6 => (holder(), 0..4_u8, 0..4_u8, any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(holder, most, room, one, forgets)| TaskStep::Claim { holder, most, room, one, forgets }),
        3 => (holder(), vec(report, 0..4)).prop_map(|(holder, reports)| TaskStep::Beat { holder, reports }),
        2 => (holder(), prop::bool::weighted(0.3)).prop_map(|(holder, stale)| TaskStep::TakeOver { holder, stale }),
        1 => holder().prop_map(TaskStep::EndHolder),
        1 => (0..60_u8).prop_map(TaskStep::Clamp),
    ]
}

fn id_of(which: u8) -> String {
    format!("task/{which}")
}

async fn find(store: &impl Store, which: u8) -> Option<TaskRow> {
    let ids = vec![task_id(&id_of(which))];
    store.read_tasks(ids).await.unwrap().remove(0)
}

fn token_of(row: Option<&TaskRow>, stale: bool) -> TaskToken {
    let token = row
        .and_then(|row| row.lease)
        .map_or(0, |lease| lease.token.0);
    TaskToken(token - i64::from(stale))
}

pub async fn task_change(store: &impl Store, part: TaskPart) -> TaskChange {
    match part {
        TaskPart::Start {
            which,
            other_kind,
            conflict,
        } => TaskChange::Start(NewTask {
            kind: task_kind(["shop.mail.v1", "shop.other.v1"][usize::from(other_kind)]),
            dead: which.into(),
            if_live: if conflict {
                IfLive::Conflict
            } else {
                IfLive::Keep
            },
            ..new_task(&id_of(which))
        }),
        TaskPart::Cancel(which) => TaskChange::Cancel(task_id(&id_of(which))),
        TaskPart::End {
            which,
            stale,
            fate,
            due,
        } => {
            // Mostly a running task, so that not every commit with an end conflicts.
            let running = TaskFilter {
                state: Some(TaskState::Running),
                kind: None,
            };
            let running = store.tasks(running, None, 9).await.unwrap();
            let row = running.get(usize::from(which) % running.len().max(1));
            TaskChange::End(TaskEnd {
                id: row.map_or_else(|| task_id(&id_of(which)), |row| row.id.clone()),
                token: token_of(row, stale),
                fate: fate_of(fate, due),
            })
        }
        TaskPart::Decide {
            which,
            stale,
            directive,
        } => {
            let state = find(store, which).await.map(|row| row.state);
            let expected = match (state, stale) {
                (Some(state), false) => state,
                (Some(TaskState::Unknown) | None, _) => TaskState::Ready,
                (Some(_), true) => TaskState::Unknown,
            };
            let cancel = Some(TaskDirective::Cancel);
            let directives = [
                None,
                Some(TaskDirective::Done),
                Some(TaskDirective::Failed),
                cancel,
            ];
            TaskChange::Decide {
                id: task_id(&id_of(which)),
                expected,
                directive: match expected {
                    TaskState::Running => cancel,
                    _ => directives[usize::from(directive)],
                },
            }
        }
    }
}

fn fate_of(number: u8, due: u8) -> TaskFate {
    let error = "e".repeat(due.into());
    match number {
        0 => TaskFate::Done,
        1 => TaskFate::Ended,
        2 => TaskFate::Unknown { error },
        3 => TaskFate::Release,
        _ => TaskFate::Retry {
            due: at(due.into()),
            error,
        },
    }
}

pub async fn take_step(store: &impl Store, second: i64, step: &TaskStep) -> TaskResult {
    match step {
        TaskStep::Claim {
            holder: process,
            most,
            room,
            one,
            forgets,
        } => {
            let held = match forgets {
                true => vec![],
                false => (0..6).map(|which| task_id(&id_of(which))).collect(),
            };
            let most = u32::from(*most);
            let ask = ClaimTasks {
                holder: holder((*process).into()),
                process: "host".to_owned(),
                now: at(second),
                kinds: vec![
                    (task_kind("shop.mail.v1"), most),
                    (task_kind("shop.other.v1"), 2),
                ],
                room: (*room).into(),
                candidates: if *one {
                    Candidates::One
                } else {
                    Candidates::None
                },
                held,
            };
            TaskResult::Claimed(store.claim_tasks(ask).await.unwrap())
        }
        TaskStep::Beat {
            holder: process,
            reports,
        } => {
            let mut progress = Vec::new();
            for report in reports {
                let row = find(store, report.which).await;
                progress.push(TaskProgress {
                    id: task_id(&id_of(report.which)),
                    token: token_of(row.as_ref(), report.stale),
                    done: report.done.into(),
                    total: 9,
                    note: (report.done > 4).then(|| "x".repeat(report.done.into())),
                    checkpoint: report.checkpoint.map(|n| vec![n; n.into()].into()),
                });
            }
            let beat = store.beat_tasks(holder((*process).into()), progress, at(second));
            TaskResult::Beat(beat.await.unwrap())
        }
        TaskStep::TakeOver {
            holder: process,
            stale,
        } => {
            let of = holder((*process).into());
            let holders = store.task_holders().await.unwrap();
            let beat = holders
                .iter()
                .find(|row| row.holder == of)
                .map_or(0, |row| row.beat);
            let taken = store.take_over_tasks(of, beat + u64::from(*stale), at(second));
            TaskResult::TakenOver(taken.await.unwrap())
        }
        TaskStep::Clamp(beyond) => {
            let beyond = at(second + i64::from(*beyond));
            let clamped = store.clamp_task_times(at(second), beyond);
            TaskResult::Clamped(clamped.await.unwrap())
        }
        TaskStep::EndHolder(process) => {
            let of = holder((*process).into());
            store.end_holder(of, at(second)).await.unwrap();
            TaskResult::Ended
        }
    }
}
