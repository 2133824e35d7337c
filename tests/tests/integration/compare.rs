//! `producer compare`: what it measures keeps what Doorstep promises, and nothing of it stays.

use std::{fs, time::Duration};

use doorstep_tests::{Ended, Program, TempDir, TestEnv, wait_until};
use serde_json::Value;

use crate::SOON;

/// Far longer than a short comparison takes, for a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(480);

/// A broker to compare on, with something on it that is none of the comparison's business, and a folder for what is temporary.
struct Place {
    world: TestEnv,
    scratch: TempDir,
}

impl Place {
    async fn new(hint: &str) -> Self {
        let place = Self {
            world: TestEnv::new(hint, &[doorstep_tests::LEDGER]).await,
            scratch: TempDir::new(hint),
        };
        fs::create_dir(place.scratch.join("tmp")).unwrap();
        place
    }

    fn compare(&self, words: &[&str]) -> Program {
        let words: Vec<_> = ["compare"].iter().chain(words).copied().collect();
        Program::producer(&words)
            .broker(&self.world.amqp_url())
            .variable("TMPDIR", self.scratch.join("tmp"))
    }

    /// Only what was there before is there.
    fn is_clean(&self) {
        let (queues, exchanges) = (self.world.view().queues(), self.world.view().exchanges());
        assert_eq!(
            queues,
            [
                "doorstep.ledger.0",
                "doorstep.ledger.dead",
                "doorstep.ledger.net"
            ]
        );
        assert_eq!(exchanges, ["doorstep.events"]);
        let left: Vec<_> = fs::read_dir(self.scratch.join("tmp")).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_loses_nothing_that_was_answered_and_leaves_nothing_behind() {
    let place = Place::new("compare").await;
    let picture = place.scratch.join("compare.svg");
    let program = place
        .compare(&[
            "--json",
            "--seconds",
            "1",
            "--rate",
            "20",
            "--delay",
            "20ms",
            "--svg",
        ])
        .arg(&picture);
    let Ended {
        code,
        stdout,
        stderr,
    } = program.run(&place.scratch, LIMIT).await;
    assert_eq!(code, Some(0), "{stderr}");
    place.is_clean();

    let report: Value = serde_json::from_str(&stdout).unwrap();
    let cells = report["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 8);
    for cell in cells {
        let all = &cell["all"];
        let count = |name: &str| all[name].as_u64().unwrap();
        let failed: u64 = all["failed"]
            .as_object()
            .unwrap()
            .values()
            .map(|n| n.as_u64().unwrap())
            .sum();
        assert!(count("offered") > 20, "{cell}");
        assert_eq!(count("answered") + failed, count("offered"), "{cell}");
        assert_eq!(cell["drained"], true, "{cell}");
        assert_eq!((count("lost"), count("twice")), (0, 0), "{cell}");
        match (
            cell["way"].as_str().unwrap(),
            cell["scenario"].as_str().unwrap(),
        ) {
            ("async", _) => {
                assert_eq!(failed, 0, "{cell}");
                assert_eq!(count("applied"), count("offered"), "{cell}");
            }
            ("sync", "down") => {
                // What was asked just before the restart may be done although the user was told that nobody answers.
                assert_eq!(count("answered"), 0, "{cell}");
                assert_eq!(count("not_done") + count("unsure"), failed, "{cell}");
            }
            // How many are in time depends on the machine; that some are does not.
            ("sync", _) => assert!(count("answered") > 0, "{cell}"),
            other => panic!("{other:?} is no cell"),
        }
    }
    let verdict = report["verdict"]["findings"].as_array().unwrap();
    let lost = verdict.iter().find(|finding| {
        finding["claim"]
            .as_str()
            .unwrap()
            .starts_with("nothing is lost")
    });
    assert_eq!(lost.unwrap()["shown"], "yes", "{verdict:?}");
    let picture = fs::read_to_string(picture).unwrap();
    assert!(picture.contains("overloaded") && picture.contains("</svg>"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_comparison_that_is_broken_off_leaves_nothing_behind() {
    let place = Place::new("compare-off").await;
    let running = place.compare(&["--seconds", "60"]).start(&place.scratch);
    wait_until("its consumers work", SOON, async || {
        let consumers = place.world.view().consumers();
        consumers
            .iter()
            .any(|(queue, _)| queue.ends_with(".positions.0"))
    })
    .await;
    running.terminate();
    let ended = running.ended(SOON).await;
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    place.is_clean();
    wait_until("its consumers are gone", SOON, async || {
        place.world.view().consumers().is_empty()
    })
    .await;
}
