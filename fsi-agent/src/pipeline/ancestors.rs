//! Which files and processes are told of when not every operation is: those under which an operation is told.
//!
//! A file may end while its last operations still wait for what a mount did: it then waits for them.

use std::sync::Arc;

use super::loss::{PipelineLoss, PipelineLosses};
use super::table::{Displaced, Table};
use crate::span::{Span, SpanId, SpanSink};

/// Files and processes that are remembered because something under them is told, or may be.
const MAX_ANCESTORS: usize = 131_072;

/// What is under a file or a process.
#[derive(Debug, Default)]
struct Family {
    /// Operations, or files that wait for theirs.
    undecided: usize,
    is_told: bool,
    /// It has ended, and waits for those.
    ended: Option<Arc<Span>>,
}

#[derive(Debug)]
pub(super) struct Ancestors {
    families: Table<Family>,
}

impl Ancestors {
    pub(super) fn new() -> Self {
        Self { families: Table::new(MAX_ANCESTORS) }
    }

    /// Something under `parent` is not decided on yet.
    pub(super) fn waits(&mut self, parent: Option<SpanId>, losses: &mut PipelineLosses) {
        if let Some(family) = self.family(parent, losses) {
            family.undecided += 1;
        }
    }

    /// It is now.
    pub(super) fn decided(
        &mut self,
        parent: Option<SpanId>,
        is_told: bool,
        losses: &mut PipelineLosses,
        sink: &mut dyn SpanSink,
    ) {
        let Some(key) = parent.map(key) else { return };
        let Some(family) = self.families.get_mut(key) else { return };
        family.undecided = family.undecided.saturating_sub(1);
        family.is_told |= is_told;
        if family.undecided == 0
            && let Some(span) = family.ended.take()
        {
            let parent = span.parent;
            let is_told = self.end(&span, losses, sink);
            self.decided(parent, is_told, losses, sink);
        }
    }

    /// Something under `parent` is told.
    pub(super) fn told(&mut self, parent: Option<SpanId>, losses: &mut PipelineLosses) {
        if let Some(family) = self.family(parent, losses) {
            family.is_told = true;
        }
    }

    /// A file or a process has ended.
    pub(super) fn ended(&mut self, span: &Arc<Span>, losses: &mut PipelineLosses, sink: &mut dyn SpanSink) {
        let Some(family) = self.families.get_mut(key(span.id)) else { return };
        if family.undecided > 0 {
            family.ended = Some(Arc::clone(span));
            self.waits(span.parent, losses);
            return;
        }
        self.end(span, losses, sink);
    }

    fn end(&mut self, span: &Arc<Span>, losses: &mut PipelineLosses, sink: &mut dyn SpanSink) -> bool {
        let is_told = self.families.remove(key(span.id)).is_some_and(|family| family.is_told);
        if is_told {
            self.told(span.parent, losses);
            sink.span(span);
        }
        is_told
    }

    fn family(&mut self, parent: Option<SpanId>, losses: &mut PipelineLosses) -> Option<&mut Family> {
        let key = key(parent?);
        if self.families.get(key).is_none()
            && let Displaced::Oldest(gone) = self.families.insert(key, Family::default())
            && (gone.is_told || gone.undecided > 0)
        {
            losses.count(PipelineLoss::EvictedAncestor);
        }
        self.families.get_mut(key)
    }
}

fn key(id: SpanId) -> u64 {
    u64::from_ne_bytes(id.0)
}
