//! Where the table's numbers come from: probes of our own, or the agent that runs.

use std::collections::HashMap;
use std::time::Duration;

use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::loss::Counter;
use fsi_common::op::OpKind;

use super::{TopConfig, TopError};
use crate::attach::Whom;
use crate::attach::client::{Cgroup as TheirCgroup, Client, Stream, Told, Watching};
use crate::attribution::cgroups::{Cgroup, Cgroups};
use crate::clock::Clock;
use crate::pipeline::{Pipeline, PipelineOptions};
use crate::probe::Probe;
use crate::span::SpanSink;

/// So much of a container's id, as other tools show it; `--container` takes it.
const SHORT_ID: usize = 12;
/// Messages of the agent that are taken at once: it may tell as fast as we take.
const MESSAGES: usize = 64;

/// Where numbers and operations come from.
#[derive(Debug)]
pub(super) enum Source {
    Own(Box<Own>),
    Agent(Box<Agent>),
}

/// Probes of our own.
#[derive(Debug)]
pub(super) struct Own {
    probe: Probe,
    pipeline: Pipeline,
    cgroups: Cgroups,
}

/// The agent's.
#[derive(Debug)]
pub(super) struct Agent {
    client: Client,
    stream: Stream,
    whom: Whom,
    /// Empty: all.
    operations: Vec<OpKind>,
    cgroups: HashMap<u64, TheirCgroup>,
}

impl Source {
    pub(super) fn open(config: &TopConfig) -> Result<Self, TopError> {
        let Some((socket, whom)) = &config.attach else {
            let probe = Probe::load(&config.probe)?;
            let cgroups = Cgroups::observed(&config.probe.selection);
            let pipeline = Pipeline::new(PipelineOptions::default(), Clock::measure());
            return Ok(Self::Own(Box::new(Own { probe, pipeline, cgroups })));
        };
        let options = &config.probe;
        let watching = Watching {
            whom: whom.clone(),
            paths: options.paths.clone(),
            processes: options.processes.clone(),
            operations: options.operations.clone(),
            events: options.events,
        };
        let client = Client::connect(socket)?;
        // Also where only the sums are read: what is chosen is counted from here on, if it was not.
        let stream = Stream::begin(socket, &watching)?;
        let (whom, operations) = (whom.clone(), options.operations.clone());
        Ok(Self::Agent(Box::new(Agent { client, stream, whom, operations, cgroups: HashMap::new() })))
    }

    /// What came since the last call.
    pub(super) fn drain(&mut self, sink: &mut dyn SpanSink) -> Result<(), TopError> {
        match self {
            Self::Own(own) => {
                let Own { probe, pipeline, .. } = &mut **own;
                probe.drain(&mut |record| pipeline.record(record, sink));
            }
            Self::Agent(agent) => {
                for _ in 0..MESSAGES {
                    match agent.stream.next(Duration::ZERO)? {
                        Some(Told::Spans(spans)) => spans.iter().for_each(|span| sink.span(span)),
                        Some(Told::Mark(_)) => {}
                        None => break,
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn tick(&mut self, now_ns: u64, sink: &mut dyn SpanSink) {
        if let Self::Own(own) = self {
            own.pipeline.tick(now_ns, sink);
        }
    }

    /// What was counted so far.
    pub(super) fn aggregates(&mut self) -> Result<Vec<(AggregateKey, AggregateValue)>, TopError> {
        let agent = match self {
            Self::Own(own) => return Ok(own.probe.aggregates()?),
            Self::Agent(agent) => agent,
        };
        let mut numbers = agent.client.numbers(&agent.whom, 0)?;
        agent.cgroups = numbers.cgroups.into_iter().map(|cgroup| (cgroup.id, cgroup)).collect();
        let is_wanted =
            |key: &AggregateKey| agent.operations.is_empty() || agent.operations.iter().any(|op| op.code() == key.op);
        numbers.aggregates.retain(|(key, _value)| is_wanted(key));
        Ok(numbers.aggregates)
    }

    /// Of ours; of the agent's only what was lost to us alone.
    pub(super) fn lost(&self) -> Result<u64, TopError> {
        match self {
            Self::Own(own) => {
                let counters = Counter::ALL.iter().zip(own.probe.counters()?);
                Ok(counters.filter(|(counter, _)| counter.loss().is_some()).map(|(_, count)| count).sum())
            }
            Self::Agent(agent) => Ok(agent.stream.dropped()),
        }
    }

    /// What the row of a cgroup is called.
    pub(super) fn container(&self, cgroup: u64) -> String {
        let unknown = || format!("cgroup {cgroup}");
        let short = |id: &str| id.chars().take(SHORT_ID).collect();
        match self {
            Self::Own(own) => match own.cgroups.get(cgroup) {
                Some(Cgroup { path: _, container: Some(id), pod: _ }) => short(&id),
                Some(Cgroup { path, container: None, pod: _ }) => path.as_ref().to_owned(),
                None => unknown(),
            },
            Self::Agent(agent) => match agent.cgroups.get(&cgroup) {
                Some(TheirCgroup { pod: Some(pod), namespace: Some(namespace), container, .. }) => {
                    let container = container.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
                    format!("{namespace}/{pod}{container}")
                }
                Some(TheirCgroup { container_id: Some(id), .. }) => short(id),
                Some(TheirCgroup { path, .. }) if !path.is_empty() => path.clone(),
                Some(_) | None => unknown(),
            },
        }
    }
}
