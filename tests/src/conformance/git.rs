//! git as people use it. Its objects are named by what they hold, so that the same work has the same names everywhere.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{Results, last_words};
use crate::fsi::{output, text};

const FILES: usize = 150;

/// Each step with what is done; the working directory is the repository.
const STEPS: &[(&str, &str)] = &[
    ("init", "git init --quiet --initial-branch=main ."),
    ("commit", "git add --all && git commit --quiet --message=first && git rev-parse HEAD"),
    (
        "branch and merge",
        "git switch --quiet --create=other && echo changed > 7/7.txt && git rm --quiet 8/8.txt && ln -s 9.txt 9/link && \
         chmod +x 9/9.txt && git add --all && git commit --quiet --message=second && git switch --quiet main && \
         mv 5/5.txt 5/moved.txt && git add --all && git commit --quiet --message=third && \
         git merge --quiet --no-edit other && git rev-parse HEAD && git status --porcelain",
    ),
    ("repack", "git gc --quiet --aggressive && git fsck --full --strict 2>&1 && git rev-parse HEAD"),
    ("clone", "git clone --quiet --local . ../clone && git -C ../clone rev-parse HEAD && ls -R ../clone | wc -l"),
    ("stash", "echo more >> 1/1.txt && git stash --quiet && git stash pop --quiet && git diff --stat"),
    (
        "worktree",
        "git worktree add --quiet ../tree other && ls -l ../tree/9 | wc -l && git worktree remove --force ../tree",
    ),
    ("clean", "git reset --quiet --hard HEAD~1 && git clean -fdxq && git status --porcelain && git rev-parse HEAD"),
];

pub(super) fn run(directory: &Path) -> Results {
    let repository = directory.join("repository");
    for number in 0..FILES {
        let folder = repository.join((number % 15).to_string());
        fs::create_dir_all(&folder).expect("a directory");
        fs::write(folder.join(format!("{number}.txt")), format!("{number}\n").repeat(number + 1)).expect("a file");
    }
    let mut results = Results::default();
    for (step, script) in STEPS {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(&repository).env("HOME", directory);
        for (name, value) in [("NAME", "a"), ("EMAIL", "a@example.org"), ("DATE", "2026-01-01T00:00:00Z")] {
            command.env(format!("GIT_AUTHOR_{name}"), value).env(format!("GIT_COMMITTER_{name}"), value);
        }
        let output = output(command.env("GIT_CONFIG_NOSYSTEM", "1").env("LC_ALL", "C"));
        let said = text(&output.stdout);
        results.add(
            *step,
            match output.status.success() {
                true => format!("ok {}", said.trim().replace('\n', "; ")),
                false => format!("{}: {}", output.status, last_words(&format!("{said}\n{}", text(&output.stderr)))),
            },
        );
    }
    results
}
