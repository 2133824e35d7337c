//! The operator's real commands for dead letters on a real broker: grouped, edited, replayed through a kill, imported,
//! recorded. The role records the order of the applied events, which the real one does not need to.

use std::{collections::BTreeMap, time::Duration};

use doorstep_contracts::StockAdjusted;
use doorstep_event::{Contract, ContractError, Event, Timestamp};
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported};
use doorstep_store::{
    AuditAction, AuditFilter, AuditRow, EntityKey, SqliteStore, Store, sqlite::Options,
};
use doorstep_tests::{retail::Stock, wait_for, wait_until};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::operator::{Office, moved};

/// Enough to apply ten thousand events and to replay two hundred at fifty a second, on a busy machine.
const LONG: Duration = Duration::from_secs(180);
/// Streams with an invalid event each.
const STREAMS: u64 = 500;
/// Valid events of each stream: 10,000 in all.
const GOOD: u64 = 20;
/// The sequence of the invalid event of each stream.
const BAD: u64 = 8;
/// The number of replays in a second.
const RATE: usize = 50;

/// A role named `inventory`, so that the operator's commands read its states as those of the real one.
struct Inventory;

/// The state of the real one, as far as sales are concerned, and the applied sequences in their order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    on_hand: i64,
    movements: u64,
    sold: i64,
    returned: i64,
    written_off: i64,
    sequences: Vec<u64>,
}

impl Role for Inventory {
    type Payload = StockAdjusted;
    type Command = Unsupported;
    type Query = Unsupported;
    type State = State;

    fn name(&self) -> &'static str {
        "inventory"
    }

    fn read(&self, event: &Event) -> Result<Reading<StockAdjusted>, ContractError> {
        match event.event_type.as_str() {
            StockAdjusted::TYPE => StockAdjusted::read(event).map(Reading::Handled),
            unknown => Err(ContractError::UnknownType(unknown.to_owned())),
        }
    }

    fn keys(&self, event: &Event, _fact: &StockAdjusted) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        states: &mut States<State>,
        event: &Event,
        fact: &StockAdjusted,
        _now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let state = states.first_or_default();
        state.on_hand += fact.delta;
        state.sold -= fact.delta;
        state.movements += 1;
        state.sequences.extend(event.sequence.map(|n| n.get()));
        Ok(Effects::none())
    }
}

/// Returns the applied sequences of each stream, in their order.
async fn orders(store: &SqliteStore) -> BTreeMap<String, Vec<u64>> {
    let rows = store.entities(None, 1_000).await.unwrap();
    let state = |json: Option<bytes::Bytes>| -> State {
        serde_json::from_slice(&json.unwrap_or_default()).unwrap()
    };
    rows.into_iter()
        .map(|row| (row.key.to_string(), state(row.state).sequences))
        .collect()
}

/// Returns the maximum number of these moments within one second.
fn most_in_a_second(mut moments: Vec<Timestamp>) -> usize {
    moments.sort_unstable();
    let mut from = 0;
    let mut most = 0;
    for (upto, moment) in moments.iter().enumerate() {
        while moment.as_microsecond() - moments[from].as_microsecond() >= 1_000_000 {
            from += 1;
        }
        most = most.max(upto + 1 - from);
    }
    most
}

/// The defect of a stream's invalid event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The quantity is text: to be edited.
    Text,
    /// The reason does not exist.
    Theft,
    /// A type without a contract.
    Unknown,
}

fn kind(stream: u64) -> Kind {
    match stream % 5 {
        0 | 1 => Kind::Text,
        2 | 3 => Kind::Theft,
        _ => Kind::Unknown,
    }
}

fn code(stream: u64) -> String {
    format!("W{stream:04}")
}

/// Returns an event that moves the stock by 1, so that the state shows the progress of the stream.
fn event(stream: u64, sequence: u64) -> Event {
    let mut event = moved(&code(stream), sequence, -1);
    if sequence != BAD {
        return event;
    }
    match kind(stream) {
        Kind::Text => {
            event.data = r#"{"delta":"-1","reason":"sale","reference":"order/1"}"#.into();
        }
        Kind::Theft => {
            event.data = r#"{"delta":-1,"reason":"theft","reference":"order/1"}"#.into();
        }
        Kind::Unknown => {
            event.event_type = doorstep_event::EventType::new("stock.adjusted.v2").unwrap();
        }
    }
    event
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn groups(office: &Office) -> Vec<Value> {
    lines(
        &office
            .output(&["dead-letters", "list", "inventory", "--by-kind", "--json"])
            .await,
    )
}

async fn records(office: &Office) -> Vec<Value> {
    lines(
        &office
            .output(&["dead-letters", "audit", "inventory", "--json"])
            .await,
    )
}

fn with_action<'v>(records: &'v [Value], action: &str) -> Vec<&'v Value> {
    records.iter().filter(|r| r["action"] == action).collect()
}

