//! Halves in every order, and halves that never meet.

use std::sync::Arc;
use std::time::Duration;

use fsi_common::op::OpKind;
use fsi_common::record::RecordHeader;

use super::*;
use crate::rules::decision::{Effect, Fault, FaultEntry, FaultKind};
use crate::rules::op::Op;
use crate::span::{Actor, NO_SYSCALL, OpSpan, SpanId, TraceId};

const DEV: u32 = 60;

#[derive(Debug)]
struct Harness {
    join: Join,
    losses: PipelineLosses,
    out: Vec<Joined>,
}

fn report(unique: u64, backing_ns: u64) -> Box<OpReport> {
    Box::new(OpReport {
        unique,
        dev: DEV,
        op: Op::Write,
        ino: 5,
        mode: 0,
        path: Arc::from(&b"f"[..]),
        target: None,
        tid: 7,
        uid: 0,
        open_file: 1,
        open_flags: None,
        offset: None,
        asked: None,
        done: None,
        errno: 0,
        started_ns: 1000,
        answered_ns: 1000 + backing_ns + 10,
        backing_ns,
        delay_ns: 0,
        throttle_ns: 0,
        throttle: Throttled::No,
        faults: Vec::new(),
    })
}

fn faulty(unique: u64) -> Box<OpReport> {
    let fault = Fault { rule: "r".into(), kind: FaultKind::Errno, errno: Some(5), delay: Duration::ZERO };
    let entry = FaultEntry {
        sequence: unique,
        unix_ns: 0,
        fault,
        op: Op::Write,
        path: Arc::from(&b"f"[..]),
        ordinal: 0,
        ino: 5,
        pid: 7,
        uid: 0,
        offset: 0,
        asked: 0,
        done: 0,
        effect: Effect::Fail(5),
    };
    Box::new(OpReport { faults: vec![entry], ..*report(unique, 0) })
}

fn span() -> Span {
    let body = OpSpan {
        op: OpKind::Write,
        duration_ns: 1_000,
        errno: 0,
        ret: 0,
        dev: 0,
        ino: 0,
        mode: 0,
        offset: None,
        asked: None,
        bytes: None,
        open_flags: None,
        syscall: NO_SYSCALL,
        path: None,
        target: None,
        interposed: None,
    };
    Span {
        trace: TraceId([1; 16]),
        id: SpanId([1; 8]),
        parent: None,
        above: crate::span::Above::Nothing,
        start_unix_ns: 0,
        end_unix_ns: 0,
        actor: Actor { tgid: 7, tid: 7, uid: 0, comm: [0; 16], cgroup: 0 },
        body: SpanBody::Operation(body),
    }
}

impl Harness {
    fn new() -> Self {
        Self { join: Join::new(), losses: PipelineLosses::default(), out: Vec::new() }
    }

    fn request(&mut self, tid: u32, start_ns: u64, unique: u64) {
        let raw = RequestRecord { start_ns, unique, tid, dev: DEV, ..RequestRecord::default() };
        self.join.request(&raw, &mut self.losses, &mut self.out);
    }

    fn unwanted(&mut self, unique: u64) {
        let header = RecordHeader { detail: UNWANTED_REQUEST, ..RecordHeader::default() };
        let raw = RequestRecord { header, unique, tid: 7, dev: DEV, ..RequestRecord::default() };
        self.join.request(&raw, &mut self.losses, &mut self.out);
    }

    fn operation(&mut self, tid: u32, start_ns: u64, requests: u32) {
        let raw = OpRecord { tid, start_ns, duration_ns: 1_000, requests, ..OpRecord::default() };
        self.join.operation(span(), &raw, false, &mut self.losses, &mut self.out);
    }

    fn report(&mut self, report: Box<OpReport>) {
        self.join.report(report, 2_000, &mut self.losses, &mut self.out);
    }

    fn tick(&mut self, now_ns: u64) {
        self.join.tick(now_ns, &mut self.losses, &mut self.out);
    }

    fn operations(&mut self) -> Vec<(bool, Option<Interposed>)> {
        let of = |joined: Joined| match joined {
            Joined::Operation { span, is_told } => match &span.body {
                SpanBody::Operation(op) => Some((is_told, op.interposed.as_deref().cloned())),
                other => panic!("no operation: {other:?}"),
            },
            Joined::Alone(_) | Joined::Unwanted => None,
        };
        std::mem::take(&mut self.out).into_iter().filter_map(of).collect()
    }

    fn alone(&mut self) -> usize {
        std::mem::take(&mut self.out).into_iter().filter(|joined| matches!(joined, Joined::Alone(_))).count()
    }
}

