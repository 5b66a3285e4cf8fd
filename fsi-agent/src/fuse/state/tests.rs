//! What one server writes, its successor reads.

use std::os::fd::AsFd as _;

use super::*;

#[test]
fn a_successor_reads_what_was_written() {
    let file = State::create().unwrap();
    let first = State::open(file.as_fd()).unwrap();
    first.set_init(b"init bytes").unwrap();
    first.set_rules_text(b"one").unwrap();
    first.set_rules_text(b"two").unwrap();
    let slot = first.nodes().claim(0, 77).unwrap();
    let record = NodeRecord(first.nodes().slot(slot));
    record.set_place(1, "n\u{fc}".as_bytes());
    record.set_handle(0x81, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
    record.set_backing(Some(5));
    record.lookups().store(3, Ordering::Release);
    assert_eq!(first.next(9), 0);
    drop(first);

    let next = State::open(file.as_fd()).unwrap();
    assert_eq!(next.init(), b"init bytes");
    assert_eq!(next.rules_text(), b"two");
    let used: Vec<_> = next.nodes().used(16).collect();
    assert_eq!(used.len(), 1);
    let record = NodeRecord(used[0].1);
    assert_eq!((record.number(), record.parent(), record.name()), (77, 1, "n\u{fc}".as_bytes().to_vec()));
    assert_eq!(record.handle(), (0x81, vec![1, 2, 3, 4, 5, 6, 7, 8, 9]));
    assert_eq!(record.backing(), Some(5));
    assert_eq!(next.next(9), 1);
}

#[test]
fn ordinals_are_kept_apart_and_limits_hold() {
    let file = State::create().unwrap();
    let state = State::open(file.as_fd()).unwrap();
    for key in 0..1000_u128 {
        // All in one neighbourhood.
        assert_eq!(state.next(key << 1 | 1), if key < 256 { 0 } else { state.next(key << 1 | 1) });
    }
    assert!(state.below(1 << 70, 2) && state.below(1 << 70, 2) && !state.below(1 << 70, 2));
}

#[test]
fn another_layout_is_refused() {
    let file = State::create().unwrap();
    State::open(file.as_fd()).unwrap().word(Word::Layout).store(1, Ordering::Release);
    assert!(matches!(State::open(file.as_fd()), Err(StateError::Layout { found: 1 })));
}

#[test]
fn slots_come_back() {
    let file = State::create().unwrap();
    let state = State::open(file.as_fd()).unwrap();
    let table = state.requests();
    let slots: Vec<_> = (1..=MAX_REQUESTS as u64).map(|tag| table.claim(0, tag).unwrap()).collect();
    assert_eq!(table.claim(0, 1), None);
    table.release(slots[7]);
    assert_eq!(table.claim(100, 1), Some(slots[7]));
}

#[test]
fn a_move_is_made_or_not_begun() {
    let file = State::create().unwrap();
    let state = State::open(file.as_fd()).unwrap();
    let record = NodeRecord(state.nodes().slot(Slot(3)));
    record.set_place(1, b"a long old name");
    state.move_node(Slot(3), 2, b"new");
    assert!(
        record.is_at(2, b"new") && !record.is_at(1, b"new") && !record.is_at(2, b"newer") && !record.is_at(2, b"old")
    );
    state.finish_move();
    assert!(record.is_at(2, b"new"), "nothing is left to do");

    // Killed while it wrote the place down, then while it wrote the record.
    state.place()[1].store(5, Ordering::Release);
    state.finish_move();
    assert!(record.is_at(2, b"new"));
    table::write_bytes(&state.place()[2..], b"newest of all");
    state.place()[0].store(4, Ordering::Release);
    record.set_place(5, b"");
    State::open(file.as_fd()).unwrap().finish_move();
    assert!(record.is_at(5, b"newest of all"));
}
