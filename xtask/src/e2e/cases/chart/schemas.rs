//! What Kubernetes and the Prometheus Operator say of their kinds, as JSON schemas in which a field that is not there is an error, and
//! kubeconform, which holds manifests against them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};
use xtask::workspace::Workspace;

use crate::setup::KUBECONFORM;
use crate::setup::schemas::{kubernetes, operator};

const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const REFERENCE: &str = "#/definitions/";

/// The folder that has a file for each kind of which there was a manifest.
#[derive(Debug)]
pub(super) struct Schemas {
    program: PathBuf,
    folder: PathBuf,
    definitions: Map<String, Value>,
}

impl Schemas {
    pub(super) fn read(workspace: &Workspace) -> Result<Self> {
        let folder = workspace.target_dir().join("e2e/schemas");
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        let text = fs::read_to_string(kubernetes()).context("read the schemas of Kubernetes")?;
        let mut all: Value = serde_json::from_str(&text).context("read the schemas of Kubernetes")?;
        let Value::Object(mut definitions) = all["definitions"].take() else { bail!("schemas without definitions") };
        definitions.insert(INT_OR_STRING.to_owned(), json!({ "type": ["integer", "string"] }));
        definitions.insert(QUANTITY.to_owned(), json!({ "type": ["number", "string"] }));
        definitions.values_mut().for_each(close);
        let schemas = Self { program: KUBECONFORM.program(workspace), folder, definitions };
        for file in operator() {
            schemas.write_custom(&fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?)?;
        }
        Ok(schemas)
    }

    /// Holds manifests against the schemas; a kind that has none is an error.
    pub(super) fn check(&self, manifests: &str) -> Result<()> {
        for document in serde_saphyr::from_multiple::<Value>(manifests).context("read manifests")? {
            self.write_known(&document)?;
        }
        let file = self.folder.join("manifests.yaml");
        fs::write(&file, manifests).context("write manifests")?;
        let schemas = format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", self.folder.display());
        let output = Command::new(&self.program).args(["-strict", "-schema-location", &schemas]).arg(&file).output();
        let output = output.context("start kubeconform")?;
        match output.status.success() {
            true => Ok(()),
            false => bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        }
    }

    /// The schema of a manifest's kind, if it is one of Kubernetes.
    fn write_known(&self, manifest: &Value) -> Result<()> {
        let (api, kind) = (manifest["apiVersion"].as_str().unwrap_or_default(), &manifest["kind"]);
        let (group, version) = api.split_once('/').unwrap_or(("", api));
        let is_it = |known: &Value| known["group"] == group && known["version"] == version && known["kind"] == *kind;
        let kinds = |schema: &Value| {
            schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|all| all.iter().any(is_it))
        };
        let Some((name, _)) = self.definitions.iter().find(|(_, schema)| kinds(schema)) else { return Ok(()) };
        let mut used = BTreeSet::new();
        self.collect(name, &mut used);
        let definitions: Map<_, _> =
            used.into_iter().map(|name| (name.to_owned(), self.definitions[name].clone())).collect();
        let schema = json!({ "$ref": format!("{REFERENCE}{name}"), "definitions": definitions });
        self.write(kind, group, version, &schema)
    }

    /// A definition, and all that it needs.
    fn collect<'a>(&'a self, name: &str, used: &mut BTreeSet<&'a str>) {
        let Some((name, schema)) = self.definitions.get_key_value(name) else { return };
        if used.insert(name) {
            references(schema).into_iter().for_each(|other| self.collect(other, used));
        }
    }

    /// The schemas in a definition of a kind of somebody else.
    fn write_custom(&self, definition: &str) -> Result<()> {
        let mut definition: Value = serde_saphyr::from_str(definition).context("read a definition of a kind")?;
        let spec = &mut definition["spec"];
        let (group, kind) = (spec["group"].take(), spec["names"]["kind"].take());
        for version in spec["versions"].as_array_mut().into_iter().flatten() {
            let mut schema = version["schema"]["openAPIV3Schema"].take();
            close(&mut schema);
            let version = version["name"].as_str().unwrap_or_default();
            self.write(&kind, group.as_str().unwrap_or_default(), version, &schema)?;
        }
        Ok(())
    }

    /// Where kubeconform looks for it.
    fn write(&self, kind: &Value, group: &str, version: &str, schema: &Value) -> Result<()> {
        let mut name = kind.as_str().unwrap_or_default().to_lowercase();
        for part in group.split('.').next().into_iter().chain([version]).filter(|part| !part.is_empty()) {
            name = format!("{name}-{part}");
        }
        let file = self.folder.join(format!("{name}.json"));
        fs::write(&file, schema.to_string()).with_context(|| format!("write {}", file.display()))
    }
}

/// Lets nothing into an object that it does not name.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(parts) => {
            let is_open = parts.contains_key("additionalProperties")
                || parts.get("x-kubernetes-preserve-unknown-fields").is_some_and(|open| *open == true);
            if parts.get("properties").is_some_and(Value::is_object) && !is_open {
                parts.insert("additionalProperties".to_owned(), false.into());
            }
            parts.values_mut().for_each(close);
        }
        Value::Array(parts) => parts.iter_mut().for_each(close),
        _ => {}
    }
}

/// The names of definitions that a schema needs.
fn references(schema: &Value) -> Vec<&str> {
    match schema {
        Value::Object(parts) => {
            let own = parts.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix(REFERENCE));
            own.into_iter().chain(parts.values().flat_map(references)).collect()
        }
        Value::Array(parts) => parts.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_object_does_not_name_is_kept_out_unless_it_says_otherwise() {
        let mut schema = json!({
            "properties": { "a": { "properties": { "b": {} } }, "c": { "properties": {}, "additionalProperties": true } },
        });
        close(&mut schema);
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["a"]["additionalProperties"], false);
        assert_eq!(schema["properties"]["c"]["additionalProperties"], true);
        assert!(schema["properties"].get("additionalProperties").is_none());
    }

    #[test]
    fn references_are_found_at_any_depth() {
        let schema = json!({ "items": { "$ref": "#/definitions/A" }, "oneOf": [{ "$ref": "#/definitions/B" }] });
        assert_eq!(references(&schema), ["A", "B"]);
    }
}
