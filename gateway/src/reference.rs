//! Tests that keep the reference pages about the gateway true.

use std::{collections::BTreeSet, fs, path::Path};

use doorstep_cli::reference::{assert_section, metrics, page};
use doorstep_contracts::requests::REQUESTS;
use doorstep_event::Rejection;

use crate::{access_log, error_mapping::problem, http::rejection_log, outages};

#[test]
fn reference_page_of_metrics() {
    let gateway = metrics(|| {
        rejection_log::describe();
        outages::describe();
        access_log::describe();
    });
    assert_section("metrics.md", "gateway", &gateway);
}

#[test]
fn reference_page_of_rejections() {
    let mut table =
        "| request | code | HTTP status | meaning |\n| --- | --- | ---: | --- |\n".to_owned();
    for request in REQUESTS {
        for code in request.errors {
            let status = problem(Rejection::new(code.code, "")).status();
            table += &format!(
                "| `{}` | `{}` | {} | {}. |\n",
                request.kind,
                code.code,
                status.as_u16(),
                code.means
            );
        }
    }
    assert_section("error-codes.md", "rejections", &table);
}

/// The openings of calls whose first string is a code.
const CALLS: &[&str] = &[
    "Problem::new(",
    "Problem::conflict(",
    "Problem::unavailable(",
    "Self::new(",
    "Self::unavailable(",
    "Rejection::new(",
    "wrong(",
    "rejected(",
];

/// Adds the problem codes in the sources of a folder.
fn codes_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            codes_in(&path, found);
        } else if path
            .file_name()
            .is_some_and(|name| name != "tests.rs" && name != "reference.rs")
        {
            let text = fs::read_to_string(path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            for call in CALLS {
                found.extend(code.split(call).skip(1).filter_map(first_text));
            }
        }
    }
}

/// Returns the first string of a call, or the second after a status.
fn first_text(call: &str) -> Option<String> {
    let call = call.trim_start().trim_start_matches("axum::http::");
    let call = match call.starts_with("StatusCode::") {
        true => call.split_once(',')?.1.trim_start(),
        false => call,
    };
    let (text, _) = call.strip_prefix('"')?.split_once('"')?;
    let is_word = text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    is_word.then(|| text.to_owned())
}

#[test]
fn every_code_of_a_problem_has_a_row() {
    let mut found = BTreeSet::new();
    codes_in(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    assert!(found.len() > 30, "{found:?}");
    let text = page("error-codes.md");
    let (_, http) = text.split_once("## HTTP").unwrap();
    let rows = http.lines().filter_map(|line| line.strip_prefix("| `"));
    let listed: BTreeSet<_> = rows
        .map(|row| row.split_once('`').unwrap().0.to_owned())
        .collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "docs/reference/error-codes.md, HTTP, lacks {missing:?}"
    );
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(
        gone.is_empty(),
        "docs/reference/error-codes.md, HTTP, has too much: {gone:?}"
    );
}

#[test]
fn every_code_of_any_request_has_a_row() {
    let text = page("error-codes.md");
    for code in [
        Rejection::BAD_REQUEST,
        Rejection::ID_REUSED,
        Rejection::TOO_OLD,
        Rejection::NOT_YET,
        Rejection::CLOCK_SKEW,
        Rejection::FORBIDDEN,
        Rejection::FAILED,
    ] {
        assert!(text.contains(&format!("| `{code}` |")), "{code}");
    }
}
