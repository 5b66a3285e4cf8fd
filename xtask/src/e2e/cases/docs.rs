//! docs/KUBERNETES.md, its commands run as they stand there: on a cluster without FSI, up to a cluster without FSI.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::super::cluster::entrance;
use super::super::images::OTHER_FSI;
use super::super::install;
use super::super::kubectl::eventually;
use super::ends::no_mounts;
use super::{Case, Place, Takes};

pub(super) const WALKED: Case = Case {
    name: "docs-walked",
    shows: "the commands of docs/KUBERNETES.md, in its order and as they stand there, do what it says",
    takes: Takes::OwnInterposer,
    check: walked,
};

const PAGE: &str = "docs/KUBERNETES.md";
/// Longer than a build of the image takes.
const LIMIT: &str = "900";

fn walked(place: &Place<'_>) -> Result<()> {
    let ours = place.setting.own()?;
    let page = ours.workspace.path(PAGE);
    let page = Page { text: fs::read_to_string(&page).with_context(|| format!("read {}", page.display()))? };
    let walk = |section: &str, at: usize| {
        let script = page.block(section, at)?;
        let said = shell(place, &script)?;
        println!("  {section}, {}: done", at + 1);
        Ok::<_, anyhow::Error>(said)
    };
    // What the other cases use.
    walk("Uninstall", 0)?;
    let held = (|| {
        let top = walk("Observe only, in two minutes", 0)?;
        ensure!(top.contains("ops/s"), "the last command gives no table:\n{top}");
        eventually(60, "some pod of the node does something", || {
            let metrics = walk("Observe only, in two minutes", 1)?;
            ensure!(metrics.contains("fsi_operations_total{namespace="), "{metrics}");
            Ok(())
        })?;

        let classes = walk("From nothing to EIO, in five", 0)?;
        ensure!(classes.contains("fsi-flaky"), "{classes}");
        let dd = walk("From nothing to EIO, in five", 1);
        let error = format!("{:#}", dd.err().context("dd wrote and synced")?);
        ensure!(error.contains("dd: /data/log: Input/output error"), "{error}");
        let told = walk("From nothing to EIO, in five", 2)?;
        ensure!(told.contains("fsi_faults_injected_total{") && told.contains("errno=\"EIO\""), "{told}");

        let (_, tag) = OTHER_FSI.rsplit_once(':').context("an image has a tag")?;
        let upgrade = page.block("Upgrade and rollback", 0)?.replace("NEW", tag);
        shell(place, &upgrade)?;
        eventually(90, "the volume is served again", || {
            let kept = walk("Upgrade and rollback", 1)?;
            ensure!(kept.contains("\tserved\t"), "{kept}");
            Ok(())
        })?;
        walk("From nothing to EIO, in five", 3)?;
        walk("Uninstall", 0)?;
        let left = place.kubectl().run(&["get", "pv,sc,csidriver,csinode", "-o", "yaml"])?;
        ensure!(!left.contains("interposer.fsi.dev"), "left behind: {left}");
        no_mounts()
    })();
    // The cluster may be kept, the image is not.
    fs::remove_file(ours.workspace.path("fsi.tar")).ok();
    let again = ours.cluster().and_then(|cluster| install::sync(&ours.workspace, cluster));
    held.and(again)
}

/// Runs a script as a person at the root of the checkout does; what it said.
fn shell(place: &Place<'_>, script: &str) -> Result<String> {
    let ours = place.setting.own()?;
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", LIMIT]).arg(entrance()).args(["bash", "-eu", "-o", "pipefail"]);
    command.current_dir(ours.workspace.root()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("start a shell")?;
    child.stdin.take().context("a shell reads")?.write_all(script.as_bytes()).context("write to a shell")?;
    let output = child.wait_with_output().context("wait for a shell")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    ensure!(output.status.success(), "{script}\n{}: {said}{errors}", output.status);
    Ok(said)
}

struct Page {
    text: String,
}

impl Page {
    /// The commands of a section that stand together.
    fn block(&self, section: &str, at: usize) -> Result<String> {
        let mut parts = self.text.split("\n## ");
        let part = parts.find(|part| part.lines().next() == Some(section));
        let part = part.with_context(|| format!("{PAGE} has no section {section}"))?;
        let block = part.split("```sh\n").nth(at + 1).and_then(|rest| rest.split_once("```"));
        let (block, _) = block.with_context(|| format!("{section} has no block {}", at + 1))?;
        Ok(block.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_found_by_its_section_and_place() {
        let page = Page {
            text: "# P\n\n## A\n```sh\na\n```\n## B\ntext\n```sh\nb\n```\n```yaml\ny\n```\n```sh\nc\nd\n```\n"
                .to_owned(),
        };
        assert_eq!(page.block("B", 1).expect("it is there"), "c\nd\n");
        assert!(page.block("B", 2).is_err());
        assert!(page.block("C", 0).is_err());
    }
}
