//! The arguments of `consumers dead-letters`.

use std::path::PathBuf;

use clap::{
    ArgGroup, Args, Subcommand,
    builder::{StringValueParser, TypedValueParser},
};

use doorstep_cli::{OperatorArgs, SettingsErrors, args::StoreArgs, parse::number_arg};
use doorstep_runtime::operate::Attribution;
use doorstep_store::DeadLetterId;

use crate::{
    roles::{self, RoleEntry},
    stores::StoreLocation,
};

#[derive(Debug, Subcommand)]
pub(crate) enum DeadLettersCommand {
    /// List dead letters, each or by kind.
    #[command(after_help = LIST_HELP)]
    List(ListArgs),

    /// Show one dead letter in full: the event, the reason of its rejection, the events that it blocks, and earlier
    /// edits.
    #[command(
        after_help = "Examples:\n  consumers dead-letters show orders 3f2a9c0e51b7d846-1\n  consumers dead-letters show orders 3f2a9c0e51b7d846-1 --json | jq .holds_back"
    )]
    Show(ShowArgs),

    /// Replace a dead letter's data, in an editor or by a JSON patch (RFC 6902).
    ///
    /// Before anything is stored, the new data is checked against its contract, and the handler is dry-run on the
    /// present state. Only this role sees the edit: nothing is published, and source, subject, sequence and id stay the
    /// same. The original data is kept. To apply the edited event, replay it.
    #[command(override_usage = EDIT_USAGE, after_help = EDIT_HELP)]
    Edit(EditArgs),

    /// Replay dead letters: the role applies each, with the events that it blocks, or rejects it again.
    ///
    /// Works whether the role runs or not. If a replay of a kind, or of all, was interrupted, the same command resumes
    /// it: each dead letter is replayed at most once. Of a concurrent replay and skip one wins, and the other fails.
    #[command(override_usage = REPLAY_USAGE, after_help = REPLAY_HELP)]
    Replay(ReplayArgs),

    /// Skip dead letters: the stream continues with the next event.
    ///
    /// Works whether the role runs or not. A skipped event is lost for this role; `dead-letters audit` keeps its data for a
    /// while.
    #[command(override_usage = SKIP_USAGE, after_help = SKIP_HELP)]
    Skip(SkipArgs),

    /// Write complete dead letters as JSON lines: data, edits, reasons.
    #[command(
        after_help = "Example:\n  consumers dead-letters export inventory --fingerprint 77aa01bc23de45f6 > dead.jsonl"
    )]
    Export(ExportArgs),

    /// Take the data of exported lines back, each checked like an edit.
    ///
    /// Only the member `data` may differ from the export. Rejected lines are reported by their number; the others are
    /// taken.
    #[command(
        after_help = "Examples:\n  consumers dead-letters import inventory dead.jsonl --dry-run\n  jq -c '.data.delta = 1' dead.jsonl | consumers dead-letters import inventory -"
    )]
    Import(ImportArgs),

    /// List the actions of operators, the newest first: who, when, to what, and why.
    ///
    /// The records are in the role's store, each committed together with its change. Their number is bounded: the
    /// oldest are deleted, and the list says so.
    #[command(
        after_help = "Examples:\n  consumers dead-letters audit inventory\n  consumers dead-letters audit inventory --json | jq 'select(.action == \"skip\")'"
    )]
    Audit(AuditArgs),
}

// Written by hand: clap puts a group before the role, and could not parse that itself.
const EDIT_USAGE: &str = "\
consumers dead-letters edit [OPTIONS] <ROLE> <ID>
       consumers dead-letters edit [OPTIONS] <ROLE> --fingerprint <FINGERPRINT> --patch <FILE>";

const REPLAY_USAGE: &str = "\
consumers dead-letters replay [OPTIONS] <ROLE> <ID>...
       consumers dead-letters replay [OPTIONS] <ROLE> --fingerprint <FINGERPRINT>
       consumers dead-letters replay [OPTIONS] <ROLE> --all";

const SKIP_USAGE: &str = "\
consumers dead-letters skip [OPTIONS] --reason <TEXT> <ROLE> <ID>...
       consumers dead-letters skip [OPTIONS] --reason <TEXT> <ROLE> --fingerprint <FINGERPRINT>";

const LIST_HELP: &str = "\
Examples:
  consumers dead-letters list
  consumers dead-letters list orders --by-kind
  consumers dead-letters list orders --json | jq -r .id";

const EDIT_HELP: &str = "\
Examples:
  consumers dead-letters edit orders 3f2a9c0e51b7d846-1
  echo '[{\"op\":\"replace\",\"path\":\"/delta\",\"value\":-2}]' > patch.json
  consumers dead-letters edit inventory 77aa01bc23de45f6-1 --patch patch.json --dry-run
  consumers dead-letters edit inventory --fingerprint 9c0e51b7d8463f2a --patch patch.json --reason 'till 7 wrote text'";

const REPLAY_HELP: &str = "\
Examples:
  consumers dead-letters replay orders 3f2a9c0e51b7d846-1
  consumers dead-letters replay inventory --fingerprint 9c0e51b7d8463f2a --rate 50
  consumers dead-letters replay inventory --all --dry-run";

