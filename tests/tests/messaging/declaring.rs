//! The topology is declared once and recognized afterwards, and differences are reported.

use std::time::Duration;

use anyhow::Result;
use doorstep_broker::percent_encoded;
use doorstep_messaging::{
    ConnectErrorKind, Denial, InspectError, Inspector, Publisher, QueueName, Topology, delete,
    verify,
};
use doorstep_tests::wait_for;

use crate::support::{
    LONG, ROLE, TestEnv, event, publish, publisher, settings, subscription, take, within,
};

#[tokio::test]
async fn the_topology_is_declared_once_and_then_recognised() -> Result<()> {
    let env = TestEnv::new("declare").await?;
    let first = env.publisher("first").await?;
    let created = first.status().borrow().created.clone();
    let names: Vec<_> = created.iter().map(QueueName::as_str).collect();
    assert_eq!(names, ["test.orders.quarantine", "test.orders.0"]);

    let second = env.publisher("second").await?;
    assert!(second.status().borrow().created.is_empty());

    let queue = env
        .manage(|broker, vhost| {
            let path = format!("/api/queues/{}/test.orders.0", percent_encoded(vhost));
            broker.management()?.get(&path)
        })
        .await?;
    for argument in [
        r#""x-queue-type":"quorum""#,
        r#""x-single-active-consumer":true"#,
        r#""x-delivery-limit":100"#,
        r#""x-dead-letter-routing-key":"test.orders.quarantine""#,
        r#""x-dead-letter-strategy":"at-least-once""#,
        r#""x-overflow":"reject-publish""#,
        r#""x-max-length":5000000"#,
        r#""x-max-length-bytes":8589934592"#,
    ] {
        assert!(queue.contains(argument), "{argument} is not in {queue}");
    }
    Ok(())
}

