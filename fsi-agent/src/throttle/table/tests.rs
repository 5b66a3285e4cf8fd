//! Buckets are taken from at once by many, given away when nobody needs them, and survive who is killed.

use super::*;

const SECOND: u64 = 1_000_000_000;

const fn terms(key: u64) -> Terms {
    Terms { key, tolerance_ns: 0 }
}

#[test]
fn a_bucket_is_the_same_for_all_who_map_the_file() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("1-before"), "").unwrap();
    fs::write(folder.path().join("other"), "").unwrap();
    let [one, other] = [(); 2].map(|()| Table::open(folder.path(), "boot").unwrap());
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["1-boot", "other"], "tables of earlier boots are gone");
    let [first, second] = [&one, &other].map(|table| table.find(7, SECOND).unwrap());
    assert_eq!(one.take(first, terms(7), 5 * SECOND, SECOND), Taken::Yes);
    assert_eq!(other.take(second, terms(7), 1, SECOND), Taken::NotBefore(6 * SECOND));
    assert_eq!(other.ready_at(second, terms(7), SECOND), Some(6 * SECOND));
    one.give_back(first, 7, 2 * SECOND, SECOND);
    assert_eq!(other.ready_at(second, terms(7), SECOND), Some(4 * SECOND));
}

#[test]
fn what_many_take_at_once_is_taken_once() {
    let table = Table::private().unwrap();
    let slot = table.find(7, SECOND).unwrap();
    let terms = Terms { key: 7, tolerance_ns: 99 };
    // A hundred may pass: each costs one nanosecond of the hundred that may be ahead.
    let pass = || (0..1000).filter(|_| table.take(slot, terms, 1, SECOND) == Taken::Yes).count();
    let passed: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(pass)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(passed, 100);
}

#[test]
fn slots_are_given_away_once_their_buckets_are_long_full() {
    let table = Table::private().unwrap();
    let keys = (1..).map(|step| 5 + step * SLOTS as u64);
    let mut taken: Vec<_> = keys.clone().take(WINDOW).map(|key| (key, table.find(key, SECOND).unwrap())).collect();
    let next = keys.clone().nth(WINDOW).unwrap();
    assert_eq!(table.find(next, SECOND), None, "all places of these keys are in use");
    let (key, slot) = taken.remove(3);
    for (key, slot) in &taken {
        assert_eq!(table.take(*slot, terms(*key), 100 * SECOND, SECOND), Taken::Yes);
    }
    let later = SECOND + UNUSED_NS;
    assert_eq!(table.find(next, later - 1), None);
    assert_eq!(table.find(next, later), Some(slot));
    assert_eq!(table.ready_at(slot, terms(key), later), None);
    assert_eq!(table.take(slot, terms(key), 1, later), Taken::Gone);
    assert_eq!(table.take(slot, terms(next), 1, later), Taken::Yes);
    assert_eq!(
        taken.iter().map(|(key, _)| table.find(*key, later)).collect::<Vec<_>>(),
        taken.iter().map(|(_, slot)| Some(*slot)).collect::<Vec<_>>()
    );
}

/// Who is killed while a slot changes hands leaves it so, with the old key or the new one.
#[test]
fn a_slot_that_was_left_in_the_middle_is_used_again() {
    for left in [7, 8] {
        let table = Table::private().unwrap();
        let slot = table.find(7, SECOND).unwrap();
        let (owner, until) = table.slot(slot);
        until.store(CHANGING, Ordering::Release);
        owner.store(left, Ordering::Release);
        assert_eq!(table.take(slot, terms(left), 1, SECOND), Taken::Gone);
        table.give_back(slot, left, 1, SECOND);
        let again = table.find(7, 2 * SECOND).unwrap();
        assert_eq!(again, slot);
        assert_eq!(table.take(again, terms(7), 1, 2 * SECOND), Taken::Yes);
    }
}

#[test]
fn a_lock_that_is_not_to_be_had_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let [one, other] = [(); 2].map(|()| Table::open(folder.path(), "boot").unwrap());
    let known = one.find(7, SECOND).unwrap();
    let lock = Lock::take(&one.file).unwrap();
    assert_eq!(other.find(7, SECOND), Some(known), "what is there needs no lock");
    assert_eq!(other.find(8, SECOND), None);
    drop(lock);
    assert!(other.find(8, SECOND).is_some());
}
