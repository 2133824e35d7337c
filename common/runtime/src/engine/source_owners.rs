//! The check of a delivery's sender against the owner of its source.
//!
//! A source belongs to the broker user that first published under it. Otherwise any program allowed to publish could
//! send events under another's source: they would be applied, or take the sequences of the owner's events, which would
//! then count as duplicates.
//!
//! A source whose events came without a user id has no owner, and the first user that publishes with one becomes its
//! owner. Earlier events may still be queued or redelivered. So the former owner, or events without a user id, are
//! accepted for another [`Limits::former_owner_grace`](crate::Limits::former_owner_grace).

use std::time::Duration;

use doorstep_event::{Event, Sender, Timestamp};
use doorstep_store::{DeadLetter, FormerOwner, SourceOwner};

use crate::dead_letter::{Cause, reason};

/// The result of the check of a delivery's sender.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The sender owns the source, or did so until a moment ago.
    Accepted,
    /// The delivery is accepted, and this is the owner from now on.
    Recorded(SourceOwner),
    /// The sender is a former owner whose grace is over. Only a copy of an accepted event is still a duplicate.
    Late,
    /// The source belongs to another user.
    Foreign,
    /// The delivery did not come over the exchange of events.
    Bypass,
}

/// Compares a sender with the owner of a source; `None` if none is recorded.
pub(super) fn judge(
    owner: Option<&SourceOwner>,
    sender: &Sender,
    now: Timestamp,
    grace: Duration,
) -> Verdict {
    let user = match sender {
        Sender::Bypass(_) => return Verdict::Bypass,
        Sender::Anonymous => None,
        Sender::User(user) => Some(user),
    };
    let Some(owner) = owner else {
        return Verdict::Recorded(SourceOwner::first(user.cloned(), now));
    };
    match (&owner.user, user) {
        (None, None) => return Verdict::Accepted,
        (None, Some(user)) => return Verdict::Recorded(owner.succeeded_by(user.clone(), now)),
        (Some(owner), Some(user)) if owner == user => return Verdict::Accepted,
        (Some(_), _) => {}
    }
    let is_former = match (&owner.former, user) {
        (Some(FormerOwner::Nobody), None) => true,
        (Some(FormerOwner::User(former)), Some(user)) => former == user,
        _ => false,
    };
    if !is_former {
        return Verdict::Foreign;
    }
    let until = owner.since.checked_add(grace).unwrap_or(Timestamp::MAX);
    if now <= until {
        Verdict::Accepted
    } else {
        Verdict::Late
    }
}

/// Returns the cause for rejecting a delivery under another user's source.
pub(super) fn foreign(event: &Event, owner: Option<&SourceOwner>, sender: &Sender) -> Cause {
    let user = owner.and_then(|owner| owner.user.as_ref());
    let user = user.map_or("", |user| user.as_str());
    Cause::new(
        reason::FOREIGN_SOURCE,
        format!(
            "source {:?} belongs to user {user:?} and {}",
            event.source.as_str(),
            comes_from(sender)
        ),
    )
}

/// Returns the end of the detail, which names the sender. Quotes within names are escaped, so no name can imitate
/// another one.
fn comes_from(sender: &Sender) -> String {
    format!(
        "this comes from {sender}: if the program's user has changed, `consumers sources transfer` makes the new one the owner"
    )
}

/// Returns whether a dead letter is an event of another user's source.
pub(crate) fn is_foreign(dead: &DeadLetter) -> bool {
    dead.reason == reason::FOREIGN_SOURCE
}

/// Returns whether such a dead letter was sent by the present owner of its source.
pub(crate) fn is_from_owner(dead: &DeadLetter, owner: Option<&SourceOwner>) -> bool {
    let user = owner.and_then(|owner| owner.user.clone());
    user.is_some_and(|user| dead.detail.ends_with(&comes_from(&Sender::User(user))))
}

/// Returns the cause for rejecting a delivery that did not come over the exchange of events.
pub(super) fn bypass(sender: &Sender) -> Cause {
    Cause::new(
        reason::BYPASS,
        format!(
            "it came by {sender}, where no topic permission holds: publish it to the exchange of events"
        ),
    )
}

#[cfg(test)]
mod tests {
    use doorstep_event::BrokerUser;

    use super::*;

    const GRACE: Duration = Duration::from_hours(24);

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + hour * 3_600).unwrap()
    }

    fn user(name: &str) -> Sender {
        Sender::User(BrokerUser::new(name))
    }

    fn first(sender: Sender) -> SourceOwner {
        match judge(None, &sender, at(0), GRACE) {
            Verdict::Recorded(owner) => owner,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn source_belongs_to_its_first_user() {
        let owner = first(user("shop"));
        let judge = |sender| judge(Some(&owner), &sender, at(1), GRACE);
        assert_eq!(judge(user("shop")), Verdict::Accepted);
        assert_eq!(judge(user("thief")), Verdict::Foreign);
        assert_eq!(judge(Sender::Anonymous), Verdict::Foreign);
        let direct = Sender::Bypass("the default exchange".into());
        assert_eq!(judge(direct), Verdict::Bypass);
    }

    #[test]
    fn unowned_source_is_claimed_once_backlog_accepted() {
        let nobody = first(Sender::Anonymous);
        assert_eq!(
            judge(Some(&nobody), &Sender::Anonymous, at(999), GRACE),
            Verdict::Accepted
        );
        let Verdict::Recorded(claimed) = judge(Some(&nobody), &user("shop"), at(10), GRACE) else {
            panic!("it was not claimed");
        };
        let judge = |sender, hour| judge(Some(&claimed), &sender, at(hour), GRACE);
        assert_eq!(judge(user("shop"), 999), Verdict::Accepted);
        assert_eq!(judge(user("thief"), 10), Verdict::Foreign);
        assert_eq!(judge(Sender::Anonymous, 34), Verdict::Accepted);
        assert_eq!(judge(Sender::Anonymous, 35), Verdict::Late);
    }

    #[test]
    fn former_owner_is_accepted_during_its_grace() {
        let owner = first(user("shop")).succeeded_by(BrokerUser::new("shop-eu"), at(10));
        let judge = |sender, hour| judge(Some(&owner), &sender, at(hour), GRACE);
        assert_eq!(judge(user("shop-eu"), 11), Verdict::Accepted);
        assert_eq!(judge(user("shop"), 11), Verdict::Accepted);
        assert_eq!(judge(user("shop"), 35), Verdict::Late);
        assert_eq!(judge(Sender::Anonymous, 11), Verdict::Foreign);
    }
}
