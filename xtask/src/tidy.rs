//! House rules that no compiler knows: what each source file opens with, how long it may be, what must not be left in it,
//! and whether what the documents link to is there.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context as _, Result};
use xtask::workspace::Workspace;

const WARN_LINES: usize = 400;
const MOST_LINES: usize = 600;

/// Left out of what is walked: not ours, or made by a build.
const SKIPPED_DIRS: [&str; 2] = ["target", "node_modules"];

/// What must not stay in a source file, and why. In pieces, so that this file is not its own first offender.
const LEFTOVERS: [(&str, &str); 2] = [
    (concat!("#[ig", "nore"), "a test that cannot run here says so with SKIPPED and a reason"),
    (concat!("to", "do!("), "an unfinished path panics in somebody's cluster"),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    Warning(String),
    Failure(String),
}

impl Finding {
    pub(crate) fn failure(text: String) -> Self {
        Self::Failure(text)
    }

    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Failure(_))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Warning(text) => write!(f, "warning: {text}"),
            Self::Failure(text) => write!(f, "error: {text}"),
        }
    }
}

pub(crate) fn check(workspace: &Workspace) -> Result<Vec<Finding>> {
    let mut files = Vec::new();
    collect(workspace.root(), &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for file in &files {
        let shown = file.strip_prefix(workspace.root()).unwrap_or(file).display().to_string();
        let text = fs::read_to_string(file).with_context(|| format!("read {shown}"))?;
        match file.extension().is_some_and(|extension| extension == "rs") {
            true => findings.extend(source(&shown, &text)),
            false => {
                let base = file.parent().unwrap_or_else(|| workspace.root());
                findings.extend(document(&shown, &text, &|link| base.join(link).exists()));
            }
        }
    }
    Ok(findings)
}

/// Rust sources and Markdown documents.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let path = entry.with_context(|| format!("read {}", dir.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !path.is_symlink() {
            if !name.starts_with('.') && !SKIPPED_DIRS.contains(&&*name) {
                collect(&path, files)?;
            }
        } else if name.ends_with(".rs") || name.ends_with(".md") {
            files.push(path);
        }
    }
    Ok(())
}

fn source(file: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(Finding::Failure(format!("{file}: opens without a `//!` that says what it is")));
    }
    let lines = text.lines().count();
    if !text.contains(concat!("@gene", "rated")) {
        if lines > MOST_LINES {
            findings
                .push(Finding::Failure(format!("{file}: {lines} lines, at most {MOST_LINES}: split it by subject")));
        } else if lines > WARN_LINES {
            findings.push(Finding::Warning(format!("{file}: {lines} lines: is it still one subject?")));
        }
    }
    for (number, line) in text.lines().enumerate() {
        let code = line.trim_start();
        for (leftover, why) in LEFTOVERS {
            if !code.starts_with("//") && code.contains(leftover) {
                findings.push(Finding::Failure(format!("{file}:{}: `{leftover}`: {why}", number + 1)));
            }
        }
    }
    findings
}

fn document(file: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let broken = links(text).filter(|link| !exists(link));
    broken.map(|link| Finding::Failure(format!("{file}: links to {link}, which is not there"))).collect()
}

/// Targets of `[words](target)` that are files of ours.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0))
        .map(|target| target.split_once('#').map_or(target, |(path, _anchor)| path))
        .filter(|path| !path.is_empty() && !path.contains("://") && !path.starts_with("mailto:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(text: &str) -> usize {
        source("x.rs", text).iter().filter(|finding| finding.is_failure()).count()
    }

    #[test]
    fn a_file_opens_with_its_purpose() {
        assert_eq!(failures("//! What it is.\n"), 0);
        assert_eq!(failures("// What it is.\n"), 1);
        assert_eq!(failures(""), 1);
    }

    #[test]
    fn long_files_are_warned_of_then_refused() {
        let of = |lines: usize| source("x.rs", &format!("//! x\n{}", "x\n".repeat(lines - 1)));
        assert_eq!(of(WARN_LINES), []);
        assert!(matches!(of(WARN_LINES + 1).as_slice(), [Finding::Warning(_)]));
        assert!(matches!(of(MOST_LINES + 1).as_slice(), [Finding::Failure(_)]));
    }

    #[test]
    fn leftovers_are_found_in_code_not_in_comments() {
        for (leftover, _why) in LEFTOVERS {
            assert_eq!(failures(&format!("//! x\n    {leftover})\n")), 1);
            assert_eq!(failures(&format!("//! x\n    // {leftover})\n")), 0);
        }
    }

    #[test]
    fn only_our_own_files_are_looked_for() {
        let text = "[a](docs/A.md#part) [b](https://example.org/b) [c](#here) [d](gone.md)";
        let findings = document("README.md", text, &|link| link == "docs/A.md");
        assert_eq!(findings, [Finding::Failure("README.md: links to gone.md, which is not there".to_owned())]);
    }
}
