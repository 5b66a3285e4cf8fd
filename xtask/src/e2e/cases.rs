//! What is tested on the cluster. Each case has a namespace of its own, which must go when it is over.

mod backends;
mod chart;
mod docs;
mod ends;
mod faults;
mod many;
mod nodes;
mod observe;
mod shared;
mod volumes;
mod ways;
mod wraps;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;
use xtask::workspace::Workspace;

use super::cluster::Cluster;
use super::images::BUSYBOX;
use super::kubectl::{Kubectl, eventually};
use crate::setup::HELM;

#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) shows: &'static str,
    takes: Takes,
    check: fn(&Place<'_>) -> Result<()>,
}

/// What must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// What the cluster is made of, and no cluster.
    Tools,
    Agent,
    /// The CSI driver.
    Interposer,
    /// A cluster of ours: its nodes' processes are killed, or its disks used.
    OwnCluster,
    OwnInterposer,
}

impl Case {
    pub(super) fn takes_cluster(&self) -> bool {
        self.takes != Takes::Tools
    }
}

#[derive(Debug)]
pub(super) enum Outcome {
    Held,
    CannotRun(String),
}

pub(super) const ALL: &[Case] = &[
    chart::SNAPSHOTS,
    chart::SERVER,
    observe::POD,
    observe::SPANS,
    observe::EACH_NODE,
    observe::DRIVER,
    volumes::PLAIN,
    faults::EIO,
    faults::THROTTLE,
    faults::THROTTLE_POD,
    faults::FULL,
    faults::INLINE,
    faults::WRONG_RULES,
    faults::FAKE,
    volumes::GROWS,
    ways::WAYS,
    wraps::OTHER_CLASS,
    wraps::OWN_CLASS,
    wraps::CLAIM,
    wraps::REFUSED,
    wraps::holders::RETAINED,
    wraps::holders::HOLDER_GONE,
    wraps::holders::RIGHTS,
    shared::ONE_TRACE,
    many::AT_ONCE,
    ends::ANY_ORDER,
    ends::AGENT_KILLED,
    ends::DRIVER_KILLED,
    ends::SERVER_KILLED,
    ends::KEEPER_KILLED,
    ends::KUBELET_KILLED,
    ends::BOTH_KILLED,
    ends::DRIVER_KILLED_OFTEN,
    ends::upgrade::UPGRADED,
    ends::restart::NODE_RESTARTED,
    docs::WALKED,
];

/// The cluster, and what is known of it.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) kubectl: Kubectl,
    /// Of a cluster of ours.
    ours: Option<Ours>,
}

#[derive(Debug)]
struct Ours {
    workspace: Workspace,
    /// None: a case that takes none.
    cluster: Option<Cluster>,
}

impl Setting {
    pub(super) fn ours(workspace: &Workspace, cluster: &Cluster) -> Self {
        let ours = Ours { workspace: workspace.clone(), cluster: Some(cluster.clone()) };
        Self { kubectl: cluster.kubectl(), ours: Some(ours) }
    }

    /// Without a cluster.
    pub(super) fn tools(workspace: &Workspace) -> Self {
        let ours = Ours { workspace: workspace.clone(), cluster: None };
        Self { kubectl: Kubectl::with(Path::new("/dev/null")), ours: Some(ours) }
    }

    pub(super) fn theirs(kubectl: Kubectl) -> Self {
        Self { kubectl, ours: None }
    }

    fn own(&self) -> Result<&Ours> {
        self.ours.as_ref().context("no cluster of its own")
    }
}

impl Ours {
    fn cluster(&self) -> Result<&Cluster> {
        self.cluster.as_ref().context("no cluster")
    }

    fn helm(&self) -> PathBuf {
        HELM.program(&self.workspace)
    }

    fn chart(&self) -> PathBuf {
        self.workspace.path("helm/fsi")
    }
}

/// Where a case works.
#[derive(Debug)]
struct Place<'a> {
    setting: &'a Setting,
    namespace: String,
}

pub(super) fn run(setting: &Setting, case: &Case) -> Result<Outcome> {
    if let Some(reason) = lacks(setting, case.takes) {
        return Ok(Outcome::CannotRun(reason));
    }
    let place = Place { setting, namespace: format!("e2e-{}", case.name) };
    if !case.takes_cluster() {
        return (case.check)(&place).map(|()| Outcome::Held);
    }
    setting.kubectl.run(&["create", "namespace", &place.namespace])?;
    let held = (case.check)(&place).map_err(|error| {
        let seen = place.what_happened();
        error.context(format!("in {}:\n{seen}\n", place.namespace))
    });
    // What is stuck here would be stuck for a user, too.
    let gone = setting
        .kubectl
        .run(&["delete", "namespace", &place.namespace, "--timeout=180s"])
        .context("its namespace does not go")
        .and_then(|_| place.volumes_are_gone());
    held.and(gone).map(|()| Outcome::Held)
}

