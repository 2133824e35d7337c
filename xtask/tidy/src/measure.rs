//! Every measure of the sources, in the order of the ceilings.

use crate::ceilings::{CEILINGS, Ceiling};
use crate::circles;
use crate::comments::Prose;
use crate::finding::Finding;
use crate::functions::Functions;
use crate::names;
use crate::source::Sources;
use crate::vocabulary::Vocabulary;

/// A value, and the findings that it counts.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) ceiling: Ceiling,
    pub(crate) value: f64,
    pub(crate) findings: Vec<Finding>,
}

pub(crate) fn all(sources: &Sources, vocabulary: &Vocabulary) -> Vec<Measured> {
    let prose = Prose::count(sources);
    let functions = Functions::find(sources);
    CEILINGS
        .iter()
        .map(|ceiling| {
            let (findings, per) = match ceiling.measure {
                "openings" => (prose.openings.clone(), share(100, prose.blocks)),
                "nameless" => (prose.nameless.clone(), share(1_000, prose.words)),
                "short-comments" => (prose.short.clone(), share(100, prose.blocks)),
                "long-functions" => (functions.long.clone(), 1.0),
                "long-test-functions" => (functions.long_in_tests.clone(), 1.0),
                "circles" => (circles::find(sources), 1.0),
                "long-test-names" => (functions.long_test_names.clone(), 1.0),
                "retired-names" => (names::identifiers(sources, vocabulary), 1.0),
                "retired-texts" => (names::texts(sources, vocabulary), 1.0),
                unknown => unreachable!("the measure {unknown} is not taken"),
            };
            Measured {
                ceiling: *ceiling,
                value: count(findings.len()) * per,
                findings,
            }
        })
        .collect()
}

/// The share of one finding, of which `whole` are counted.
fn share(of: u32, whole: usize) -> f64 {
    f64::from(of) / count(whole.max(1))
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}
