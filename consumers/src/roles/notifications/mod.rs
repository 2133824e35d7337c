//! Mails to customers about their orders, deliveries and reports, and about the addresses that these mails go to.
//!
//! Each such fact is the cause of exactly one mail, or of a reason why there is none. The cause names the mail's state
//! and its task, so a repeated fact changes nothing. An event about an order does not name its customer: the order
//! remembers the customer, and the decision reaches the user's state as an event that this role schedules for itself.
//!
//! A task holds no address. It reads the user's state when it runs, and sends to the address that is confirmed then.

mod contracts;
mod entities;
mod letter;
mod public_url;
mod tasks;
#[cfg(test)]
mod tests;

use doorstep_contracts::{
    AddressConfirmed, AddressRemoved, AddressSet, CustomerId, DeliveryDelivered, InvoiceNo,
    NotificationsChosen, OrderAbandoned, OrderCancelled, OrderConfirmed, OrderPlaced, OrderRefused,
    ReportFailed, ReportReady,
    requests::{MailStatus, MailsView, ReadMails},
};
use doorstep_event::{
    Contract, ContractError, Event, Rejection, Request, RequestContract, Source, Subject, Timestamp,
};
use doorstep_runtime::{
    CommandOutcome, Effects, HandlerError, Reading, Role, States, reply,
    task::{TaskEnding, TaskOutcome, TaskSet},
};
use doorstep_store::{EntityKey, MAX_TASK_ID_BYTES, TaskId};
use sha2::{Digest, Sha256};

use self::{
    contracts::{
        MailDue, MailResult, Mailed, OrderOutcome, OrderTopic, ReportOutcome, ReportTopic, Topic,
    },
    entities::{MailRecord, OrderRecord, PlacedOrder, Record, SkipReason, UserMails},
};
pub(crate) use self::{
    public_url::PublicUrl,
    tasks::{MailResources, SendMail},
};
use super::{RoleOutside, not_handled, order_of, subject_name};

pub(crate) struct Notifications;

/// The events that the role handles.
pub(crate) enum Fact {
    Placed(OrderPlaced),
    Outcome(InvoiceNo, OrderOutcome),
    Report(Box<ReportTopic>),
    User(CustomerId, UserFact),
    Due(Box<MailDue>),
}

/// The events about a user's address and choices.
pub(crate) enum UserFact {
    Set(AddressSet),
    Confirmed(AddressConfirmed),
    Removed,
    Chosen(NotificationsChosen),
}

/// The ends of tasks, which return as commands.
pub(crate) enum Command {
    Mailed(Mailed),
    Ended(TaskOutcome),
}

/// Returns the tasks that a process of the role runs.
pub(crate) fn tasks_of(outside: RoleOutside<'_>) -> TaskSet {
    let mail = outside.mail.clone();
    let policy = mail.policy;
    TaskSet::new().with_policy::<SendMail>(mail, policy)
}

impl Role for Notifications {
    type Payload = Fact;
    type Command = Command;
    type Query = ReadMails;
    type State = Record;

