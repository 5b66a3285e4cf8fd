//! What a cluster on this machine is made of, and what is installed into it. Only `cargo xtask e2e` gets these.

use std::path::Path;

use xtask::workspace::Workspace;

use super::super::Purpose::Cluster;
use super::super::go_tool::{
    CSI_PROVISIONER, CSI_RESIZER, GoTool, HELM, HELMFILE, JAEGER, KUBE, KUBECONFORM, LOCAL_PATH, OTELCOL,
};
use super::super::machine::go_version;
use super::super::schemas;
use super::{Get, Need, State, Weight, all, executable, file};
use crate::image;

/// The standard library for static programs of this machine.
const STATIC_STD: &str = if cfg!(target_arch = "aarch64") {
    "rust-std-aarch64-unknown-linux-musl"
} else {
    "rust-std-x86_64-unknown-linux-musl"
};

pub(super) const NEEDS: &[Need] = &[
    Need {
        name: "containers",
        why: "the runtime of the nodes",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |_| all(&["containerd", "ctr", "runc"]),
        get: Get::Apt(&["containerd", "runc"]),
        by_hand: "install containerd and runc",
    },
    Need {
        name: "CNI plugins",
        why: "the network of the pods",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |_| file("/usr/lib/cni/bridge"),
        get: Get::Apt(&["containernetworking-plugins"]),
        by_hand: "install the plugins bridge, host-local and loopback to /usr/lib/cni",
    },
    Need {
        name: "etcd",
        why: "holds what the API server knows",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |_| all(&["etcd"]),
        get: Get::Apt(&["etcd-server"]),
        by_hand: "install etcd",
    },
    Need {
        name: "network tools",
        why: "networks of the nodes, and service addresses",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |_| all(&["ip", "nft", "iptables", "conntrack", "openssl", "nsenter", "unshare"]),
        get: Get::Apt(&["iproute2", "nftables", "iptables", "conntrack", "openssl", "util-linux"]),
        by_hand: "install iproute2, nftables, iptables, conntrack, openssl and util-linux",
    },
    Need {
        name: "C compiler for musl",
        why: "the image has static programs and no libraries",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |_| all(&["musl-gcc"]),
        get: Get::Apt(&["musl-tools"]),
        by_hand: "install musl-tools; without it the image has the libraries of this machine in it",
    },
    Need {
        name: "Rust for musl",
        why: "the same",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |_| match image::static_std() {
            Some(place) => State::Present(place.display().to_string()),
            None => State::Missing,
        },
        get: Get::RustupComponent(STATIC_STD),
        by_hand: "rustup target add x86_64-unknown-linux-musl (or that of your machine)",
    },
    Need {
        name: "static busybox",
        why: "what the pods of the tests run",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |_| all(&["busybox"]),
        get: Get::Apt(&["busybox-static"]),
        by_hand: "install a busybox that is linked statically",
    },
    Need {
        name: "Prometheus",
        why: "collects the metrics as a user's would",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |_| all(&["prometheus", "promtool"]),
        get: Get::Apt(&["prometheus"]),
        by_hand: "install Prometheus",
    },
    Need {
        name: "Go 1.26",
        why: "builds Kubernetes and what is installed into it",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |workspace| match (are_built(workspace), go_version()) {
            (true, _) => State::Present("what it builds is built already".to_owned()),
            (false, Some(version)) if version >= (1, 26) => State::Present(format!("go {}.{}", version.0, version.1)),
            (false, _) => State::Missing,
        },
        get: Get::ByHand,
        by_hand: "install Go 1.26 or later and put it on PATH",
    },
    Need {
        name: "Kubernetes",
        why: "control plane, kubelet and kubectl",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |workspace| built(workspace, &KUBE),
        get: Get::Go(&KUBE),
        by_hand: "needs Go, see there",
    },
    Need {
        name: "CSI provisioner",
        why: "makes volumes for claims",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |workspace| built(workspace, &CSI_PROVISIONER),
        get: Get::Go(&CSI_PROVISIONER),
        by_hand: "needs Go, see there",
    },
    Need {
        name: "CSI resizer",
        why: "has volumes grow with their claims",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |workspace| built(workspace, &CSI_RESIZER),
        get: Get::Go(&CSI_RESIZER),
        by_hand: "needs Go, see there",
    },
    Need {
        name: "local-path-provisioner",
        why: "makes the volumes that others' classes have, for ours to wrap",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |workspace| built(workspace, &LOCAL_PATH),
        get: Get::Go(&LOCAL_PATH),
        by_hand: "needs Go, see there",
    },
    Need {
        name: "Helm",
        why: "installs the chart as a user does",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |workspace| built(workspace, &HELM),
        get: Get::Go(&HELM),
        by_hand: "needs Go, see there",
    },
    Need {
        name: "kubeconform",
        why: "holds what the chart renders against schemas",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |workspace| built(workspace, &KUBECONFORM),
        get: Get::Go(&KUBECONFORM),
        by_hand: "needs Go, see there",
    },
    Need {
        name: "Kubernetes schemas",
        why: "what Kubernetes and the Prometheus Operator take",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |_| match schemas::kubernetes() {
            file if file.is_file() => State::Present(file.display().to_string()),
            _ => State::Missing,
        },
        get: Get::Schemas,
        by_hand: "needs Go, see there",
    },
    Need {
        name: "helmfile",
        why: "installs FSI with its backends as a user does",
        serves: &[Cluster],
        weight: Weight::Optional,
        state: |workspace| built(workspace, &HELMFILE),
        get: Get::Go(&HELMFILE),
        by_hand: "needs Go, see there",
    },
];

fn built(workspace: &Workspace, tool: &GoTool) -> State {
    executable(&tool.program(workspace))
}

fn are_built(workspace: &Workspace) -> bool {
    let tools = [&KUBE, &CSI_PROVISIONER, &CSI_RESIZER, &LOCAL_PATH, &HELM, &HELMFILE, &KUBECONFORM, &OTELCOL, &JAEGER];
    schemas::kubernetes().is_file()
        && tools.iter().all(|tool| xtask::tools::is_executable(Path::new(&tool.program(workspace))))
}
