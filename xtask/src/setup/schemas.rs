//! What Kubernetes and the Prometheus Operator take, as they describe it themselves: files of their Go modules, which are pinned by their sums.

use std::path::PathBuf;

use anyhow::Result;
use xtask::tools::tool_dir;

use super::install::by_script;

const VERSIONS: &str = "1.34.4-0.85.0";

const FETCH: &str = r#"set -e
take() {
  go mod download -json "$1" > module.json
  grep -q "\"Sum\": \"$2\"" module.json || { echo "$1 is not what it was" >&2; exit 1; }
  folder=$(sed -n 's/.*"Dir": "\(.*\)",*/\1/p' module.json)
  shift 2
  for file; do cp "$folder/$file" .; done
  rm module.json
}
take github.com/prometheus-operator/prometheus-operator@v0.85.0 h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s= \
  example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml \
  example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml
take k8s.io/kubernetes@v1.34.4 h1:Yy6R4QB8C9kJPp25GFqEvX5XQwY5qzKeqD0Xx6oAcmk= api/openapi-spec/swagger.json
"#;

/// OpenAPI 2 of all that Kubernetes has.
pub(crate) fn kubernetes() -> PathBuf {
    tool_dir("schemas", VERSIONS).join("swagger.json")
}

/// What defines the kinds of the Prometheus Operator that the chart has.
pub(crate) fn operator() -> [PathBuf; 2] {
    ["podmonitors", "prometheusrules"]
        .map(|kind| tool_dir("schemas", VERSIONS).join(format!("monitoring.coreos.com_{kind}.yaml")))
}

pub(super) fn fetch() -> Result<()> {
    by_script(&kubernetes(), "schemas", "take schemas out of Go modules", FETCH)
}
