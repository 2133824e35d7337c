//! The dead-letter workbench as it is typed, without a broker and without a running role: editor, rejections, interruption, records.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use doorstep_event::{Event, EventId, EventType, Sequence, Source, Subject, Timestamp};
use doorstep_store::{
    AuditFilter, Commit, DeadLetter, DeadLetterId, DeadLetterStatus, ExpectedVersion,
    NewDeadLetter, SqliteStore, Store, StreamChange, StreamState, WriteSet, sqlite::Options,
};
use serde_json::Value;

const BAD: &str = r#"{"delta":"-1","reason":"sale","reference":"order/1"}"#;
/// Mends [`BAD`] the way somebody would in an editor.
const MENDS: &str = r#"sed -i 's/"-1"/-1/'"#;

/// A folder with a store in which streams are blocked by dead letters `a-1`, `b-1` and so on.
struct Fixture(PathBuf);

impl Fixture {
    async fn new(name: &str, letters: &[&str]) -> Self {
        Self::with_reason(name, letters, "breaks its contract").await
    }

    /// The same, dead for this reason.
    async fn with_reason(name: &str, letters: &[&str], reason: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("workbench-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let store = SqliteStore::open(&path, "inventory", &Options::default()).unwrap();
        let mut changes = WriteSet::at(Timestamp::now());
        for letter in letters {
            let event = event(letter);
            let id = DeadLetterId(format!("{letter}-1"));
            changes.streams.push(StreamChange {
                key: event.stream(),
                expect: ExpectedVersion {
                    row: None,
                    version: 0,
                },
                after: Some(StreamState {
                    cursor: 0,
                    last_id: None,
                    blocked: Some(id.clone()),
                    epoch: None,
                }),
            });
            changes.dead_letters.push(NewDeadLetter {
                row: DeadLetter {
                    id,
                    body: event.data.clone(),
                    event: Some(event),
                    blocks: true,
                    reason: reason.into(),
                    detail: "data does not fit".into(),
                    fingerprint: "77".into(),
                    attempts: 1,
                    since: changes.now,
                    status: DeadLetterStatus::Open,
                    defect: None,
                    task: None,
                },
            });
        }
        assert!(matches!(
            store.commit(changes).await.unwrap(),
            Commit::Written(_)
        ));
        store.close().await;
        Self(path)
    }

    fn command(&self, words: &[&str], editor: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_consumers"));
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TMPDIR", &self.0)
            .env("DOORSTEP_DATA_DIR", &self.0)
            .env("DOORSTEP_OPERATOR", "ada")
            .env("EDITOR", editor)
            .stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, words: &[&str], editor: &str, code: i32) -> (String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(words, editor).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (out, error) = (text(stdout), text(stderr));
        assert_eq!(status.code(), Some(code), "{out}{error}");
        (out, error)
    }

    fn drafts(&self) -> usize {
        let files = fs::read_dir(&self.0).unwrap();
        let is_draft = |name: &str| name.starts_with("doorstep-");
        files
            .filter(|file| is_draft(&file.as_ref().unwrap().file_name().to_string_lossy()))
            .count()
    }

    fn shown(&self, id: &str) -> Value {
        let (out, _) = self.run(&["dead-letters", "show", "inventory", id, "--json"], "", 0);
        serde_json::from_str(&out).unwrap()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn event(letter: &str) -> Event {
    Event {
        id: EventId::new(format!("stock/{letter}#1")).unwrap(),
        source: Source::new("shop/1").unwrap(),
        event_type: EventType::new("stock.adjusted.v1").unwrap(),
        subject: Subject::new(format!("stock/{letter}")).unwrap(),
        time: None,
        sequence: Sequence::new(1),
        epoch: None,
        traceparent: None,
        data: BAD.into(),
    }
}

#[tokio::test]
async fn edited_data_is_shown_checked_and_stored() {
    let fixture = Fixture::new("editor", &["a"]).await;
    let edit = [
        "dead-letters",
        "edit",
        "inventory",
        "a-1",
        "--reason",
        "a slip",
    ];
    let (same, _) = fixture.run(&edit, "true", 0);
    assert!(same.contains("left as it is"), "{same}");
    let dry = [&edit[..], &["--dry-run"]].concat();
    let (dry, _) = fixture.run(&dry, MENDS, 0);
    assert!(dry.contains("nothing was stored"), "{dry}");
    assert_eq!(fixture.shown("a-1")["data"]["delta"], "-1");
    let (edited, _) = fixture.run(&edit, MENDS, 0);
    for line in [
        "-   \"delta\": \"-1\",",
        "+   \"delta\": -1,",
        "would be applied",
    ] {
        assert!(edited.contains(line), "{edited}");
    }
    assert_eq!(fixture.drafts(), 0);
    let shown = fixture.shown("a-1");
    assert_eq!(shown["data"]["delta"], -1);
    assert_eq!(shown["original"]["data"]["delta"], "-1");
    assert_eq!(shown["edits"][0]["operator"], "ada");
    assert_eq!(shown["edits"][0]["reason"], "a slip");
    assert_eq!(shown["event"]["sequence"], 1);
}

#[tokio::test]
async fn poison_candidates_are_not_dry_run() {
    let fixture = Fixture::with_reason("poison", &["a"], "poison").await;
    let untried = "its handler was not called here";
    let edit = ["dead-letters", "edit", "inventory", "a-1"];
    let dry = [&edit[..], &["--dry-run"]].concat();
    let (dry, _) = fixture.run(&dry, MENDS, 0);
    assert!(dry.contains(untried) && !dry.contains("applied"), "{dry}");
    // Its contract is checked all the same.
    let (_, error) = fixture.run(&edit, r#"sed -i 's/"-1"/"-2"/'"#, 65);
    assert!(error.contains("break its contract"), "{error}");
    let (edited, _) = fixture.run(&edit, MENDS, 0);
    assert!(edited.contains("is edited and"), "{edited}");
    assert!(edited.contains(untried), "{edited}");
    assert_eq!(fixture.shown("a-1")["data"]["delta"], -1);

    let fixture = Fixture::with_reason("poisons", &["a", "b"], "poison").await;
    let patch = fixture.0.join("patch.json");
    fs::write(&patch, r#"[{"op":"replace","path":"/delta","value":-1}]"#).unwrap();
    let patch = patch.to_str().unwrap();
    let group = [
        "dead-letters",
        "edit",
        "inventory",
        "--fingerprint",
        "77",
        "--patch",
        patch,
    ];
    let (all, _) = fixture.run(&group, "", 0);
    assert!(all.contains("2 edited, 0 left as they are"), "{all}");
    assert!(
        all.contains("2 of the first were not given to the handler"),
        "{all}"
    );

    let replay = ["dead-letters", "replay", "inventory", "--all", "--dry-run"];
    let (dry, _) = fixture.run(&replay, "", 0);
    let outcome: Vec<&str> = dry.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(outcome[..2], ["2", "a-1"], "{dry}");
    assert!(dry.contains(untried), "{dry}");
    let sum =
        "2 would be replayed, 0 of them in vain, and 2 with an end that only a role can find out";
    assert!(dry.contains(sum), "{dry}");
}

#[tokio::test]
async fn rejected_edit_is_not_stored_and_draft_kept() {
    let fixture = Fixture::new("refused", &["a"]).await;
    let edit = ["dead-letters", "edit", "inventory", "a-1"];
    for (editor, says) in [
        (r#"sed -i 's/"-1"/"-2"/'"#, "break its contract"),
        (r#"sed -i 's/"-1"/1/'"#, "a sale cannot add"),
        (r"sed -i 's/{/[/'", "not JSON"),
    ] {
        let before = fixture.drafts();
        let (_, error) = fixture.run(&edit, editor, 65);
        assert!(
            error.contains(says) && error.contains("nothing was stored"),
            "{error}"
        );
        assert!(error.contains("what was written is in"), "{error}");
        assert_eq!(fixture.drafts(), before + 1);
    }
    let (_, error) = fixture.run(&edit, "false", 1);
    assert!(error.contains("nothing was stored"), "{error}");
    let (_, error) = fixture.run(&edit, "", 64);
    assert!(error.contains("set VISUAL or EDITOR"), "{error}");
    assert_eq!(fixture.shown("a-1")["data"]["delta"], "-1");
    let (none, _) = fixture.run(&["dead-letters", "audit", "inventory"], "", 0);
    assert_eq!(none, "no operator has changed anything\n");
}

#[tokio::test]
async fn replays_of_stopped_role_are_requested_once() {
    let fixture = Fixture::new("replay", &["a", "b", "c"]).await;
    let all = [
        "dead-letters",
        "replay",
        "inventory",
        "--fingerprint",
        "77",
        "--no-wait",
    ];
    let dry = [&all[..], &["--dry-run"]].concat();
    let (dry, _) = fixture.run(&dry, "", 0);
    assert!(
        dry.contains("3 would be replayed, 3 of them in vain"),
        "{dry}"
    );
    let (asked, _) = fixture.run(&all, "", 0);
    assert!(asked.contains("3 will be replayed"), "{asked}");
    let (none, _) = fixture.run(&all, "", 0);
    assert!(none.starts_with("0 replayed, 0 already resolved"), "{none}");
    let (_, late) = fixture.run(
        &["dead-letters", "replay", "inventory", "b-1", "--no-wait"],
        "",
        3,
    );
    assert!(late.contains("already resolved"), "{late}");
    let (records, _) = fixture.run(&["dead-letters", "audit", "inventory", "--json"], "", 0);
    let replays = records.matches("\"action\":\"replay\"").count();
    assert_eq!(replays, 3, "{records}");
}

#[tokio::test]
async fn an_interrupted_replay_goes_on_with_the_others() {
    let letters: Vec<String> = (0..40).map(|n| format!("l{n}")).collect();
    let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
    let fixture = Fixture::new("interrupted", &letters).await;
    let slowly = [
        "dead-letters",
        "replay",
        "inventory",
        "--all",
        "--no-wait",
        "--rate",
        "5",
    ];
    let mut command = fixture.command(&slowly, "");
    let mut running = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let store = SqliteStore::open_read_only(&fixture.0, "inventory", &Options::default()).unwrap();
    // The first of its records is that of its beginning.
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    let begun = async {
        while store
            .audit(AuditFilter::All, None, 9)
            .await
            .unwrap()
            .rows
            .len()
            < 3
        {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), begun)
        .await
        .expect("nothing was replayed");
    assert!(running.try_wait().unwrap().is_none(), "it has ended early");
    let pid = running.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(sent.success());
    let ended = running.wait_with_output().unwrap();
    let error = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{error}");
    assert!(error.contains("run it again"), "{error}");
    let all = ["dead-letters", "replay", "inventory", "--all", "--no-wait"];
    let (_, resumed) = fixture.run(&all, "", 0);
    assert!(resumed.contains("resuming the run"), "{resumed}");
    let (records, _) = fixture.run(&["dead-letters", "audit", "inventory", "--json"], "", 0);
    assert_eq!(records.matches("\"action\":\"replay\"").count(), 40);
}

#[tokio::test]
async fn thousands_are_summarised_and_dry_run_writes_nothing() {
    let letters: Vec<String> = (0..300).map(|n| format!("l{n}")).collect();
    let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
    let fixture = Fixture::new("thousands", &letters).await;
    let patch = fixture.0.join("patch.json");
    fs::write(&patch, r#"[{"op":"replace","path":"/delta","value":5}]"#).unwrap();
    let patch = patch.to_str().unwrap();
    let kind = ["inventory", "--fingerprint", "77"];
    let edit = [&["dead-letters", "edit"], &kind[..], &["--patch", patch]].concat();
    let (_, rejected) = fixture.run(&edit, "", 65);
    // Some of them, the number of the others, and the end.
    assert_eq!(rejected.lines().count(), 3 + 1 + 1, "{rejected}");
    assert!(rejected.contains("297 more of this kind"), "{rejected}");

    let dry = [&["dead-letters", "replay"], &kind[..], &["--dry-run"]].concat();
    let (dry, _) = fixture.run(&dry, "", 0);
    assert_eq!(dry.lines().count(), 3, "{dry}");
    let dry = [&["dead-letters", "skip"], &kind[..], &["--dry-run"]].concat();
    let (dry, _) = fixture.run(&dry, "", 0);
    assert!(dry.starts_with("300 would be skipped; nothing"), "{dry}");
    let dry = ["dead-letters", "skip", "inventory", "l3-1", "--dry-run"];
    let (dry, _) = fixture.run(&dry, "", 0);
    let goes_on = "stock/l3 from shop/1 would go on, 0 deferred behind it";
    assert!(dry.contains(goes_on), "{dry}");
    let (none, _) = fixture.run(&["dead-letters", "audit", "inventory"], "", 0);
    assert_eq!(none, "no operator has changed anything\n");

    let skip = [
        &["dead-letters", "skip"],
        &kind[..],
        &["--reason", "made twice"],
    ]
    .concat();
    let (skipped, _) = fixture.run(&skip, "", 0);
    assert_eq!(skipped.lines().count(), 1, "{skipped}");
    assert!(
        skipped.starts_with("300 are skipped, 0 were already resolved"),
        "{skipped}"
    );
    let (records, _) = fixture.run(&["dead-letters", "audit", "inventory", "--json"], "", 0);
    assert_eq!(records.matches("\"action\":\"skip\"").count(), 300);
}

#[tokio::test]
async fn dry_run_rejects_gap_that_is_none() {
    let fixture = Fixture::new("gap", &["a"]).await;
    let words = "streams skip-gap inventory stock/b 1..2 --source shop/1 --dry-run";
    let words: Vec<&str> = words.split(' ').collect();
    let (_, error) = fixture.run(&words, "", 3);
    assert!(error.contains("does not miss 1..2"), "{error}");
}

#[tokio::test]
async fn rejected_replay_names_its_present_id() {
    // Ids of one event differ in their last number alone.
    let fixture = Fixture::new("anew", &["a"]).await;
    for (words, code) in [
        (&["dead-letters", "show", "inventory", "a-7"][..], 66),
        (&["dead-letters", "edit", "inventory", "a-7"], 66),
        (
            &["dead-letters", "skip", "inventory", "a-7", "--dry-run"],
            66,
        ),
        (
            &["dead-letters", "skip", "inventory", "a-7", "--reason", "x"],
            3,
        ),
        (
            &["dead-letters", "replay", "inventory", "a-7", "--no-wait"],
            3,
        ),
    ] {
        let (_, error) = fixture.run(words, "true", code);
        assert!(error.contains("is a-1 now"), "{error}");
    }
    let words = ["dead-letters", "skip", "inventory", "b-7", "--reason", "x"];
    let (_, error) = fixture.run(&words, "", 3);
    assert!(!error.contains("now"), "{error}");
}
