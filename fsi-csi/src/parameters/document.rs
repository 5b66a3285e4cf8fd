//! A text of rules with more keys at its end: what the user wrote keeps its lines and columns.

/// `base` and these lines as one document; without a base a new one.
pub(super) fn joined(base: Option<&str>, lines: &[&str]) -> String {
    let Some(base) = base else { return with("version: 1\n".to_owned(), "", lines) };
    let first = base.lines().find(|line| {
        let text = line.trim_start();
        !text.is_empty() && !text.starts_with(['#', '%']) && text != "---"
    });
    match first {
        Some(line) if line.trim_start().starts_with('{') => in_braces(base, lines),
        Some(line) => {
            let indent = &line[..line.len() - line.trim_start().len()];
            let mut text = base.trim_end().trim_end_matches("\n...").to_owned();
            text.push('\n');
            with(text, indent, lines)
        }
        None => base.to_owned(),
    }
}

fn with(mut text: String, indent: &str, lines: &[&str]) -> String {
    for line in lines {
        text.push_str(indent);
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Before the brace that ends the document.
fn in_braces(base: &str, lines: &[&str]) -> String {
    let Some((inside, after)) = base.rsplit_once('}') else { return base.to_owned() };
    let inside = inside.trim_end().trim_end_matches(',');
    let comma = if inside.ends_with('{') { "" } else { ", " };
    let Some(last) = lines.last() else { return base.to_owned() };
    // A comment ends with its line.
    let end = if last.contains(" #") { "\n" } else { "" };
    format!("{inside}{comma}{}{end}}}{after}", lines.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_where_they_belong() {
        assert_eq!(joined(None, &["seed: 1"]), "version: 1\nseed: 1\n");
        assert_eq!(joined(Some("# x\nversion: 1"), &["seed: 1"]), "# x\nversion: 1\nseed: 1\n");
        assert_eq!(joined(Some("  version: 1\n  rules: []\n"), &["seed: 1"]), "  version: 1\n  rules: []\n  seed: 1\n");
        assert_eq!(joined(Some("{version: 1}"), &["seed: 1", "fake: null"]), "{version: 1, seed: 1, fake: null}");
        assert_eq!(joined(Some("{}"), &["seed: 1"]), "{seed: 1}");
        assert_eq!(joined(Some("{}"), &["seed: 1 # x"]), "{seed: 1 # x\n}");
        assert_eq!(joined(Some("{a: 1}"), &[]), "{a: 1}");
        assert_eq!(joined(Some("version: 1\n...\n"), &["seed: 1"]), "version: 1\nseed: 1\n");
    }
}