    fn name(&self) -> &'static str {
        "notifications"
    }

    fn read(&self, event: &Event) -> Result<Reading<Fact>, ContractError> {
        let fact = match event.event_type.as_str() {
            OrderPlaced::TYPE => Fact::Placed(OrderPlaced::read(event)?),
            DeliveryDelivered::TYPE => {
                let DeliveryDelivered { delivered_at } = DeliveryDelivered::read(event)?;
                let order = subject_name(event, InvoiceNo::new)?;
                Fact::Outcome(order, OrderOutcome::Delivered { delivered_at })
            }
            MailDue::TYPE => Fact::Due(MailDue::read(event)?.into()),
            _ => match (
                read_order_outcome(event)?,
                read_report(event)?,
                read_user(event)?,
            ) {
                (Some(outcome), _, _) => Fact::Outcome(order_of(event)?, outcome),
                (_, Some(report), _) => Fact::Report(report.into()),
                (_, _, Some(user)) => Fact::User(subject_name(event, CustomerId::new)?, user),
                (None, None, None) => return not_handled(event),
            },
        };
        Ok(Reading::Handled(fact))
    }

    fn keys(&self, event: &Event, fact: &Fact) -> Vec<EntityKey> {
        match fact {
            Fact::Placed(_) => vec![EntityKey::from(&event.subject)],
            Fact::Outcome(order, _) => vec![EntityKey::from(&order.order_subject())],
            Fact::User(customer, UserFact::Set(set)) => {
                vec![user_key(customer), mail_key(&address_topic(customer, set))]
            }
            Fact::User(customer, _) => vec![user_key(customer)],
            Fact::Report(report) => {
                let customer = report.outcome.requested_by();
                let topic = Topic::Report(report.as_ref().clone());
                vec![user_key(customer), mail_key(&topic)]
            }
            Fact::Due(due) => {
                let user = due.customer.as_ref().map(user_key);
                [mail_key(&due.topic)].into_iter().chain(user).collect()
            }
        }
    }

    fn handle(
        &self,
        states: &mut States<Record>,
        event: &Event,
        fact: &Fact,
        now: Timestamp,
    ) -> Result<Effects, HandlerError> {
        let mut effects = Effects::none();
        match fact {
            Fact::Placed(placed) => {
                let order = order_of(event).map_err(|e| HandlerError::reject(e.to_string()))?;
                let placed = PlacedOrder {
                    customer: placed.customer.clone(),
                    program: program(&event.source).to_owned(),
                    total: placed.total,
                };
                for outcome in place(states, &order, &placed) {
                    effects.merge_due(now, placed.due(&order, &outcome))?;
                }
            }
            Fact::Outcome(order, outcome) => {
                if let Some(placed) = note_outcome(states, order, outcome) {
                    effects.merge_due(now, placed.due(order, outcome))?;
                }
            }
            Fact::Report(report) => {
                let customer = report.outcome.requested_by();
                let topic = Topic::Report(report.as_ref().clone());
                decide(states, Some(customer), None, &topic, now, &mut effects)?;
            }
            Fact::User(customer, fact) => {
                let key = user_key(customer);
                let mut user = user(states, &key);
                user.of_program(program(&event.source));
                match fact {
                    UserFact::Set(set) => user.set_address(set),
                    UserFact::Confirmed(confirmed) => user.confirm_address(confirmed),
                    UserFact::Removed => user.remove_address(),
                    UserFact::Chosen(choices) => user.choose(*choices),
                }
                states.put(&key, Record::User(user));
                if let UserFact::Set(set) = fact {
                    let topic = address_topic(customer, set);
                    decide(states, Some(customer), None, &topic, now, &mut effects)?;
                }
            }
            Fact::Due(due) => {
                let program = due.program.as_deref();
                decide(
                    states,
                    due.customer.as_ref(),
                    program,
                    &due.topic,
                    now,
                    &mut effects,
                )?;
            }
        }
        Ok(effects)
    }

    fn read_command(&self, request: &Request) -> Result<Command, ContractError> {
        Ok(match request.kind.as_str() {
            Mailed::TYPE => Command::Mailed(Mailed::read(request)?),
            TaskOutcome::TYPE => Command::Ended(TaskOutcome::read(request)?),
            unknown => return Err(ContractError::UnknownType(unknown.to_owned())),
        })
    }

    fn command_keys(&self, _request: &Request, command: &Command) -> Vec<EntityKey> {
        match command {
            Command::Mailed(mailed) => {
                vec![EntityKey::new(&*mailed.mail), user_key(&mailed.customer)]
            }
            // A task is about its user.
            Command::Ended(ended) => {
                vec![
                    EntityKey::new(&*ended.task),
                    EntityKey::from(&ended.subject),
                ]
            }
        }
    }

    fn execute(
        &self,
        states: &mut States<Record>,
        _request: &Request,
        command: &Command,
        now: Timestamp,
    ) -> Result<CommandOutcome, Rejection> {
        let (mail, user, status, reason) = match command {
            Command::Mailed(mailed) => {
                let (status, reason) = match &mailed.result {
                    MailResult::Sent { reply } => (MailStatus::Sent, reply),
                    MailResult::Skipped { reason } => (MailStatus::Skipped, reason),
                };
                (&*mailed.mail, user_key(&mailed.customer), status, reason)
            }
            Command::Ended(ended) => {
                let status = match ended.ending {
                    TaskEnding::Failed | TaskEnding::SettledFailed => MailStatus::Failed,
                    TaskEnding::Cancelled => MailStatus::Cancelled,
                    TaskEnding::Unknown => MailStatus::Unknown,
                    TaskEnding::SettledDone => MailStatus::Sent,
                };
                let user = EntityKey::from(&ended.subject);
                (&*ended.task, user, status, &ended.detail)
            }
        };
        end(states, &EntityKey::new(mail), &user, status, reason, now)?;
        match command {
            Command::Mailed(_) => CommandOutcome::new::<Mailed>(&(), Effects::none()),
            Command::Ended(_) => CommandOutcome::new::<TaskOutcome>(&(), Effects::none()),
        }
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
        request: &Request,
        query: &ReadMails,
        _now: Timestamp,
    ) -> Result<Vec<u8>, Rejection> {
        let user = user(states, &user_key(&query.customer));
        reply::<ReadMails>(&MailsView {
            address: user.address_status(),
            choices: user.choices(),
            mails: user.recent(program(&request.caller)),
        })
    }
}

