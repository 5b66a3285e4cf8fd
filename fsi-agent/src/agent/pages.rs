//! What the agent serves and pushes: metrics that the busy thread makes when asked, and how it is.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::proto::MetricFamily;

use crate::observe::scrape::ScrapeDesk;
use crate::telemetry::export::Gather;
use crate::telemetry::metrics::exemplars::Exemplars;
use crate::telemetry::metrics::{self, open_metrics};
use crate::telemetry::serve::{Condition, Format, Pages};

/// One scrape.
pub(super) type Families = Arc<Vec<MetricFamily>>;

/// For the pushers.
pub(super) fn gather(desk: &ScrapeDesk<Families>) -> Gather {
    let desk = desk.clone();
    Arc::new(move || Vec::clone(&desk.ask()))
}

/// For the server.
#[derive(Debug)]
pub(super) struct AgentPages {
    pub(super) desk: ScrapeDesk<Families>,
    pub(super) exemplars: Option<Arc<Exemplars>>,
    pub(super) condition: Arc<Mutex<Condition>>,
}

impl Pages for AgentPages {
    fn metrics(&self, format: Format) -> String {
        let families = self.desk.ask();
        match format {
            Format::OpenMetrics => open_metrics::text(&families, self.exemplars.as_deref()),
            Format::Prometheus => metrics::text(&families).unwrap_or_else(|error| {
                tracing::error!(%error, "the metrics could not be written");
                String::new()
            }),
        }
    }

    fn has_open_metrics(&self) -> bool {
        true
    }

    fn readiness(&self) -> Condition {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
