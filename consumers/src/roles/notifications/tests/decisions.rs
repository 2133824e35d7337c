//! Each cause makes exactly one task, or one reason why there is none.

use doorstep_contracts::{
    CancelledBy, NotificationsChosen, OrderAbandoned, OrderCancelled,
    requests::{AddressStatus, MailKind},
};
use proptest::{prelude::*, sample::Index};

use super::*;
use crate::roles::notifications::entities::MAX_RECENT;

#[test]
fn each_fact_makes_one_task() {
    let mut shop = Shop::with_address("ada");
    shop.place("gateway", "1", Some("ada"));
    assert_eq!(shop.started(), Vec::<String>::new());
    shop.give("gateway", "order/1", &confirmed());
    shop.give("gateway", "delivery/1", &delivered());
    shop.give(
        "gateway",
        "order/1",
        &OrderCancelled {
            by: CancelledBy::Restaurant,
            reason: Label::new("oven").unwrap(),
        },
    );
    shop.place("gateway", "2", Some("ada"));
    shop.give("gateway", "order/2", &refused());
    shop.place("gateway", "3", Some("ada"));
    shop.give(
        "gateway",
        "order/3",
        &OrderAbandoned {
            reason: Label::new("payments timed out").unwrap(),
        },
    );
    for kind in ["ready", "failed"] {
        let golden = match kind {
            "ready" => include_str!("../../../../../common/contracts/golden/report.ready.v1.json"),
            _ => include_str!("../../../../../common/contracts/golden/report.failed.v1.json"),
        };
        let mut data: serde_json::Value = serde_json::from_str(golden).unwrap();
        data["requested_by"] = "ada".into();
        if kind == "ready" {
            let ready: ReportReady = serde_json::from_value(data).unwrap();
            shop.give("reports", "report/7", &ready);
        } else {
            let failed: ReportFailed = serde_json::from_value(data).unwrap();
            shop.give("reports", "report/8", &failed);
        }
    }
    let expected = [
        "mail/order/1/confirmed",
        "mail/order/1/delivered",
        "mail/order/1/cancelled",
        "mail/order/2/refused",
        "mail/order/3/abandoned",
        "mail/report/7/ready",
        "mail/report/8/failed",
    ];
    assert_eq!(shop.started(), expected);
    let listed = shop.listed("ada");
    assert_eq!(listed.mails.len(), expected.len() + 1);
    assert!(
        listed
            .mails
            .iter()
            .all(|mail| mail.status == MailStatus::Queued)
    );
}

#[test]
fn repeated_facts_change_nothing() {
    let mut shop = Shop::with_address("ada");
    shop.place("gateway", "1", Some("ada"));
    for program in ["gateway", "copy", "gateway"] {
        shop.place(program, "1", Some("bob"));
        shop.give(program, "order/1", &confirmed());
        shop.give(program, "delivery/1", &delivered());
    }
    assert_eq!(
        shop.started(),
        ["mail/order/1/confirmed", "mail/order/1/delivered"]
    );
    assert_eq!(shop.listed("bob").mails, []);
}

#[test]
fn outcomes_wait_for_their_order() {
    let mut shop = Shop::with_address("ada");
    shop.give("couriers", "delivery/1", &delivered());
    shop.give("couriers", "delivery/1", &delivered());
    shop.give("copy", "order/1", &confirmed());
    assert_eq!(shop.started(), Vec::<String>::new());
    shop.place("gateway", "1", Some("ada"));
    assert_eq!(
        shop.started(),
        ["mail/order/1/delivered", "mail/order/1/confirmed"]
    );
}

#[test]
fn orders_without_outcome_make_no_mail() {
    let mut shop = Shop::with_address("17850");
    shop.place("import", "536365", Some("17850"));
    assert_eq!(shop.started(), Vec::<String>::new());
    assert_eq!(shop.mails().len(), 1, "only the mail with the link");
}

