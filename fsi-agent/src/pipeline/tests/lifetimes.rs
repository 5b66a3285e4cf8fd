//! Where spans of processes and files begin and end.

use super::*;

#[test]
fn a_process_number_that_comes_again_is_another_process() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.process(ProcessEvent::Fork, 10, 1, 100);
    harness.process(ProcessEvent::Exit, 10, 1, 150);
    let first = harness.last();
    harness.process(ProcessEvent::Fork, 10, 1, 200);
    harness.process(ProcessEvent::Fork, 10, 1, 300);
    let second = harness.last();
    assert_eq!(process_of(&second).exit_code, None);
    assert_eq!((harness.loss(PipelineLoss::UnseenExit), first.id == second.id), (1, false));
}

#[test]
fn a_process_is_told_after_its_mapped_files_and_encloses_them() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.process(ProcessEvent::Fork, 10, 1, 100);
    harness.file(7, 0, 10, 110);
    harness.file(8, 0, 10, 120);
    harness.process(ProcessEvent::Exit, 10, 1, 500);
    assert!(harness.out.0.is_empty(), "its files are still mapped");
    // Its number is free again at once.
    harness.process(ProcessEvent::Fork, 10, 1, 510);
    harness.close_as(CloseKind::Unseen, 7, 200_000, FileTotals { last_ns: 300, ..FileTotals::default() });
    harness.close_as(CloseKind::Exit, 8, 505, FileTotals { last_ns: 300, ..FileTotals::default() });
    let [mapped, other, process] = harness.out.0.as_slice() else { panic!("{:?}", harness.out.0) };
    assert_eq!(mapped.end_unix_ns, harness.clock.unix_ns(300), "the end of what was done, not of the search");
    assert_eq!((mapped.parent, other.parent), (Some(process.id), Some(process.id)));
    assert_eq!(process.end_unix_ns, harness.clock.unix_ns(505));
    assert_eq!((process.actor.tgid, process_of(process).exit_code), (10, Some(0)));
    // A file that nothing was done with ends where it began.
    harness.file(9, 0, 10, 600);
    harness.close_as(CloseKind::Unseen, 9, 300_000, FileTotals::default());
    assert_eq!(harness.last().end_unix_ns, harness.last().start_unix_ns);
    assert!(harness.pipeline.losses().iter().all(|(_, _, count)| count == 0));
    assert_eq!(harness.finish(700).len(), 1);
}

#[test]
fn a_process_does_not_wait_long_for_files_that_others_use() {
    let second = 1_000_000_000;
    let mut harness = Harness::new(PipelineOptions::default());
    harness.process(ProcessEvent::Fork, 10, 1, 100);
    harness.file(7, 0, 10, 110);
    harness.process(ProcessEvent::Exit, 10, 1, 500);
    harness.pipeline.tick(second, &mut harness.out);
    assert!(harness.out.0.is_empty());
    harness.pipeline.tick(second + 500, &mut harness.out);
    let process = harness.last();
    assert_eq!((process.end_unix_ns, process_of(&process).exit_code), (harness.clock.unix_ns(500), Some(0)));
    harness.close(7, 2 * second, FileTotals::default());
    assert_eq!((harness.last().parent, harness.out.0.len()), (Some(process.id), 2));
}

#[test]
fn what_was_open_before_begins_at_first_sight_and_is_not_cut_at_once() {
    let mut harness = Harness::new(PipelineOptions::default());
    let begin_ns = harness.clock.measured_ns();
    harness.file(7, 0, 10, 0);
    let first = OpRecord { file_id: 7, ..at(10, begin_ns + 5_000_000_000) };
    harness.op(OpKind::Read, first, [b"", b""]);
    harness.file(8, 0, 11, 0);
    harness.pipeline.tick(begin_ns + 6_000_000_000, &mut harness.out);
    assert_eq!(harness.out.0.len(), 1, "no segment yet");
    let start_ns = first.start_ns;
    harness.pipeline.finish(begin_ns + 7_000_000_000, &mut harness.out);
    for span in &harness.out.0[1..] {
        assert!(span.start_unix_ns >= harness.clock.unix_ns(begin_ns), "{span:?}");
        if matches!(span.body, SpanBody::File(_)) && span.actor.tgid == 10 {
            assert_eq!(span.start_unix_ns, harness.clock.unix_ns(start_ns));
        }
    }
}

#[test]
fn a_file_number_that_comes_again_is_another_file() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.file(7, 0, 10, 100);
    harness.file(7, 0, 10, 200);
    assert_eq!(file_of(&harness.last()).close, None);
    assert_eq!(harness.loss(PipelineLoss::UnseenClose), 1);
}

#[test]
fn a_file_that_stays_open_is_told_in_segments() {
    let second = 1_000_000_000;
    let mut harness = Harness::new(PipelineOptions { max_open: Duration::from_secs(60), ..PipelineOptions::default() });
    harness.file(7, 0, 10, second);
    let first = harness.op(OpKind::Read, OpRecord { file_id: 7, ret: 1, flags: READ, ..at(10, second) }, [b"", b""]);
    harness.pipeline.tick(60 * second, &mut harness.out);
    assert_eq!(harness.out.0.len(), 1, "not long enough yet");
    harness.pipeline.tick(61 * second, &mut harness.out);
    let segment = harness.last();
    assert_eq!((first.parent, file_of(&segment).segment, file_of(&segment).close), (Some(segment.id), 0, None));
    harness.pipeline.tick(200 * second, &mut harness.out);
    assert_eq!(harness.out.0.len(), 2, "nothing was done since");
    let next =
        harness.op(OpKind::Read, OpRecord { file_id: 7, ret: 1, flags: READ, ..at(10, 201 * second) }, [b"", b""]);
    harness.close(7, 202 * second, FileTotals { operations: 2, reads: 2, ..FileTotals::default() });
    let last = harness.last();
    assert_eq!((next.parent, file_of(&last).segment), (Some(last.id), 1));
    assert_ne!(last.id, segment.id);
    assert_eq!(last.start_unix_ns, segment.end_unix_ns);
}

#[test]
fn a_file_that_was_open_before_begins_with_its_first_operation() {
    let mut harness = Harness::new(PipelineOptions::default());
    harness.process(ProcessEvent::Fork, 9, 1, 500);
    harness.file(7, 0, 10, 0);
    harness.op(OpKind::Read, OpRecord { file_id: 7, ..at(10, 300) }, [b"", b""]);
    for span in harness.finish(600).iter().filter(|span| span.actor.tgid == 10) {
        assert_eq!(span.start_unix_ns, harness.clock.unix_ns(300));
    }
}
