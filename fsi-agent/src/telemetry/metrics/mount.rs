//! Metrics of one mount, counted from what its server reports.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fsi_common::op::OpKind;
use prometheus::TextEncoder;
use prometheus::proto::{LabelPair, Metric, MetricFamily};

use super::fold::{Group, LE_BITS};
use super::{MetricsError, OTHER, bytes_of, counter, errors_of, family, gauge, histogram, label, seconds, signed};
use crate::fuse::report::{OpReport, Throttled};
use crate::rules::decision::{Fault, FaultKind};
use crate::rules::op::Op;
use crate::telemetry::{defs, errno, text};

/// Rules that are shown apart; what is over goes to `other`.
const MAX_RULES: usize = 64;

/// What was counted since the server began.
#[derive(Debug, Default)]
pub struct MountCounts {
    operations: BTreeMap<(u32, &'static str), Group>,
    overhead: BTreeMap<&'static str, Group>,
    faults: BTreeMap<(Arc<str>, FaultKind, Option<i32>), u64>,
    rules: BTreeSet<Arc<str>>,
    waited: u64,
    again: u64,
    throttle_ns: u64,
    /// Faults shown under `other`.
    to_other: u64,
}

#[derive(Debug, Default)]
struct MountFamilies {
    faults: Vec<Metric>,
    throttled: Vec<Metric>,
    waits: Vec<Metric>,
    overhead: Vec<Metric>,
}

/// By what the mounts of a node are told apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeName {
    /// Empty outside of Kubernetes.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// What the mounts of a node did, each by the name of its volume.
pub fn families<'a>(mounts: impl IntoIterator<Item = (&'a VolumeName, &'a MountCounts)>) -> Vec<MetricFamily> {
    let mut all = MountFamilies::default();
    for (volume, counts) in mounts {
        counts.add_to(volume, &mut all);
    }
    let MountFamilies { faults, throttled, waits, overhead } = all;
    vec![
        family(&defs::FAULTS_INJECTED, faults),
        family(&defs::THROTTLED, throttled),
        family(&defs::THROTTLE_WAIT, waits),
        family(&defs::OVERHEAD, overhead),
    ]
}

/// What others count, for one text.
#[derive(Clone, Debug, Default)]
pub struct MountSnapshot {
    pub losses: Vec<(&'static str, &'static str, u64)>,
    pub spans: Vec<(&'static str, u64)>,
    pub open_files: u64,
}

/// What an operation is called in spans and in the label `op`.
#[must_use]
pub fn op_name(op: Op) -> &'static str {
    op.kind().map_or_else(|| op.name(), OpKind::name)
}

/// An operation's time that is neither the backing file system's nor waited on purpose.
#[must_use]
pub fn overhead_ns(report: &OpReport) -> u64 {
    let duration_ns = report.answered_ns.saturating_sub(report.started_ns);
    duration_ns.saturating_sub(report.backing_ns).saturating_sub(report.delay_ns).saturating_sub(report.throttle_ns)
}

impl MountCounts {
    /// Counts an operation.
    pub fn add(&mut self, report: &OpReport) {
        let name = op_name(report.op);
        let group = self.operations.entry((report.dev, name)).or_default();
        add_duration(group, report.answered_ns.saturating_sub(report.started_ns));
        let done = report.done.unwrap_or(0);
        match report.op.kind() {
            Some(OpKind::Read) => *group.read.get_or_insert(0) += done,
            Some(OpKind::Write) => *group.written.get_or_insert(0) += done,
            Some(OpKind::CopyFileRange) => {
                *group.read.get_or_insert(0) += done;
                *group.written.get_or_insert(0) += done;
            }
            // All others move no bytes of files.
            Some(_) | None => {}
        }
        if let Some(code) = u16::try_from(report.errno).ok().filter(|code| *code != 0) {
            *group.errors.entry(code).or_default() += 1;
        }
        self.add_injected(report);
    }

    /// Counts of an operation what only the mount knows.
    pub fn add_injected(&mut self, report: &OpReport) {
        add_duration(self.overhead.entry(op_name(report.op)).or_default(), overhead_ns(report));
        self.throttle_ns += report.throttle_ns;
        match report.throttle {
            Throttled::No => {}
            Throttled::Waited => self.waited += 1,
            Throttled::Again => self.again += 1,
        }
        for entry in &report.faults {
            self.fault(&entry.fault);
        }
    }

    /// Faults shown under `other`.
    #[must_use]
    pub const fn to_other(&self) -> u64 {
        self.to_other
    }

    fn fault(&mut self, fault: &Fault) {
        let Fault { rule, kind, errno, delay: _ } = fault;
        let apart = self.rules.contains(rule) || self.rules.len() < MAX_RULES;
        let rule = if apart {
            self.rules.insert(Arc::clone(rule));
            Arc::clone(rule)
        } else {
            self.to_other += 1;
            Arc::from(OTHER)
        };
        *self.faults.entry((rule, *kind, *errno)).or_default() += 1;
    }

