//! The declared topology can be verified, imported, and used by users with minimal permissions.

use std::time::Duration;

use doorstep_broker::{User, UserPermissions, Vhost, percent_encoded, shared};
use doorstep_event::json;
use doorstep_messaging::{BrokerSettings, Inspector};
use doorstep_tests::{Ended, Program, TempDir, wait_for};
use serde_json::Value;
use tokio::task::block_in_place;

use crate::{
    SOON,
    operator::{Office, moved, placed},
};

/// An empty virtual host, and the folder of programs that use it.
pub(crate) struct EmptyVhost {
    pub(crate) scratch: TempDir,
    pub(crate) vhost: Vhost,
}

/// The permissions of the users that `topology permissions` names.
pub(crate) struct Permitted(Value);

impl Permitted {
    fn user(&self, name: &str) -> &Value {
        let users = self.0["users"].as_array().unwrap();
        users.iter().find(|user| user["user"] == name).unwrap()
    }
}

impl EmptyVhost {
    pub(crate) fn new(hint: &str) -> Self {
        Self {
            scratch: TempDir::new(hint),
            vhost: block_in_place(|| shared().unwrap().new_vhost(hint)).unwrap(),
        }
    }

    /// Runs a command of the consumers to its end, as this user or as the administrator.
    pub(crate) async fn ran(&self, user: Option<&User>, words: &[&str]) -> Ended {
        self.consumers(user, words)
            .run(&self.scratch, Duration::from_secs(120))
            .await
    }

    fn consumers(&self, user: Option<&User>, words: &[&str]) -> Program {
        let url = user.map_or_else(|| self.vhost.amqp_url(), |user| user.amqp_url().to_owned());
        Program::consumers(words)
            .broker(&url)
            .store(&self.scratch.join("stores"))
    }

    /// Returns the output of a command that succeeds.
    pub(crate) async fn output(&self, user: Option<&User>, words: &[&str]) -> String {
        let ended = self.ran(user, words).await;
        assert_eq!(
            ended.code,
            Some(0),
            "{words:?}: {} {}",
            ended.stdout,
            ended.stderr
        );
        ended.stdout
    }

    /// Imports the definitions into this virtual host.
    pub(crate) async fn import(&self) {
        let words = [
            "topology",
            "show",
            "--definitions",
            "--vhost",
            self.vhost.name(),
        ];
        let definitions = self.output(None, &words).await;
        block_in_place(|| {
            let management = self.vhost.broker().management().unwrap();
            management.post("/api/definitions", &definitions).unwrap();
        });
    }

    /// Returns the permissions of users who declare everything themselves, or with `--declared` of those who do not.
    pub(crate) async fn permitted(&self, options: &[&str]) -> Permitted {
        let words = [
            &["topology", "permissions", "--json", "--user", "u"],
            options,
        ]
        .concat();
        let json = self.output(None, &words).await;
        Permitted(serde_json::from_str(&json).unwrap())
    }

