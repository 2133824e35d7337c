//! The states of the role, each under its own kind of key.

use doorstep_contracts::{
    AddressConfirmed, AddressSet, CustomerId, EmailAddress, Money, NotificationsChosen, SignedLink,
    requests::{AddressStatus, MailKind, MailStatus, MailView},
};
use doorstep_event::Timestamp;
use serde::{Deserialize, Serialize};

use super::contracts::{OrderOutcome, Topic};

/// The limit of mails that a user's state lists.
pub(super) const MAX_RECENT: usize = 50;

/// The states of the role, each under its own kind of key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Record {
    /// On `user/NAME`.
    User(Box<UserMails>),
    /// On `mail/CAUSE`.
    Mail(MailRecord),
    /// On `order/ORDER`.
    Order(OrderRecord),
}

/// A user's address, choices and latest mails. Names are unique only within a program, so each part knows its program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserMails {
    /// The program of the user's own events; none before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirmed: Option<EmailAddress>,
    /// The address that the user has set and not confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<AddressSet>,
    choices: NotificationsChosen,
    /// The latest mails, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    recent: Vec<RecentMail>,
}

/// A mail in a user's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecentMail {
    /// The program of the order; none for a report and for the mail that confirms an address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    program: Option<String>,
    mail: MailView,
}

/// The reason why a mail is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SkipReason {
    #[error("the order names no customer")]
    NoCustomer,
    #[error("the order is another program's, whose customer only has the same name")]
    OtherProgram,
    #[error("the user has no confirmed address")]
    NoAddress,
    #[error("the user has chosen to get no mails about confirmed orders")]
    NoConfirmations,
    #[error("the user has chosen to get no mails about orders that failed")]
    NoRefusals,
    #[error("the user has chosen to get no mails about deliveries")]
    NoDeliveries,
    #[error("the user has chosen to get no mails about reports")]
    NoReports,
    #[error("the address is confirmed already, or was set anew or removed")]
    NotToConfirm,
}

/// The recipient of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recipient<'a> {
    pub(super) address: &'a EmailAddress,
    /// The link that confirms the address, if the mail is about that.
    pub(super) link: Option<&'a SignedLink>,
}

impl UserMails {
    /// Takes an event of the user's own. A user of the same name in another program starts without an address.
    pub(super) fn of_program(&mut self, program: &str) {
        if self.program.as_deref() != Some(program) {
            *self = Self {
                program: Some(program.to_owned()),
                recent: std::mem::take(&mut self.recent),
                ..Self::default()
            };
        }
    }

    pub(super) fn set_address(&mut self, set: &AddressSet) {
        self.pending = Some(set.clone());
    }

    /// Takes the address. One that was set later stays unconfirmed.
    pub(super) fn confirm_address(&mut self, confirmed: &AddressConfirmed) {
        let nonce = &confirmed.nonce;
        self.pending = self.pending.take().filter(|set| set.nonce != *nonce);
        self.confirmed = Some(confirmed.address.clone());
    }

    pub(super) fn remove_address(&mut self) {
        self.pending = None;
        self.confirmed = None;
    }

    pub(super) fn choose(&mut self, choices: NotificationsChosen) {
        self.choices = choices;
    }

    pub(super) fn choices(&self) -> NotificationsChosen {
        self.choices
    }

    pub(super) fn address_status(&self) -> AddressStatus {
        match (&self.confirmed, &self.pending) {
            (None, None) => AddressStatus::None,
            (None, Some(_)) => AddressStatus::Unconfirmed,
            (Some(_), None) => AddressStatus::Confirmed,
            (Some(_), Some(_)) => AddressStatus::ConfirmedAndChanging,
        }
    }

    /// Returns the recipient of a mail, or the reason why there is none. `program` is that of the order.
    pub(super) fn recipient(
        &self,
        topic: &Topic,
        program: Option<&str>,
    ) -> Result<Recipient<'_>, SkipReason> {
        let chosen = match topic.kind() {
            MailKind::ConfirmAddress => return self.unconfirmed(topic),
            MailKind::OrderConfirmed => self.choices.confirmations,
            MailKind::OrderRefused | MailKind::OrderAbandoned | MailKind::OrderCancelled => {
                self.choices.refusals
            }
            MailKind::OrderDelivered => self.choices.deliveries,
            MailKind::ReportReady | MailKind::ReportFailed => self.choices.reports,
        };
        if self.is_of_other_program(program) {
            return Err(SkipReason::OtherProgram);
        }
        let address = self.confirmed.as_ref().ok_or(SkipReason::NoAddress)?;
        match (chosen, topic.kind()) {
            (true, _) => Ok(Recipient {
                address,
                link: None,
            }),
            (false, MailKind::OrderConfirmed) => Err(SkipReason::NoConfirmations),
            (false, MailKind::OrderDelivered) => Err(SkipReason::NoDeliveries),
            (false, MailKind::ReportReady | MailKind::ReportFailed) => Err(SkipReason::NoReports),
            (false, _) => Err(SkipReason::NoRefusals),
        }
    }

    /// Returns the recipient of the mail that confirms an address: the only one that may go to an unconfirmed address.
    fn unconfirmed(&self, topic: &Topic) -> Result<Recipient<'_>, SkipReason> {
        let set = self
            .pending
            .as_ref()
            .filter(|set| matches!(topic, Topic::Address { nonce, .. } if *nonce == set.nonce));
        let set = set.ok_or(SkipReason::NotToConfirm)?;
        Ok(Recipient {
            address: &set.address,
            link: Some(&set.link),
        })
    }

    fn is_of_other_program(&self, program: Option<&str>) -> bool {
        let own = self.program.as_deref();
        own.is_some_and(|own| program.is_some_and(|program| program != own))
    }

    /// Lists a mail, or its new status. Mails about another program's customer are not this user's.
    pub(super) fn list(&mut self, program: Option<&str>, mail: &MailRecord) {
        if self.is_of_other_program(program) {
            return;
        }
        let view = mail.view();
        match self.recent.iter_mut().find(|r| r.mail.cause == view.cause) {
            Some(listed) => listed.mail = view,
            None => {
                self.recent.push(RecentMail {
                    program: program.map(str::to_owned),
                    mail: view,
                });
                let excess = self.recent.len().saturating_sub(MAX_RECENT);
                self.recent.drain(..excess);
            }
        }
    }

    /// Returns the latest mails of the user in its own program, or in that of the caller while it has none.
    pub(super) fn recent(&self, caller: &str) -> Vec<MailView> {
        let own = self.program.as_deref().unwrap_or(caller);
        let is_own = |r: &&RecentMail| r.program.as_deref().is_none_or(|of| of == own);
        let own = self.recent.iter().filter(is_own);
        own.map(|recent| recent.mail.clone()).collect()
    }
}

/// A mail, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MailRecord {
    pub(super) cause: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) customer: Option<CustomerId>,
    /// The program of the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) program: Option<String>,
    pub(super) kind: MailKind,
    pub(super) status: MailStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// Time of the latest change of its status.
    pub(super) at: Timestamp,
}

impl MailRecord {
    fn view(&self) -> MailView {
        MailView {
            cause: self.cause.clone(),
            kind: self.kind,
            status: self.status,
            reason: self.reason.clone(),
            at: self.at,
        }
    }
}

/// An order as far as mails are concerned. Its outcome may be known before the order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OrderRecord {
    /// Not placed yet; its outcomes wait, each kind once.
    Expected(Vec<OrderOutcome>),
    Placed(PlacedOrder),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlacedOrder {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) customer: Option<CustomerId>,
    pub(super) program: String,
    pub(super) total: Money,
}
