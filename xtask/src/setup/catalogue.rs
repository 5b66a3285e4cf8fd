//! Everything that building, the demo, the tests and the benchmarks need: why, how one sees that it is there, and how it
//! comes. Adding a need is adding an entry.

mod cluster;
mod mounts;

use std::path::Path;
use std::process::{Command, Stdio};

use xtask::build_ebpf::Found;
use xtask::tools::{self, Crate};
use xtask::workspace::Workspace;

use super::Purpose;
use super::go_tool::{CSI_SANITY, GoTool, JAEGER, OTELCOL};
use super::machine::{self, go_version};

/// The LLVM that Debian's rustc-web is built with; bpf-linker must not have an older one.
pub(super) const LLVM: &str = "22";
const LLVM_CONFIG: &str = "/usr/lib/llvm-22/bin/llvm-config";

#[derive(Debug)]
pub(super) struct Need {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    pub(super) serves: &'static [Purpose],
    pub(super) weight: Weight,
    pub(super) state: fn(&Workspace) -> State,
    pub(super) get: Get,
    /// What a person does where we cannot.
    pub(super) by_hand: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Required,
    /// Its tests are skipped without it, with this need as the reason.
    Optional,
}

#[derive(Debug)]
pub(super) enum State {
    /// Where, or which.
    Present(String),
    Missing,
}

