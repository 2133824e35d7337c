//! Mails to customers about their orders, deliveries and reports, and about the addresses that these mails go to.

mod entities;

use doorstep_contracts::{
    AddressConfirmed, AddressRemoved, AddressSet, CustomerId, NotificationsChosen, ReportFailed,
    ReportReady,
    requests::{MailsView, ReadMails},
};
use doorstep_event::{
    Contract, ContractError, Event, Rejection, Request, RequestContract, Timestamp,
};
use doorstep_runtime::{Effects, HandlerError, Reading, Role, States, Unsupported, reply};
use doorstep_store::EntityKey;

use self::entities::{Record, UserMails};
use super::{not_handled, subject_name};

pub(crate) struct Notifications;

/// The events that the role handles.
pub(crate) enum Fact {
    /// An event of a user's own.
    User(UserFact),
}

/// The events about a user's address and choices.
pub(crate) enum UserFact {
    Set(AddressSet),
    Confirmed(AddressConfirmed),
    Removed,
    Chosen(NotificationsChosen),
}

impl Role for Notifications {
    type Payload = Fact;
    type Command = Unsupported;
    type Query = ReadMails;
    type State = Record;

    fn name(&self) -> &'static str {
        "notifications"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        let fact = match event.event_type.as_str() {
            AddressSet::TYPE => UserFact::Set(AddressSet::read(event)?),
            AddressConfirmed::TYPE => UserFact::Confirmed(AddressConfirmed::read(event)?),
            AddressRemoved::TYPE => AddressRemoved::read(event).map(|_| UserFact::Removed)?,
            NotificationsChosen::TYPE => UserFact::Chosen(NotificationsChosen::read(event)?),
            ReportReady::TYPE => {
                return ReportReady::read(event).map(|_| Reading::Ignored);
            }
            ReportFailed::TYPE => {
                return ReportFailed::read(event).map(|_| Reading::Ignored);
            }
            _ => return not_handled(event),
        };
        subject_name(event, CustomerId::new)?;
        Ok(Reading::Handled(Fact::User(fact)))
    }

    fn keys(&self, event: &Event, _fact: &Fact) -> Vec<EntityKey> {
        vec![EntityKey::from(&event.subject)]
    }

    fn handle(
        &self,
        states: &mut States<Record>,
        event: &Event,
        fact: &Fact,
        _now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let key = EntityKey::from(&event.subject);
        let Fact::User(fact) = fact;
        let mut user = user(states, &key);
        user.program = Some(program(event));
        match fact {
            UserFact::Set(set) => user.set(set),
            UserFact::Confirmed(confirmed) => user.confirm(confirmed),
            UserFact::Removed => user.remove(),
            UserFact::Chosen(choices) => user.choices = *choices,
        }
        states.put(&key, Record::User(user));
        Ok(Effects::none())
    }

    fn read_query(&self, request: &Request) -> Result<ReadMails, ContractError> {
        ReadMails::read(request)
    }

    fn query_keys(&self, _request: &Request, query: &ReadMails) -> Vec<EntityKey> {
        vec![user_key(&query.customer)]
    }

    fn query(
        &self,
        states: &States<Record>,
        _request: &Request,
        query: &ReadMails,
        _now: Timestamp,
    ) -> Result<Vec<u8>, Rejection> {
        let user = user(states, &user_key(&query.customer));
        let mails = user.recent.iter().map(|recent| recent.mail.clone());
        reply::<ReadMails>(&MailsView {
            address: user.address_status(),
            choices: user.choices,
            mails: mails.collect(),
        })
    }
}

/// Returns the program of an event's source: its first word.
fn program(event: &Event) -> String {
    let source = event.source.as_str();
    let (program, _) = source.split_once('/').unwrap_or((source, ""));
    program.to_owned()
}

fn user(states: &States<Record>, key: &EntityKey) -> Box<UserMails> {
    match states.get(key) {
        Some(Record::User(user)) => user.clone(),
        None => Box::default(),
    }
}

fn user_key(customer: &CustomerId) -> EntityKey {
    EntityKey::from(&customer.user_subject())
}
