//! The bench: every part produces figures, and its file has those that other tools read.

use std::{fs, process::Command, time::Duration};

use doorstep_tests::{TempDir, TestEnv};
use serde_json::Value;
use tokio::{task::spawn_blocking, time::timeout};

/// Far longer than it takes.
const LIMIT: Duration = Duration::from_secs(480);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quick_bench_measures_every_part() {
    let env = TestEnv::new("bench", &[]).await;
    let scratch = TempDir::new("bench");
    let json = scratch.join("bench.json");
    let mut bench = Command::new(env!("CARGO_BIN_EXE_doorstep-bench"));
    bench
        .env("DOORSTEP_AMQP_URL", env.amqp_url())
        .args(["--quick", "--json"])
        .arg(&json)
        .arg("--folder")
        .arg(scratch.join("stores"));
    let ran = timeout(LIMIT, spawn_blocking(move || bench.output().unwrap()));
    let ran = ran.await.unwrap().unwrap();
    let output = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success(),
        "{output}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    assert!(output.contains("its figures are meaningless"), "{output}");

    let figures: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    for name in [
        "publish_ratio",
        "consume_ratio",
        "rpc_p50_ratio",
        "consumer_peak_mb",
    ] {
        let figure = figures[name].as_f64();
        assert!(figure.is_some_and(|f| f > 0.0), "{name} in {figures:#}");
    }
    assert_eq!(figures["quick"], true);
    let medians = figures["medians"].as_object().unwrap();
    let streams = |of: &&String| of.contains("streams");
    assert_eq!(medians.keys().filter(streams).count(), 2, "{medians:?}");
    for (shape, median) in medians {
        let rate = median["events_per_second"].as_f64();
        assert!(rate.is_some_and(|rate| rate > 0.0), "{shape}: {median}");
    }
}
