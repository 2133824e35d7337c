//! Many orders while gateway, payments and restaurant are killed.

use doorstep_tests::{
    TestEnv,
    chaos::{Size, run},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_agree_after_a_rush() {
    let env = TestEnv::new("chaos", &[]).await;
    let size = Size {
        orders: 300,
        at_once: 16,
        seed: 7,
    };
    let sums = run(&env.amqp_url(), size, |_| {}).await;
    println!("{sums}");
    assert_eq!(sums.wanted, 300);
    assert!(sums.confirmed > 0 && sums.rejected > 0, "{sums}");
    assert!(sums.kills.least() > 0, "{:?}", sums.kills);
}
