//! Metrics of a node: the kernel's numbers by who and which volume, over the life of the agent. What has ended is taken out of the kernel,
//! kept for a while by its name, and then added to what its namespace did before: sums over a namespace never go down.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::op::OpKind;
use prometheus::proto::{LabelPair, Metric, MetricFamily};

use super::fold::{Group, Net, count_net};
use super::{OTHER, bytes_of, counter, errors_of, family, gauge, histogram, label};
use crate::telemetry::{defs, text};

/// Pod and container of what ended a while ago.
pub const ENDED: &str = "ended";

/// Who does it, as labels have it; empty where there is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    pub namespace: Arc<str>,
    pub pod: Arc<str>,
    pub container: Arc<str>,
}

/// Knows names. Asked for each cgroup and device at each scrape: it answers from memory.
pub trait Names {
    fn who(&self, cgroup: u64) -> Who;
    /// The volume on that device, as the cgroup's pod sees it.
    fn volume(&self, dev: u32, cgroup: u64) -> Option<Arc<str>>;
}

/// What is shown apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    who: Who,
    volume: Arc<str>,
    /// `major:minor`, or empty.
    device: Arc<str>,
    op: OpKind,
}

#[derive(Clone, Debug, Default)]
struct Numbers {
    groups: BTreeMap<Series, Group>,
    net: BTreeMap<Who, Net>,
}

/// Numbers of a cgroup that has ended.
#[derive(Debug)]
struct Ended {
    until_ns: u64,
    numbers: Numbers,
}

/// What was counted since the agent began, and is not in the kernel any more.
#[derive(Debug)]
pub struct NodeCounts {
    max_series: usize,
    ended: Vec<Ended>,
    /// Of all namespaces, for good.
    past: Numbers,
    /// Series that were shown stay apart, and those that were not stay under `other`, so that neither goes down.
    shown: BTreeSet<Series>,
    hidden: BTreeSet<Series>,
    unknown: u64,
}

/// What a scrape of the node shows of operations.
#[derive(Debug)]
pub struct NodeFamilies {
    pub families: Vec<MetricFamily>,
    /// Operations shown under `other`, so far.
    pub to_other: u64,
    /// Operations of codes that are not known.
    pub unknown: u64,
}

/// Labels of what the kernel numbers.
struct Labeller<'a> {
    names: &'a dyn Names,
    who: HashMap<u64, Who>,
    empty: Arc<str>,
}

impl Labeller<'_> {
    fn of(&mut self, key: &AggregateKey) -> Option<Series> {
        let op = OpKind::try_from(key.op).ok()?;
        let names = self.names;
        let who = self.who.entry(key.cgroup).or_insert_with(|| names.who(key.cgroup)).clone();
        let (volume, device) = if key.dev == 0 {
            (None, Arc::clone(&self.empty))
        } else {
            (names.volume(key.dev, key.cgroup), text::device(key.dev).into())
        };
        Some(Series { who, volume: volume.unwrap_or_else(|| Arc::clone(&self.empty)), device, op })
    }
}

impl Numbers {
    /// Adds what the kernel counted; operations of unknown codes.
    fn add(&mut self, aggregates: &[(AggregateKey, AggregateValue)], names: &dyn Names) -> u64 {
        let mut labeller = Labeller { names, who: HashMap::new(), empty: Arc::from("") };
        let mut unknown = 0;
        for (key, value) in aggregates {
            let Some(series) = labeller.of(key) else {
                unknown += value.count;
                continue;
            };
            count_net(self.net.entry(series.who.clone()).or_default(), key, value, series.op);
            self.groups.entry(series).or_default().add(key, value);
        }
        unknown
    }

    fn merge(&mut self, other: &Self) {
        for (series, group) in &other.groups {
            self.groups.entry(series.clone()).or_default().merge(group);
        }
        for (who, net) in &other.net {
            self.net.entry(who.clone()).or_default().merge(net);
        }
    }

    /// The same under its namespace alone; what was hidden is `other` for good.
    fn forgotten(&self, hidden: &BTreeSet<Series>) -> Self {
        let ended: Arc<str> = Arc::from(ENDED);
        let forget = |who: &Who| Who {
            namespace: Arc::clone(&who.namespace),
            pod: Arc::clone(&ended),
            container: Arc::clone(&ended),
        };
        let mut all = Self::default();
        for (series, group) in &self.groups {
            let series = if hidden.contains(series) {
                Series::other(series.op)
            } else {
                Series { who: forget(&series.who), volume: Arc::from(""), device: Arc::from(""), op: series.op }
            };
            all.groups.entry(series).or_default().merge(group);
        }
        for (who, net) in &self.net {
            all.net.entry(forget(who)).or_default().merge(net);
        }
        all
    }
}

