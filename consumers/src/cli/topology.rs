//! The arguments of `consumers topology`.

use clap::{Args, Subcommand};

use doorstep_cli::{
    args::{BrokerArgs, NamespaceArg},
    management::ManagementArgs,
};

use crate::roles::{self, RoleEntry};

#[derive(Debug, Subcommand)]
pub(crate) enum TopologyCommand {
    /// Show the declared topology; needs no broker.
    #[command(after_help = SHOW_HELP)]
    Show(TopologyShowArgs),

    /// List every difference of the broker: version, exchanges, queues, arguments, permissions; with the management API
    /// also bindings, policies that can lose messages, and topic permissions.
    ///
    /// Changes nothing, publishes and consumes nothing; works beside running roles. Exit code 0 if nothing differs, 2
    /// if anything does, 69 without a broker. Use a user with all permissions, or the one that `topology permissions`
    /// calls verify. Areas that could not be compared are listed with the reason, and do not change the exit code.
    /// RabbitMQ shows topic permissions to administrators only.
    #[command(after_help = VERIFY_HELP)]
    Verify(TopologyVerifyArgs),

    /// Show the least permissions of a user for each part of Doorstep; needs no broker.
    ///
    /// RabbitMQ grants permissions by patterns of names: to configure (declare and delete), to write (publish, bind to)
    /// and to read (consume, bind from). Topic permissions say by patterns of routing keys which events may be
    /// published to the exchange of events and bound to it: each program may publish only the families that it emits.
    #[command(after_help = PERMISSIONS_HELP)]
    Permissions(TopologyPermissionsArgs),
}

const SHOW_HELP: &str = "\
Examples:
  consumers topology show
  consumers topology show --json | jq '.queues[].name'
  consumers topology show --definitions --vhost shop > doorstep.json
  consumers topology show --definitions --users > doorstep.json
  rabbitmqctl import_definitions doorstep.json";

const VERIFY_HELP: &str = "\
Examples:
  consumers topology verify
  consumers topology verify --management-url https://ops@broker.example --management-password-file ops.password
  consumers topology verify orders --json | jq -r '.findings[].text'";

const PERMISSIONS_HELP: &str = "\
Examples:
  consumers topology permissions
  consumers topology permissions --declared --user shop --vhost shop
  consumers topology permissions --declared --json | jq '.users[] | {user, read}'";

#[derive(Debug, Args)]
pub(crate) struct TopologyShowArgs {
    /// Print one JSON object instead of tables.
    #[arg(long)]
    pub(crate) json: bool,

    /// Print a definitions file of RabbitMQ instead, for `rabbitmqctl import_definitions` or the management UI.
    #[arg(long, conflicts_with = "json")]
    pub(crate) definitions: bool,

    /// Add the permissions of the users that `topology permissions --declared` shows. The users must exist at the
    /// import.
    #[arg(long, requires = "definitions")]
    pub(crate) users: bool,

    /// The beginning of the users' names [default: the namespace].
    #[arg(long, value_name = "PREFIX", requires = "users")]
    pub(crate) user: Option<String>,

    /// The virtual host of the definitions, which must exist at the import.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "/",
        requires = "definitions"
    )]
    pub(crate) vhost: String,

    #[command(flatten)]
    pub(crate) namespace: NamespaceArg,
}

#[derive(Debug, Args)]
pub(crate) struct TopologyVerifyArgs {
    /// The roles whose queues to verify [default: all].
    #[arg(value_name = "ROLE", value_parser = roles::parser())]
    pub(crate) roles: Vec<RoleEntry>,

    /// Print one JSON object instead of a list.
    #[arg(long)]
    pub(crate) json: bool,

    /// The common prefix of the users whose topic permissions are compared, as of `topology permissions` [default: the
    /// namespace].
    #[arg(long, value_name = "PREFIX")]
    pub(crate) user: Option<String>,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,

    #[command(flatten)]
    pub(crate) management: ManagementArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TopologyPermissionsArgs {
    /// Assume that the exchanges and queues were imported before, so that no program declares them.
    #[arg(long)]
    pub(crate) declared: bool,

    /// The common prefix of the users' names [default: the namespace].
    #[arg(long, value_name = "PREFIX")]
    pub(crate) user: Option<String>,

    /// The virtual host of the permissions.
    #[arg(long, value_name = "NAME", default_value = "/")]
    pub(crate) vhost: String,

    /// Print one JSON object instead of a table and commands.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) namespace: NamespaceArg,
}
