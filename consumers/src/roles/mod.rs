//! The list of roles. A new role is a file here, a line in the list below, and its subjects in the contracts.

mod access_log;
mod inventory;
mod notifications;
mod orders;
mod payments;
pub(crate) mod reports;
mod restaurant;
#[cfg(test)]
pub(crate) mod testing;
mod tracking;

pub(crate) use access_log::{EndpointHour, HourlyReport};
pub(crate) use notifications::{MailResources, PublicUrl, SendMail};

use std::{fmt::Display, future::Future, path::Path, pin::Pin};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use doorstep_contracts::{InvoiceNo, ROLES, registry};
use doorstep_event::{ContractError, Event, Timestamp};
use doorstep_runtime::{
    DryRun, Engine, Limits, Reading, Role,
    runner::{self, RunSettings, RunningRole},
    task::TaskSet,
};
use doorstep_store::{DeadLetter, SqliteStore, StoreError};

use self::{access_log::Retention, reports::ReportSettings};

/// The store that roles run on.
pub(crate) type RoleStore = SqliteStore;

/// A role that this program can run. All commands but `run` need only its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoleEntry {
    /// Its name, in queues, stores and commands.
    pub(crate) name: &'static str,
    /// Starts it on a store.
    pub(crate) start: fn(RoleStore, RunSettings, RoleOutside<'_>) -> RunningRole,
    /// Dry-runs the replay of a dead letter with this event in place of its own. Writes nothing.
    pub(crate) dry_run: fn(RoleStore, DeadLetter, Event) -> DryRunFuture,
}

/// A dry run in progress.
pub(crate) type DryRunFuture = Pin<Box<dyn Future<Output = Result<DryRun, StoreError>> + Send>>;

async fn dry_run<R: Role>(
    role: R,
    store: RoleStore,
    dead: DeadLetter,
    event: Event,
) -> Result<DryRun, StoreError> {
    let mut engine = Engine::new(role, store, Limits::default());
    engine.dry_run(&dead, event, Timestamp::now()).await
}

/// The settings of single roles.
#[derive(Debug, Clone, Args)]
pub(crate) struct RoleSettings {
    #[command(flatten)]
    access_log: Retention,

    #[command(flatten)]
    reports: ReportSettings,
}

/// The things outside its store that a role may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoleOutside<'a> {
    /// The folder of the store.
    pub(crate) folder: &'a Path,
    pub(crate) own: &'a RoleSettings,
    pub(crate) mail: &'a MailResources,
}

/// Returns the tasks of a role that has none.
fn no_tasks(_outside: RoleOutside<'_>) -> TaskSet {
    TaskSet::new()
}

