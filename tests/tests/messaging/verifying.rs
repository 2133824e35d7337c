//! Verification of a broker finds every difference, names the remedy, and changes nothing.

use std::time::Duration;

use anyhow::Result;
use doorstep_broker::{UserPermissions, percent_encoded};
use doorstep_messaging::{
    Address, BrokerSettings, ConnectErrorKind, Exchange, ExchangeKind, Finding, Inspector,
    Permission, Publisher, QueueName, ServerProperties, TlsSettings, check_version, verify,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{LONG, TestEnv, event, publish, settings, within};

/// Returns the management API's list of these objects in a virtual host.
async fn listed(env: &TestEnv, what: &'static str) -> Result<String> {
    env.manage(move |broker, vhost| {
        let path = format!("/api/{what}/{}?columns=name", percent_encoded(vhost));
        broker.management()?.get(&path)
    })
    .await
}

async fn put_exchange(env: &TestEnv, json: &'static str) -> Result<()> {
    env.manage(move |broker, vhost| {
        let path = format!("/api/exchanges/{}/test.events", percent_encoded(vhost));
        broker.management()?.put(&path, json).map(drop)
    })
    .await
}

/// Returns each difference of queues, as `QUEUE ARGUMENT: THERE, not WANTED`.
fn differences(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::QueueDiffers {
                queue,
                argument,
                there,
                wanted,
                ..
            } => Some(format!("{queue} {argument}: {there}, not {wanted}")),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_declared_topology_has_no_findings() -> Result<()> {
    let env = TestEnv::new("verify").await?;
    let publisher = env.publisher("verify publish").await?;
    publish(&publisher, [event("1", 1), event("1", 2)]).await;
    let before = (
        listed(&env, "queues").await?,
        listed(&env, "exchanges").await?,
    );
    let verified = verify(&env.settings, &env.topology()).await?;
    assert_eq!(verified.findings, []);
    let broker = verified.broker.expect("it greets");
    assert_eq!(broker.product, "RabbitMQ");
    assert!(broker.release() >= Some((3, 10)), "{broker}");
    assert!(!verified.address.contains("word"), "{}", verified.address);
    let after = (
        listed(&env, "queues").await?,
        listed(&env, "exchanges").await?,
    );
    assert_eq!(before, after);
    let inspector = Inspector::connect(&env.settings, "inspect").await?;
    let depth = inspector.queue_depth(&env.queue()).await?;
    assert_eq!((depth.ready, depth.consumers), (2, 0));
    Ok(())
}

#[tokio::test]
async fn missing_objects_are_found_and_not_declared() -> Result<()> {
    let env = TestEnv::new("verify").await?;
    let findings = verify(&env.settings, &env.topology()).await?.findings;
    let texts: Vec<_> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 4, "{texts:#?}");
    for (text, part) in texts.iter().zip([
        "exchange test.events is missing: ",
        "queue test.orders.dlq (copies of dead letters) is missing: ",
        "queue test.orders.quarantine (messages in quarantine) is missing: ",
        "queue test.orders.0 (a role's events) is missing: ",
    ]) {
        assert!(text.starts_with(part), "{text}");
        assert!(text.contains("topology show --definitions"), "{text}");
    }
    assert_eq!(listed(&env, "queues").await?, "[]");
    assert!(!listed(&env, "exchanges").await?.contains("test.events"));
    Ok(())
}

#[tokio::test]
async fn every_differing_queue_argument_is_found() -> Result<()> {
    let env = TestEnv::new("verify").await?;
    put_exchange(&env, r#"{"type":"topic","durable":true}"#).await?;
    env
        .put_queue(
            "test.orders.dlq",
            r#"{"durable":true,"arguments":{"x-queue-type":"quorum","x-max-length":7,"x-overflow":"reject-publish","x-expires":3600000}}"#,
        )
        .await?;
    env.put_queue(
        "test.orders.quarantine",
        r#"{"durable":true,"auto_delete":true}"#,
    )
    .await?;
    env
        .put_queue(
            "test.orders.0",
            r#"{"durable":true,"arguments":{"x-queue-type":"quorum","x-delivery-limit":3,"x-dead-letter-exchange":"it's","x-dead-letter-routing-key":"a-place-whose-name-is-so-long-that-the-broker-has-to-cut-it-off-where-it-tells","x-max-length":5000000,"x-max-length-bytes":8589934592}}"#,
        )
        .await?;
    let findings = verify(&env.settings, &env.topology()).await?.findings;
    let differences = differences(&findings);
    let mut expected = vec![
        "test.orders.dlq x-expires: 3600000, not not set",
        "test.orders.dlq x-max-length: 7, not 10000",
        "test.orders.dlq x-max-length-bytes: not set, not 268435456",
        "test.orders.dlq x-overflow: reject-publish, not drop-head",
        "test.orders.0 x-dead-letter-exchange: it's, not empty",
        "test.orders.0 x-dead-letter-routing-key: a-place-whose-name-is-so-long-that-the-broker-has-to-cut-it-off-where-it-tells, not test.orders.quarantine",
        "test.orders.0 x-dead-letter-strategy: not set, not at-least-once",
        "test.orders.0 x-delivery-limit: 3, not 100",
        "test.orders.0 x-overflow: not set, not reject-publish",
        "test.orders.0 x-single-active-consumer: not set, not true",
    ];
    expected.sort_unstable();
    let mut found: Vec<_> = differences
        .iter()
        .map(String::as_str)
        .filter(|d| !d.starts_with("test.orders.quarantine "))
        .collect();
    found.sort_unstable();
    assert_eq!(found, expected);
    // For a queue of another type the broker compares only the arguments of that type.
    for part in [
        "test.orders.quarantine auto_delete: true, not false",
        "test.orders.quarantine x-queue-type: ",
    ] {
        assert!(
            differences.iter().any(|d| d.starts_with(part)),
            "{part} is not in {differences:#?}"
        );
    }
    assert_eq!(findings.len(), differences.len(), "{findings:#?}");
    let text = findings[0].to_string();
    assert!(text.contains("rabbitmqctl delete_queue -p"), "{text}");
    // Verification has changed nothing.
    assert_eq!(
        verify(&env.settings, &env.topology()).await?.findings,
        findings
    );
    Ok(())
}

#[tokio::test]
async fn an_exchange_of_another_kind_is_found() -> Result<()> {
    let env = TestEnv::new("verify").await?;
    put_exchange(&env, r#"{"type":"fanout","durable":false}"#).await?;
    let findings = verify(&env.settings, &env.topology()).await?.findings;
    let found: Vec<_> = findings
        .iter()
        .filter_map(|finding| match finding {
            Finding::ExchangeDiffers {
                property,
                there,
                wanted,
                ..
            } => Some((&**property, &**there, &**wanted)),
            _ => None,
        })
        .collect();
    assert_eq!(
        found,
        [("type", "fanout", "topic"), ("durable", "false", "true")]
    );
    Ok(())
}

#[tokio::test]
async fn every_missing_permission_is_found() -> Result<()> {
    let env = TestEnv::new("verify").await?;
    let _owner = env.publisher("owner").await?;
    let nothing = UserPermissions {
        configure: "^$",
        write: "^$",
        read: "^$",
    };
    let user = env.user("verify", nothing).await?;
    let settings = settings(user.amqp_url())?;
    let lacking = async || -> Result<Vec<(Permission, String)>> {
        let findings = verify(&settings, &env.topology()).await?.findings;
        let lacking = findings.iter().map(|finding| match finding {
            Finding::Forbidden { right, name, .. } => (*right, name.clone()),
            other => panic!("{other}"),
        });
        Ok(lacking.collect())
    };
    let name = |right, name: &str| (right, name.to_owned());
    assert_eq!(
        lacking().await?,
        [
            name(Permission::Configure, "test.events"),
            name(Permission::Write, "test.events"),
            name(Permission::Configure, "test.orders.dlq"),
            name(Permission::Configure, "test.orders.quarantine"),
            name(Permission::Read, "test.orders.quarantine"),
            name(Permission::Configure, "test.orders.quarantine.marker"),
            name(Permission::Write, "test.orders.quarantine"),
            name(Permission::Configure, "test.orders.0"),
            name(Permission::Read, "test.orders.0"),
            name(Permission::Configure, "test.orders.0.marker"),
            name(Permission::Write, "test.orders.0"),
            name(Permission::Write, "amq.default"),
            name(Permission::Configure, "test.orders.owner"),
            name(Permission::Write, "@.*"),
        ]
    );
    let vhost = env.vhost().to_owned();
    let text = verify(&settings, &env.topology()).await?.findings[0].to_string();
    for part in [user.name(), &vhost, "topology permissions"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }

    let all_but_one = UserPermissions {
        configure: ".*",
        write: r"^(test\.(events|orders\.(0|quarantine))|amq\.default|@.*)$",
        read: r"^test\.orders\.(0\.marker|quarantine|quarantine\.marker|owner)$",
    };
    let other = env.user("verify", all_but_one).await?;
    let settings = self::settings(other.amqp_url())?;
    let findings = verify(&settings, &env.topology()).await?.findings;
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert!(
        findings[0]
            .to_string()
            .contains("may not read from queue test.orders.0"),
        "{}",
        findings[0]
    );

    let all_but_a_mark = UserPermissions {
        configure: ".*",
        write: ".*",
        read: r"^test\.orders\.(0|quarantine|quarantine\.marker|owner)$",
    };
    let third = env.user("verify", all_but_a_mark).await?;
    let settings = self::settings(third.amqp_url())?;
    let findings = verify(&settings, &env.topology()).await?.findings;
    assert_eq!(findings.len(), 1, "{findings:#?}");
    let text = findings[0].to_string();
    for part in [
        "may not read from exchange test.orders.0.marker",
        "the loss of its queue would not be noticed",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    Ok(())
}

#[tokio::test]
async fn an_exchange_that_needs_a_plugin_says_which() -> Result<()> {
    let env = TestEnv::new("verify").await?;
    let mut topology = env.topology();
    topology.queues.clear();
    topology.bindings.clear();
    topology.exchanges = vec![Exchange {
        name: "test.orders".to_owned(),
        kind: ExchangeKind::ConsistentHash,
    }];
    let overview = env
        .manage(|broker, _| broker.management()?.get("/api/overview"))
        .await?;
    let is_enabled = overview.contains(r#""name":"x-consistent-hash""#);
    let findings = verify(&env.settings, &topology).await?.findings;
    let missing = findings
        .iter()
        .find(|f| matches!(f, Finding::PluginMissing { .. }));
    assert_eq!(missing.is_none(), is_enabled, "{findings:#?}");
    assert!(!listed(&env, "exchanges").await?.contains("test.orders"));
    let Some(missing) = missing else {
        return Ok(());
    };
    let remedy = "rabbitmq-plugins enable rabbitmq_consistent_hash_exchange";
    assert!(missing.to_string().contains(remedy), "{missing}");
    // A client that declares it gets the same error immediately.
    let publisher = Publisher::start(&env.settings, "partitioned", topology);
    let error = publisher.ready(LONG).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Plugin);
    assert!(
        error.is_permanent() && error.to_string().contains(remedy),
        "{error}"
    );
    Ok(())
}

/// Starts a broker that sends only its name.
async fn greeter(product: &str, version: &str) -> Result<BrokerSettings> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let settings = settings(&format!("amqp://{}", listener.local_addr()?))?;
    let mut table = Vec::new();
    for (name, value) in [("product", product), ("version", version)] {
        table.push(u8::try_from(name.len())?);
        table.extend(name.as_bytes());
        table.push(b'S');
        table.extend(u32::try_from(value.len())?.to_be_bytes());
        table.extend(value.as_bytes());
    }
    // connection.start: the method, the protocol's version, the properties, and no mechanisms or locales.
    let mut start = vec![0, 10, 0, 10, 0, 9];
    start.extend(u32::try_from(table.len())?.to_be_bytes());
    start.extend(table);
    start.extend([0; 8]);
    let mut frame = vec![1, 0, 0];
    frame.extend(u32::try_from(start.len())?.to_be_bytes());
    frame.extend(start);
    frame.push(0xce);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut protocol = [0; 8];
            let _ = socket.read_exact(&mut protocol).await;
            let _ = socket.write_all(&frame).await;
        }
    });
    Ok(settings)
}

