//! What goes in comes out in order, over restarts, torn ends and a bound.

use super::*;

fn open(directory: &Path, max_bytes: u64) -> (Spool, Lost) {
    Claimed::new(directory, "http://h:4317", max_bytes).unwrap().open()
}

fn batch(number: u8, bytes: usize) -> Batch {
    Batch { spans: 10 + u64::from(number), body: vec![number; bytes].into() }
}

fn drain(spool: &mut Spool) -> Vec<u8> {
    let mut numbers = Vec::new();
    while let (Some(batch), lost) = spool.oldest() {
        assert_eq!(lost, Lost::default());
        numbers.push(batch.body[0]);
        spool.pop(&batch);
    }
    numbers
}

/// The segments' files, the oldest first.
fn files(directory: &Path) -> Vec<PathBuf> {
    let own = directory.join(name_of("http://h:4317"));
    let mut files: Vec<_> = fs::read_dir(own).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| number_of(path).is_some());
    files.sort();
    files
}

const LARGE: u64 = 1 << 30;

#[test]
fn batches_come_out_in_order_and_leave_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, lost) = open(directory.path(), LARGE);
    assert!(spool.is_empty() && lost == Lost::default());
    for number in 0..20 {
        assert_eq!(spool.push(&batch(number, 1 << 20)), Lost::default());
    }
    assert!(files(directory.path()).len() > 3);
    assert_eq!(spool.spans(), (0..20).map(|number| 10 + number).sum::<u64>());
    assert_eq!(drain(&mut spool), (0..20).collect::<Vec<_>>());
    assert!(spool.is_empty() && spool.bytes() == 0 && files(directory.path()).is_empty());
    assert_eq!(spool.push(&batch(1, 5)), Lost::default());
    assert_eq!(drain(&mut spool), [1]);
}

#[test]
fn a_successor_goes_on_where_the_agent_was() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), LARGE);
    for number in 0..6 {
        spool.push(&batch(number, 1000));
    }
    for number in 0..2 {
        let (first, _) = spool.oldest();
        assert_eq!(first, Some(batch(number, 1000)));
        spool.pop(&first.unwrap());
    }
    assert!(Claimed::new(directory.path(), "http://h:4317", LARGE).unwrap_err().to_string().contains("another agent"));
    drop(spool);
    let (mut spool, lost) = open(directory.path(), LARGE);
    assert_eq!((lost, spool.spans()), (Lost::default(), 12 + 13 + 14 + 15));
    spool.push(&batch(9, 10));
    assert_eq!(drain(&mut spool), [2, 3, 4, 5, 9]);
}

#[test]
fn a_torn_end_is_counted_and_what_is_before_it_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), LARGE);
    for number in 0..3 {
        spool.push(&batch(number, 1000));
    }
    drop(spool);
    let path = files(directory.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    let record = RECORD_HEADER + 1000;
    // Any cut within the last record, and a byte of it that is another.
    for cut in [1, 500, 1000, 1001, record - 1] {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let (mut spool, lost) = open(directory.path(), LARGE);
        assert_eq!((lost.torn, spool.spans()), (1, 21), "cut {cut}");
        assert_eq!(spool.oldest().0, Some(batch(0, 1000)));
    }
    for at in [whole.len() - 1, whole.len() - record, whole.len() - record + 4, whole.len() - record + 8] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        fs::write(&path, damaged).unwrap();
        let (spool, lost) = open(directory.path(), LARGE);
        assert_eq!((lost.torn, spool.spans()), (1, 21), "byte {at}");
    }
    // A note that is torn sends again rather than not at all.
    let mut damaged = whole.clone();
    damaged[9] ^= 1;
    fs::write(&path, damaged).unwrap();
    let (mut spool, lost) = open(directory.path(), LARGE);
    assert_eq!(lost, Lost::default());
    assert_eq!(drain(&mut spool), [0, 1, 2]);
    drop(spool);
    for rest in [&whole[..10], &b"something else, and longer than a header"[..], &[]] {
        fs::write(&path, rest).unwrap();
        let (spool, lost) = open(directory.path(), LARGE);
        assert!(spool.is_empty() && lost.torn == 1 && files(directory.path()).is_empty());
    }
}

#[test]
fn the_oldest_give_way_and_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), 10 << 20);
    let mut full = 0;
    for number in 0..40 {
        full += spool.push(&batch(number, 1 << 20)).full;
        assert!(spool.bytes() <= 10 << 20);
    }
    let on_disk: u64 = files(directory.path()).iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(on_disk, spool.bytes());
    assert_eq!(full + spool.spans(), (0..40).map(|number| 10 + number).sum::<u64>());
    let left = drain(&mut spool);
    assert!(left.len() >= 5 && left.last() == Some(&39) && left.is_sorted(), "{left:?}");
    assert_eq!(spool.push(&batch(1, 11 << 20)), Lost { full: 11, ..Lost::default() });
    // A smaller bound holds for what is there already.
    for number in 0..9 {
        spool.push(&batch(number, 1 << 20));
    }
    drop(spool);
    let (spool, lost) = open(directory.path(), 6 << 20);
    assert!(lost.full > 0 && spool.bytes() <= 6 << 20);
}

#[test]
fn what_the_disk_does_not_give_back_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (mut spool, _) = open(directory.path(), LARGE);
    spool.push(&batch(1, 1000));
    spool.push(&batch(2, 1000));
    let path = files(directory.path()).remove(0);
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"x", HEADER + 50).unwrap();
    assert_eq!(spool.oldest(), (None, Lost { disk: 23, ..Lost::default() }));
    assert!(spool.is_empty());
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert_eq!(spool.push(&batch(3, 10)), Lost { disk: 13, ..Lost::default() });
    assert!(spool.is_empty());
}

#[test]
fn directories_are_ours_alone_and_apart() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("a/b");
    let one = Claimed::new(&spool, "http://h:4317", LARGE).unwrap();
    let other = Claimed::new(&spool, "http://h-4317", LARGE).unwrap();
    assert_ne!(one.directory, other.directory);
    assert_eq!(fs::metadata(&one.directory).unwrap().permissions().mode() & 0o777, 0o700);
}
