//! `cargo xtask tidy`: counts prose, length, circles and retired names in every tracked source against ceilings.
//!
//! A crate of its own, since it needs a parser of Rust and `xtask` has to be built in seconds.

mod ceilings;
mod circles;
mod comments;
mod finding;
mod functions;
mod measure;
mod modules;
mod names;
mod report;
mod rust_file;
mod source;
mod vocabulary;

use std::env;
use std::io::{Write, stdout};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::ceilings::CEILINGS;
use crate::report::Report;
use crate::source::Sources;
use crate::vocabulary::Vocabulary;

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Measures the sources in the current folder's repository. Arguments are names of measures whose every finding is listed.
fn run() -> Result<ExitCode> {
    let listed: Vec<String> = env::args().skip(1).collect();
    for name in &listed {
        if !CEILINGS.iter().any(|ceiling| ceiling.measure == name) {
            let known: Vec<&str> = CEILINGS.iter().map(|ceiling| ceiling.measure).collect();
            bail!("no measure is named {name:?}; known: {}", known.join(", "));
        }
    }
    let sources = Sources::read(Path::new("."))?;
    let measured = measure::all(&sources, &Vocabulary::read()?);
    let report = Report::new(&measured, &listed);
    // A reader such as `head` may close standard output before the end.
    let _ = stdout().write_all(report.text.as_bytes());
    Ok(if report.failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
