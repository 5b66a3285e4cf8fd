//! Whether a rule is about an operation: `match`, key by key, the cheapest first.

use std::ops::Range;

use crate::rules::decision::{Facts, Request};
use crate::rules::model::{Injection, Rule};

impl Rule {
    /// Whether everything that `match` says holds.
    pub(super) fn matches(&self, request: &Request<'_>, facts: &dyn Facts) -> bool {
        let matching = &self.matching;
        matching.ops.contains(request.op)
            && self.has_room(request.len)
            && matching.uid.as_ref().is_none_or(|uids| uids.contains(&request.uid))
            && matching.gid.as_ref().is_none_or(|gids| gids.contains(&request.gid))
            && matching.offset.as_ref().is_none_or(|range| overlaps(range, request.offset, request.len))
            && self.is_on(request)
            && self.has_size(facts)
            && matching.process.as_ref().is_none_or(|globs| facts.process().is_some_and(|name| globs.matches(&name)))
    }

    /// Whether the path, or the other path of a rename or link, matches.
    pub(super) fn is_on(&self, request: &Request<'_>) -> bool {
        let Some(globs) = &self.matching.path else { return true };
        globs.matches(request.path) || request.target.is_some_and(|target| globs.matches(target))
    }

    /// Whether so many bytes can be cut short, torn or corrupted at all.
    pub(crate) fn has_room(&self, len: u64) -> bool {
        match self.action.effect {
            Some(Injection::Short(_)) => len > 1,
            Some(Injection::Torn(_) | Injection::Corrupt(_)) => len > 0,
            Some(
                Injection::Errno(_)
                | Injection::LoseUntilFsync
                | Injection::FailFsync(_)
                | Injection::LieFsync
                | Injection::Abort,
            )
            | None => true,
        }
    }

    fn has_size(&self, facts: &dyn Facts) -> bool {
        let (min, max) = (self.matching.min_size, self.matching.max_size);
        if min.is_none() && max.is_none() {
            return true;
        }
        let Some(size) = facts.size() else { return false };
        min.is_none_or(|min| size >= min) && max.is_none_or(|max| size <= max)
    }
}

/// Whether some byte of the data lies in the range; of no data, whether its offset does.
pub(crate) fn overlaps(range: &Range<u64>, offset: u64, len: u64) -> bool {
    offset < range.end && offset.saturating_add(len.max(1)) > range.start
}
