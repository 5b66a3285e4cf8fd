//! The stages that only the agent has: operations wait for what mounts did, and what is asked for is told, with what is above it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use fsi_common::record::{OpRecord, RequestRecord};

use super::ancestors::Ancestors;
use super::join::{Join, Joined, is_on_purpose};
use super::loss::PipelineLosses;
use crate::fuse::exports::SpanMaker;
use crate::fuse::report::OpReport;
use crate::span::{MountedVolume, Span, SpanSink};

/// A mount whose reports are joined.
#[derive(Clone, Debug)]
pub struct JoinedMount {
    /// The connection's device, as the kernel has it.
    pub dev: u32,
    pub target: PathBuf,
    pub volume: MountedVolume,
}

/// What became of operations and reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinCounts {
    /// Operations that nobody asked for and to which nothing was done.
    pub sampled_out: u64,
    /// Reports that found their operation.
    pub joined: u64,
    /// Reports of requests that belong to no operation that may be told.
    pub alone: u64,
}

#[derive(Debug)]
pub(super) struct Joining {
    join: Join,
    ancestors: Ancestors,
    /// Makes spans of what mounts did on purpose for nobody that is looked at.
    alone: HashMap<u32, SpanMaker>,
    counts: JoinCounts,
    ended: Ended,
    out: Vec<Joined>,
}

/// Files and processes that ended, on their way to the ancestors.
#[derive(Debug, Default)]
struct Ended(Vec<Arc<Span>>);

impl SpanSink for Ended {
    fn span(&mut self, span: &Arc<Span>) {
        self.0.push(Arc::clone(span));
    }
}

impl Joining {
    pub(super) fn new() -> Self {
        Self {
            join: Join::new(),
            ancestors: Ancestors::new(),
            alone: HashMap::new(),
            counts: JoinCounts::default(),
            ended: Ended::default(),
            out: Vec::new(),
        }
    }

    pub(super) fn counts(&self) -> JoinCounts {
        JoinCounts { joined: self.join.joined(), ..self.counts }
    }

    pub(super) fn add_mount(&mut self, mount: JoinedMount) {
        let JoinedMount { dev, target, volume } = mount;
        self.join.set_volume(dev, Some(volume.clone()));
        self.alone.insert(dev, SpanMaker::new(&target, volume));
    }

    pub(super) fn remove_mount(&mut self, dev: u32) {
        self.join.set_volume(dev, None);
        self.alone.remove(&dev);
    }

    /// Does what may end files and processes, and tells of those that are to be told.
    pub(super) fn above<T>(
        &mut self,
        losses: &mut PipelineLosses,
        sink: &mut dyn SpanSink,
        work: impl FnOnce(&mut PipelineLosses, &mut dyn SpanSink) -> T,
    ) -> T {
        let result = work(losses, &mut self.ended);
        for span in self.ended.0.drain(..) {
            self.ancestors.ended(&span, losses, sink);
        }
        result
    }

    pub(super) fn operation(
        &mut self,
        span: Span,
        raw: &OpRecord,
        losses: &mut PipelineLosses,
        sink: &mut dyn SpanSink,
    ) {
        let is_wanted = raw.is_wanted != 0;
        self.ancestors.waits(span.parent, losses);
        if raw.requests == 0 {
            self.out.push(Joined::Operation { span: Arc::new(span), is_told: is_wanted });
        } else {
            self.join.operation(span, raw, is_wanted, losses, &mut self.out);
        }
        self.tell(losses, sink);
    }

    pub(super) fn request(&mut self, raw: &RequestRecord, losses: &mut PipelineLosses, sink: &mut dyn SpanSink) {
        self.join.request(raw, losses, &mut self.out);
        self.tell(losses, sink);
    }

    pub(super) fn report(
        &mut self,
        report: OpReport,
        now_ns: u64,
        losses: &mut PipelineLosses,
        sink: &mut dyn SpanSink,
    ) {
        self.join.report(Box::new(report), now_ns, losses, &mut self.out);
        self.tell(losses, sink);
    }

    pub(super) fn tick(&mut self, now_ns: u64, losses: &mut PipelineLosses, sink: &mut dyn SpanSink) {
        self.join.tick(now_ns, losses, &mut self.out);
        self.tell(losses, sink);
    }

    pub(super) fn end(&mut self, losses: &mut PipelineLosses, sink: &mut dyn SpanSink) {
        self.join.end(losses, &mut self.out);
        self.tell(losses, sink);
    }

    fn tell(&mut self, losses: &mut PipelineLosses, sink: &mut dyn SpanSink) {
        for joined in self.out.drain(..) {
            match joined {
                Joined::Operation { span, is_told } => {
                    let parent = span.parent;
                    if is_told {
                        sink.span(&span);
                    } else {
                        self.counts.sampled_out += 1;
                    }
                    self.ancestors.decided(parent, is_told, losses, sink);
                }
                Joined::Unwanted => self.counts.alone += 1,
                Joined::Alone(report) => {
                    self.counts.alone += 1;
                    if is_on_purpose(&report)
                        && let Some(maker) = self.alone.get_mut(&report.dev)
                    {
                        // Under no file: which one, the kernel would have had to say.
                        let span = maker.operation(OpReport { open_file: 0, ..*report });
                        sink.span(&Arc::new(span));
                    }
                }
            }
        }
    }
}