#[test]
fn mails_without_recipient_have_a_reason() {
    let reason = |shop: &Shop| {
        let mails = shop.mails();
        let order = mails
            .iter()
            .find(|(cause, ..)| cause == "order/1/confirmed");
        let (_, status, reason) = order.expect("no mail").clone();
        assert_eq!(status, MailStatus::Skipped);
        assert_eq!(shop.started(), Vec::<String>::new());
        reason.unwrap()
    };
    let order = |shop: &mut Shop, program: &str, customer: Option<&str>| {
        shop.place(program, "1", customer);
        shop.give(program, "order/1", &confirmed());
    };

    let mut shop = Shop::new();
    order(&mut shop, "gateway", None);
    assert!(reason(&shop).contains("names no customer"));

    let mut shop = Shop::new();
    order(&mut shop, "gateway", Some("ada"));
    assert!(reason(&shop).contains("no confirmed address"));
    assert_eq!(
        statuses(
            &shop
                .role
                .query(&ReadMails {
                    customer: CustomerId::new("ada").unwrap()
                })
                .unwrap()
                .mails
        ),
        [],
        "the caller of the test is another program"
    );
    // The user's first own event shows which program the user belongs to.
    shop.give("gateway", "user/ada", &NotificationsChosen::default());
    assert_eq!(
        statuses(&shop.listed("ada").mails),
        [("order/1/confirmed", MailStatus::Skipped)]
    );

    let mut shop = Shop::new();
    shop.set_address("ada", "ada@example.com", "n1");
    shop.role.tasks.clear();
    order(&mut shop, "gateway", Some("ada"));
    assert!(reason(&shop).contains("no confirmed address"));
    assert_eq!(shop.listed("ada").address, AddressStatus::Unconfirmed);

    let mut shop = Shop::with_address("17850");
    order(&mut shop, "import", Some("17850"));
    assert!(reason(&shop).contains("another program's"));
    assert_eq!(
        statuses(&shop.listed("17850").mails),
        [("user/17850/confirm-n0", MailStatus::Queued)]
    );
}

