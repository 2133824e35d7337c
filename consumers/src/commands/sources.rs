//! `consumers sources`: the broker users that own sources.

use doorstep_cli::{
    CliError,
    output::{print_json, print_line},
};
use doorstep_event::{BrokerUser, Source, Timestamp};
use doorstep_runtime::operate::{self, Attribution, Former};
use doorstep_store::{FormerOwner, SourceRow, Store};
use doorstep_table::{Column, Table};
use serde::Serialize;

use super::dead_letters::failed;
use crate::{
    cli::sources::{SourcesListArgs, SourcesTransferArgs},
    format::{or_dash, sanitize, time},
    stores,
};

/// The number of sources that are read at a time.
const PAGE: usize = 1_000;

/// Lists the sources of a role.
///
/// # Errors
/// There is no store, or it cannot be read.
pub(crate) async fn list(args: SourcesListArgs) -> Result<(), CliError> {
    let store = stores::try_open_read_only(&args.place)?;
    let mut table = Table::new([
        Column::text("SOURCE"),
        Column::text("USER"),
        Column::text("SINCE").optional(),
        Column::text("BEFORE").optional(),
        Column::number("STREAMS").optional(),
    ]);
    let mut after = None;
    loop {
        let page = store.sources(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.source.clone());
        for row in &page {
            if args.json {
                print_json(&View::from_row(row))?;
            } else {
                table.add_row(cells(row));
            }
        }
    }
    if args.json {
        return Ok(());
    }
    print_line(&table.or_text("no event of any source was accepted yet"))
}

/// Makes a user the owner of a source.
///
/// # Errors
/// The source is not known, belongs to the user already, or the store cannot be used.
pub(crate) async fn transfer(by: Attribution, args: SourcesTransferArgs) -> Result<(), CliError> {
    let (source, to) = (&args.source, &args.to);
    let (former, rest) = if args.refuse_former {
        let rest = "events of the former owner are rejected from now on";
        (Former::Refused, rest)
    } else {
        let rest = "events of the former owner are accepted for 24 hours more";
        (Former::Accepted, rest)
    };
    let store = stores::open_existing(&args.place)?;
    let done = operate::transfer(&store, source, to, former, by.at(Timestamp::now())).await;
    let before = done.map_err(|e| failed(args.place.role.name, &e))?;
    let before = before.map_or_else(|| "nobody".to_owned(), |user| sanitize(user.as_str()));
    print_line(&format!(
        "{source} belongs to {} and no longer to {before}: {rest}",
        sanitize(to.as_str())
    ))
}

fn cells(row: &SourceRow) -> [String; 5] {
    let name = |user: &BrokerUser| sanitize(user.as_str());
    let owner = row.owner.as_ref();
    [
        sanitize(row.source.as_str()),
        or_dash(owner.and_then(|owner| owner.user.as_ref()).map(name)),
        or_dash(owner.map(|owner| time(owner.since))),
        match owner.and_then(|owner| owner.former.as_ref()) {
            None => "-".to_owned(),
            Some(FormerOwner::Nobody) => "nobody".to_owned(),
            Some(FormerOwner::User(user)) => name(user),
        },
        row.streams.to_string(),
    ]
}

/// A source for programs.
#[derive(Serialize)]
struct View<'a> {
    source: &'a Source,
    user: Option<&'a BrokerUser>,
    since: Option<Timestamp>,
    former: Option<&'a FormerOwner>,
    streams: u64,
}

impl<'a> View<'a> {
    fn from_row(row: &'a SourceRow) -> Self {
        let owner = row.owner.as_ref();
        Self {
            source: &row.source,
            user: owner.and_then(|owner| owner.user.as_ref()),
            since: owner.map(|owner| owner.since),
            former: owner.and_then(|owner| owner.former.as_ref()),
            streams: row.streams,
        }
    }
}
