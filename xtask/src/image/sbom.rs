//! The crates that the programs of the image are linked from, as an SPDX 2.3 document.

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use xtask::workspace::Workspace;

use super::programs::Programs;

pub(super) fn spdx(workspace: &Workspace, programs: &Programs) -> Result<Vec<u8>> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["metadata", "--format-version", "1", "--locked"]).current_dir(workspace.root());
    if let Some(target) = &programs.target {
        command.args(["--filter-platform", target]);
    }
    let output = command.output().context("start cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("read what cargo metadata says")?;
    serde_json::to_vec_pretty(&document(&metadata, &programs.packages)).context("write the SBOM")
}

fn document(metadata: &Value, roots: &[&str]) -> Value {
    let packages: HashMap<&str, &Value> =
        list(&metadata["packages"]).filter_map(|package| Some((package["id"].as_str()?, package))).collect();
    let linked = linked(metadata, &packages, roots);
    // Sorted by what they say: the ids hold the checkout's path.
    let mut shown: Vec<_> = linked.iter().filter_map(|id| packages.get(id)).map(|package| entry(package)).collect();
    shown.sort_by_key(|package| package["SPDXID"].as_str().unwrap_or_default().to_owned());
    let described: Vec<_> = shown
        .iter()
        .filter(|package| roots.iter().any(|root| package["name"] == *root))
        .map(|package| package["SPDXID"].clone())
        .collect();
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "fsi",
        "documentNamespace": format!("https://spdx.org/spdxdocs/fsi-{}", super::VERSION),
        "creationInfo": { "created": "2024-01-01T00:00:00Z", "creators": ["Tool: cargo-xtask-image"] },
        "documentDescribes": described,
        "packages": shown,
    })
}

/// Everything that the roots are linked from; what only builds or tests them is not in the image.
fn linked<'a>(metadata: &'a Value, packages: &HashMap<&'a str, &'a Value>, roots: &[&str]) -> BTreeSet<&'a str> {
    let nodes: HashMap<&str, &Value> =
        list(&metadata["resolve"]["nodes"]).filter_map(|node| Some((node["id"].as_str()?, node))).collect();
    let is_root = |package: &Value| roots.iter().any(|root| package["name"] == *root);
    let mut next: Vec<_> = packages.iter().filter(|(_, package)| is_root(package)).map(|(id, _)| *id).collect();
    let mut linked = BTreeSet::new();
    while let Some(id) = next.pop() {
        let Some(node) = nodes.get(id).filter(|_| linked.insert(id)) else { continue };
        let normal = |dep: &&Value| list(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null());
        next.extend(list(&node["deps"]).filter(normal).filter_map(|dep| dep["pkg"].as_str()));
    }
    linked
}

fn entry(package: &Value) -> Value {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    let (name, version) = (text("name"), text("version"));
    let id: String = format!("{name}-{version}")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
        .collect();
    let is_from_registry = package["source"].is_string();
    let license = match text("license") {
        "" => "NOASSERTION".to_owned(),
        license => license.replace('/', " OR "),
    };
    let mut entry = json!({
        "SPDXID": format!("SPDXRef-{id}"),
        "name": name,
        "versionInfo": version,
        "licenseDeclared": license,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
    });
    if is_from_registry {
        entry["downloadLocation"] = json!(format!("https://crates.io/api/v1/crates/{name}/{version}/download"));
        entry["externalRefs"] = json!([{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": format!("pkg:cargo/{name}@{version}"),
        }]);
    }
    entry
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_is_not() {
        let package = |name: &str, source: Value| json!({ "id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": source });
        let dep = |name: &str, kind: Value| json!({ "pkg": name, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("fsi-agent", Value::Null), package("aya", json!("registry")), package("xtask", Value::Null), package("cc", json!("registry"))],
            "resolve": { "nodes": [
                { "id": "fsi-agent", "deps": [dep("aya", Value::Null), dep("xtask", json!("build"))] },
                { "id": "aya", "deps": [dep("fsi-agent", json!("dev"))] },
                { "id": "xtask", "deps": [dep("cc", Value::Null)] },
                { "id": "cc", "deps": [] },
            ]},
        });
        let document = document(&metadata, &["fsi-agent"]);
        let names: Vec<_> = list(&document["packages"]).map(|package| package["name"].clone()).collect();
        assert_eq!(names, ["aya", "fsi-agent"]);
        assert_eq!(document["documentDescribes"], json!(["SPDXRef-fsi-agent-1.0.0"]));
        assert_eq!(document["packages"][0]["licenseDeclared"], "MIT OR Apache-2.0");
        assert_eq!(document["packages"][0]["externalRefs"][0]["referenceLocator"], "pkg:cargo/aya@1.0.0");
    }
}
