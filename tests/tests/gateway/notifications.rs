//! Mails to users, end to end: an address is set and confirmed over HTTP, and an order's mail is in the folder.

use std::{fs, path::PathBuf};

use doorstep_tests::{Client, RunningProgram, TempDir, wait_for};
use mail_parser::MessageParser;
use serde_json::{Value, json};

use crate::{
    SOON,
    gateway::{Gateway, NO_BROKER, ROOT},
    shop::{Shop, placed},
};

const ADDRESS: &str = "ada.lovelace@example.com";
const NOTIFICATIONS: &str = "/v1/users/ada/notifications";
const EMAIL: &str = "/v1/users/ada/email";

/// A shop with the role that sends mails into a folder.
struct MailingShop {
    shop: Shop,
    role: RunningProgram,
    folder: TempDir,
}

/// A mail in the folder.
struct Mail {
    to: String,
    subject: String,
    text: String,
}

impl MailingShop {
    async fn open() -> Self {
        let shop = Shop::open("mails").await;
        let folder = TempDir::new("mails-folder");
        let url = format!("folder:{}", folder.path().display());
        let role = shop.start_role("notifications", &["--mail-url", &url]);
        Self { shop, role, folder }
    }

    fn mails(&self) -> Vec<Mail> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let files = entries.map(|entry| entry.unwrap().path());
        let files: Vec<PathBuf> = files
            .filter(|f| f.extension().is_some_and(|e| e == "eml"))
            .collect();
        files
            .iter()
            .map(|file| read(&fs::read(file).unwrap()))
            .collect()
    }

    /// Waits for the mails with this subject, and returns them.
    async fn mails_about(&self, subject: &str) -> Vec<Mail> {
        wait_for(format!("a mail: {subject}"), SOON, async || {
            let mails = self.mails();
            let seen: Vec<_> = mails.iter().map(|mail| mail.subject.clone()).collect();
            let mails: Vec<_> = mails.into_iter().filter(|m| m.subject == subject).collect();
            if mails.is_empty() {
                Err(seen)
            } else {
                Ok(mails)
            }
        })
        .await
    }

    /// Sets the address, and returns the path of the link in its mail.
    async fn link(&self, client: &Client) -> String {
        let body = json!({"address": ADDRESS});
        let set = client.request("PUT", EMAIL, &[], Some(&body)).await;
        assert_eq!(set.status, 202, "{}", set.text);
        let mails = self.mails_about("Confirm your mail address").await;
        let [mail] = mails.as_slice() else {
            panic!("{} mails", mails.len());
        };
        assert_eq!(mail.to, ADDRESS);
        let (_, rest) = mail.text.split_once("http://localhost:8080").unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    }
}

fn read(bytes: &[u8]) -> Mail {
    let mail = MessageParser::default().parse(bytes).unwrap();
    let to = mail.to().and_then(|to| to.first()?.address.clone());
    Mail {
        to: to.unwrap().into_owned(),
        subject: mail.subject().unwrap().to_owned(),
        text: mail.body_text(0).unwrap().into_owned(),
    }
}