    /// Creates a user with the permissions of that name, changed by `change`, and the topic permissions.
    pub(crate) fn user(
        &self,
        permitted: &Permitted,
        name: &str,
        change: impl Fn(&'static str, String) -> String,
    ) -> User {
        let user = self.user_of_rights(permitted, name, change);
        let topics = |right: &str| permitted.user(name)["topics"][right].as_str();
        if let (Some(exchange), Some(write), Some(read)) =
            (topics("exchange"), topics("write"), topics("read"))
        {
            block_in_place(|| {
                user.may_on_topics(&self.vhost, exchange, write, read)
                    .unwrap();
            });
        }
        user
    }

    /// Creates a user with the permissions of that name, changed by `change`, who may publish to every topic.
    fn user_of_rights(
        &self,
        permitted: &Permitted,
        name: &str,
        change: impl Fn(&'static str, String) -> String,
    ) -> User {
        let user = permitted.user(name);
        let right = |right| change(right, user[right].as_str().unwrap().to_owned());
        let (configure, write, read) = (right("configure"), right("write"), right("read"));
        let rights = UserPermissions {
            configure: &configure,
            write: &write,
            read: &read,
        };
        block_in_place(|| self.vhost.new_user(name, rights).unwrap())
    }

    /// Publishes the start of an order, a repetition under the next sequence, which is rejected, and a movement of
    /// stock.
    async fn published(&self, user: &User) -> Ended {
        let events = [placed("1", 1), placed("1", 2), moved("A", 1, -3)];
        let lines = events.map(|event| json::write(&event).unwrap() + "\n");
        Program::producer(&["publish", "--publish-timeout", "2s"])
            .broker(user.amqp_url())
            .input(lines.concat())
            .run(&self.scratch, Duration::from_secs(120))
            .await
    }

    /// Waits until the consumer of a queue has marked it.
    async fn is_marked(&self, queue: &str) {
        let vhost = percent_encoded(self.vhost.name());
        let path = format!("/api/exchanges/{vhost}/{queue}.marker/bindings/source");
        let bound = format!(r#""destination":"{queue}""#);
        wait_for("the queue is marked", SOON, async || {
            match block_in_place(|| self.vhost.broker().management().unwrap().get(&path)) {
                Ok(bindings) if bindings.contains(&bound) => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }

    fn delete_queue(&self, queue: &str) {
        let path = format!("/api/queues/{}/{queue}", percent_encoded(self.vhost.name()));
        block_in_place(|| {
            let management = self.vhost.broker().management().unwrap();
            management.delete(&path).unwrap();
        });
    }

    /// Waits until the queue with copies of the dead letters of the orders has one.
    async fn a_copy_arrives(&self) {
        let settings = BrokerSettings::new(&self.vhost.amqp_url(), "doorstep").unwrap();
        let inspector = Inspector::connect(&settings, "a test looks").await.unwrap();
        let queue = settings.namespace.dead_letter_queue("orders");
        wait_for("the copy of a dead letter", SOON, async || match inspector
            .queue_depth(&queue)
            .await
        {
            Ok(depth) if depth.ready == 1 => Ok(()),
            other => Err(other),
        })
        .await;
    }
}

/// Returns the pattern unchanged.
pub(crate) fn same(_: &'static str, pattern: String) -> String {
    pattern
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_verified_for_people_and_programs() {
    let office = Office::new("verify").await;
    let text = office.output(&["topology", "verify"]).await;
    assert!(
        text.starts_with("RabbitMQ ") && text.contains("as they should be"),
        "{text}"
    );
    assert!(text.contains("bindings not compared"), "{text}");

    block_in_place(|| {
        let vhost = percent_encoded(&office.env.broker().address().vhost);
        let path = format!("/api/queues/{vhost}/doorstep.tracking.0");
        office
            .env
            .broker()
            .management()
            .unwrap()
            .delete(&path)
            .unwrap();
    });
    let ended = office.ran(&["topology", "verify"]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let missing = "queue doorstep.tracking.0 (a role's events) is missing";
    assert!(ended.stdout.contains(missing), "{}", ended.stdout);
    let ended = office
        .ran(&["topology", "verify", "tracking", "--json"])
        .await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["broker"]["product"], "RabbitMQ");
    assert_eq!(report["findings"][0]["finding"], "queue_missing");
    assert_eq!(report["findings"][0]["queue"], "doorstep.tracking.0");
    assert!(
        report["findings"][0]["text"]
            .as_str()
            .unwrap()
            .contains(missing)
    );
    // The other roles do not concern it.
    office
        .output(&["topology", "verify", "orders", "inventory"])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn imported_queues_need_no_permission_to_declare() {
    let place = EmptyVhost::new("imported");
    place.import().await;
    place.output(None, &["topology", "verify"]).await;
    let permitted = place.permitted(&["--declared"]).await;
    let verify = place.user(&permitted, "u-verify", same);
    place.output(Some(&verify), &["topology", "verify"]).await;
    let producer = place.user(&permitted, "u-producer", same);
    let ended = place.published(&producer).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let orders = place.user(&permitted, "u-orders", same);
    let ended = place
        .ran(Some(&orders), &["run", "orders", "--exit-when-idle", "1s"])
        .await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("orders: 1 stream is blocked"),
        "{}",
        ended.stderr
    );
    place.a_copy_arrives().await;
    let others = place.user(&permitted, "u-consumers", same);
    let words = ["run", "inventory", "tracking", "--exit-when-idle", "1s"];
    place.output(Some(&others), &words).await;
    let stock = place.output(None, &["show", "inventory", "stock/A"]).await;
    assert!(stock.contains("-3"), "{stock}");
    let status = place.user(&permitted, "u-status", same);
    let words = ["status", "orders", "inventory", "tracking"];
    place.output(Some(&status), &words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn declaring_users_need_only_the_printed_permissions() {
    let place = EmptyVhost::new("declaring");
    let permitted = place.permitted(&[]).await;
    let producer = place.user(&permitted, "u-producer", same);
    let ended = place.published(&producer).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let consumers = place.user(&permitted, "u-consumers", same);
    let ended = place
        .ran(Some(&consumers), &["run", "--exit-when-idle", "1s"])
        .await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    place.a_copy_arrives().await;
    place.output(None, &["topology", "verify"]).await;

    // The same in a virtual host where the consumers come first.
    let place = EmptyVhost::new("declaring");
    let consumers = place.user(&permitted, "u-consumers", same);
    place
        .output(Some(&consumers), &["run", "--exit-when-idle", "1s"])
        .await;
    place.output(None, &["topology", "verify"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn printed_permissions_suffice_to_notice_deleted_queues() {
    const QUEUE: &str = "doorstep.orders.0";
    let modes: [(&[&str], &str); 2] = [(&[], "u-consumers"), (&["--declared"], "u-orders")];
    for (options, user) in modes {
        let place = EmptyVhost::new("noticing");
        let is_declared = !options.is_empty();
        if is_declared {
            place.import().await;
        }
        let permitted = place.permitted(options).await;
        let user = place.user(&permitted, user, same);
        let running = place
            .consumers(Some(&user), &["run", "orders"])
            .start(&place.scratch);
        // A role that may not declare its queue exits if that is missing at its start, and waits for it from then on.
        running.says("taking deliveries", SOON).await;
        place.is_marked(QUEUE).await;
        place.delete_queue(QUEUE);
        if is_declared {
            place.import().await;
        }
        let reported = format!("queue {QUEUE} was recreated");
        running.says(&reported, SOON).await;
        running.terminate();
        let ended = running.ended(SOON).await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let unnoticed = "would not be noticed";
        assert!(!ended.stderr.contains(unnoticed), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_missing_permission_names_the_grant() {
    let place = EmptyVhost::new("lacking");
    let permitted = place.permitted(&[]).await;
    // Nothing is declared yet, so each of these is needed to do so.
    for (right, needed) in [
        ("configure", "events|"),
        ("configure", "|dlq"),
        ("write", r"amq\.default|"),
        ("write", "0|"),
        ("read", "events|"),
        ("read", "|quarantine"),
    ] {
        let less = |name: &'static str, pattern: String| {
            if name == right {
                assert!(pattern.contains(needed), "{needed} is not in {pattern}");
                pattern.replacen(needed, "", 1)
            } else {
                pattern
            }
        };
        // A virtual host for each, since the next would find the declarations of the previous one.
        let place = EmptyVhost::new("lacking");
        let user = place.user_of_rights(&permitted, "u-consumers", less);
        let ended = place
            .ran(Some(&user), &["run", "--exit-when-idle", "1s"])
            .await;
        assert_eq!(ended.code, Some(69), "{right} {needed}: {}", ended.stderr);
        let remedy = "topology permissions";
        assert!(
            ended.stderr.contains(remedy),
            "{right} {needed}: {}",
            ended.stderr
        );
    }

    place.import().await;
    let permitted = place.permitted(&["--declared"]).await;
    let without = |lacking: &'static str| {
        move |right: &'static str, pattern: String| match right {
            right if right == lacking => "^$".to_owned(),
            _ => pattern,
        }
    };
    let producer = place.user(&permitted, "u-producer", without("write"));
    let ended = place.published(&producer).await;
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    assert_names(&ended.stderr, &["doorstep.events", "topology permissions"]);
    let orders = place.user(&permitted, "u-orders", without("read"));
    let ended = place.ran(Some(&orders), &["run", "orders"]).await;
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
    assert_names(
        &ended.stderr,
        &["doorstep.orders.0", "topology permissions"],
    );
    // Without the permission to publish to the default exchange a dead letter's copy stays in the outbox, and the log
    // gives the reason.
    let producer = place.user(&permitted, "u-producer", same);
    assert_eq!(place.published(&producer).await.code, Some(0));
    let only_records = |right: &'static str, pattern: String| match right {
        "write" => "^@.*$".to_owned(),
        _ => pattern,
    };
    let orders = place.user(&permitted, "u-orders", only_records);
    let running = place
        .consumers(Some(&orders), &["run", "orders"])
        .start(&place.scratch);
    running.says("amq.default", SOON).await;
    running.says("topology permissions", SOON).await;
    running.terminate();
    let ended = running.ended(SOON).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    // Without the permission for its marker a role works, but does not notice the loss of a queue, and reports that.
    let unmarked = |right: &'static str, pattern: String| match right {
        "configure" => pattern.replace(r"0\.marker|owner|quarantine\.marker", "owner"),
        _ => pattern,
    };
    let orders = place.user(&permitted, "u-orders", unmarked);
    let ended = place
        .ran(Some(&orders), &["run", "orders", "--exit-when-idle", "1s"])
        .await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert_names(
        &ended.stderr,
        &[
            "doorstep.orders.0",
            "would not be noticed",
            "topology permissions",
        ],
    );
}

fn assert_names(stderr: &str, parts: &[&str]) {
    for part in parts {
        assert!(stderr.contains(part), "{part} is not in {stderr}");
    }
}

/// Users of a broker with chosen names, deleted in the end.
struct NamedUsers<'a> {
    place: &'a EmptyVhost,
    names: Vec<String>,
}

impl<'a> NamedUsers<'a> {
    fn new(place: &'a EmptyVhost, names: &[String]) -> Self {
        let management = place.vhost.broker().management().unwrap();
        let vhost = percent_encoded(place.vhost.name());
        for name in names {
            management.create_user(name, "word", "").unwrap();
            let path = format!("/api/permissions/{vhost}/{}", percent_encoded(name));
            let nothing = r#"{"configure":"^$","write":"^$","read":"^$"}"#;
            management.put(&path, nothing).unwrap();
        }
        Self {
            place,
            names: names.to_vec(),
        }
    }

    fn may_publish(&self, name: &str, write: &str) {
        let vhost = percent_encoded(self.place.vhost.name());
        let path = format!("/api/topic-permissions/{vhost}/{}", percent_encoded(name));
        let write = write.replace('\\', "\\\\");
        let json = format!(r#"{{"exchange":"doorstep.events","write":"{write}","read":"^$"}}"#);
        block_in_place(|| {
            let management = self.place.vhost.broker().management().unwrap();
            management.put(&path, &json).unwrap();
        });
    }
}

impl Drop for NamedUsers<'_> {
    fn drop(&mut self) {
        let management = self.place.vhost.broker().management().unwrap();
        for name in &self.names {
            let _ = management.delete_user(name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topic_permissions_are_compared_by_user_name() {
    let place = EmptyVhost::new("topics");
    place.import().await;
    let management = place.vhost.broker().management().unwrap();
    let prefix = place.vhost.name();
    let name = |user: &str| format!("{prefix}-{user}");
    let verified = async |url: String, prefix: &str| {
        let ended = place
            .consumers(None, &["topology", "verify", "--json", "--user", prefix])
            .variable("DOORSTEP_MANAGEMENT_URL", url)
            .run(&place.scratch, Duration::from_secs(120))
            .await;
        let report: Value = serde_json::from_str(&ended.stdout)
            .unwrap_or_else(|e| panic!("{e}: {} {}", ended.stdout, ended.stderr));
        let texts = |list: &str, text: &str| -> Vec<String> {
            let rows = report[list].as_array().unwrap().iter();
            rows.map(|row| row[text].as_str().unwrap().to_owned())
                .collect()
        };
        let reasons = texts("not_compared", "reason").join("\n");
        (ended.code, texts("findings", "text"), reasons)
    };

    let (code, found, reasons) = verified(management.url_with_login(), "nobody").await;
    assert_eq!((code, found.as_slice()), (Some(0), &[][..]), "{reasons}");
    assert!(
        reasons.contains("give the beginning of their names by --user"),
        "{reasons}"
    );

    let users = block_in_place(|| {
        let names = ["gateway", "orders", "payments", "retail"].map(name);
        NamedUsers::new(&place, &names)
    });
    users.may_publish(&name("retail"), r"^(order|return|stock)\.");
    users.may_publish(&name("payments"), ".*");
    let (code, found, reasons) = verified(management.url_with_login(), prefix).await;
    assert_eq!(code, Some(2), "{reasons}");
    assert_eq!(found.len(), 2, "{found:#?}");
    let gateway = format!("user {} has no topic permissions", name("gateway"));
    let payments = format!("user {} may publish .* and bind ^$", name("payments"));
    assert!(found[0].starts_with(&gateway), "{found:#?}");
    assert!(found[1].starts_with(&payments), "{found:#?}");
    assert!(
        found[1].ends_with(r"doorstep.events '^payment\.' '^$'"),
        "{found:#?}"
    );
    // The user of the tests is none of them, and may publish everything.
    assert!(reasons.contains(management.user()), "{reasons}");
    users.may_publish(&name("gateway"), r"^(delivery|order|request|stock|user)\.");
    users.may_publish(&name("payments"), r"^payment\.");
    let (code, found, reasons) = verified(management.url_with_login(), prefix).await;
    assert_eq!((code, found.as_slice()), (Some(0), &[][..]), "{reasons}");

    // A user who is no administrator sees bindings and policies, and no permissions.
    let viewer = block_in_place(|| {
        let viewer = NamedUsers::new(&place, &[name("viewer")]);
        management
            .create_user(&name("viewer"), "word", "management")
            .unwrap();
        viewer
    });
    let url = management.url_with_login();
    let (_, at) = url.rsplit_once('@').unwrap();
    let login = format!("http://{}:word@{at}", percent_encoded(&name("viewer")));
    let (code, found, reasons) = verified(login, prefix).await;
    assert_eq!((code, found.as_slice()), (Some(0), &[][..]), "{reasons}");
    assert!(
        reasons.contains("set_user_tags") && reasons.contains("administrator"),
        "{reasons}"
    );
    assert!(!reasons.contains("give it the tag management"), "{reasons}");
    block_in_place(|| drop((users, viewer)));
}
