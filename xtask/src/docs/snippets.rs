//! Code in pages: regions of files that are compiled, so that no page shows code that does not work.
//!
//! A page has the line `<!-- code FILE REGION -->` before a block; the file has the region between `// docs: begin REGION` and
//! `// docs: end REGION`.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};

const BEGIN: &str = "<!-- code ";
const END: &str = " -->";
const FENCE: &str = "```";

/// Returns the page with its code blocks as their files are now.
pub(super) fn fill(root: &Path, page: &str) -> Result<String> {
    let mut filled = String::with_capacity(page.len());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        filled.push_str(line);
        filled.push('\n');
        let Some(named) = line.strip_prefix(BEGIN).and_then(|l| l.strip_suffix(END)) else {
            continue;
        };
        let (file, region) = named
            .split_once(' ')
            .with_context(|| format!("{line} names no region"))?;
        let opening = lines.next().filter(|line| line.starts_with(FENCE));
        let opening = opening.with_context(|| format!("no block of code follows {line}"))?;
        if !lines.any(|line| line == FENCE) {
            bail!("the block of code behind {line} has no end");
        }
        filled.push_str(opening);
        filled.push('\n');
        filled.push_str(&region_of(root, file, region)?);
        filled.push_str(FENCE);
        filled.push('\n');
    }
    Ok(filled)
}

fn region_of(root: &Path, file: &str, region: &str) -> Result<String> {
    let text =
        fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))?;
    let (begin, end) = (
        format!("// docs: begin {region}\n"),
        format!("// docs: end {region}\n"),
    );
    let code = text
        .split_once(&begin)
        .and_then(|(_, rest)| rest.split_once(&end));
    let (code, _) = code.with_context(|| format!("{file} has no region {region}"))?;
    Ok(code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    const FILE: &str = "common/runtime/examples/add_a_role.rs";

    #[test]
    fn a_block_is_filled_from_its_file() {
        let page = format!("before\n{BEGIN}{FILE} role{END}\n```rust\nold\n```\nafter\n");
        let filled = fill(&root(), &page).unwrap();
        assert!(filled.contains("impl Role for Depot"), "{filled}");
        assert!(!filled.contains("old"), "{filled}");
        assert!(filled.ends_with("```\nafter\n"), "{filled}");
        assert_eq!(fill(&root(), &filled).unwrap(), filled);
    }

    #[test]
    fn an_unknown_region_is_an_error() {
        let page = format!("{BEGIN}{FILE} none{END}\n```rust\n```\n");
        let error = fill(&root(), &page).unwrap_err().to_string();
        assert_eq!(error, format!("{FILE} has no region none"));
    }
}
