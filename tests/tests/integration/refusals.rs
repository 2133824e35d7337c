//! The binaries' messages when the broker rejects them: the cause, the remedy, and never the password.

use std::time::Duration;

use doorstep_broker::Broker;
use doorstep_messaging::{Argument, Queue, Topology};
use doorstep_tests::{Ended, Program, TempDir, TestEnv};
use lapin::types::{AMQPValue, FieldTable};
use tokio::net::{TcpListener, TcpSocket};

use crate::operator::ROLES;

/// A program may wait half a minute for a broker at its start.
const LIMIT: Duration = Duration::from_secs(90);
const PASSWORD: &str = "s3cret-of-the-test";

/// Runs every program that needs a broker with this one, and returns their exits.
async fn all_ended(amqp_url: &str) -> Vec<Ended> {
    let scratch = TempDir::new("refused");
    let line = r#"{"specversion":"1.0","id":"1","source":"shop/1","type":"stock.adjusted.v1","subject":"stock/A","sequence":1,"data":{"delta":-6,"reason":"sale","reference":"order/1"}}"#;
    let run = Program::consumers(&["run"]).store(&scratch.join("stores"));
    let until_idle = Program::consumers(&["run", "orders", "--exit-when-idle", "1s"])
        .store(&scratch.join("more"));
    let publish = Program::producer(&["publish", "-"]).input(line);
    let [run, until_idle, publish] =
        [run, until_idle, publish].map(|program| program.broker(amqp_url));
    let (run, until_idle, publish) = tokio::join!(
        run.run(&scratch, LIMIT),
        until_idle.run(&scratch, LIMIT),
        publish.run(&scratch, LIMIT),
    );
    vec![run, until_idle, publish]
}

/// Checks that each has this exit code, mentions all of these texts, and reveals no password.
#[track_caller]
fn all_say(ended: &[Ended], code: i32, parts: &[&str], password: &str) {
    assert!(!ended.is_empty());
    for program in ended {
        let said = &program.stderr;
        assert_eq!(program.code, Some(code), "{said}");
        let error = said
            .lines()
            .rfind(|line| line.starts_with("error: "))
            .unwrap_or_else(|| panic!("no error is reported: {said}"));
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        assert!(!said.contains(password), "the password is in: {said}");
        assert!(!program.stdout.contains(password), "{}", program.stdout);
        assert!(!said.contains("panicked"), "{said}");
    }
}

fn with_login(broker: &Broker, user: &str, password: &str) -> String {
    let mut address = broker.address().clone();
    address.user = user.to_owned();
    address.password = password.to_owned();
    address.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_names_only_the_user() {
    let env = TestEnv::new("refused", &[]).await;
    let user = env.broker().address().user.clone();
    let ended = all_ended(&with_login(env.broker(), &user, PASSWORD)).await;
    let said = format!("rejects user {user:?} with this password");
    all_say(&ended, 69, &[&said, "rabbitmqctl add_user"], PASSWORD);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_virtual_host_is_named() {
    let env = TestEnv::new("refused", &[]).await;
    let elsewhere = env.broker().with_vhost("no-such-vhost");
    let ended = all_ended(&elsewhere.amqp_url()).await;
    let password = &env.broker().address().password;
    let parts = [
        "no-such-vhost does not exist",
        "rabbitmqctl add_vhost no-such-vhost",
    ];
    all_say(&ended, 69, &parts, password);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_virtual_host_names_its_user() {
    let env = TestEnv::new("refused", &[]).await;
    let user = format!("stranger-of-{}", env.broker().address().vhost);
    let management = env.broker().management().unwrap();
    management.create_user(&user, PASSWORD, "").unwrap();
    let ended = all_ended(&with_login(env.broker(), &user, PASSWORD)).await;
    management.delete_user(&user).unwrap();
    let parts = [
        user.as_str(),
        &env.broker().address().vhost,
        "rabbitmqctl set_permissions",
    ];
    all_say(&ended, 69, &parts, PASSWORD);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_differing_queue_argument_is_named() {
    let env = TestEnv::new("refused", &[]).await;
    // Right except for one argument, as an older version might have declared it.
    let declared = Topology::for_roles(env.namespace(), &ROLES);
    let is_it = |queue: &&Queue| queue.name.as_str() == "doorstep.orders.0";
    let queue = declared.queues.iter().find(is_it).unwrap();
    let mut arguments = FieldTable::default();
    for (name, value) in &queue.arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
            Argument::Flag(flag) => AMQPValue::Boolean(*flag),
        };
        if *name != "x-delivery-limit" {
            arguments.insert((*name).into(), value);
        }
    }
    let channel = env.channel().await;
    channel.declare("doorstep.orders.0", arguments).await;
    let ended = all_ended(&env.amqp_url()).await;
    let parts = [
        "queue doorstep.orders.0 exists",
        "x-delivery-limit is not set, expected 100",
        "rabbitmqctl delete_queue",
    ];
    all_say(&ended, 69, &parts, &env.broker().address().password);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_without_a_listener_is_named() {
    let env = TestEnv::new("refused", &[]).await;
    // One port without a listener, kept so that no other test gets it meanwhile, and one with a listener that never
    // sends a byte.
    let kept = TcpSocket::new_v4().unwrap();
    kept.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let gone = kept.local_addr().unwrap();
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let silence = silent.local_addr().unwrap();
    let at = |port: u16| {
        let mut address = env.broker().address().clone();
        address.port = port;
        address.password = PASSWORD.to_owned();
        address.to_string()
    };
    let (gone_url, silent_url) = (at(gone.port()), at(silence.port()));
    let (nobody, nothing) = tokio::join!(all_ended(&gone_url), all_ended(&silent_url));
    all_say(
        &nobody,
        69,
        &[&gone.to_string(), "cannot be reached"],
        PASSWORD,
    );
    all_say(&nothing, 69, &[&silence.to_string()], PASSWORD);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_wrong_settings_are_reported_together() {
    let scratch = TempDir::new("refused");
    let url = format!("amqp://shop:{PASSWORD}@host:port/");
    let run = Program::consumers(&[
        "run",
        "--prefetch",
        "0",
        "--batch-size",
        "many",
        "--namespace",
        "A B",
    ]);
    let ended = run.broker(&url).run(&scratch, LIMIT).await;
    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    let names = [
        "DOORSTEP_AMQP_URL",
        "--prefetch",
        "--batch-size",
        "--namespace",
    ];
    for name in names {
        assert!(
            ended.stderr.contains(name),
            "{name} is not in: {}",
            ended.stderr
        );
    }
    assert!(!ended.stderr.contains(PASSWORD), "{}", ended.stderr);
}