/// Creates a role that may use things outside its store, but not in a dry run.
fn create<R>(
    role: impl FnOnce(Option<RoleOutside<'_>>) -> R,
    outside: Option<RoleOutside<'_>>,
) -> R {
    role(outside)
}

macro_rules! roles {
    (@tasks) => { no_tasks };
    (@tasks $tasks:expr) => { $tasks };
    ($($name:literal => $role:expr $(, tasks: $tasks:expr)?);+ $(;)?) => {
        /// All roles, in the order in which they are listed.
        pub(crate) const ALL: &[RoleEntry] = &[
            $(RoleEntry {
                name: $name,
                start: |store, settings, outside| {
                    let tasks: fn(RoleOutside<'_>) -> TaskSet = roles!(@tasks $($tasks)?);
                    let role = create($role, Some(outside));
                    runner::start_with_tasks(role, tasks(outside), store, settings)
                },
                dry_run: |store, dead, event| {
                    Box::pin(dry_run(create($role, None), store, dead, event))
                },
            }),+
        ];

        #[cfg(test)]
        fn own_names() -> Vec<&'static str> {
            vec![$(doorstep_runtime::Role::name(&create($role, None))),+]
        }
    };
}

roles! {
    "orders" => |_| orders::Orders;
    "inventory" => |_| inventory::Inventory;
    "tracking" => |_| tracking::Tracking;
    "restaurant" => |_| restaurant::Restaurant;
    "payments" => |_| payments::Payments;
    "access_log" => |outside| access_log::AccessLog::new(outside.map(|o| (o.folder, o.own.access_log)));
    "reports" => |outside| reports::Reports::new(outside.map(|o| &o.own.reports)),
        tasks: |outside| outside.own.reports.tasks(outside.folder);
    "notifications" => |_| notifications::Notifications, tasks: notifications::tasks_of;
}

/// Returns a parser of role names.
pub(crate) fn parser() -> impl TypedValueParser<Value = RoleEntry> {
    PossibleValuesParser::new(ALL.iter().map(|role| role.name))
        .try_map(|name| find(&name).ok_or("is not a role"))
}

/// Returns the role with this name.
fn find(name: &str) -> Option<RoleEntry> {
    ALL.iter().find(|role| role.name == name).copied()
}

/// Returns these roles, or all if there are none; in the order of the list, each once.
pub(crate) fn chosen(roles: &[RoleEntry]) -> Vec<RoleEntry> {
    let is_chosen =
        |role: &&RoleEntry| roles.is_empty() || roles.iter().any(|r| r.name == role.name);
    ALL.iter().filter(is_chosen).copied().collect()
}

/// Returns whether the role of this name serves requests, and so has a queue for them.
pub(crate) fn answers(name: &str) -> bool {
    ROLES
        .iter()
        .any(|spec| spec.name == name && spec.handles_requests)
}

/// Ignores a known type that a role does not handle, and fails for a type without a contract.
fn not_handled<F>(event: &Event) -> Result<Reading<F>, ContractError> {
    if registry::TYPES.contains(&event.event_type.as_str()) {
        Ok(Reading::Ignored)
    } else {
        Err(ContractError::UnknownType(event.event_type.to_string()))
    }
}

/// Returns the order that an event on `order/INVOICE` or `payment/INVOICE` is about.
fn order_of(event: &Event) -> Result<InvoiceNo, ContractError> {
    subject_name(event, InvoiceNo::new)
}

/// Returns the name in an event's subject, `KIND/NAME`.
fn subject_name<T, E: Display>(
    event: &Event,
    new: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, ContractError> {
    let subject = event.subject.as_str();
    let (_, name) = subject.split_once('/').unwrap_or(("", subject));
    new(name).map_err(|e| ContractError::Rule(format!("subject {subject}: {e}")))
}

#[cfg(test)]
mod tests {
    use doorstep_event::EventType;

    use super::*;
    use crate::roles::testing::event;

    #[test]
    fn every_role_of_the_contracts_can_run() {
        let listed: Vec<&str> = ALL.iter().map(|role| role.name).collect();
        let published: Vec<&str> = ROLES.iter().map(|spec| spec.name).collect();
        assert_eq!(listed, published);
        assert_eq!(listed, own_names());
    }

    #[test]
    fn no_names_choose_all_roles_once() {
        let names = |chosen: Vec<RoleEntry>| chosen.iter().map(|r| r.name).collect::<Vec<_>>();
        assert_eq!(
            names(chosen(&[])),
            [
                "orders",
                "inventory",
                "tracking",
                "restaurant",
                "payments",
                "access_log",
                "reports",
                "notifications"
            ]
        );
        let twice = ["tracking", "orders", "tracking"].map(|name| find(name).unwrap());
        assert_eq!(names(chosen(&twice)), ["orders", "tracking"]);
    }

    #[test]
    fn known_type_is_ignored_unknown_version_is_not() {
        let delivered = doorstep_contracts::DeliveryDelivered {
            delivered_at: "2026-11-23T09:00:00Z".parse().unwrap(),
        };
        let mut event = event("delivery/1", 1, &delivered);
        assert!(matches!(orders::Orders.read(&event), Ok(Reading::Ignored)));
        event.event_type = EventType::new("delivery.delivered.v2").unwrap();
        assert!(matches!(
            tracking::Tracking.read(&event),
            Err(ContractError::UnknownType(kind)) if kind == "delivery.delivered.v2"
        ));
    }

    #[test]
    fn every_contract_is_handled_by_its_subject_role() {
        for kind in registry::TYPES {
            let kind = EventType::new(*kind).unwrap();
            let subject = kind.subject_kind();
            let role = ROLES
                .iter()
                .find(|r| r.subjects.contains(&subject))
                .unwrap();
            let mut event = event("order/1", 1, &Anything {});
            event.subject = format!("{subject}/1").parse().unwrap();
            event.event_type = kind;
            // Empty data breaks every contract: a role that reads it fails, one that ignores it does not.
            let complains = match role.name {
                "orders" => orders::Orders.read(&event).is_err(),
                "inventory" => inventory::Inventory.read(&event).is_err(),
                "tracking" => tracking::Tracking.read(&event).is_err(),
                "access_log" => access_log::AccessLog::new(None).read(&event).is_err(),
                "notifications" => notifications::Notifications.read(&event).is_err(),
                other => panic!("{other} is not among the tested roles"),
            };
            assert!(
                complains,
                "{} is not handled by {}",
                event.event_type, role.name
            );
        }
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Anything {}

    impl doorstep_event::Contract for Anything {
        const TYPE: &'static str = "order.anything.v1";
        const REQUIRES_SEQUENCE: bool = false;
    }
}