#[tokio::test]
async fn a_differing_queue_is_named_with_the_remedy() -> Result<()> {
    let env = TestEnv::new("mismatch").await?;
    let json = r#"{"durable":true,"arguments":{"x-queue-type":"quorum","x-max-length":7}}"#;
    env.put_queue("test.orders.dlq", json).await?;
    let publisher = Publisher::start(&env.settings, "mismatch", env.topology());
    let error = publisher.ready(LONG).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Mismatch);
    assert!(error.is_permanent());
    let text = error.to_string();
    for part in [
        "queue test.orders.dlq exists",
        "x-max-length",
        "x-max-length is 7, expected 10000",
        "rabbitmqctl delete_queue -p",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_queue_of_former_names_is_explained() -> Result<()> {
    let env = TestEnv::new("former").await?;
    let json = r#"{"durable":true,"arguments":{"x-queue-type":"quorum","x-dead-letter-exchange":"","x-dead-letter-routing-key":"test.orders.net"}}"#;
    env.put_queue("test.orders.0", json).await?;
    let publisher = Publisher::start(&env.settings, "former", env.topology());
    let found = verify(&env.settings, &env.topology()).await?.findings;
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    let advice = "an earlier version declared it: drain and delete the role's .net";
    assert_eq!(
        found.iter().filter(|f| f.contains(advice)).count(),
        1,
        "{found:#?}"
    );
    let error = publisher.ready(LONG).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Mismatch);
    assert!(error.to_string().contains("delete_queue -p"), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_unset_argument_is_named() -> Result<()> {
    let env = TestEnv::new("mismatch").await?;
    let json = r#"{"durable":true,"arguments":{"x-queue-type":"quorum","x-max-length":10000}}"#;
    env.put_queue("test.orders.dlq", json).await?;
    let publisher = Publisher::start(&env.settings, "mismatch", env.topology());
    let text = publisher.ready(LONG).await.unwrap_err().to_string();
    assert!(text.contains("is not set, expected"), "{text}");
    Ok(())
}

#[tokio::test]
async fn an_exchange_of_another_kind_is_a_mismatch() -> Result<()> {
    let env = TestEnv::new("exchange").await?;
    env.manage(|broker, vhost| {
        let path = format!("/api/exchanges/{}/test.events", percent_encoded(vhost));
        broker
            .management()?
            .put(&path, r#"{"type":"fanout","durable":true}"#)
            .map(drop)
    })
    .await?;
    let publisher = Publisher::start(&env.settings, "exchange", env.topology());
    let error = publisher.ready(LONG).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Mismatch);
    assert!(error.to_string().contains("exchange test.events exists"));
    Ok(())
}

#[tokio::test]
async fn without_permission_to_declare_existing_queues_work() -> Result<()> {
    let env = TestEnv::new("permission").await?;
    let user = format!("worker-{}", env.vhost());
    let name = user.clone();
    env.manage(move |broker, vhost| {
        let management = broker.management()?;
        management.create_user(&name, "word", "")?;
        let path = format!(
            "/api/permissions/{}/{}",
            percent_encoded(vhost),
            percent_encoded(&name)
        );
        let json = r#"{"configure":"^$","write":".*","read":".*"}"#;
        management.put(&path, json).map(drop)
    })
    .await?;
    let address = &env.settings.addresses[0];
    let url = format!(
        "amqp://{user}:word@{}:{}/{}",
        address.host(),
        address.port(),
        env.vhost()
    );
    let settings = settings(&url)?;

    let refused = Publisher::start(&settings, "worker", env.topology());
    let error = refused.ready(LONG).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ConnectErrorKind::Denied(Denial::Permission),
        "{error}"
    );
    assert!(error.to_string().contains("rabbitmqctl set_permissions"));

    // Another client declares it; the rejected one finds it by itself.
    let _owner = env.publisher("owner").await?;
    let mut state = refused.status();
    within(LONG, "declaring", state.wait_for(|s| s.is_connected())).await??;
    assert!(refused.status().borrow().created.is_empty());
    let worker = publisher(&settings, "worker").await?;
    publish(&worker, [event("1", 1)]).await;
    // It may not mark its queue either, and consumes all the same. It reports that the queue's loss would go unnoticed.
    let consumer = subscription(&settings, "worker").await?;
    take(&consumer, 1, async |_| {}).await?;
    assert_eq!(consumer.status().borrow().possible_loss, []);
    assert_eq!(consumer.status().borrow().marker_missing, [env.queue()]);
    consumer.close(LONG).await;
    worker.close(LONG).await;
    refused.close(LONG).await;
    env.manage(move |broker, _| broker.management()?.delete_user(&user))
        .await?;
    Ok(())
}

#[tokio::test]
async fn the_depth_of_existing_and_missing_queues() -> Result<()> {
    let env = TestEnv::new("inspect").await?;
    let inspector = Inspector::connect(&env.settings, "inspect").await?;
    let queue = env.queue();
    assert_eq!(
        inspector.queue_depth(&queue).await,
        Err(InspectError::Missing(queue.clone()))
    );
    let publisher = env.publisher("inspect publish").await?;
    publish(&publisher, (1..=3).map(|n| event("1", n))).await;
    let depth = inspector.queue_depth(&queue).await?;
    assert_eq!((depth.ready, depth.consumers), (3, 0));
    inspector.close(Duration::from_secs(5)).await;
    Ok(())
}

#[tokio::test]
async fn delete_removes_only_declared_objects() -> Result<()> {
    let env = TestEnv::new("remove").await?;
    let mut other = env.settings.clone();
    other.namespace = "test2".parse()?;
    let theirs = publisher(&other, "theirs").await?;
    let ours = env.publisher("ours").await?;
    let subscription = env.subscription("ours").await?;
    publish(&ours, [event("1", 1)]).await;
    wait_for("the queue is marked", LONG, async || {
        let names = names(&env, "exchanges").await.unwrap();
        let is_marked = names.iter().any(|name| name == "test.orders.0.marker");
        is_marked.then_some(()).ok_or(names)
    })
    .await;
    subscription.close(LONG).await;
    ours.close(LONG).await;

    delete(&env.settings, &env.topology()).await?;
    let kept = Topology::for_roles(&other.namespace, &[ROLE]);
    let mut queues: Vec<_> = kept.queues.iter().map(|q| q.name.to_string()).collect();
    queues.sort();
    assert_eq!(names(&env, "queues").await?, queues);
    assert_eq!(names(&env, "exchanges").await?, ["test2.events"]);
    // A repetition is no error: the first one may have been interrupted.
    delete(&env.settings, &env.topology()).await?;
    theirs.close(LONG).await;
    Ok(())
}

/// Returns the names of all declared queues or exchanges, sorted.
async fn names(env: &TestEnv, kind: &'static str) -> Result<Vec<String>> {
    let json = env
        .manage(move |broker, vhost| {
            let path = format!("/api/{kind}/{}", percent_encoded(vhost));
            broker.management()?.get(&path)
        })
        .await?;
    let all: Vec<serde_json::Value> = serde_json::from_str(&json)?;
    let mut names: Vec<String> = all
        .iter()
        .filter_map(|one| one["name"].as_str())
        .filter(|name| name.starts_with("test"))
        .map(str::to_owned)
        .collect();
    names.sort();
    Ok(names)
}