#[test]
fn choices_are_respected() {
    let all = NotificationsChosen::default();
    for (choices, expected) in [
        (all, vec!["confirmed", "delivered", "refused"]),
        (
            NotificationsChosen {
                confirmations: false,
                ..all
            },
            vec!["delivered", "refused"],
        ),
        (
            NotificationsChosen {
                deliveries: false,
                ..all
            },
            vec!["confirmed", "refused"],
        ),
        (
            NotificationsChosen {
                refusals: false,
                ..all
            },
            vec!["confirmed", "delivered"],
        ),
    ] {
        let mut shop = Shop::with_address("ada");
        shop.give("gateway", "user/ada", &choices);
        shop.place("gateway", "1", Some("ada"));
        shop.give("gateway", "order/1", &confirmed());
        shop.give("gateway", "delivery/1", &delivered());
        shop.place("gateway", "2", Some("ada"));
        shop.give("gateway", "order/2", &refused());
        let started = shop.started();
        let names: Vec<&str> = started
            .iter()
            .map(|id| id.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(names, expected);
        let listed = shop.listed("ada");
        assert_eq!(listed.choices, choices);
        let skipped = listed
            .mails
            .iter()
            .filter(|m| m.status == MailStatus::Skipped);
        for mail in skipped {
            assert!(
                mail.reason.as_ref().unwrap().contains("has chosen"),
                "{mail:?}"
            );
        }
    }
}

#[test]
fn an_address_counts_once_confirmed() {
    let mut shop = Shop::with_address("ada");
    shop.set_address("ada", "new@example.com", "n1");
    assert_eq!(shop.started(), ["mail/user/ada/confirm-n1"]);
    assert_eq!(
        shop.listed("ada").address,
        AddressStatus::ConfirmedAndChanging
    );
    // The link of an address that was set before confirms that one, and not the later one.
    shop.set_address("ada", "newest@example.com", "n2");
    shop.confirm_address("ada", "new@example.com", "n1");
    assert_eq!(
        shop.listed("ada").address,
        AddressStatus::ConfirmedAndChanging
    );
    shop.confirm_address("ada", "newest@example.com", "n2");
    assert_eq!(shop.listed("ada").address, AddressStatus::Confirmed);
    shop.remove_address("ada");
    assert_eq!(shop.listed("ada").address, AddressStatus::None);
}

#[test]
fn another_program_does_not_inherit_an_address() {
    let mut shop = Shop::with_address("ada");
    shop.give("demo", "user/ada", &NotificationsChosen::default());
    shop.place("demo", "1", Some("ada"));
    shop.give("demo", "order/1", &confirmed());
    assert_eq!(shop.started(), Vec::<String>::new());
    assert_eq!(shop.listed("ada").address, AddressStatus::None);
}

#[test]
fn ends_of_tasks_are_listed_with_their_reason() {
    for (ending, status) in [
        (TaskEnding::Failed, MailStatus::Failed),
        (TaskEnding::Cancelled, MailStatus::Cancelled),
        (TaskEnding::Unknown, MailStatus::Unknown),
        (TaskEnding::SettledDone, MailStatus::Sent),
        (TaskEnding::SettledFailed, MailStatus::Failed),
    ] {
        let mut shop = Shop::with_address("ada");
        shop.place("gateway", "1", Some("ada"));
        shop.give("gateway", "order/1", &confirmed());
        shop.ended("mail/order/1/confirmed", "ada", ending, "550 no such user");
        let mail = shop.listed("ada").mails.pop().unwrap();
        assert_eq!((mail.status, mail.kind), (status, MailKind::OrderConfirmed));
        assert_eq!(mail.reason.as_deref(), Some("550 no such user"));

        // A replay or a retry may succeed after all.
        let mailed = Mailed {
            customer: CustomerId::new("ada").unwrap(),
            mail: "mail/order/1/confirmed".to_owned(),
            result: MailResult::Sent {
                reply: "Ok".to_owned(),
            },
        };
        shop.role.execute(&mailed).unwrap();
        assert_eq!(
            shop.listed("ada").mails.pop().unwrap().status,
            MailStatus::Sent
        );
    }
}

#[test]
fn end_of_an_unknown_mail_is_rejected() {
    let mut shop = Shop::new();
    let mailed = Mailed {
        customer: CustomerId::new("ada").unwrap(),
        mail: "mail/order/1/confirmed".to_owned(),
        result: MailResult::Sent {
            reply: String::new(),
        },
    };
    assert_eq!(
        shop.role.execute(&mailed).unwrap_err().code,
        Rejection::FAILED
    );
}

#[test]
fn lists_of_mails_are_bounded() {
    let mut shop = Shop::with_address("ada");
    for order in 0..2 * MAX_RECENT {
        shop.place("gateway", &order.to_string(), Some("ada"));
        shop.give("gateway", &format!("order/{order}"), &refused());
    }
    let listed = shop.listed("ada").mails;
    assert_eq!(listed.len(), MAX_RECENT);
    assert_eq!(listed.last().unwrap().cause, "order/99/refused");
}

#[test]
fn longest_names_still_fit_a_task() {
    let (order, name) = ("o".repeat(200), "n".repeat(200));
    let mut shop = Shop::with_address(&"n".repeat(60));
    shop.set_address(&name, "ada@example.com", &"n".repeat(32));
    shop.confirm_address(&name, "ada@example.com", &"n".repeat(32));
    shop.place("gateway", &order, Some(&name));
    shop.give("gateway", &format!("order/{order}"), &confirmed());
    assert_eq!(shop.started().len(), 2);
}

#[test]
fn no_task_holds_an_address() {
    let mut shop = Shop::with_address("ada");
    shop.set_address("ada", "secret@example.com", "n1");
    shop.place("gateway", "1", Some("ada"));
    shop.give("gateway", "order/1", &confirmed());
    for task in &shop.role.tasks {
        let TaskEffect::Start { input, .. } = task else {
            panic!("{task:?}");
        };
        let input = String::from_utf8_lossy(input);
        assert!(!input.contains("@example.com"), "{input}");
    }
    let listed = serde_json::to_string(&shop.listed("ada")).unwrap();
    assert!(!listed.contains("@example.com"), "{listed}");
}

/// The facts about two orders of two streams each, in the order of each stream.
fn streams() -> Vec<(&'static str, u64)> {
    vec![
        ("order/1", 3),
        ("delivery/1", 1),
        ("order/2", 2),
        ("delivery/2", 1),
    ]
}

proptest! {
    #[test]
    fn any_order_of_streams_makes_each_mail_once(picks in prop::collection::vec(any::<Index>(), 14)) {
        let mut shop = Shop::with_address("ada");
        // Each stream comes twice, the second time from a copy of its source.
        let mut left: Vec<(&str, &str, u64, u64)> = ["gateway", "gateway-copy"]
            .into_iter()
            .flat_map(|program| streams().into_iter().map(move |(subject, n)| (program, subject, 0, n)))
            .collect();
        for pick in picks {
            let at = pick.index(left.len());
            let (program, subject, done, all) = left[at];
            match (subject, done) {
                ("order/1" | "order/2", 0) => shop.place("gateway", &subject[6..], Some("ada")),
                ("order/1", 1) => shop.give(program, subject, &confirmed()),
                ("order/1", 2) => shop.give(program, subject, &OrderCancelled {
                    by: CancelledBy::Customer,
                    reason: Label::new("late").unwrap(),
                }),
                ("order/2", 1) => shop.give(program, subject, &refused()),
                _ => shop.give(program, subject, &delivered()),
            }
            left[at].2 += 1;
            if left[at].2 == all {
                left.remove(at);
            }
        }
        prop_assert!(left.is_empty());
        let mut started = shop.started();
        started.sort();
        prop_assert_eq!(started, [
            "mail/order/1/cancelled",
            "mail/order/1/confirmed",
            "mail/order/1/delivered",
            "mail/order/2/delivered",
            "mail/order/2/refused",
        ]);
    }
}