fn read_order_outcome(event: &Event) -> Result<Option<OrderOutcome>, ContractError> {
    Ok(Some(match event.event_type.as_str() {
        OrderConfirmed::TYPE => {
            let OrderConfirmed {
                restaurant,
                promised_at,
            } = OrderConfirmed::read(event)?;
            OrderOutcome::Confirmed {
                restaurant,
                promised_at,
            }
        }
        OrderRefused::TYPE => {
            let OrderRefused { by, reason } = OrderRefused::read(event)?;
            OrderOutcome::Refused { by, reason }
        }
        OrderAbandoned::TYPE => {
            let OrderAbandoned { reason } = OrderAbandoned::read(event)?;
            OrderOutcome::Abandoned { reason }
        }
        OrderCancelled::TYPE => {
            let OrderCancelled { by, reason } = OrderCancelled::read(event)?;
            OrderOutcome::Cancelled { by, reason }
        }
        _ => return Ok(None),
    }))
}

fn read_report(event: &Event) -> Result<Option<ReportTopic>, ContractError> {
    let outcome = match event.event_type.as_str() {
        ReportReady::TYPE => ReportOutcome::Ready(ReportReady::read(event)?.into()),
        ReportFailed::TYPE => ReportOutcome::Failed(ReportFailed::read(event)?.into()),
        _ => return Ok(None),
    };
    let report = subject_name(event, |name| Ok::<_, ContractError>(name.to_owned()))?;
    Ok(Some(ReportTopic { report, outcome }))
}

fn read_user(event: &Event) -> Result<Option<UserFact>, ContractError> {
    Ok(Some(match event.event_type.as_str() {
        AddressSet::TYPE => UserFact::Set(AddressSet::read(event)?),
        AddressConfirmed::TYPE => UserFact::Confirmed(AddressConfirmed::read(event)?),
        AddressRemoved::TYPE => AddressRemoved::read(event).map(|_| UserFact::Removed)?,
        NotificationsChosen::TYPE => UserFact::Chosen(NotificationsChosen::read(event)?),
        _ => return Ok(None),
    }))
}

/// Takes an order, and returns its outcomes that came first. A second placement changes nothing.
fn place(
    states: &mut States<Record>,
    order: &InvoiceNo,
    placed: &PlacedOrder,
) -> Vec<OrderOutcome> {
    let key = EntityKey::from(&order.order_subject());
    let waiting = match states.get(&key) {
        Some(Record::Order(OrderRecord::Placed(_))) => return Vec::new(),
        Some(Record::Order(OrderRecord::Expected(waiting))) => waiting.clone(),
        _ => Vec::new(),
    };
    states.put(&key, Record::Order(OrderRecord::Placed(placed.clone())));
    waiting
}

/// Returns the order if it is placed. Otherwise its outcome waits for it.
fn note_outcome(
    states: &mut States<Record>,
    order: &InvoiceNo,
    outcome: &OrderOutcome,
) -> Option<PlacedOrder> {
    let key = EntityKey::from(&order.order_subject());
    let mut waiting = match states.get(&key) {
        Some(Record::Order(OrderRecord::Placed(placed))) => return Some(placed.clone()),
        Some(Record::Order(OrderRecord::Expected(waiting))) => waiting.clone(),
        _ => Vec::new(),
    };
    if waiting.iter().all(|one| one.name() != outcome.name()) {
        waiting.push(outcome.clone());
        states.put(&key, Record::Order(OrderRecord::Expected(waiting)));
    }
    None
}