impl Series {
    /// What is not shown apart.
    fn other(op: OpKind) -> Self {
        let other: Arc<str> = Arc::from(OTHER);
        let who = Who { namespace: Arc::clone(&other), pod: Arc::clone(&other), container: Arc::clone(&other) };
        Self { who, volume: Arc::clone(&other), device: other, op }
    }
}

impl NodeCounts {
    #[must_use]
    pub fn new(max_series: usize) -> Self {
        Self {
            max_series,
            ended: Vec::new(),
            past: Numbers::default(),
            shown: BTreeSet::new(),
            hidden: BTreeSet::new(),
            unknown: 0,
        }
    }

    pub fn set_max_series(&mut self, max_series: usize) {
        self.max_series = max_series;
    }

    /// Takes over the last numbers of cgroups that are gone; they go by their names until then.
    pub fn ended(&mut self, aggregates: &[(AggregateKey, AggregateValue)], names: &dyn Names, until_ns: u64) {
        if aggregates.is_empty() {
            return;
        }
        let mut numbers = Numbers::default();
        self.unknown += numbers.add(aggregates, names);
        self.ended.push(Ended { until_ns, numbers });
    }

    /// Forgets the names of what ended long enough ago.
    pub fn tick(&mut self, now_ns: u64) {
        let (over, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.ended).into_iter().partition(|ended| ended.until_ns <= now_ns);
        self.ended = kept;
        for ended in over {
            self.past.merge(&ended.numbers.forgotten(&self.hidden));
            for series in ended.numbers.groups.keys() {
                self.shown.remove(series);
                self.hidden.remove(series);
            }
        }
    }

    /// Everything: what the kernel has now, and what it had.
    pub fn families(&mut self, aggregates: &[(AggregateKey, AggregateValue)], names: &dyn Names) -> NodeFamilies {
        let mut all = self.past.clone();
        for ended in &self.ended {
            all.merge(&ended.numbers);
        }
        let unknown = self.unknown + all.add(aggregates, names);
        let to_other = self.bound(&mut all);
        let groups = || all.groups.iter().map(|(series, group)| (labels(series), group));
        let families = vec![
            family(&defs::OPERATIONS, groups().map(|(labels, group)| counter(labels, group.count))),
            family(&defs::ERRORS, groups().flat_map(|(labels, group)| errors_of(&labels, group))),
            family(&defs::BYTES, groups().flat_map(|(labels, group)| bytes_of(&labels, group))),
            family(&defs::DURATION, groups().map(|(labels, group)| histogram(labels, group))),
            family(&defs::DIRECTORIES_NET, net(&all, |net| net.directories)),
            family(&defs::FILES_NET, net(&all, |net| net.files)),
        ];
        NodeFamilies { families, to_other, unknown }
    }

    /// Puts what is over the bound under `other`; how many operations are there.
    fn bound(&mut self, all: &mut Numbers) -> u64 {
        for series in all.groups.keys() {
            let is_known = self.shown.contains(series) || self.hidden.contains(series);
            if !is_known && *series != Series::other(series.op) {
                let apart = self.shown.len() < self.max_series;
                if apart { &mut self.shown } else { &mut self.hidden }.insert(series.clone());
            }
        }
        for series in &self.hidden {
            if let Some(group) = all.groups.remove(series) {
                all.groups.entry(Series::other(series.op)).or_default().merge(&group);
            }
        }
        let shown: BTreeSet<Who> = all.groups.keys().map(|series| series.who.clone()).collect();
        let hidden: Vec<_> = all.net.keys().filter(|who| !shown.contains(*who)).cloned().collect();
        for who in hidden {
            if let Some(net) = all.net.remove(&who) {
                all.net.entry(Series::other(OpKind::Open).who).or_default().merge(&net);
            }
        }
        let others = all.groups.iter().filter(|(series, _)| **series == Series::other(series.op));
        others.map(|(_, group)| group.count).sum()
    }
}

fn labels(series: &Series) -> Vec<LabelPair> {
    let Series { who, volume, device, op } = series;
    let mut labels = who_labels(who).to_vec();
    labels.extend([
        label(defs::LABEL_VOLUME, volume),
        label(defs::LABEL_DEVICE, device),
        label(defs::LABEL_OP, op.name()),
    ]);
    labels
}

