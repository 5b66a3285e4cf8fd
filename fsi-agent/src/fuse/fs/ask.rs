//! One operation on its way: what it is about, and what its work is told.

use std::cell::Cell;

use rustix::fs::OFlags;

use super::{Armed, Interposer};
use crate::fuse::under_way::{Guard, Past};
use crate::rules::decision::{Decision, Facts};
use crate::rules::op::Op;
use crate::throttle::Direction;

/// What an operation is about, for the rules.
pub(super) struct Ask<'a> {
    pub(super) op: Op,
    pub(super) on: On<'a>,
    pub(super) target: Option<(u64, &'a [u8])>,
    /// The open file it is done on.
    pub(super) handle: Option<u64>,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// The caller would rather have an error than wait.
    pub(super) nonblocking: bool,
}

/// The object or the name it is about.
#[derive(Clone, Copy)]
pub(super) enum On<'a> {
    Node(u64),
    Name(u64, &'a [u8]),
}

impl<'a> Ask<'a> {
    pub(super) const fn new(op: Op, on: On<'a>) -> Self {
        Self { op, on, target: None, handle: None, offset: 0, len: 0, nonblocking: false }
    }

    pub(super) const fn of(self, handle: u64) -> Self {
        Self { handle: Some(handle), ..self }
    }

    pub(super) const fn at(self, offset: u64, len: u64) -> Self {
        Self { offset, len, ..self }
    }

    pub(super) const fn with(self, flags: OFlags) -> Self {
        Self { nonblocking: flags.contains(OFlags::NONBLOCK), ..self }
    }

    /// Number of the object; 0 where only its name is known.
    pub(super) const fn node(&self) -> u64 {
        match self.on {
            On::Node(number) => number,
            On::Name(..) => 0,
        }
    }

    /// Which throttles it has to pass.
    pub(super) const fn direction(&self) -> Option<Direction> {
        match self.op {
            Op::Read => Some(Direction::Read),
            Op::Write => Some(Direction::Write),
            _ => None,
        }
    }
}

/// What the work of an operation is told, and tells.
pub(super) struct Way<'a> {
    pub(super) decision: &'a Decision,
    pub(super) under: &'a Guard,
    pub(super) armed: &'a Armed,
    /// The errno with which the volume's capacity refused it.
    pub(super) refused: Cell<Option<i32>>,
}

impl<'a> Way<'a> {
    pub(super) const fn new(decision: &'a Decision, under: &'a Guard, armed: &'a Armed) -> Self {
        Self { decision, under, armed, refused: Cell::new(None) }
    }

    /// The request came to an earlier server, which may have done it.
    pub(super) fn past(&self) -> Option<Past> {
        self.under.past()
    }
}

/// What costs something to know.
pub(super) struct CallFacts<'a> {
    pub(super) fs: &'a Interposer,
    pub(super) on: On<'a>,
    pub(super) tid: u32,
}

impl Facts for CallFacts<'_> {
    fn size(&self) -> Option<u64> {
        let On::Node(number) = self.on else { return None };
        let node = self.fs.nodes.get(number).ok()?;
        self.fs.stat(&node).ok().map(|stat| stat.stx_size)
    }

    fn process(&self) -> Option<Vec<u8>> {
        let mut name = std::fs::read(format!("/proc/{}/comm", self.tid)).ok()?;
        name.truncate(name.trim_ascii_end().len());
        Some(name)
    }
}