#[test]
fn in_every_order() {
    let steps: [fn(&mut Harness); 3] =
        [|h| h.request(7, 100, 2), |h| h.operation(7, 100, 1), |h| h.report(report(2, 300))];
    for order in [[0, 1, 2], [0, 2, 1], [2, 0, 1]] {
        let mut harness = Harness::new();
        order.into_iter().for_each(|step| steps[step](&mut harness));
        let operations = harness.operations();
        let [(is_told, Some(interposed))] = operations.as_slice() else { panic!("{order:?}: {operations:?}") };
        assert_eq!((*is_told, interposed.requests, interposed.backing_ns, interposed.overhead_ns), (false, 1, 300, 10));
        assert_eq!(interposed.kernel_ns, Some(690), "the rest of 1,000");
        harness.tick(u64::MAX);
        assert_eq!((harness.out.len(), harness.losses), (0, PipelineLosses::default()), "nothing is left");
    }
}

#[test]
fn an_operation_of_several_requests_waits_for_all_and_is_told_for_a_fault_in_any() {
    let mut harness = Harness::new();
    for unique in [2, 4, 6] {
        harness.request(7, 100, unique);
    }
    harness.report(report(4, 100));
    harness.operation(7, 100, 3);
    harness.report(report(2 | RESENT, 100));
    assert_eq!(harness.out.len(), 0);
    harness.report(faulty(6));
    let operations = harness.operations();
    let [(true, Some(interposed))] = operations.as_slice() else { panic!("{operations:?}") };
    assert_eq!((interposed.requests, interposed.backing_ns, interposed.faults.len()), (3, 200, 1));
}

#[test]
fn two_threads_do_not_get_each_others() {
    let mut harness = Harness::new();
    harness.request(7, 100, 2);
    harness.request(8, 100, 4);
    harness.operation(8, 100, 1);
    harness.report(faulty(2));
    harness.report(report(4, 1));
    harness.operation(7, 100, 1);
    let told: Vec<_> = harness.operations().into_iter().map(|(is_told, _)| is_told).collect();
    assert_eq!(told, [false, true]);
}

#[test]
fn what_belongs_to_nobody_is_alone() {
    let mut harness = Harness::new();
    harness.request(0, 0, 2);
    harness.report(faulty(2));
    harness.report(report(4, 1));
    harness.request(0, 0, 4);
    assert_eq!(harness.alone(), 2);
    assert_eq!(harness.losses, PipelineLosses::default());
    // A call that is told of by nobody: the thread begins another.
    harness.request(7, 100, 6);
    harness.report(report(6, 1));
    harness.request(7, 200, 8);
    assert_eq!(harness.alone(), 1);
    harness.report(report(8, 1));
    harness.operation(7, 200, 1);
    assert_eq!(harness.operations().len(), 1);
}

#[test]
fn what_is_unwanted_is_not_alone() {
    let mut harness = Harness::new();
    harness.unwanted(2);
    harness.report(faulty(2));
    harness.report(faulty(4));
    harness.unwanted(4);
    // Sent again: it is whose it was.
    harness.unwanted(6);
    harness.report(faulty(6 | RESENT));
    let unwanted = harness.out.iter().filter(|joined| matches!(joined, Joined::Unwanted)).count();
    assert_eq!((unwanted, harness.out.len()), (3, 3));
    harness.out.clear();
    harness.tick(u64::MAX);
    assert_eq!((harness.out.len(), harness.join.sent.len(), harness.losses), (0, 0, PipelineLosses::default()));
}

#[test]
fn halves_that_never_meet_are_counted() {
    let mut harness = Harness::new();
    harness.request(7, 100, 2);
    harness.operation(7, 100, 2);
    harness.report(report(99, 1));
    harness.tick(1_000_000_000);
    assert_eq!(harness.out.len(), 0, "there is time yet");
    harness.tick(3_000_000_000);
    let one = |loss| harness.losses.get(loss);
    let lost = [PipelineLoss::UnknownRequest, PipelineLoss::MissingReport, PipelineLoss::UnknownReport].map(one);
    assert_eq!(lost, [1, 1, 1]);
    assert_eq!(harness.out.len(), 2, "the operation and the report");
    harness.out.clear();
    // Late, but not lost.
    harness.report(faulty(2));
    assert_eq!(harness.alone(), 1);
}

#[test]
fn what_waits_is_bounded() {
    let mut harness = Harness::new();
    for number in 0..200_000_u32 {
        harness.request(number, 100, u64::from(number) * 2);
        harness.report(report(1_000_000_000 + u64::from(number), 1));
        harness.request(7, 200 + u64::from(number), u64::from(number) * 2 + 1);
        harness.operation(7, 200 + u64::from(number), 1);
        harness.out.clear();
    }
    assert!(harness.join.sent.len() <= MAX_REQUESTS && harness.join.early.len() <= MAX_REQUESTS);
    assert!(harness.join.held.len() <= MAX_HELD && harness.join.flights.len() <= MAX_REQUESTS);
    assert!(harness.losses.get(PipelineLoss::EvictedOperation) > 0);
}