const SKIP_HELP: &str = "\
Examples:
  consumers dead-letters skip orders 3f2a9c0e51b7d846-1 --reason 'a test order'
  consumers dead-letters skip orders --fingerprint 9c0e51b7d8463f2a --dry-run
  consumers dead-letters skip orders --fingerprint 9c0e51b7d8463f2a --reason 'made twice, see the ticket'";

/// The maximum rate of replays per second.
const MAX_RATE: u32 = 100_000;

fn dead_letter_id() -> impl TypedValueParser<Value = DeadLetterId> {
    StringValueParser::new().map(DeadLetterId)
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The role [default: all].
    #[arg(value_name = "ROLE", value_parser = roles::parser())]
    pub(crate) role: Option<RoleEntry>,

    /// List the kinds of dead letters, with number, reason and fingerprint, instead of each dead letter, oldest first.
    #[arg(long)]
    pub(crate) by_kind: bool,

    /// Print one JSON object a line, for all of them, instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// The maximum of rows per role in the table.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "100",
        conflicts_with = "json", value_parser = number_arg(1..=usize::MAX))]
    pub(crate) limit: usize,

    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// The dead letter, as `dead-letters list` names it.
    #[arg(value_parser = dead_letter_id())]
    pub(crate) id: DeadLetterId,

    /// Print one JSON object on one line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("chosen").required(true).args(["id", "fingerprint"]))]
pub(crate) struct EditArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// The dead letter, as `dead-letters list` names it.
    #[arg(value_parser = dead_letter_id())]
    pub(crate) id: Option<DeadLetterId>,

    /// All of this kind, by the fingerprint that `dead-letters list --by-kind` shows; each is checked by itself.
    #[arg(long, value_name = "FINGERPRINT", requires = "patch")]
    pub(crate) fingerprint: Option<String>,

    /// A JSON patch (RFC 6902) for the data, in a file or, with `-`, on standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "editor")]
    pub(crate) patch: Option<PathBuf>,

    /// Open the data in $VISUAL or $EDITOR; this is the default without --patch.
    #[arg(long)]
    pub(crate) editor: bool,

    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

/// Several dead letters, or a kind of them.
#[derive(Debug, Args)]
pub(crate) struct ChosenArgs {
    /// The dead letters, as `dead-letters list` names them.
    #[arg(value_name = "ID", value_parser = dead_letter_id())]
    pub(crate) ids: Vec<DeadLetterId>,

    /// All of this kind, by the fingerprint that `dead-letters list --by-kind` shows.
    #[arg(long, value_name = "FINGERPRINT")]
    pub(crate) fingerprint: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("chosen").required(true).args(["ids", "fingerprint", "all"]))]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    #[command(flatten)]
    pub(crate) chosen: ChosenArgs,

    /// All dead letters of the role.
    #[arg(long)]
    pub(crate) all: bool,

    /// The maximum of replays per second.
    #[arg(long, value_name = "NUMBER", value_parser = number_arg(1..=MAX_RATE))]
    pub(crate) rate: Option<u32>,

    /// Do not wait for the outcomes of the replays.
    #[arg(long)]
    pub(crate) no_wait: bool,

    /// Only show the outcome that the handler would have, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) record: RecordArgs,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("chosen").required(true).args(["ids", "fingerprint"]))]
pub(crate) struct SkipArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    #[command(flatten)]
    pub(crate) chosen: ChosenArgs,

    #[command(flatten)]
    pub(crate) skip: ReasonedArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// Only those of this kind, by the fingerprint that `dead-letters list --by-kind` shows.
    #[arg(long, value_name = "FINGERPRINT")]
    pub(crate) fingerprint: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// The file with the lines, or `-` for standard input.
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// Print one JSON object a line, for all records, instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// The maximum of rows in the table.
    #[arg(
        long,
        value_name = "NUMBER",
        default_value = "100",
        conflicts_with = "json", value_parser = number_arg(1..=usize::MAX))]
    pub(crate) limit: usize,
}

/// A change or a dry run, with the optional reason recorded for it.
#[derive(Debug, Args)]
pub(crate) struct ChangeArgs {
    /// Only show the outcome, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) record: RecordArgs,
}

/// A change or a dry run; a change needs a reason.
#[derive(Debug, Args)]
pub(crate) struct ReasonedArgs {
    /// Only show the outcome, and change nothing; needs no reason.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// The reason, for the record.
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    reason: Option<String>,

    #[command(flatten)]
    who: OperatorArgs,
}

impl ReasonedArgs {
    /// Validates the operator and, if there is one, the reason.
    pub(crate) fn by(&self, wrong: &mut SettingsErrors) -> Option<Attribution> {
        self.who.by(self.reason.as_deref(), wrong)
    }
}

/// The optional reason recorded with a change.
#[derive(Debug, Args)]
pub(crate) struct RecordArgs {
    /// The reason, for the record.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    #[command(flatten)]
    who: OperatorArgs,
}

impl RecordArgs {
    /// Validates the operator and, if there is one, the reason.
    pub(crate) fn by(&self, wrong: &mut SettingsErrors) -> Option<Attribution> {
        self.who.by(self.reason.as_deref(), wrong)
    }
}
