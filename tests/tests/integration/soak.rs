//! A small soak: messages of other publishers among valid events while the consumers are killed.

use std::time::Duration;

use doorstep_broker::shared;
use doorstep_tests::soak::{Size, soak};
use tokio::task::block_in_place;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_has_its_result_after_soak() {
    let vhost = block_in_place(|| shared().unwrap().new_vhost("soak")).unwrap();
    let size = Size {
        events: 300,
        rounds: 1,
        kills: 2,
        seed: 7,
        // A busy machine may stall.
        max_stall: Duration::from_hours(1),
    };
    let report = soak(&vhost, size, |_| {}).await;
    println!("{report}");
    assert_eq!(report.differences, [""; 0]);
    assert_eq!((report.events, report.kills), (300, 2));
}
