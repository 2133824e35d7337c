//! The arguments of `consumers streams`.

use clap::{Args, Subcommand};
use doorstep_cli::{checked, parse::from_str};
use doorstep_event::{Sequence, Source, StreamKey, Subject};

use super::dead_letters::ReasonedArgs;
use crate::stores::StoreLocation;

#[derive(Debug, Subcommand)]
pub(crate) enum StreamsCommand {
    /// Skip missing events: the stream continues with the next one.
    ///
    /// Works whether the role runs or not. If a skipped event arrives later, it is not applied. `dead-letters audit` keeps a record.
    #[command(
        override_usage = "consumers streams skip-gap [OPTIONS] --source <SOURCE> --reason <TEXT> <ROLE> <SUBJECT> <FROM..TO>",
        after_help = "Example:\n  consumers streams skip-gap inventory stock/85123A 3..5 --source shop/1 --reason 'till 7 burnt'"
    )]
    SkipGap(SkipGapArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SkipGapArgs {
    #[command(flatten)]
    pub(crate) place: StoreLocation,

    /// The subject whose events are missing.
    #[arg(value_parser = from_str::<Subject>("order/1"))]
    pub(crate) subject: Subject,

    /// The missing sequences, as `status` names them.
    #[arg(value_name = "FROM..TO", value_parser = checked(range, "1"))]
    pub(crate) range: (u64, u64),

    /// The source whose events are missing.
    #[arg(long, value_name = "SOURCE", value_parser = from_str::<Source>("shop/1"))]
    pub(crate) source: Source,

    #[command(flatten)]
    pub(crate) skip: ReasonedArgs,
}

impl SkipGapArgs {
    /// Returns the stream whose events are missing.
    pub(crate) fn stream(&self) -> StreamKey {
        StreamKey {
            source: self.source.clone(),
            subject: self.subject.clone(),
        }
    }
}

/// Parses `3..5`, both ends included, or `3` for a single one.
fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let read = |text: &str| text.parse::<Sequence>().ok().map(Sequence::get);
    match (read(from), read(to)) {
        (Some(from), Some(to)) if from <= to => Ok((from, to)),
        _ => Err(format!("{text:?} is not a range of sequences such as 3..5")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_both_ends() {
        for bad in ["5..3", "0..1", "a..b", "3..", "..5", "3-5", ""] {
            assert!(range(bad).is_err(), "{bad}");
        }
        assert_eq!(range("7"), Ok((7, 7)));
    }
}
