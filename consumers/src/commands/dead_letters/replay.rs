//! `consumers dead-letters replay`: replays dead letters at a limited rate, and can be interrupted at any point.
//!
//! Each replay is one conditional transaction, so none is done twice, however often the command is started. The run
//! excludes dead letters rejected again in the meantime, see [`operate::start_replay`].

use std::{
    collections::{BTreeMap, VecDeque, btree_map::Entry},
    time::Duration,
};

use doorstep_cli::{
    CliError, ShutdownSignal,
    output::{print, print_line},
};
use doorstep_event::Timestamp;
use doorstep_runtime::{
    operate::{self, Attribution, OperateError, ReplayRun},
    shape,
};
use doorstep_store::{DeadLetterFilter, DeadLetterId, DeadLetterStatus, Store};
use doorstep_table::{Column, Table};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::{
    Selection,
    dry_run::{Checked, check},
    selection::{label, one, open_ids},
    skip::{WHEN, failed},
};
use crate::{
    cli::dead_letters::ReplayArgs,
    commands::log_forced_exit,
    format::{sanitize, time},
    progress::Progress,
    stores::{self, StoreLocation},
};

/// The interval at which the outcomes of replays are polled.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The time without an outcome after which the role is assumed not to run.
const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The outcomes of replays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Outcomes {
    applied: u64,
    settled: u64,
    not_replayable: u64,
    dead_again: u64,
    awaiting: u64,
    untried: u64,
}

/// Replays dead letters.
///
/// # Errors
/// At least one named dead letter could not be replayed, or was rejected again; or the user stopped the command.
pub(crate) async fn replay(by: Attribution, args: ReplayArgs) -> Result<(), CliError> {
    let (place, role) = (&args.place, args.place.role.name);
    let chosen = &if args.all {
        Selection::All
    } else {
        Selection::new(args.chosen.ids, args.chosen.fingerprint)
    };
    if args.dry_run {
        return dry_run(place, chosen).await;
    }
    let store = stores::open_existing(place)?;
    let mut stop = ShutdownSignal::listen(log_forced_exit)?;
    let run = begin(&store, chosen, &by).await?;
    let until = run.as_ref().map_or(Timestamp::MAX, |run| run.started);
    let ids = open_ids(&store, chosen, until).await?;
    if let Some(run) = run.as_ref().filter(|run| run.resumed) {
        eprintln!(
            "resuming the run of {}: {} left; later dead letters are for another one",
            time(run.started),
            ids.len()
        );
    }

    let mut outcomes = Outcomes::default();
    let mut failures = Vec::new();
    let mut asked = VecDeque::with_capacity(ids.len());
    let mut progress = Progress::new("asked to be tried again", ids.len() as u64);
    let mut pace = args.rate.map(rate_limit);
    for id in ids {
        // Either may be cancelled: a missed tick comes again, and the request to stop stays.
        let stopped = tokio::select! {
            biased;
            () = stop.recv() => true,
            () = next(&mut pace) => false,
        };
        if stopped {
            progress.finish();
            let done = asked.len();
            return Err(CliError::interrupted(format!(
                "stopped after {done}; run it again to replay the others, and none of these"
            )));
        }
        match operate::replay(&store, &id, by.at(Timestamp::now())).await {
            Ok(()) => asked.push_back(id),
            Err(e @ OperateError::Store(_)) => {
                progress.finish();
                return Err(failed(role, &e));
            }
            Err(e) => {
                match e {
                    OperateError::AlreadySettled(_) | OperateError::RefusedAnew { .. } => {
                        outcomes.settled += 1;
                    }
                    _ => outcomes.not_replayable += 1,
                }
                if matches!(chosen, Selection::Ids(_)) {
                    failures.push(failed(role, &e));
                }
            }
        }
        progress.advance();
    }
    progress.finish();
    if let Some(run) = &run {
        end(&store, run, asked.len(), &by).await?;
    }
    outcomes.untried = asked.len() as u64;
    if !args.no_wait {
        watch(&store, asked, &mut outcomes, &mut stop).await?;
    }
    print_outcomes(role, &outcomes)?;
    ended(failures, &outcomes, role)
}