impl PlacedOrder {
    fn due(&self, order: &InvoiceNo, outcome: &OrderOutcome) -> MailDue {
        MailDue {
            customer: self.customer.clone(),
            program: Some(self.program.clone()),
            topic: Topic::Order(OrderTopic {
                order: order.clone(),
                total: self.total,
                outcome: outcome.clone(),
            }),
        }
    }
}

/// Schedules decisions on mails.
trait MergeDue {
    fn merge_due(&mut self, now: Timestamp, due: MailDue) -> Result<(), HandlerError>;
}

impl MergeDue for Effects {
    fn merge_due(&mut self, now: Timestamp, due: MailDue) -> Result<(), HandlerError> {
        let subject = Subject::new(mail_name(&due.topic));
        let subject = subject.map_err(|e| HandlerError::reject(e.to_string()))?;
        self.schedule(now, &subject, &due)
    }
}

/// Decides on the mail for a cause, once: starts its task, or notes the reason why there is no mail.
fn decide(
    states: &mut States<Record>,
    customer: Option<&CustomerId>,
    program: Option<&str>,
    topic: &Topic,
    now: Timestamp,
    effects: &mut Effects,
) -> Result<(), HandlerError> {
    let key = mail_key(topic);
    if states.get(&key).is_some() {
        return Ok(());
    }
    let user = customer.map(|customer| (customer, user(states, &user_key(customer))));
    let wanted = match &user {
        None => Err(SkipReason::NoCustomer),
        Some((_, user)) => user.recipient(topic, program).map(drop),
    };
    let record = MailRecord {
        cause: topic.cause(),
        customer: customer.cloned(),
        program: program.map(str::to_owned),
        kind: topic.kind(),
        status: match wanted {
            Ok(()) => MailStatus::Queued,
            Err(_) => MailStatus::Skipped,
        },
        reason: wanted.err().map(|reason| reason.to_string()),
        at: now,
    };
    if let Some((customer, mut user)) = user {
        if wanted.is_ok() {
            let task = SendMail {
                customer: customer.clone(),
                program: program.map(str::to_owned),
                topic: topic.clone(),
            };
            let id =
                TaskId::new(mail_name(topic)).map_err(|e| HandlerError::reject(e.to_string()))?;
            effects.start(id, &customer.user_subject(), &task)?;
        }
        user.list(program, &record);
        states.put(&user_key(customer), Record::User(user));
    }
    states.put(&key, Record::Mail(record));
    Ok(())
}

/// Notes the end of a mail's task, and lists it with its user.
fn end(
    states: &mut States<Record>,
    mail: &EntityKey,
    user_key: &EntityKey,
    status: MailStatus,
    reason: &str,
    now: Timestamp,
) -> Result<(), Rejection> {
    let Some(Record::Mail(record)) = states.get(mail) else {
        let detail = format!("there is no {mail}");
        return Err(Rejection::new(Rejection::FAILED, detail));
    };
    let record = MailRecord {
        status,
        reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        at: now,
        ..record.clone()
    };
    let mut user = user(states, user_key);
    user.list(record.program.as_deref(), &record);
    states.put(user_key, Record::User(user));
    states.put(mail, Record::Mail(record));
    Ok(())
}

/// Returns the program of a source: its first word.
fn program(source: &Source) -> &str {
    let source = source.as_str();
    source
        .split_once('/')
        .map_or(source, |(program, _)| program)
}

fn address_topic(customer: &CustomerId, set: &AddressSet) -> Topic {
    Topic::Address {
        customer: customer.clone(),
        nonce: set.nonce.clone(),
    }
}

fn user(states: &States<Record>, key: &EntityKey) -> Box<UserMails> {
    match states.get(key) {
        Some(Record::User(user)) => user.clone(),
        Some(Record::Mail(_) | Record::Order(_)) | None => Box::default(),
    }
}

fn user_key(customer: &CustomerId) -> EntityKey {
    EntityKey::from(&customer.user_subject())
}

fn mail_key(topic: &Topic) -> EntityKey {
    EntityKey::new(mail_name(topic))
}

/// Returns the key of a mail's state, which is also the id of its task: `mail/CAUSE`, or a digest of a long cause.
fn mail_name(topic: &Topic) -> String {
    let name = format!("mail/{}", topic.cause());
    if name.len() <= MAX_TASK_ID_BYTES {
        return name;
    }
    format!("mail/{}", hex::encode(Sha256::digest(name)))
}
