//! What the busy thread does for those who attach: answers their questions, and looks as closely as they ask.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crossbeam_channel::Receiver;
use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::loss::Counter;
use fsi_common::probe_config::{EVENTS_EVERY, EVENTS_FAILED, EVENTS_SAMPLED, EVENTS_SLOW};

use super::watch::Watcher;
use super::{cost, policies, raise, start};
use crate::attach::generated as wire;
use crate::attach::service::{Ask, AttachServer};
use crate::attach::target::Target;
use crate::attach::wire::aggregate_to_wire;
use crate::attribution::identity::{Container, Identity, Pod};
use crate::clock::{Clock, monotonic_ns};
use crate::probe::ProbeError;
use crate::probe::features::TIER;
use crate::telemetry::export::EndpointReport;

/// Numbers of cgroups that have ended are still told for so long: who watches asks more often.
const ENDED_NS: u64 = 60_000_000_000;
/// And at most so many.
const MAX_ENDED: usize = 65_536;
/// Drains of the ring before a mark.
const LAST_DRAINS: usize = 16;

/// The connection to those who attach.
#[derive(Debug)]
pub(super) struct Attached {
    // First: it ends before what it asks.
    _server: AttachServer,
    asks: Receiver<Ask>,
    begun_ns: u64,
    last_mark: u64,
    ended: VecDeque<(u64, AggregateKey, AggregateValue)>,
}

impl Attached {
    pub(super) fn new(server: AttachServer, asks: Receiver<Ask>) -> Self {
        Self { _server: server, asks, begun_ns: monotonic_ns(), last_mark: 0, ended: VecDeque::new() }
    }

    /// These are in the kernel no more.
    pub(super) fn ended(&mut self, taken: &[(AggregateKey, AggregateValue)], now_ns: u64) {
        self.ended.retain(|(until_ns, _key, _value)| *until_ns > now_ns);
        let until_ns = now_ns.saturating_add(ENDED_NS);
        self.ended.extend(taken.iter().map(|(key, value)| (until_ns, *key, *value)));
        self.ended.drain(..self.ended.len().saturating_sub(MAX_ENDED));
    }
}

impl Watcher {
    /// Answers what is asked now. Whoever asked for what cannot be had gets no answer, and is told to look into the log.
    pub(super) fn hear_asks(&mut self) {
        while let Ok(ask) = self.attached.asks.try_recv() {
            let answered = self.answer(ask);
            self.complain("answer one who attached", answered);
        }
    }

    /// Whoever asked may be gone.
    fn answer(&mut self, ask: Ask) -> Result<(), ProbeError> {
        match ask {
            Ask::Show(answer) => drop(answer.send(self.shown()?)),
            Ask::Numbers { target, watch, answer } => drop(answer.send(self.told_numbers(&target, watch)?)),
            Ask::Watch { wish, inlet, answer } => {
                let has_room = self.taps.attach(wish, inlet);
                answer.send(has_room).ok();
                self.seen = None;
                self.set_policies()?;
            }
        }
        Ok(())
    }

    /// Says to the kernel side whom to look at, if anything about that has changed.
    pub(super) fn set_policies(&mut self) -> Result<(), ProbeError> {
        if std::mem::take(&mut self.forget_again) {
            self.probe.forget_verdicts()?;
        }
        let now_ns = monotonic_ns();
        self.taps.tick(now_ns);
        if self.taps.forget_the_gone() {
            self.seen = None;
        }
        let seen = (self.attribution.cgroup_changes(), self.attribution.generation());
        if self.seen != Some(seen) {
            self.choose(now_ns)?;
            self.seen = Some(seen);
        }
        if !self.forget_again {
            let attribution = &self.attribution;
            self.taps.start(|target| {
                let about = attribution.cgroups().into_iter().filter(|(_id, identity)| target.takes(identity));
                about.count() as u64
            });
        }
        Ok(())
    }

    fn choose(&mut self, now_ns: u64) -> Result<(), ProbeError> {
        let candidates = self.attribution.cgroups();
        let candidates: Vec<_> =
            candidates.into_iter().map(|(id, identity)| policies::Candidate { id, identity }).collect();
        let extra = start::cgroup_ids(&self.config.observe.cgroups);
        let mut wanted = policies::wanted(&self.config.observe, &candidates, &extra);
        let wishes = self.taps.wishes();
        if !wishes.is_empty() {
            let raised = raise::raise(&mut wanted, &candidates, &wishes);
            self.taps.set_raised(raised, now_ns);
        } else {
            self.taps.set_raised(raise::Raised::default(), now_ns);
        }
        if wanted == self.wanted {
            return Ok(());
        }
        for (number, policy) in (1..).zip(&wanted.policies) {
            self.probe.set_policy(number, *policy)?;
        }
        let without = self.probe.set_cgroups(&wanted.cgroups)? + wanted.over;
        if without > 0 {
            tracing::warn!(without, "too many cgroups with a policy of their own; these have that of the cgroup above");
        }
        self.wanted = wanted;
        self.forget_again = true;
        Ok(())
    }