/// How it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Get {
    Apt(&'static [&'static str]),
    RustupComponent(&'static str),
    /// Built from crates.io into the cache, with Debian's LLVM.
    BpfLinker,
    /// A program built from crates.io into the cache.
    Crate(&'static Crate),
    /// Built from the Go module proxy into the cache.
    Go(&'static GoTool),
    /// Files of Go modules, copied into the cache.
    Schemas,
    /// Fetched from Debian into the cache, not installed: this machine goes on booting what it boots.
    OlderKernel,
    /// An example of Debian's libfuse3-dev, built into the cache.
    PassthroughLl,
    /// Not ours to change.
    ByHand,
}

use Purpose::{Bench, Build, Cluster, Demo, Test};

/// All of them.
pub(super) fn needs() -> impl Iterator<Item = &'static Need> {
    WATCHING.iter().chain(mounts::NEEDS).chain(cluster::NEEDS)
}

/// What building takes, and what watching is shown, tested and measured with.
const WATCHING: &[Need] = &[
    Need {
        name: "C linker",
        why: "Rust programs are linked by it",
        serves: &[Build],
        weight: Weight::Required,
        state: |_| program("cc"),
        get: Get::Apt(&["gcc", "libc6-dev"]),
        by_hand: "install gcc or clang",
    },
    Need {
        name: "compiler for BPF",
        why: "compiles the eBPF programs; stable Rust has no `core` for BPF",
        serves: &[Build],
        weight: Weight::Required,
        state: |_| match Found::on_this_machine().compiler() {
            Ok(compiler) => State::Present(compiler.to_string()),
            Err(_missing) => State::Missing,
        },
        get: Get::Apt(&["rustc-web", "libstd-rust-web-dev-bpf"]),
        by_hand: "rustup toolchain install nightly --component rust-src",
    },
    Need {
        name: "LLVM 22 libraries",
        why: "bpf-linker is built with them",
        serves: &[Build],
        weight: Weight::Required,
        state: |workspace| match (bpf_linker(workspace), Path::new(LLVM_CONFIG).exists()) {
            (State::Present(_), _) => State::Present("bpf-linker has what it needs".to_owned()),
            (State::Missing, true) => State::Present(LLVM_CONFIG.to_owned()),
            (State::Missing, false) => State::Missing,
        },
        get: Get::Apt(&["llvm-22-dev"]),
        by_hand: "only needed where bpf-linker is built from source; see bpf-linker",
    },
    Need {
        name: "bpf-linker",
        why: "links the eBPF programs to one object",
        serves: &[Build],
        weight: Weight::Required,
        state: bpf_linker,
        get: Get::BpfLinker,
        by_hand: "cargo install bpf-linker (its page says which LLVM it wants)",
    },
    Need {
        name: "kernel with BTF",
        why: "the probes read the kernel's own type information",
        serves: &[Demo, Test],
        weight: Weight::Optional,
        state: |_| file("/sys/kernel/btf/vmlinux"),
        get: Get::ByHand,
        by_hand: "boot a kernel of 6.1 or later with CONFIG_DEBUG_INFO_BTF=y, as distributions build it",
    },
    Need {
        name: "permission for BPF",
        why: "loads the probes",
        serves: &[Demo, Test],
        weight: Weight::Optional,
        state: |_| match machine::may_load_bpf() {
            true => State::Present("CAP_BPF and CAP_PERFMON".to_owned()),
            false => State::Missing,
        },
        get: Get::ByHand,
        by_hand: "run as root, or with CAP_BPF and CAP_PERFMON",
    },
    Need {
        name: "git",
        why: "one of the programs that are watched",
        serves: &[Demo, Test],
        weight: Weight::Required,
        state: |_| program("git"),
        get: Get::Apt(&["git"]),
        by_hand: "install git",
    },
    Need {
        name: "tar",
        why: "one of the programs that are watched",
        serves: &[Demo, Test],
        weight: Weight::Required,
        state: |_| program("tar"),
        get: Get::Apt(&["tar", "gzip"]),
        by_hand: "install tar",
    },
    Need {
        name: "python3 with sqlite3",
        why: "loads a database while it is watched",
        serves: &[Demo, Test],
        weight: Weight::Required,
        state: |_| machine::python().map_or(State::Missing, State::Present),
        get: Get::Apt(&["python3"]),
        by_hand: "install python3 with its sqlite3 module",
    },
    Need {
        name: "dd",
        why: "writes past the page cache while it is watched",
        serves: &[Demo, Test],
        weight: Weight::Required,
        state: |_| program("dd"),
        get: Get::Apt(&["coreutils"]),
        by_hand: "install coreutils",
    },
    Need {
        name: "rustfmt",
        why: "a step of the tests",
        serves: &[Test],
        weight: Weight::Required,
        state: |_| cargo_command("fmt"),
        get: Get::RustupComponent("rustfmt"),
        by_hand: "rustup component add rustfmt",
    },
    Need {
        name: "clippy",
        why: "a step of the tests",
        serves: &[Test],
        weight: Weight::Required,
        state: |_| cargo_command("clippy"),
        get: Get::RustupComponent("clippy"),
        by_hand: "rustup component add clippy",
    },
    Need {
        name: "strace",
        why: "the second opinion that counts are compared with",
        serves: &[Test, Bench],
        weight: Weight::Optional,
        state: |_| program("strace"),
        get: Get::Apt(&["strace"]),
        by_hand: "install strace",
    },
    Need {
        name: "promtool",
        why: "judges the Prometheus text",
        serves: &[Test],
        weight: Weight::Optional,
        state: |_| program("promtool"),
        get: Get::Apt(&["prometheus"]),
        by_hand: "install Prometheus",
    },
    Need {
        name: "Go 1.25",
        why: "builds the OpenTelemetry Collector and Jaeger",
        serves: &[Test],
        weight: Weight::Optional,
        state: |workspace| match (go_tools_are_built(workspace), go_version()) {
            (true, _) => State::Present("what it builds is built already".to_owned()),
            (false, Some(version)) if version >= (1, 25) => State::Present(format!("go {}.{}", version.0, version.1)),
            (false, _) => State::Missing,
        },
        get: Get::ByHand,
        by_hand: "install Go 1.25 or later (Debian 12 packages 1.19) and put it on PATH",
    },
    Need {
        name: "OpenTelemetry Collector",
        why: "receives the spans as a user's would",
        serves: &[Cluster, Test],
        weight: Weight::Optional,
        state: |workspace| executable(&OTELCOL.program(workspace)),
        get: Get::Go(&OTELCOL),
        by_hand: "needs Go, see there",
    },
    Need {
        name: "Jaeger",
        why: "shows the traces as a user's would",
        serves: &[Cluster, Test],
        weight: Weight::Optional,
        state: |workspace| executable(&JAEGER.program(workspace)),
        get: Get::Go(&JAEGER),
        by_hand: "needs Go, see there",
    },
    Need {
        name: "csi-sanity",
        why: "asks the CSI driver what the specification says",
        serves: &[Test],
        weight: Weight::Optional,
        state: |workspace| executable(&CSI_SANITY.program(workspace)),
        get: Get::Go(&CSI_SANITY),
        by_hand: "needs Go, see there",
    },
    Need {
        name: "qemu, busybox, cpio",
        why: "boot the probes on an older kernel",
        serves: &[Test],
        weight: Weight::Optional,
        state: |_| match (program("qemu-system-x86_64"), program("busybox"), program("cpio")) {
            (State::Present(qemu), State::Present(_), State::Present(_)) => State::Present(qemu),
            _ => State::Missing,
        },
        get: Get::Apt(&["qemu-system-x86", "busybox-static", "cpio"]),
        by_hand: "install qemu for x86_64, a static busybox and cpio",
    },
    Need {
        name: "older kernel",
        why: "the oldest kernel that the probes must load on",
        serves: &[Test],
        weight: Weight::Optional,
        state: |_| file(&super::older_kernel().display().to_string()),
        get: Get::OlderKernel,
        by_hand: "set FSI_OLDER_KERNEL to the image of a Linux 6.1 with BTF and run `cargo test -p fsi-tests`",
    },
    Need {
        name: "fio",
        why: "makes the measured load",
        serves: &[Bench],
        weight: Weight::Required,
        state: |_| program("fio"),
        get: Get::Apt(&["fio"]),
        by_hand: "install fio",
    },
    Need {
        name: "bpftrace",
        why: "a peer to compare with",
        serves: &[Bench],
        weight: Weight::Optional,
        state: |_| program("bpftrace"),
        get: Get::Apt(&["bpftrace"]),
        by_hand: "install bpftrace",
    },
    Need {
        name: "perf",
        why: "a peer to compare with",
        serves: &[Bench],
        weight: Weight::Optional,
        state: |_| program("perf"),
        get: Get::Apt(&["linux-perf"]),
        by_hand: "install perf",
    },
];

fn program(name: &str) -> State {
    tools::on_path(name).map_or(State::Missing, |path| State::Present(path.display().to_string()))
}

fn all(names: &[&str]) -> State {
    let mut places = Vec::new();
    for name in names {
        match program(name) {
            State::Present(place) => places.push(place),
            State::Missing => return State::Missing,
        }
    }
    State::Present(places.join(", "))
}

fn file(path: &str) -> State {
    if Path::new(path).exists() { State::Present(path.to_owned()) } else { State::Missing }
}

fn executable(path: &Path) -> State {
    if tools::is_executable(path) { State::Present(path.display().to_string()) } else { State::Missing }
}

fn go_tools_are_built(workspace: &Workspace) -> bool {
    [&OTELCOL, &JAEGER, &CSI_SANITY].iter().all(|tool| tools::is_executable(&tool.program(workspace)))
}

/// Being there is not enough: it loads a libLLVM, which may have gone.
fn bpf_linker(_workspace: &Workspace) -> State {
    match tools::bpf_linker() {
        Some(path) if succeeds(Command::new(&path).arg("--version")) => State::Present(path.display().to_string()),
        Some(_) | None => State::Missing,
    }
}

fn cargo_command(name: &str) -> State {
    match succeeds(Command::new("cargo").args([name, "--version"])) {
        true => State::Present(format!("cargo {name}")),
        false => State::Missing,
    }
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