#[tokio::test]
async fn old_brokers_and_other_products_are_recognized() -> Result<()> {
    let old = check_version(&greeter("RabbitMQ", "3.9.27").await?).await;
    let text = old.expect("it is too old").to_string();
    assert!(
        text.contains("3.9.27") && text.contains("upgrade it to 3.10"),
        "{text}"
    );
    let other = check_version(&greeter("LavinMQ", "2.4.0").await?).await;
    let text = other.expect("it is another").to_string();
    assert!(text.contains("LavinMQ 2.4.0"), "{text}");
    assert_eq!(
        check_version(&greeter("RabbitMQ", "3.10.0").await?).await,
        None
    );
    assert_eq!(
        check_version(&greeter("RabbitMQ", "4.3.6").await?).await,
        None
    );
    Ok(())
}

#[tokio::test]
async fn a_silent_server_times_out() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address: Address = format!("amqp://{}", listener.local_addr()?).parse()?;
    let tls = TlsSettings::default();
    let greeting = ServerProperties::fetch(&address, &tls, Duration::from_millis(200));
    assert_eq!(within(LONG, "a greeting", greeting).await?, None);
    Ok(())
}

#[tokio::test]
async fn an_unreachable_broker_is_an_error() -> Result<()> {
    let env = TestEnv::new("verify").await?;
    let settings = settings("amqp://127.0.0.1:1")?;
    let error = verify(&settings, &env.topology()).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::Unreachable);
    Ok(())
}

#[test]
fn a_finding_is_readable_for_programs() {
    let finding = Finding::QueueMissing {
        queue: QueueName::new("test.orders.0"),
        purpose: doorstep_messaging::QueuePurpose::Role,
    };
    let json = serde_json::to_value(&finding).unwrap();
    assert_eq!(
        json,
        serde_json::json!({"finding": "queue_missing", "queue": "test.orders.0", "purpose": "role"})
    );
}
