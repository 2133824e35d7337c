//! `consumers topology`: Doorstep's topology on the broker, the broker's differences, and the permissions that users
//! need.

mod definitions;
mod managed;
mod permissions;
mod show;
mod verify;

use doorstep_cli::management::Management;
use doorstep_messaging::BrokerSettings;

use crate::roles::RoleEntry;

pub(crate) use permissions::permissions;
pub(crate) use show::show;
pub(crate) use verify::verify;

/// The settings of `topology verify`.
#[derive(Debug)]
pub(crate) struct VerifyJob {
    pub(crate) roles: Vec<RoleEntry>,
    pub(crate) broker: BrokerSettings,
    /// The broker's management API, if it is configured.
    pub(crate) management: Option<Management>,
    /// The common prefix of the users' names.
    pub(crate) prefix: String,
    pub(crate) json: bool,
}