async fn begin<S: Store>(
    store: &S,
    chosen: &Selection,
    by: &Attribution,
) -> Result<Option<ReplayRun>, CliError> {
    // A selection by ids is complete without a run.
    if matches!(chosen, Selection::Ids(_)) {
        return Ok(None);
    }
    let run = operate::start_replay(store, &label(chosen), by.at(Timestamp::now())).await?;
    Ok(Some(run))
}

async fn end<S: Store>(
    store: &S,
    run: &ReplayRun,
    asked: usize,
    by: &Attribution,
) -> Result<(), CliError> {
    let by = by.at(Timestamp::now());
    let combine = by
        .clone()
        .with_reason(&format!("the last {asked} of it were replayed"));
    Ok(operate::end_replay(store, run, combine.unwrap_or(by)).await?)
}

/// Ticks at this rate per second. Missed ticks are not made up for: the rate is a maximum.
fn rate_limit(rate: u32) -> Interval {
    let mut pace = interval(Duration::from_secs(1) / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

async fn next(pace: &mut Option<Interval>) {
    if let Some(pace) = pace {
        pace.tick().await;
    }
}

/// Polls the outcomes, as long as new ones keep coming.
async fn watch<S: Store>(
    store: &S,
    mut asked: VecDeque<DeadLetterId>,
    outcomes: &mut Outcomes,
    stop: &mut ShutdownSignal,
) -> Result<(), CliError> {
    let mut progress = Progress::new("tried", asked.len() as u64);
    let mut looks = interval(POLL_INTERVAL);
    let mut last = Instant::now();
    while !asked.is_empty() && last.elapsed() < STALL_TIMEOUT {
        // Either may be cancelled: nothing was started.
        tokio::select! {
            biased;
            () = stop.recv() => break,
            _ = looks.tick() => {}
        }
        let before = asked.len();
        for _ in 0..before {
            let Some(id) = asked.pop_front() else {
                break;
            };
            if !poll(store, &id, outcomes).await? {
                asked.push_back(id);
            }
        }
        if asked.len() < before {
            last = Instant::now();
            let tried = outcomes.untried.saturating_sub(asked.len() as u64);
            progress.set(tried);
        }
    }
    progress.finish();
    outcomes.untried = asked.len() as u64;
    Ok(())
}

/// Returns whether one has an outcome.
async fn poll<S: Store>(
    store: &S,
    id: &DeadLetterId,
    outcomes: &mut Outcomes,
) -> Result<bool, CliError> {
    let filter = DeadLetterFilter::Letter(id.event_digest().to_owned());
    let found = store.dead_letters(filter, None, 1).await?;
    let count = match found.first() {
        None => &mut outcomes.applied,
        Some(row) if row.id != *id => &mut outcomes.dead_again,
        Some(row) => match row.status {
            DeadLetterStatus::Replaying => return Ok(false),
            DeadLetterStatus::Awaiting => &mut outcomes.awaiting,
            DeadLetterStatus::Open => &mut outcomes.dead_again,
        },
    };
    *count += 1;
    Ok(true)
}

fn print_outcomes(role: &str, outcomes: &Outcomes) -> Result<(), CliError> {
    let Outcomes {
        applied,
        settled,
        not_replayable,
        dead_again,
        awaiting,
        untried,
    } = *outcomes;
    print(|out| {
        writeln!(
            out,
            "{applied} replayed, {settled} already resolved, {dead_again} rejected again"
        )?;
        if awaiting > 0 {
            writeln!(
                out,
                "{awaiting} wait for another stream, and are tried when it brings what they need"
            )?;
        }
        if not_replayable > 0 {
            writeln!(out, "{not_replayable} cannot be replayed")?;
        }
        if untried > 0 {
            writeln!(out, "{untried} will be replayed: {role} does it {WHEN}")?;
        }
        Ok(())
    })
}

fn ended(failures: Vec<CliError>, outcomes: &Outcomes, role: &str) -> Result<(), CliError> {
    let failures: Vec<_> = failures.into_iter().map(Err).collect();
    super::skip::combine(&failures)?;
    if outcomes.dead_again > 0 {
        return Err(CliError::trouble(format!(
            "{} were rejected again; `consumers dead-letters list {role}` says why",
            outcomes.dead_again
        )));
    }
    Ok(())
}

/// Shows the outcomes that replays would have: each named one by itself, others by outcome.
async fn dry_run(place: &StoreLocation, chosen: &Selection) -> Result<(), CliError> {
    let store = stores::try_open_read_only(place)?;
    let (mut good, mut bad, mut untried) = (0_u64, 0_u64, 0_u64);
    let ids = open_ids(&store, chosen, Timestamp::MAX).await?;
    let mut told = DryRunReport::new(chosen);
    let mut progress = Progress::new("rehearsed", ids.len() as u64);
    for id in ids {
        let dead = one(&store, place.role.name, &id).await?;
        let data = dead.event.as_ref().map_or(&dead.body, |event| &event.data);
        let outcome = match check(&place.role, &store, &dead, data.clone()).await? {
            Checked::Taken(told) => {
                good += 1;
                told
            }
            Checked::Untried(text) => {
                untried += 1;
                text.to_owned()
            }
            Checked::Refused(why) => {
                bad += 1;
                sanitize(&why)
            }
        };
        told.add(&id, outcome)?;
        progress.advance();
    }
    progress.finish();
    told.finish()?;
    let unknown = match untried {
        0 => String::new(),
        untried => format!(", and {untried} with an end that only a role can find out"),
    };
    print_line(&format!(
        "{} would be replayed, {bad} of them in vain{unknown}; nothing was written, this is a dry run",
        good + bad + untried
    ))
}

/// The maximum of outcomes that are told apart.
const MAX_OUTCOMES: usize = 50;

/// The form of a dry run's report.
enum DryRunReport {
    /// One line per dead letter.
    Each,
    /// One row per outcome, under its shape: the number, an example, and its words.
    ByOutcome(BTreeMap<String, (u64, DeadLetterId, String)>, u64),
}

impl DryRunReport {
    fn new(chosen: &Selection) -> Self {
        match chosen {
            Selection::Ids(_) => Self::Each,
            Selection::Group(_) | Selection::All => Self::ByOutcome(BTreeMap::new(), 0),
        }
    }

    fn add(&mut self, id: &DeadLetterId, outcome: String) -> Result<(), CliError> {
        let (outcomes, beyond) = match self {
            Self::Each => return print_line(&format!("{id} {outcome}")),
            Self::ByOutcome(outcomes, beyond) => (outcomes, beyond),
        };
        let is_full = outcomes.len() >= MAX_OUTCOMES;
        match outcomes.entry(shape(&outcome)) {
            Entry::Occupied(mut known) => known.get_mut().0 += 1,
            Entry::Vacant(_) if is_full => *beyond += 1,
            Entry::Vacant(new) => {
                new.insert((1, id.clone(), outcome));
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<(), CliError> {
        let Self::ByOutcome(outcomes, beyond) = self else {
            return Ok(());
        };
        let mut rows: Vec<_> = outcomes.into_values().collect();
        rows.sort_by_key(|(count, _, _)| std::cmp::Reverse(*count));
        let mut table = Table::new([
            Column::number("COUNT"),
            Column::text("EXAMPLE"),
            Column::prose("OUTCOME"),
        ]);
        for (count, example, outcome) in rows {
            table.add_row([count.to_string(), example.0, outcome]);
        }
        print(|out| {
            if !table.is_empty() {
                writeln!(out, "{table}")?;
            }
            if beyond > 0 {
                writeln!(out, "{beyond} with other outcomes")?;
            }
            Ok(())
        })
    }
}