    /// What was counted of some cgroups, also of those that have just ended. What is in it has been told before the mark.
    fn told_numbers(&mut self, target: &Target, watch: u64) -> Result<wire::NumbersReply, ProbeError> {
        let mut aggregates = self.probe.aggregates()?;
        aggregates.extend(self.attached.ended.iter().map(|(_until_ns, key, value)| (*key, *value)));
        for _ in 0..LAST_DRAINS {
            if self.drain() == 0 {
                break;
            }
        }
        let mut about = HashMap::new();
        let mut cgroups = Vec::new();
        aggregates.retain(|(key, _value)| {
            *about.entry(key.cgroup).or_insert_with(|| {
                let identity = self.whose.identity(key.cgroup);
                let is_about = match (target, identity.as_deref()) {
                    (Target::All, identity) => self.taps.both(key.cgroup, identity).configured.is_some(),
                    (_, Some(identity)) => target.takes(identity),
                    (_, None) => false,
                };
                if is_about {
                    cgroups.push(cgroup_to_wire(key.cgroup, identity.as_deref()));
                }
                is_about
            })
        });
        self.attached.last_mark += 1;
        let mark = self.attached.last_mark;
        self.taps.mark(watch, mark);
        let collectors = self.collectors();
        let losses = self.all_losses(&collectors)?;
        let aggregates = aggregates.into_iter().map(aggregate_to_wire).collect();
        Ok(wire::NumbersReply { aggregates, cgroups, losses, mark })
    }

    /// Those that happened, the kernel's included.
    fn all_losses(&self, collectors: &[EndpointReport]) -> Result<Vec<wire::Loss>, ProbeError> {
        let counters = Counter::ALL.iter().zip(self.probe.counters()?);
        let of_kernel = counters.filter_map(|(counter, count)| {
            let (stage, reason) = counter.loss()?;
            Some((stage, reason, count))
        });
        let mut losses: BTreeMap<_, u64> = BTreeMap::new();
        for (stage, reason, count) in of_kernel.chain(self.losses(collectors)) {
            *losses.entry((stage, reason)).or_default() += count;
        }
        let happened = losses.into_iter().filter(|(_, count)| *count > 0);
        let loss = |((stage, reason), count): ((&str, &str), u64)| wire::Loss {
            stage: stage.to_owned(),
            reason: reason.to_owned(),
            count,
        };
        Ok(happened.map(loss).collect())
    }

    fn shown(&mut self) -> Result<wire::ShowReply, ProbeError> {
        let collectors = self.collectors();
        let mounts = self.mounts.iter().map(|(info, name)| wire::Mount {
            device: format!("{}:{}", info.device_major, info.device_minor),
            target: info.target.to_string_lossy().into_owned(),
            volume: name.to_owned(),
            server_pid: info.server_pid,
        });
        let watchers = self.taps.watchers().iter().map(|watcher| wire::Watcher {
            watch: watcher.number,
            whom: watcher.wish.whom.clone(),
            told: watcher.inlet.told(),
            dropped: watcher.inlet.dropped(),
        });
        let kubernetes = self.attribution.status().map(|status| wire::Kubernetes {
            connected: status.is_connected(),
            listed: status.pods.listed,
            last_error: status.pods.last_error.clone(),
        });
        Ok(wire::ShowReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: self.config.node_name(),
            uptime_ns: u64::try_from(Clock::since(self.attached.begun_ns).as_nanos()).unwrap_or(u64::MAX),
            tier: TIER.to_owned(),
            joins: self.probe.joins(),
            mounts: mounts.collect(),
            policies: self.shown_policies(),
            kubernetes,
            losses: self.all_losses(&collectors)?,
            collectors: collectors.into_iter().map(collector_to_wire).collect(),
            cost: Some(wire::Cost {
                cpu_ns: u64::try_from(cost::cpu_time().as_nanos()).unwrap_or(u64::MAX),
                memory_bytes: cost::memory(),
                probe_cpus: self.cost.probe_cpus(),
            }),
            watchers: watchers.collect(),
        })
    }

    fn shown_policies(&self) -> Vec<wire::Policy> {
        let own = self.taps.own_policies().unwrap_or(self.wanted.policies.len());
        let one = |(number, policy): (u32, &fsi_common::probe_config::Policy)| wire::Policy {
            every: policy.events & EVENTS_EVERY != 0,
            slower_ns: (policy.events & EVENTS_SLOW != 0).then_some(policy.slower_ns),
            failed: policy.events & EVENTS_FAILED != 0,
            sample: (policy.events & EVENTS_SAMPLED != 0).then_some(policy.sample_every),
            cgroups: self.wanted.cgroups.values().filter(|of| **of == number).count() as u64,
            raised: usize::try_from(number).is_ok_and(|number| number > own),
        };
        (1..).zip(&self.wanted.policies).map(one).filter(|policy| policy.cgroups > 0).collect()
    }
}

fn collector_to_wire(report: EndpointReport) -> wire::Collector {
    let EndpointReport { endpoint, spans, metrics: _ } = report;
    let spans = spans.unwrap_or_default();
    wire::Collector {
        endpoint,
        exported: spans.exported,
        waiting: spans.waiting,
        lost: spans.losses.iter().map(|(_stage, _reason, count)| count).sum(),
        error: spans.error,
    }
}

fn cgroup_to_wire(id: u64, identity: Option<&Identity>) -> wire::Cgroup {
    let Some(Identity { cgroup, container_id, pod_uid, pod, container }) = identity else {
        return wire::Cgroup { id, ..wire::Cgroup::default() };
    };
    let text = |text: &std::sync::Arc<str>| text.to_string();
    wire::Cgroup {
        id,
        path: text(cgroup),
        container_id: container_id.as_ref().map(text),
        pod_uid: pod_uid.as_ref().map(text),
        pod: pod.as_deref().map(|Pod { name, .. }| text(name)),
        namespace: pod.as_deref().map(|Pod { namespace, .. }| text(namespace)),
        container: container.as_deref().map(|Container { name, .. }| text(name)),
    }
}
