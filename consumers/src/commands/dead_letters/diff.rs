//! The differences between two texts, by lines.

/// The number of equal lines shown around a difference.
const AROUND: usize = 3;
/// The maximum of pairs of lines that are compared. Beyond it, the differing middle is shown as a whole, since finding
/// its common lines would take too long.
const MAX_PAIRS: usize = 4_000_000;

/// Returns the lines that differ, `-` before and `+` after, with some equal ones around them. Empty if nothing differs.
pub(super) fn diff(before: &str, after: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let same = |a: &&str, b: &&str| a == b;
    let head = old.iter().zip(&new).take_while(|(a, b)| same(a, b)).count();
    let tail = old[head..]
        .iter()
        .rev()
        .zip(new[head..].iter().rev())
        .take_while(|(a, b)| same(a, b))
        .count();
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let mut lines: Vec<(char, &str)> = old[..head].iter().map(|line| (' ', *line)).collect();
    lines.extend(middle(&old[head..old_end], &new[head..new_end]));
    lines.extend(old[old_end..].iter().map(|line| (' ', *line)));
    around(&lines)
}

/// Returns the shortest edit from one to the other, by their longest common subsequence.
fn middle<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let gone = |line: &&'a str| ('-', *line);
    let come = |line: &&'a str| ('+', *line);
    if old.len().saturating_mul(new.len()) > MAX_PAIRS {
        return old.iter().map(gone).chain(new.iter().map(come)).collect();
    }
    // common[i][j]: the length of the longest common subsequence from there on.
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if common[i + 1][j] >= common[i][j + 1] {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines.extend(old[i..].iter().map(gone));
    lines.extend(new[j..].iter().map(come));
    lines
}

/// Leaves out equal lines that are far from every difference.
fn around(lines: &[(char, &str)]) -> String {
    let differs = |place: usize| {
        let from = place.saturating_sub(AROUND);
        let to = (place + AROUND + 1).min(lines.len());
        lines[from..to].iter().any(|(mark, _)| *mark != ' ')
    };
    let mut text = String::new();
    let mut left_out = false;
    for (place, (mark, line)) in lines.iter().enumerate() {
        if !differs(place) {
            left_out = true;
            continue;
        }
        if left_out && !text.is_empty() {
            text.push_str("  ...\n");
        }
        left_out = false;
        text.push(*mark);
        text.push(' ');
        text.push_str(line);
        text.push('\n');
    }
    text
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