    /// The text of all metrics.
    ///
    /// # Errors
    /// When the encoder refuses a family.
    pub fn render(&self, snapshot: &MountSnapshot) -> Result<String, MetricsError> {
        let operations = || self.operations.iter().map(|(key, group)| (labels(*key), group));
        let overhead = self.overhead.iter();
        let outcomes = [(defs::OUTCOME_WAITED, self.waited), (defs::OUTCOME_AGAIN, self.again)];
        let mut families = vec![
            family(&defs::OPERATIONS, operations().map(|(labels, group)| counter(labels, group.count))),
            family(&defs::ERRORS, operations().flat_map(|(labels, group)| errors_of(&labels, group))),
            family(&defs::BYTES, operations().flat_map(|(labels, group)| bytes_of(&labels, group))),
            family(&defs::DURATION, operations().map(|(labels, group)| histogram(labels, group))),
            family(&defs::OPEN_FILES, [gauge(Vec::new(), signed(snapshot.open_files))]),
            family(&defs::FAULTS_INJECTED, self.faults.iter().map(|(key, count)| counter(fault_labels(key), *count))),
            family(
                &defs::THROTTLED,
                outcomes.map(|(name, count)| counter(vec![label(defs::LABEL_OUTCOME, name)], count)),
            ),
            family(&defs::THROTTLE_WAIT, [seconds(Vec::new(), self.throttle_ns)]),
            family(&defs::OVERHEAD, overhead.map(|(op, group)| histogram(vec![label(defs::LABEL_OP, op)], group))),
            family(&defs::LOST, self.losses(snapshot)),
            family(&defs::SPANS, spans(snapshot)),
            family(&defs::BUILD_INFO, [gauge(vec![label(defs::LABEL_VERSION, env!("CARGO_PKG_VERSION"))], 1)]),
        ];
        // The encoder refuses families without a sample.
        families.retain(|family| !family.get_metric().is_empty());
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&families, &mut text)?;
        Ok(text)
    }

    /// What only mounts have, as one of several: told apart by the volume.
    fn add_to(&self, volume: &VolumeName, families: &mut MountFamilies) {
        let VolumeName { namespace, name } = volume;
        let of_volume = [label(defs::LABEL_NAMESPACE, namespace), label(defs::LABEL_VOLUME, name)];
        let with = |mut labels: Vec<LabelPair>| {
            labels.splice(0..0, of_volume.iter().cloned());
            labels
        };
        families.faults.extend(self.faults.iter().map(|(key, count)| counter(with(fault_labels(key)), *count)));
        let outcomes = [(defs::OUTCOME_WAITED, self.waited), (defs::OUTCOME_AGAIN, self.again)];
        let outcome = |(name, count)| counter(with(vec![label(defs::LABEL_OUTCOME, name)]), count);
        families.throttled.extend(outcomes.map(outcome));
        families.waits.push(seconds(with(Vec::new()), self.throttle_ns));
        let overhead = self.overhead.iter();
        families.overhead.extend(overhead.map(|(op, group)| histogram(with(vec![label(defs::LABEL_OP, op)]), group)));
    }

    /// All pairs that a mount can have are there from the start, so that an alert on an increase sees the first one.
    fn losses(&self, snapshot: &MountSnapshot) -> Vec<Metric> {
        let pairs = defs::REPORTS_LOSSES.into_iter().chain(defs::EXPORT_LOSSES).chain(defs::SPANS_FILE_LOSSES);
        let mut counts: BTreeMap<_, u64> = pairs.map(|pair| (pair, 0)).collect();
        counts.insert((defs::STAGE_METRICS, defs::REASON_SERIES), self.to_other);
        for (stage, reason, count) in &snapshot.losses {
            *counts.entry((*stage, *reason)).or_default() += count;
        }
        let labels = |(stage, reason)| vec![label(defs::LABEL_STAGE, stage), label(defs::LABEL_REASON, reason)];
        counts.into_iter().map(|(pair, count)| counter(labels(pair), count)).collect()
    }
}

fn add_duration(group: &mut Group, duration_ns: u64) {
    group.count += 1;
    group.duration_ns += duration_ns;
    // A duration has so many bits that it is below the bound of as many: 2^n ns itself counts above the bound 2^n ns.
    let bits = u64::BITS - duration_ns.leading_zeros();
    let bound = bits.saturating_sub(*LE_BITS.start());
    // What is over the last bound is in the count only.
    if let Some(count) = usize::try_from(bound).ok().and_then(|bound| group.below.get_mut(bound)) {
        *count += 1;
    }
}

fn labels((dev, op): (u32, &'static str)) -> Vec<LabelPair> {
    vec![label(defs::LABEL_CONTAINER, ""), label(defs::LABEL_DEVICE, &text::device(dev)), label(defs::LABEL_OP, op)]
}

fn fault_labels((rule, kind, code): &(Arc<str>, FaultKind, Option<i32>)) -> Vec<LabelPair> {
    let code = code.and_then(|code| u16::try_from(code).ok()).map(errno::name).unwrap_or_default();
    vec![label(defs::LABEL_RULE, rule), label(defs::LABEL_KIND, kind.name()), label(defs::LABEL_ERRNO, &code)]
}

fn spans(snapshot: &MountSnapshot) -> Vec<Metric> {
    let one = |(outcome, count): &(&'static str, u64)| counter(vec![label(defs::LABEL_OUTCOME, outcome)], *count);
    snapshot.spans.iter().map(one).collect()
}
