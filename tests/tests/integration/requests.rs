//! A role that serves requests: each command is executed once, through crashes of the serving processes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use doorstep_event::{Request, Timestamp};
use doorstep_messaging::{CallError, RpcClient, RpcClientSettings};
use doorstep_store::Store;
use doorstep_tests::{
    Fault, FaultyStore, LEDGER_WITH_RPC, TestEnv,
    ledger::{AccountStatus, Bid, Ledger, Order, QueryAccount, accounts, entries, order, request},
    wait_until,
};
use tokio::task::JoinSet;

use crate::{SOON, roles::summary, stores::for_each_store};

pub(crate) async fn client(env: &TestEnv) -> Arc<RpcClient> {
    let (settings, topology) = (env.settings(), env.topology().clone());
    let asks = RpcClient::start(
        settings,
        "a test asks",
        topology,
        RpcClientSettings::default(),
    );
    asks.ready(SOON).await.unwrap();
    Arc::new(asks)
}

/// Each command whose process has crashed is executed alone by the next one, which is slow on a slow disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(240);

fn patient(mut request: Request) -> Request {
    request.deadline = Timestamp::now() + CALL_TIMEOUT;
    request
}

fn deposit(id: &str, account: &str) -> Request {
    patient(order(id, Timestamp::now(), account, Bid::Deposit(5)))
}

async fn query_account(client: &RpcClient, account: &str) -> Result<AccountStatus, CallError> {
    let account = account.to_owned();
    let query = request(
        "gateway/1",
        "query",
        Timestamp::now(),
        &QueryAccount { account },
    );
    client.call_with_retry::<QueryAccount>(patient(query)).await
}

for_each_store! {
    async fn a_crash_before_the_reply_executes_once(storage) {
        let env = TestEnv::new("requests", &[LEDGER_WITH_RPC]).await;
        let client = client(&env).await;
        let store = FaultyStore::new(storage.open());
        let role = env.start(Ledger, store.clone());
        role.consuming(SOON).await;
        store.set(Fault::HangsAfterCommit);
        let asked = tokio::spawn({
            let client = Arc::clone(&client);
            // A retry, in case no server is there until the next process has started.
            async move { client.call_with_retry::<Order>(deposit("1", "account/a")).await }
        });
        wait_until("it is written", SOON, async || store.hung() == 1).await;
        role.crash();

        let role = env.start(Ledger, storage.open());
        assert_eq!(asked.await.unwrap(), Ok(AccountStatus { balance: 5, entries: 1 }));
        let again = client.call::<Order>(deposit("1", "account/a")).await;
        assert_eq!(again, Ok(AccountStatus { balance: 5, entries: 1 }));
        assert_eq!(query_account(&client, "account/a").await.unwrap().entries, 1);
        let short = order("2", Timestamp::now(), "account/a", Bid::Withdraw(9));
        match client.call_raw(patient(short)).await {
            Err(CallError::Rejected(rejected)) => assert_eq!(rejected.code, "short"),
            other => panic!("it was not refused: {other:?}"),
        }
        role.stop().await.unwrap();
    }
}

for_each_store! {
    async fn commands_are_executed_once_through_crashes(storage) {
        const COMMANDS: usize = 200;
        let env = TestEnv::new("many-requests", &[LEDGER_WITH_RPC]).await;
        let client = client(&env).await;
        let store = storage.open();
        let mut role = env.start(Ledger, storage.open());
        let mut asked = JoinSet::new();
        for n in 0..COMMANDS {
            let client = Arc::clone(&client);
            asked.spawn(async move {
                let command = deposit(&n.to_string(), &format!("account/{}", n % 7));
                let reply = client.call_with_retry::<Order>(command).await;
                (n, reply)
            });
        }
        for most in [20, 60, 120] {
            wait_until("some are obeyed", SOON, async || summary(&store).await.tally.executed >= most).await;
            role.crash();
            role = env.start(Ledger, storage.open());
        }
        let mut answered = BTreeSet::new();
        while let Some(ended) = asked.join_next().await {
            let (n, reply) = ended.unwrap();
            assert!(reply.is_ok(), "{n}: {reply:?}");
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
        assert_eq!(summary.tally.executed, COMMANDS as u64);
        role.stop().await.unwrap();
    }
}

/// Such a caller can tell this error from a final answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_without_a_store_is_retryable() {
    let env = TestEnv::new("query-without-store", &[LEDGER_WITH_RPC]).await;
    let client = client(&env).await;
    let store = FaultyStore::new(doorstep_store::MemoryStore::new("ledger"));
    let role = env.start(Ledger, store.clone());
    role.consuming(SOON).await;
    store.set(Fault::Fails);
    let account = "account/a".to_owned();
    let query = request(
        "gateway/1",
        "query",
        Timestamp::now(),
        &QueryAccount { account },
    );
    let reply = client.call::<QueryAccount>(patient(query)).await;
    assert!(
        matches!(reply, Err(CallError::Overloaded { .. })),
        "{reply:?}"
    );
    store.set(Fault::None);
    client
        .call_with_retry::<Order>(deposit("1", "account/a"))
        .await
        .unwrap();
    assert_eq!(
        query_account(&client, "account/a").await.unwrap().entries,
        1
    );
    role.stop().await.unwrap();
}

/// A role that stops answers the requests it has taken; later callers learn that no server is there.
#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_stopped_role_end() {
    let env = TestEnv::new("no-responder", &[LEDGER_WITH_RPC]).await;
    let client = client(&env).await;
    let role = env.start(Ledger, doorstep_store::MemoryStore::new("ledger"));
    role.consuming(SOON).await;
    client
        .call::<Order>(deposit("1", "account/a"))
        .await
        .unwrap();
    role.stop().await.unwrap();
    let mut late = deposit("2", "account/a");
    late.deadline = Timestamp::now() + Duration::from_secs(30);
    let reply = client.call_raw(late).await;
    assert!(
        matches!(reply, Err(CallError::NoResponder { .. })),
        "{reply:?}"
    );
}
