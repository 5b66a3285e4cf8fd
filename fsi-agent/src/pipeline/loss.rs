//! Every way in which the pipeline loses something, counted by (stage, reason) as `fsi_lost_total` names them.

/// What was lost, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum PipelineLoss {
    /// A record shorter than its kind, or than it says it is.
    Truncated = 0,
    /// A record longer than its kind and names allow.
    Oversized = 1,
    /// A kind, operation, path state, close kind or process event that this agent does not know.
    UnknownCode = 2,
    /// An operation whose open file was never announced or already ended: its span has no file.
    UnknownFile = 3,
    /// An operation or file whose path was never announced or is gone: its span has no path.
    UnknownPath = 4,
    /// A close of a file that was never announced: that file has no span.
    UnknownClose = 5,
    /// A file that was ended early because too many were open.
    EvictedFile = 6,
    /// A process that was ended early because too many lived.
    EvictedProcess = 7,
    /// A path forgotten because too many were known.
    EvictedPath = 8,
    /// A file whose end was not told: another got its number. Its span has no close.
    UnseenClose = 9,
    /// A process whose end was not told: another got its number. Its span has no exit code.
    UnseenExit = 10,
    /// A request to a mount of which the kernel did not tell (its record was lost): its report finds no operation.
    UnknownRequest = 11,
    /// A report of a mount whose operation never came: nobody looked at it, or its record was lost.
    UnknownReport = 12,
    /// An operation that a mount did not report on in time: its span does not say what the mount did.
    MissingReport = 13,
    /// A request forgotten because too many were under way: its report finds no operation.
    EvictedRequest = 14,
    /// An operation that waited for reports and was told without, because too many waited.
    EvictedOperation = 15,
    /// A file or process forgotten because too many were known: its span is missing above the operations told.
    EvictedAncestor = 16,
}

impl PipelineLoss {
    /// Every loss, in the order of the codes.
    pub const ALL: [Self; 17] = [
        Self::Truncated,
        Self::Oversized,
        Self::UnknownCode,
        Self::UnknownFile,
        Self::UnknownPath,
        Self::UnknownClose,
        Self::EvictedFile,
        Self::EvictedProcess,
        Self::EvictedPath,
        Self::UnseenClose,
        Self::UnseenExit,
        Self::UnknownRequest,
        Self::UnknownReport,
        Self::MissingReport,
        Self::EvictedRequest,
        Self::EvictedOperation,
        Self::EvictedAncestor,
    ];

    /// `(stage, reason)` of `fsi_lost_total`.
    #[must_use]
    pub const fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Truncated => ("decode", "truncated"),
            Self::Oversized => ("decode", "oversized"),
            Self::UnknownCode => ("decode", "unknown_code"),
            Self::UnknownFile => ("attribute", "unknown_file"),
            Self::UnknownPath => ("attribute", "unknown_path"),
            Self::EvictedPath => ("attribute", "evicted_path"),
            Self::UnknownClose => ("correlate", "unknown_close"),
            Self::UnseenClose => ("correlate", "unseen_close"),
            Self::UnseenExit => ("correlate", "unseen_exit"),
            Self::EvictedFile => ("correlate", "evicted_file"),
            Self::EvictedProcess => ("correlate", "evicted_process"),
            Self::UnknownRequest => ("join", "unknown_request"),
            Self::UnknownReport => ("join", "unknown_report"),
            Self::MissingReport => ("join", "missing_report"),
            Self::EvictedRequest => ("join", "evicted_request"),
            Self::EvictedOperation => ("join", "evicted_operation"),
            Self::EvictedAncestor => ("join", "evicted_ancestor"),
        }
    }
}

/// Counters, one per [`PipelineLoss`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineLosses {
    counts: [u64; PipelineLoss::ALL.len()],
}

impl PipelineLosses {
    pub(crate) fn count(&mut self, loss: PipelineLoss) {
        self.add(loss, 1);
    }

    pub(crate) fn add(&mut self, loss: PipelineLoss, count: u64) {
        self.counts[loss as usize] += count;
    }

    /// How often it happened.
    #[must_use]
    pub fn get(&self, loss: PipelineLoss) -> u64 {
        self.counts[loss as usize]
    }

    /// `(stage, reason, count)` of every loss, those that did not happen included.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        PipelineLoss::ALL.iter().map(|loss| {
            let (stage, reason) = loss.labels();
            (stage, reason, self.get(*loss))
        })
    }

    /// Operation records that did not become spans: those that could not be decoded.
    #[must_use]
    pub fn undecoded(&self) -> u64 {
        [PipelineLoss::Truncated, PipelineLoss::Oversized, PipelineLoss::UnknownCode]
            .iter()
            .map(|loss| self.get(*loss))
            .sum()
    }
}