/// Waits until the mail for a cause has this status, and returns it.
async fn mail_is(client: &Client, cause: &str, status: &str) -> Value {
    wait_for(format!("{cause} is {status}"), SOON, async || {
        let seen = client.get(NOTIFICATIONS).await;
        let mails = seen.json()["mails"].as_array().cloned().unwrap_or_default();
        let mail = mails.into_iter().find(|mail| mail["cause"] == cause);
        mail.filter(|mail| mail["status"] == status)
            .ok_or(seen.text)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_get_the_mails_that_they_want() {
    let mailing = MailingShop::open().await;
    let shop = &mailing.shop;
    let ada = shop.gateway.user("ada", "customer").await;

    // Without an address nothing is sent, and the reason is shown.
    let order = placed(&ada, "1").await;
    let mail = mail_is(&ada, &format!("order/{order}/confirmed"), "skipped").await;
    assert_eq!(mail["reason"], "the user has no confirmed address");

    let link = mailing.link(&ada).await;
    let anyone = shop.gateway.nobody();
    let page = anyone.get(&link).await;
    assert_eq!(page.status, 200, "{}", page.text);
    assert!(page.text.contains("a***@example.com"), "{}", page.text);
    assert!(page.text.contains("<button>"), "{}", page.text);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let shown = ada.get(NOTIFICATIONS).await.expect(200);
    assert_eq!(
        (&shown["address"], &shown["unconfirmed_address"]),
        (&Value::Null, &json!(ADDRESS))
    );
    for _ in 0..2 {
        let confirmed = anyone.request("POST", &link, &[], None).await;
        assert_eq!(confirmed.status, 200, "{}", confirmed.text);
        assert!(!confirmed.text.contains("<button>"), "{}", confirmed.text);
    }
    let shown = ada.get(NOTIFICATIONS).await.expect(200);
    assert_eq!(
        (&shown["address"], &shown["unconfirmed_address"]),
        (&json!(ADDRESS), &Value::Null)
    );
    let root = shop.gateway.log_in(ROOT).await;
    let shown = root.get(NOTIFICATIONS).await;
    assert!(!shown.text.contains("lovelace"), "{}", shown.text);

    let order = placed(&ada, "2").await;
    let sent = mail_is(&ada, &format!("order/{order}/confirmed"), "sent").await;
    assert_eq!(sent["reason"], Value::Null);
    let mails = mailing
        .mails_about(&format!("Order {order} is confirmed"))
        .await;
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, ADDRESS);
    assert!(
        mails[0].text.contains("The total is 19.00."),
        "{}",
        mails[0].text
    );

    let choices =
        json!({"confirmations": false, "refusals": true, "deliveries": true, "reports": true});
    let chosen = ada.request("PUT", NOTIFICATIONS, &[], Some(&choices)).await;
    assert_eq!(chosen.status, 204, "{}", chosen.text);
    let order = placed(&ada, "3").await;
    let mail = mail_is(&ada, &format!("order/{order}/confirmed"), "skipped").await;
    assert!(
        mail["reason"].as_str().unwrap().contains("has chosen"),
        "{mail}"
    );

    // Logs have neither the address nor the link, whatever their level.
    let (path, signature) = link.rsplit_once('.').unwrap();
    assert!(path.starts_with("/confirm-email/ada."), "{path}");
    for secret in ["lovelace", signature] {
        assert!(!shop.gateway.has_said(secret), "the gateway logs {secret}");
        assert!(
            !mailing.role.stderr().contains(secret),
            "the role logs {secret}"
        );
    }
    assert_eq!(mailing.mails().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_addresses_and_links_are_rejected() {
    let gateway = Gateway::start("addresses", NO_BROKER).await;
    let ada = gateway.user("ada", "customer").await;
    let bob = gateway.user("bob", "customer").await;
    let root = gateway.log_in(ROOT).await;
    let set = async |client: &Client, address: &str| {
        let body = json!({"address": address});
        client.request("PUT", EMAIL, &[], Some(&body)).await
    };
    for bad in [
        "",
        "ada",
        "ada@localhost",
        "Ada <ada@example.com>",
        "ada@example.com\r\nBcc: bob@example.com",
        "ada@example.com, bob@example.com",
        "\"ada\"@example.com",
        "ada@[192.0.2.1]",
        &format!("{}@example.com", "a".repeat(300)),
    ] {
        let response = set(&ada, bad).await;
        response.is_problem(422, "invalid_address");
    }
    set(&bob, ADDRESS).await.is_problem(404, "not_found");
    set(&root, ADDRESS).await.is_problem(403, "forbidden");
    for n in 0..5 {
        assert_eq!(set(&ada, &format!("ada{n}@example.com")).await.status, 202);
    }
    let response = set(&ada, ADDRESS).await;
    response.is_problem(429, "too_many_confirmations");

    let anyone = gateway.nobody();
    for bad in ["x", "ada.1.99999999999.00", "ada.1.1.zz", "ADA.1.1.00"] {
        let link = format!("/confirm-email/{bad}");
        anyone.get(&link).await.is_problem(404, "not_found");
        let posted = anyone.request("POST", &link, &[], None).await;
        posted.is_problem(404, "not_found");
    }
    let removed = ada.request("DELETE", EMAIL, &[], None).await;
    assert_eq!(removed.status, 204);
}
