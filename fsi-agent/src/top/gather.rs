//! From what was seen to one table per interval.

use std::collections::HashMap;
use std::sync::Arc;

use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::op::OpKind;

use super::meter::Meter;
use super::source::Source;
use super::table::{Row, SortBy, Table};
use super::{By, TopConfig, TopError};
use crate::clock::monotonic_ns;
use crate::span::{OpSpan, Span, SpanBody, SpanSink};
use crate::summary::format;

/// Different rows in one interval; what is over it is summed up as one.
const MAX_ROWS: usize = 16_384;

/// Sums up.
#[derive(Debug)]
pub(super) struct Gatherer {
    source: Source,
    by: By,
    rows: Rows,
    last: HashMap<AggregateKey, AggregateValue>,
    last_ns: u64,
}

/// Who did something, in this interval.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Path(Arc<[u8]>),
    NoPath,
    Process { tgid: u32, comm: [u8; 16] },
}

/// The rows that events add up to.
#[derive(Debug)]
struct Rows {
    by: By,
    meters: HashMap<Key, Meter>,
    over: Meter,
}

impl SpanSink for Rows {
    fn span(&mut self, span: &Arc<Span>) {
        let SpanBody::Operation(operation) = &span.body else { return };
        let key = match self.by {
            By::File => path(operation),
            By::Process => Key::Process { tgid: span.actor.tgid, comm: span.actor.comm },
            // These come from the kernel's aggregates.
            By::Container | By::Operation => return,
        };
        let full = self.meters.len() >= MAX_ROWS;
        match self.meters.get_mut(&key) {
            Some(meter) => meter.add_span(operation),
            None if full => self.over.add_span(operation),
            None => self.meters.entry(key).or_default().add_span(operation),
        }
    }
}

fn path(operation: &OpSpan) -> Key {
    match &operation.path {
        Some(path) if !path.bytes.is_empty() => Key::Path(Arc::clone(&path.bytes)),
        Some(_) | None => Key::NoPath,
    }
}

impl Gatherer {
    pub(super) fn new(config: &TopConfig) -> Result<Self, TopError> {
        let by = config.by;
        let mut source = Source::open(config)?;
        let rows = Rows { by, meters: HashMap::new(), over: Meter::default() };
        let last = source.aggregates()?.into_iter().collect();
        Ok(Self { source, by, rows, last, last_ns: monotonic_ns() })
    }

    /// What came since the last call.
    pub(super) fn drain(&mut self) -> Result<(), TopError> {
        self.source.drain(&mut self.rows)
    }

    /// The rates since the last table.
    pub(super) fn table(&mut self, sort: SortBy) -> Result<Table, TopError> {
        let now_ns = monotonic_ns();
        let elapsed_ns = now_ns.saturating_sub(self.last_ns).max(1);
        self.last_ns = now_ns;
        self.source.tick(now_ns, &mut self.rows);
        let meters = match self.by {
            By::File | By::Process => self.event_meters(),
            By::Container | By::Operation => self.aggregate_meters()?,
        };
        let lost = self.source.lost()?;
        let rows = meters.into_iter().map(|(name, meter)| Row::new(name, &meter, elapsed_ns)).collect();
        Ok(Table::new(self.by.head(), rows, sort, lost))
    }

    fn event_meters(&mut self) -> Vec<(String, Meter)> {
        let meters = std::mem::take(&mut self.rows.meters);
        let over = std::mem::take(&mut self.rows.over);
        let mut named: Vec<_> = meters.into_iter().map(|(key, meter)| (name(&key), meter)).collect();
        if over.operations > 0 {
            named.push(("(others)".to_owned(), over));
        }
        named
    }

    fn aggregate_meters(&mut self) -> Result<Vec<(String, Meter)>, TopError> {
        let mut meters: HashMap<String, Meter> = HashMap::new();
        for (key, value) in self.source.aggregates()? {
            let before = self.last.insert(key, value).unwrap_or_default();
            let change = AggregateValue {
                count: value.count.saturating_sub(before.count),
                bytes: value.bytes.saturating_sub(before.bytes),
                duration_ns: value.duration_ns.saturating_sub(before.duration_ns),
                max_ns: value.max_ns,
            };
            if change.count > 0 {
                meters.entry(self.row_name(&key)).or_default().add_aggregate(&key, &change);
            }
        }
        Ok(meters.into_iter().collect())
    }

    fn row_name(&self, key: &AggregateKey) -> String {
        if self.by != By::Container {
            return OpKind::try_from(key.op).map_or("unknown", OpKind::name).to_owned();
        }
        self.source.container(key.cgroup)
    }
}

fn name(key: &Key) -> String {
    match key {
        Key::Path(bytes) => format::escaped(bytes),
        Key::NoPath => "(path not known)".to_owned(),
        Key::Process { tgid, comm } => format!("{} {tgid}", format::command(comm)),
    }
}