/// Returns the kind of dead letters whose example has this text in its detail or type.
fn group_with<'v>(groups: &'v [Value], what: &str) -> &'v Value {
    groups
        .iter()
        .find(|group| group["detail"].as_str().unwrap().contains(what))
        .unwrap_or_else(|| panic!("no kind with {what} in {groups:#?}"))
}

async fn states(office: &Office) -> BTreeMap<String, Stock> {
    Stock::read_all(&office.output(&["export", "inventory"]).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_replayed_once_through_a_kill() {
    let office = Office::new("workbench").await;
    let stores = office.scratch.join("stores");
    std::fs::create_dir_all(&stores).unwrap();
    let store = SqliteStore::open(&stores, "inventory", &Options::default()).unwrap();
    let role = office.env.start(Inventory, store.clone());
    // Sequence by sequence, so that all streams are active at once.
    for sequence in 1..=GOOD + 1 {
        let events: Vec<_> = (0..STREAMS).map(|stream| event(stream, sequence)).collect();
        office.env.publish(&events).await;
    }
    all_are_stored(&office).await;
    let (text, theft) = grouped_by_kind(&office).await;
    edited_by_patch(&office, &text).await;
    replayed_through_a_kill(&office, &store, &text).await;
    each_is_applied_once_in_order(&office, &store).await;
    replayed_at_the_rate(&store).await;
    edits_and_replays_are_audited(&office).await;
    imported_line_by_line(&office, &theft).await;
    replayed_again_and_skipped(&office).await;
    only_skipped_events_are_missing(&store).await;
    role.stop().await.unwrap();
}

async fn all_are_stored(office: &Office) {
    let deferred = STREAMS * (GOOD + 1 - BAD);
    wait_for(
        "all events are applied, deferred or dead letters",
        LONG,
        async || {
            let status = office.output(&["status", "inventory", "--json"]).await;
            let status: Value = serde_json::from_str(&status).unwrap();
            let store = &status["roles"][0]["store"];
            // The demo's summary reads these members.
            for name in ["applied", "duplicates", "deferred"] {
                assert!(store["tally"][name].is_u64(), "{name} is not in {store}");
            }
            let usage = &store["usage"];
            let rows = (&usage["deferred"]["rows"], &usage["dead_letters"]["rows"]);
            if rows == (&deferred.into(), &STREAMS.into()) {
                Ok(())
            } else {
                Err(format!("{rows:?}"))
            }
        },
    )
    .await;
}

/// Checks the kinds. Returns the fingerprints of those with text and with a theft.
async fn grouped_by_kind(office: &Office) -> (String, String) {
    let all = groups(office).await;
    assert_eq!(all.len(), 3, "{all:#?}");
    let text = group_with(&all, "invalid type: string");
    let theft = group_with(&all, "theft");
    let unknown = group_with(&all, "stock.adjusted.v2");
    assert_eq!((&text["count"], &text["open"]), (&200.into(), &200.into()));
    assert_eq!(theft["count"], 200);
    assert_eq!(unknown["count"], 100);
    assert_eq!(text["type"], "stock.adjusted.v1");
    let example = text["example"].as_str().unwrap().to_owned();
    let shown = office
        .output(&["dead-letters", "show", "inventory", &example, "--json"])
        .await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["holds_back"]["count"], GOOD + 1 - BAD);
    assert_eq!(
        shown["holds_back"]["sequences"],
        serde_json::json!([[BAD + 1, GOOD + 1]])
    );
    assert_eq!(shown["data"]["delta"], "-1");
    let fingerprint = |group: &Value| group["fingerprint"].as_str().unwrap().to_owned();
    (fingerprint(text), fingerprint(theft))
}

/// An ineffective patch stores nothing; an effective one is tried first and then stored.
async fn edited_by_patch(office: &Office, fingerprint: &str) {
    let bad = office.scratch.join("bad.json");
    std::fs::write(&bad, r#"[{"op":"replace","path":"/delta","value":"-2"}]"#).unwrap();
    let patch = office.scratch.join("patch.json");
    std::fs::write(&patch, r#"[{"op":"replace","path":"/delta","value":-1}]"#).unwrap();
    let edit = |patch: &std::path::Path, more: &'static [&'static str]| {
        let words = [
            "dead-letters",
            "edit",
            "inventory",
            "--fingerprint",
            fingerprint,
            "--patch",
        ];
        let mut program = office.consumers(&words).arg(patch);
        for word in more {
            program = program.arg(*word);
        }
        program
    };
    let rejected = edit(&bad, &[]).run(&office.scratch, LONG).await;
    assert_eq!(rejected.code, Some(65), "{}", rejected.stderr);
    assert!(rejected.stdout.contains("0 edited"), "{}", rejected.stdout);
    let dry = edit(&patch, &["--dry-run"])
        .run(&office.scratch, LONG)
        .await;
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    assert!(records(office).await.is_empty());
    let edited = edit(
        &patch,
        &["--operator", "ada", "--reason", "till 7 wrote text"],
    )
    .run(&office.scratch, LONG)
    .await;
    assert_eq!(edited.code, Some(0), "{}", edited.stderr);
    assert!(edited.stdout.contains("200 edited"), "{}", edited.stdout);
}

/// Replays at 50 a second, is killed in the middle, and restarted.
async fn replayed_through_a_kill(office: &Office, store: &SqliteStore, fingerprint: &str) {
    let words = [
        "dead-letters",
        "replay",
        "inventory",
        "--fingerprint",
        fingerprint,
    ];
    let rate = RATE.to_string();
    let replay = office.consumers(&words).arg("--rate").arg(rate);
    let replay = replay.arg("--operator").arg("ada");
    let first = replay.start(&office.scratch);
    let replayed = async || {
        let page = store.audit(AuditFilter::All, None, 1_000).await.unwrap();
        let is_replay = |row: &&AuditRow| row.entry.action == AuditAction::Replay;
        page.rows.iter().filter(is_replay).count()
    };
    wait_until("some are replayed", LONG, async || replayed().await >= 50).await;
    assert!(first.kill(), "it has ended before it was killed");
    let before = replayed().await;
    assert!(before < 200, "nothing was left to go on with");
    let second = replay.run(&office.scratch, LONG).await;
    assert_eq!(second.code, Some(0), "{}", second.stderr);
    assert!(
        second.stderr.contains(&format!("{} left", 200 - before)),
        "{before} before: {}",
        second.stderr
    );
    assert!(
        second.stdout.contains("0 rejected again"),
        "{}",
        second.stdout
    );
}

/// Each was applied once, followed by all events that it had blocked, in order.
async fn each_is_applied_once_in_order(office: &Office, store: &SqliteStore) {
    wait_for("the blocked events were applied", LONG, async || {
        let states = states(office).await;
        let moved: i64 = states.values().map(|stock| stock.movements).sum();
        let expected = 200 * (GOOD + 1) + 300 * (BAD - 1);
        if moved == i64::try_from(expected).unwrap() {
            Ok(())
        } else {
            Err(format!("{moved} of {expected}"))
        }
    })
    .await;
    let in_which_order = orders(store).await;
    for (key, stock) in states(office).await {
        let stream: u64 = key.strip_prefix("stock/W").unwrap().parse().unwrap();
        let applied = match kind(stream) {
            Kind::Text => GOOD + 1,
            Kind::Theft | Kind::Unknown => BAD - 1,
        };
        let applied = i64::try_from(applied).unwrap();
        assert_eq!(
            (stock.on_hand, stock.movements),
            (-applied, applied),
            "{key}"
        );
        let in_order: Vec<u64> = (1..=u64::try_from(applied).unwrap()).collect();
        assert_eq!(in_which_order[&key], in_order, "{key}");
    }
}

/// No faster than requested, by the recorded times. Each of the two runs may begin with one immediately, and a stalled
/// moment may bring two together.
async fn replayed_at_the_rate(store: &SqliteStore) {
    let page = store.audit(AuditFilter::All, None, 1_000).await.unwrap();
    let replays = page
        .rows
        .iter()
        .filter(|row| row.entry.action == AuditAction::Replay);
    let most = most_in_a_second(replays.map(|row| row.at).collect());
    assert!(most <= RATE + RATE / 5, "{most} in a second");
}

/// The audit records have all of it: each edit and each replay once, with its operator, and the run.
async fn edits_and_replays_are_audited(office: &Office) {
    let all = records(office).await;
    let (edits, replays) = (with_action(&all, "edit"), with_action(&all, "replay"));
    assert_eq!((edits.len(), replays.len()), (200, 200));
    assert!(edits.iter().all(|edit| edit["operator"] == "ada"
        && edit["reason"] == "till 7 wrote text"
        && edit["before"]["data"]["delta"] == "-1"
        && edit["after"]["data"]["delta"] == -1));
    let replayed: std::collections::BTreeSet<_> =
        replays.iter().map(|r| r["dead"].as_str()).collect();
    assert_eq!(replayed.len(), 200);
    assert_eq!(with_action(&all, "run_begun").len(), 1);
    assert_eq!(with_action(&all, "run_ended").len(), 1);
}

/// The second kind is exported, fixed line by line, and imported; one line has the id of another event.
async fn imported_line_by_line(office: &Office, fingerprint: &str) {
    let words = [
        "dead-letters",
        "export",
        "inventory",
        "--fingerprint",
        fingerprint,
    ];
    let export = office.output(&words).await;
    let mut mended = lines(&export);
    assert_eq!(mended.len(), 200);
    for line in &mut mended {
        line["data"]["reason"] = "write_off".into();
    }
    mended[7]["event"]["sequence"] = 9.into();
    mended[9]["id"] = "0000000000000000-1".into();
    let file = office.scratch.join("mended.jsonl");
    let text: String = mended.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, text).unwrap();
    let import = office
        .consumers(&["dead-letters", "import", "inventory"])
        .arg(&file);
    let import = import.run(&office.scratch, LONG).await;
    assert_eq!(import.code, Some(65), "{}", import.stderr);
    assert!(import.stdout.contains("198 edited"), "{}", import.stdout);
    assert!(
        import.stderr.contains("line 8 is refused: the sequence"),
        "{}",
        import.stderr
    );
    assert!(
        import.stderr.contains("line 10 is refused"),
        "{}",
        import.stderr
    );
}

/// All others are replayed: those still invalid become dead letters again, once. They are skipped by kind, with a
/// reason.
async fn replayed_again_and_skipped(office: &Office) {
    let all_of_it = [
        "dead-letters",
        "replay",
        "inventory",
        "--all",
        "--rate",
        "1000",
    ];
    let rest = office.ran(&all_of_it).await;
    assert_eq!(rest.code, Some(2), "{}", rest.stderr);
    assert!(
        rest.stdout
            .contains("198 replayed, 0 already resolved, 102 rejected again"),
        "{}",
        rest.stdout
    );
    let again = groups(office).await;
    let counts: u64 = again
        .iter()
        .map(|group| group["count"].as_u64().unwrap())
        .sum();
    assert_eq!(counts, 102, "{again:#?}");

    for group in &again {
        let fingerprint = group["fingerprint"].as_str().unwrap();
        let words = [
            "dead-letters",
            "skip",
            "inventory",
            "--fingerprint",
            fingerprint,
        ];
        office
            .output(&[&words[..], &["--reason", "nobody knows"]].concat())
            .await;
    }
    assert_eq!(groups(office).await, [Value::Null; 0]);
    let all = records(office).await;
    assert_eq!(
        (
            with_action(&all, "import").len(),
            with_action(&all, "skip").len()
        ),
        (198, 102)
    );
    assert!(
        with_action(&all, "skip")
            .iter()
            .all(|skip| skip["reason"] == "nobody knows")
    );
}

/// Only the skipped events are missing, and no event has overtaken another.
async fn only_skipped_events_are_missing(store: &SqliteStore) {
    let whole: Vec<u64> = (1..=GOOD + 1).collect();
    let without: Vec<u64> = (1..=GOOD + 1).filter(|n| *n != BAD).collect();
    wait_for("all blocked events were applied", LONG, async || {
        let orders = orders(store).await;
        let count = |wanted: &Vec<u64>| orders.values().filter(|order| *order == wanted).count();
        match (count(&whole), count(&without)) {
            (398, 102) => Ok(()),
            other => Err(other),
        }
    })
    .await;
}
