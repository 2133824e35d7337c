//! What can be typed after `consumers topology`.

use clap::{Args, Subcommand};

use doorstep_program::{
    args::{BrokerArgs, NamespaceArg},
    management::ManagementArgs,
};

use super::role_names;

#[derive(Debug, Subcommand)]
pub(crate) enum TopologyCommand {
    /// Show what is declared on the broker; none is needed for it.
    #[command(after_help = SHOW_HELP)]
    Show(TopologyShowArgs),

    /// List every way in which the broker differs: version, exchanges, queues, arguments, rights; with the management API also bindings,
    /// policies that can lose something, and topic permissions.
    ///
    /// Changes nothing, publishes and consumes nothing; works beside running roles. Exit code 0 if nothing differs, 2 if anything does,
    /// 69 without a broker. Give it a user with all rights, or the one that `topology permissions` calls verify. What could not be compared
    /// is listed with the reason, and changes no exit code. Topic permissions are shown to administrators of RabbitMQ only.
    #[command(after_help = VERIFY_HELP)]
    Verify(TopologyVerifyArgs),

    /// Show the least rights of a user for each thing that Doorstep does; no broker is needed for it.
    ///
    /// RabbitMQ grants rights by patterns of names: to configure (declare and delete), to write (publish, bind to) and to read (consume,
    /// bind from). Topic permissions say by patterns of routing keys which events may be published to the exchange of events and bound to
    /// it: each program may publish only the families that it emits.
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
    /// One JSON object instead of tables.
    #[arg(long)]
    pub(crate) json: bool,

    /// A definitions file of RabbitMQ instead, for `rabbitmqctl import_definitions` or the management UI.
    #[arg(long, conflicts_with = "json")]
    pub(crate) definitions: bool,

    /// Also the rights of the users that `topology permissions --declared` shows. The users must exist when they are imported.
    #[arg(long, requires = "definitions")]
    pub(crate) users: bool,

    /// The beginning of the users' names [default: the namespace].
    #[arg(long, value_name = "PREFIX", requires = "users")]
    pub(crate) user: Option<String>,

    /// The virtual host that the definitions are for; it must exist when they are imported.
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
    /// The roles whose queues to look at [default: all].
    #[arg(value_name = "ROLE", value_parser = role_names())]
    pub(crate) roles: Vec<String>,

    /// One JSON object instead of a list.
    #[arg(long)]
    pub(crate) json: bool,

    /// The beginning of the names of the users whose topic permissions are compared, as of `topology permissions` [default: the namespace].
    #[arg(long, value_name = "PREFIX")]
    pub(crate) user: Option<String>,

    #[command(flatten)]
    pub(crate) broker: BrokerArgs,

    #[command(flatten)]
    pub(crate) management: ManagementArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TopologyPermissionsArgs {
    /// For where the exchanges and queues were imported before, so that nobody needs to declare them.
    #[arg(long)]
    pub(crate) declared: bool,

    /// What the names of the users start with [default: the namespace].
    #[arg(long, value_name = "PREFIX")]
    pub(crate) user: Option<String>,

    /// The virtual host in which they have these rights.
    #[arg(long, value_name = "NAME", default_value = "/")]
    pub(crate) vhost: String,

    /// One JSON object instead of a table and commands.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) namespace: NamespaceArg,
}
