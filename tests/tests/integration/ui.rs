//! Self-explanatory names in the management UI.

use doorstep_store::MemoryStore;
use doorstep_tests::{LEDGER, TestEnv, ledger::Ledger, wait_for};

use crate::SOON;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_consumers_and_queues_have_telling_names() {
    let env = TestEnv::new("ui", &[LEDGER]).await;
    let role = env.start(Ledger, MemoryStore::new("ledger"));
    role.consuming(SOON).await;
    let view = env.view();
    wait_for("the connections are shown", SOON, async || {
        let names = view.connection_names();
        let wanted = [
            "a test publishes",
            "doorstep ledger: consume",
            "doorstep ledger: publish",
            "doorstep ledger: quarantine",
        ];
        if names == wanted { Ok(()) } else { Err(names) }
    })
    .await;
    let process = format!("process {}", std::process::id());
    let wanted = ["doorstep.ledger.0", "doorstep.ledger.quarantine"]
        .map(|queue| (queue.to_owned(), format!("{queue} on {process}")));
    wait_for("the consumers are shown", SOON, async || {
        let consumers = view.consumers();
        if consumers == wanted {
            Ok(())
        } else {
            Err(consumers)
        }
    })
    .await;
    let queues = [
        "doorstep.ledger.0",
        "doorstep.ledger.dlq",
        "doorstep.ledger.quarantine",
    ];
    assert_eq!(view.queues(), queues);
    role.stop().await.unwrap();
    wait_for("its connections are gone", SOON, async || {
        let names = view.connection_names();
        if names == ["a test publishes"] {
            Ok(())
        } else {
            Err(names)
        }
    })
    .await;
}