fn who_labels(who: &Who) -> [LabelPair; 3] {
    let Who { namespace, pod, container } = who;
    [label(defs::LABEL_NAMESPACE, namespace), label(defs::LABEL_POD, pod), label(defs::LABEL_CONTAINER, container)]
}

fn net(all: &Numbers, of: impl Fn(&Net) -> i64) -> Vec<Metric> {
    all.net.iter().map(|(who, net)| gauge(who_labels(who).to_vec(), of(net))).collect()
}

#[cfg(test)]
mod tests {
    use fsi_common::aggregate::bucket_of;

    use super::*;

    /// Cgroup n is container n of a pod of namespace n / 10.
    #[derive(Debug)]
    struct Numbered;

    impl Names for Numbered {
        fn who(&self, cgroup: u64) -> Who {
            let name = |what: &str, number: u64| Arc::from(format!("{what}{number}"));
            Who { namespace: name("ns", cgroup / 10), pod: name("pod", cgroup), container: Arc::from("c") }
        }

        fn volume(&self, dev: u32, _cgroup: u64) -> Option<Arc<str>> {
            (dev == 1).then(|| Arc::from("data"))
        }
    }

    fn read(cgroup: u64, count: u64) -> (AggregateKey, AggregateValue) {
        let key = AggregateKey {
            cgroup,
            dev: 1,
            op: OpKind::Read.code(),
            bucket: bucket_of(1000),
            ..AggregateKey::default()
        };
        (key, AggregateValue { count, bytes: 0, duration_ns: 1000 * count, max_ns: 1000 })
    }

    fn samples(counts: &mut NodeCounts, aggregates: &[(AggregateKey, AggregateValue)]) -> Vec<(String, u64)> {
        let shown = counts.families(aggregates, &Numbered);
        let samples = shown.families[0].get_metric().iter().map(|metric| {
            let labels: Vec<_> = metric.get_label().iter().map(|label| label.value().to_owned()).collect();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let count = metric.get_counter().get_value() as u64;
            (labels.join(" "), count)
        });
        samples.collect()
    }

    #[test]
    fn what_ended_goes_by_its_name_for_a_while_and_is_never_lost() {
        let mut counts = NodeCounts::new(100);
        let all = [read(11, 5), read(12, 7)];
        let one = ("ns1 pod11 c data 0:1 read".to_owned(), 5);
        let two = ("ns1 pod12 c data 0:1 read".to_owned(), 7);
        assert_eq!(samples(&mut counts, &all), [one.clone(), two.clone()]);
        counts.ended(&all[..1], &Numbered, 1000);
        assert_eq!(samples(&mut counts, &all[1..]), [one, two.clone()]);
        counts.tick(1000);
        let past = ("ns1 ended ended   read".to_owned(), 5);
        assert_eq!(samples(&mut counts, &all[1..]), [past, two.clone()]);
        counts.ended(&[read(13, 2)], &Numbered, 2000);
        counts.tick(2000);
        assert_eq!(samples(&mut counts, &all[1..]), [("ns1 ended ended   read".to_owned(), 7), two]);
    }

    #[test]
    fn series_are_bounded_and_those_shown_stay() {
        let mut counts = NodeCounts::new(2);
        samples(&mut counts, &[read(15, 1), read(16, 1)]);
        let shown = samples(&mut counts, &[read(11, 4), read(15, 1), read(16, 1)]);
        assert_eq!(shown.len(), 3);
        assert!(shown.contains(&("other other other other other read".to_owned(), 4)), "{shown:?}");
        assert!(shown.contains(&("ns1 pod15 c data 0:1 read".to_owned(), 1)));
        assert_eq!(counts.families(&[read(11, 4), read(15, 1), read(16, 1)], &Numbered).to_other, 4);
    }

    #[test]
    fn what_is_under_other_stays_there() {
        let mut counts = NodeCounts::new(1);
        let other = |count| ("other other other other other read".to_owned(), count);
        samples(&mut counts, &[read(15, 1)]);
        assert!(samples(&mut counts, &[read(15, 1), read(16, 4)]).contains(&other(4)));
        counts.ended(&[read(15, 1)], &Numbered, 1000);
        counts.tick(1000);
        assert!(samples(&mut counts, &[read(16, 6)]).contains(&other(6)), "also when there is room again");
        counts.ended(&[read(16, 6)], &Numbered, 2000);
        assert!(samples(&mut counts, &[]).contains(&other(6)));
        counts.tick(2000);
        assert!(samples(&mut counts, &[]).contains(&other(6)), "and when it has ended");
    }
}
