//! The differences between two texts, by lines.

use std::time::Duration;

use similar::TextDiff;

/// The number of equal lines shown around a difference.
const AROUND: usize = 3;
/// The maximum time for the shortest edit. Beyond it, a longer one is shown.
const LIMIT: Duration = Duration::from_secs(1);

/// Returns the lines that differ, `-` before and `+` after, with some equal ones around them. Empty if nothing differs.
pub(super) fn diff(before: &str, after: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let diff = TextDiff::configure().timeout(LIMIT).diff_slices(&old, &new);
    let parts = diff.grouped_ops(AROUND);
    let parts = parts.iter().map(|ops| {
        let changes = ops.iter().flat_map(|op| diff.iter_changes(op));
        changes
            .map(|c| format!("{} {}\n", c.tag(), c.value()))
            .collect()
    });
    parts.collect::<Vec<String>>().join("  ...\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_marked_and_distant_lines_omitted() {
        assert_eq!(diff("a\nb", "a\nb"), "");
        assert_eq!(diff("a\nb\nc", "a\nx\nc"), "  a\n- b\n+ x\n  c\n");
        assert_eq!(diff("", "a"), "+ a\n");
        let before = "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12";
        let after = before.replacen('0', "zero", 1).replace("12", "twelve");
        assert_eq!(
            diff(before, &after),
            "- 0\n+ zero\n  1\n  2\n  3\n  ...\n  9\n  10\n  11\n- 12\n+ twelve\n"
        );
        assert_eq!(diff("a\nb\nc\nd", "b\nd\ne"), "- a\n  b\n- c\n  d\n+ e\n");
    }
}
