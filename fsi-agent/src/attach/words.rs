//! How the agent is doing, as a person reads it.

use super::generated::{Collector, Cost, Kubernetes, Loss, Mount, Policy, ShowReply, Watcher};
use crate::summary::format;

/// Several lines without a last line end.
#[must_use]
pub fn status(reply: &ShowReply) -> String {
    let ShowReply {
        version,
        pid,
        node,
        uptime_ns,
        tier,
        joins,
        mounts,
        policies,
        collectors,
        kubernetes,
        losses,
        cost,
        watchers,
    } = reply;
    let joined = if *joins { "joined with operations" } else { "told apart from operations" };
    let mut rows = vec![
        ("version", format!("{version}, pid {pid}, for {}", format::nanoseconds(*uptime_ns))),
        ("node", node.clone()),
        ("probes", format!("{tier}; what mounts do is {joined}")),
    ];
    if let Some(cost) = cost {
        rows.push(("cost", cost_words(cost)));
    }
    rows.push(("kubernetes", kubernetes.as_ref().map_or_else(|| "not asked".to_owned(), kubernetes_words)));
    section(&mut rows, "mount", mounts, mount_words);
    section(&mut rows, "policy", policies, policy_words);
    section(&mut rows, "collector", collectors, collector_words);
    section(&mut rows, "watcher", watchers, watcher_words);
    section(&mut rows, "lost", losses, loss_words);
    let lines: Vec<_> = rows.into_iter().map(|(name, words)| format!("{name:<11} {words}")).collect();
    lines.join("\n")
}

fn section<T>(rows: &mut Vec<(&'static str, String)>, name: &'static str, items: &[T], words: fn(&T) -> String) {
    if items.is_empty() {
        let nothing = if name == "lost" { "nothing" } else { "none" };
        rows.push((name, nothing.to_owned()));
    }
    rows.extend(items.iter().map(|item| (name, words(item))));
}

fn cost_words(cost: &Cost) -> String {
    let mut words = format!("{} of CPU time", format::nanoseconds(cost.cpu_ns));
    if let Some(memory) = cost.memory_bytes {
        words += &format!(", {} of memory", format::bytes(memory));
    }
    if let Some(cpus) = cost.probe_cpus {
        words += &format!(", {cpus:.4} CPUs in probes");
    }
    words
}

fn kubernetes_words(kubernetes: &Kubernetes) -> String {
    let Kubernetes { connected, listed, last_error } = kubernetes;
    let state = match (connected, listed) {
        (true, true) => "connected",
        (true, false) => "connected, pods not listed yet",
        (false, _) => "away",
    };
    last_error.as_ref().map_or_else(|| state.to_owned(), |error| format!("{state}; last error: {error}"))
}

fn mount_words(mount: &Mount) -> String {
    let Mount { device, target, volume, server_pid } = mount;
    format!("{target} (device {device}, volume {volume}, server pid {server_pid})")
}

fn policy_words(policy: &Policy) -> String {
    let Policy { every, slower_ns, failed, sample, cgroups, raised } = policy;
    let mut told = Vec::new();
    if *every {
        told.push("every operation".to_owned());
    }
    told.extend(slower_ns.map(|slower| format!("from {}", format::nanoseconds(slower))));
    if *failed {
        told.push("failed".to_owned());
    }
    told.extend(sample.map(|every| format!("1/{every} of the rest")));
    let told = if told.is_empty() { "counted only".to_owned() } else { told.join(", ") };
    let (plural, why) = (if *cgroups == 1 { "" } else { "s" }, if *raised { ", for who watches" } else { "" });
    format!("{told}: {} cgroup{plural} and below{why}", format::count(*cgroups))
}

fn collector_words(collector: &Collector) -> String {
    let Collector { endpoint, exported, waiting, lost, error } = collector;
    let [exported, waiting, lost] = [exported, waiting, lost].map(|spans| format::count(*spans));
    let error = error.as_ref().map(|error| format!("; {error}")).unwrap_or_default();
    format!("{endpoint}: {exported} spans taken, {waiting} wait, {lost} lost{error}")
}

fn watcher_words(watcher: &Watcher) -> String {
    let Watcher { watch, whom, told, dropped } = watcher;
    format!("{watch}: {whom}: {} spans told, {} dropped", format::count(*told), format::count(*dropped))
}

fn loss_words(loss: &Loss) -> String {
    let Loss { stage, reason, count } = loss;
    format!("{stage}/{reason}: {}", format::count(*count))
}