fn lacks(setting: &Setting, takes: Takes) -> Option<String> {
    let has_driver = || setting.kubectl.run(&["get", "csidriver", "interposer.fsi.dev"]).is_ok();
    let is_own = setting.ours.is_some();
    match takes {
        Takes::Tools | Takes::OwnCluster | Takes::OwnInterposer if !is_own => {
            Some("only for a cluster of its own".to_owned())
        }
        Takes::Interposer | Takes::OwnInterposer if !has_driver() => Some("the CSI driver is not installed".to_owned()),
        Takes::Tools | Takes::Agent | Takes::Interposer | Takes::OwnCluster | Takes::OwnInterposer => None,
    }
}

impl Place<'_> {
    fn kubectl(&self) -> &Kubectl {
        &self.setting.kubectl
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-n", self.namespace.as_str()];
        all.extend(arguments);
        self.kubectl().run(&all)
    }

    fn shell(&self, pod: &str, script: &str) -> Result<(i32, String)> {
        self.kubectl().shell(&self.namespace, pod, script)
    }

    /// What a script in a pod says; it must succeed.
    fn said(&self, pod: &str, script: &str) -> Result<String> {
        match self.shell(pod, script)? {
            (0, said) => Ok(said),
            (code, said) => Err(anyhow!("`{script}` in {pod} ends with {code}: {said}")),
        }
    }

    /// A pod that runs a shell script, with one volume at /data. `volume` is a volume's source in YAML's flow style, and
    /// `more` what its specification has besides.
    fn pod(&self, name: &str, script: &str, volume: &str, more: &str) -> Result<()> {
        let script = serde_json::to_string(script).context("quote a script")?;
        let image = BUSYBOX;
        self.kubectl().apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  {more}
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: {image}
      imagePullPolicy: IfNotPresent
      command: [sh, -c, {script}]
      volumeMounts: [{{ name: data, mountPath: /data }}]
  volumes: [{{ name: data, {volume} }}]
",
            namespace = self.namespace,
        ))
    }

    /// A pod that does nothing, with two claims at /one and /two.
    fn pod_with_two(&self, name: &str, [one, two]: [&str; 2]) -> Result<()> {
        let image = BUSYBOX;
        self.kubectl().apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: {image}
      imagePullPolicy: IfNotPresent
      command: [sleep, infinity]
      volumeMounts: [{{ name: one, mountPath: /one }}, {{ name: two, mountPath: /two }}]
  volumes:
    - {{ name: one, persistentVolumeClaim: {{ claimName: {one} }} }}
    - {{ name: two, persistentVolumeClaim: {{ claimName: {two} }} }}
",
            namespace = self.namespace,
        ))
    }

    fn claim(&self, name: &str, class: &str, size: &str) -> Result<()> {
        self.kubectl().apply(&format!(
            "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{ name: {name}, namespace: {namespace} }}
spec: {{ storageClassName: {class}, accessModes: [ReadWriteOnce], resources: {{ requests: {{ storage: {size} }} }} }}
",
            namespace = self.namespace,
        ))
    }

    /// A storage class of the driver, named after the namespace; parameters in YAML's flow style.
    fn class(&self, parameters: &str) -> Result<String> {
        let name = self.namespace.clone();
        self.kubectl().apply(&format!(
            "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{ name: {name} }}
provisioner: interposer.fsi.dev
parameters: {parameters}
allowVolumeExpansion: true
volumeBindingMode: WaitForFirstConsumer
"
        ))?;
        Ok(name)
    }

    fn ready(&self, pod: &str) -> Result<()> {
        self.run(&["wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=180s"]).map(drop)
    }

    fn node_of(&self, pod: &str) -> Result<String> {
        self.run(&["get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"])
    }

    /// Events of one object, as "reason: message".
    fn events(&self, kind: &str, name: &str) -> Result<Vec<String>> {
        let selector = format!("involvedObject.kind={kind},involvedObject.name={name}");
        let events = self.kubectl().json(&["-n", &self.namespace, "get", "events", "--field-selector", &selector])?;
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let events = events["items"].as_array().into_iter().flatten();
        Ok(events.map(|event| format!("{}: {}", text(event, "reason"), text(event, "message"))).collect())
    }

    /// For who reads of a failure.
    fn what_happened(&self) -> String {
        let pods = self.run(&["get", "pods,pvc", "-o", "wide"]).unwrap_or_default();
        let events = self.run(&["get", "events", "--sort-by=.lastTimestamp"]).unwrap_or_default();
        let last: Vec<_> = events.lines().rev().take(15).collect();
        format!("{pods}\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    /// No volume of its claims stays.
    fn volumes_are_gone(&self) -> Result<()> {
        self.kubectl().run(&["delete", "storageclass", &self.namespace, "--ignore-not-found"])?;
        let left = eventually(180, "its volumes go", || {
            let volumes = self.kubectl().json(&["get", "persistentvolumes"])?;
            let of_ours = |volume: &&Value| {
                volume["spec"]["claimRef"]["namespace"] == self.namespace.as_str()
                    && volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
            };
            match volumes["items"].as_array().into_iter().flatten().find(of_ours) {
                None => Ok(()),
                Some(volume) => Err(anyhow!("{} is still there: {}", volume["metadata"]["name"], volume["status"])),
            }
        });
        left.map(drop)
    }
}
