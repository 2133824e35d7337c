//! Every fault at every step: no outcome says more than is true.

use std::future;

use doorstep_mail::MailOutcome;
use doorstep_smtp::{Action, Step};

use crate::{BUSY, encrypted::TlsServer, send_until, smtp};

const STEPS: [Step; 11] = [
    Step::Connect,
    Step::Hello,
    Step::StartTls,
    Step::Handshake,
    Step::Auth,
    Step::Mail,
    Step::Rcpt,
    Step::Data,
    Step::FirstLine,
    Step::Dot,
    Step::Quit,
];

/// Returns the faults that leave open whether a step has succeeded.
fn silent_faults() -> Vec<Action> {
    vec![
        Action::Close,
        Action::Reset,
        Action::Stall,
        Action::Endless,
        Action::reply("no reply"),
        Action::Raw(b"25".to_vec()),
    ]
}

fn faults(step: Step) -> Vec<Action> {
    let mut faults = silent_faults();
    if step == Step::Dot {
        let accepting = faults.clone().into_iter();
        faults.extend(accepting.map(|fault| Action::Accept(Box::new(fault))));
    }
    let refusals = ["421 4.3.2 Shutting down", BUSY, "550 5.7.1 No"];
    faults.extend(refusals.map(Action::reply));
    faults
}

/// Sends a mail to a server that takes an action at a step, and asserts that the outcome is true.
async fn outcome_is_true(scheme: &'static str, at: Step, action: Action) {
    let taken = action.clone();
    let script = move |_, step| {
        if step == at {
            taken.clone()
        } else {
            Action::Normal
        }
    };
    let tls = TlsServer::start(scheme, &["127.0.0.1"], script).await;
    // A server that is silent, or waits for the rest of a line, is given up as soon as it has got there.
    let waits = match &action {
        Action::Accept(inner) => (**inner).clone(),
        action => action.clone(),
    };
    let limit = async {
        if matches!(waits, Action::Stall | Action::Raw(_)) && at != Step::Quit {
            tls.server.reaches(0, at).await;
        } else {
            future::pending::<()>().await;
        }
    };
    let outcome = send_until(&smtp(&tls.settings()), limit).await;
    let accepted = tls.server.accepted().len();
    let case = format!("{scheme} {at:?} {action:?}: {outcome:?}, {accepted} accepted");
    match outcome {
        MailOutcome::Sent { .. } => assert_eq!(accepted, 1, "{case}"),
        MailOutcome::Unknown { .. } => {
            assert!(matches!(at, Step::FirstLine | Step::Dot), "{case}");
        }
        MailOutcome::Retry { .. }
        | MailOutcome::Misconfigured { .. }
        | MailOutcome::Failed { .. } => assert_eq!(accepted, 0, "{case}"),
    }
}

#[tokio::test]
async fn outcome_after_any_fault_is_true() {
    for scheme in ["smtp", "smtps"] {
        for step in STEPS {
            for action in faults(step) {
                outcome_is_true(scheme, step, action).await;
            }
        }
    }
}
