//! A role that is asked by way of the broker: each command is obeyed once, whatever happens to the processes that answer.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use doorstep_event::{Request, Timestamp};
use doorstep_messaging::{CallError, RpcClient, RpcClientSettings};
use doorstep_store::Store;
use doorstep_tests::{
    Fault, FaultyStore, LEDGER_WITH_RPC, TestEnv,
    ledger::{Ask, Bid, Ledger, Order, Standing, accounts, entries, order, request},
    wait_until,
};
use tokio::task::JoinSet;

use crate::{SOON, roles::summary, shelf::on_every_store};

pub(crate) async fn requester(world: &TestEnv) -> Arc<RpcClient> {
    let (settings, topology) = (world.settings(), world.topology().clone());
    let asks = RpcClient::start(
        settings,
        "a test asks",
        topology,
        RpcClientSettings::default(),
    );
    asks.ready(SOON).await.unwrap();
    Arc::new(asks)
}

/// Each command that a process has ended with is tried alone by the next one, which takes its time on a slow disk.
const PATIENCE: Duration = Duration::from_secs(240);

fn patient(mut request: Request) -> Request {
    request.deadline = Timestamp::now() + PATIENCE;
    request
}

fn deposit(id: &str, account: &str) -> Request {
    patient(order(id, Timestamp::now(), account, Bid::Deposit(5)))
}

async fn ask(requester: &RpcClient, account: &str) -> Result<Standing, CallError> {
    let account = account.to_owned();
    let query = request("gateway/1", "query", Timestamp::now(), &Ask { account });
    requester.call_with_retry::<Ask>(patient(query)).await
}

on_every_store! {
    async fn a_command_whose_process_ends_before_the_reply_is_obeyed_once_and_answered(shelf) {
        let world = TestEnv::new("requests", &[LEDGER_WITH_RPC]).await;
        let requester = requester(&world).await;
        let store = FaultyStore::new(shelf.open());
        let role = world.start(Ledger, store.clone());
        role.taking(SOON).await;
        store.set(Fault::HangsAfterCommit);
        let asked = tokio::spawn({
            let requester = Arc::clone(&requester);
            // Again, should the next process take so long to come that nobody is there to answer.
            async move { requester.call_with_retry::<Order>(deposit("1", "account/a")).await }
        });
        wait_until("it is written", SOON, async || store.hung() == 1).await;
        role.crash();

        let role = world.start(Ledger, shelf.open());
        assert_eq!(asked.await.unwrap(), Ok(Standing { balance: 5, entries: 1 }));
        let again = requester.call::<Order>(deposit("1", "account/a")).await;
        assert_eq!(again, Ok(Standing { balance: 5, entries: 1 }));
        assert_eq!(ask(&requester, "account/a").await.unwrap().entries, 1);
        let short = order("2", Timestamp::now(), "account/a", Bid::Withdraw(9));
        match requester.call_raw(patient(short)).await {
            Err(CallError::Refused(refused)) => assert_eq!(refused.code, "short"),
            other => panic!("it was not refused: {other:?}"),
        }
        role.stop().await.unwrap();
    }
}

on_every_store! {
    async fn many_commands_are_obeyed_once_each_while_their_processes_end(shelf) {
        const COMMANDS: usize = 200;
        let world = TestEnv::new("many-requests", &[LEDGER_WITH_RPC]).await;
        let requester = requester(&world).await;
        let store = shelf.open();
        let mut role = world.start(Ledger, shelf.open());
        let mut asked = JoinSet::new();
        for n in 0..COMMANDS {
            let requester = Arc::clone(&requester);
            asked.spawn(async move {
                let command = deposit(&n.to_string(), &format!("account/{}", n % 7));
                let answer = requester.call_with_retry::<Order>(command).await;
                (n, answer)
            });
        }
        for most in [20, 60, 120] {
            wait_until("some are obeyed", SOON, async || summary(&store).await.tally.obeyed >= most).await;
            role.crash();
            role = world.start(Ledger, shelf.open());
        }
        let mut answered = BTreeSet::new();
        while let Some(ended) = asked.join_next().await {
            let (n, answer) = ended.unwrap();
            assert!(answer.is_ok(), "{n}: {answer:?}");
            answered.insert(n);
        }
        assert_eq!(answered.len(), COMMANDS);
        let mut applied = Vec::new();
        for (account, state) in accounts(&store).await {
            assert_eq!(state.balance, 5 * state.entries.len() as i64, "{account}");
            applied.extend(entries(&store, &account).await);
        }
        let once: BTreeSet<_> = applied.iter().collect();
        assert_eq!((applied.len(), once.len()), (COMMANDS, COMMANDS));
        let summary = store.summary(Timestamp::now()).await.unwrap();
        assert_eq!(summary.tally.obeyed, COMMANDS as u64);
        role.stop().await.unwrap();
    }
}

/// Whoever asks then can tell it from an answer that will not change.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_meets_no_store_is_not_refused_but_may_be_asked_again() {
    let world = TestEnv::new("query-without-store", &[LEDGER_WITH_RPC]).await;
    let requester = requester(&world).await;
    let store = FaultyStore::new(doorstep_store::MemoryStore::new("ledger"));
    let role = world.start(Ledger, store.clone());
    role.taking(SOON).await;
    store.set(Fault::Fails);
    let account = "account/a".to_owned();
    let query = request("gateway/1", "query", Timestamp::now(), &Ask { account });
    let answer = requester.call::<Ask>(patient(query)).await;
    assert!(
        matches!(answer, Err(CallError::Overloaded { .. })),
        "{answer:?}"
    );
    store.set(Fault::None);
    requester
        .call_with_retry::<Order>(deposit("1", "account/a"))
        .await
        .unwrap();
    assert_eq!(ask(&requester, "account/a").await.unwrap().entries, 1);
    role.stop().await.unwrap();
}

/// A role that is asked to stop answers what it has taken, and whoever asks then hears that nobody is there.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_in_vain_for_a_role_that_has_stopped() {
    let world = TestEnv::new("no-responder", &[LEDGER_WITH_RPC]).await;
    let requester = requester(&world).await;
    let role = world.start(Ledger, doorstep_store::MemoryStore::new("ledger"));
    role.taking(SOON).await;
    requester
        .call::<Order>(deposit("1", "account/a"))
        .await
        .unwrap();
    role.stop().await.unwrap();
    let mut late = deposit("2", "account/a");
    late.deadline = Timestamp::now() + Duration::from_secs(30);
    let answer = requester.call_raw(late).await;
    assert!(
        matches!(answer, Err(CallError::NoResponder { .. })),
        "{answer:?}"
    );
}
