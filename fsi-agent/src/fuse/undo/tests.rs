//! After a power cut every file is what it was at its last sync, whatever happened since and whoever served it.

use proptest::prelude::*;

use super::*;

fn undo(limit: u64) -> Undo {
    Undo::open(Undo::create().unwrap(), limit).unwrap()
}

fn contents(file: &File) -> Vec<u8> {
    let size = file.metadata().unwrap().len();
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn no_sync(_: u64) -> io::Result<()> {
    unreachable!("nothing is over the limit")
}

#[derive(Clone, Debug)]
enum Step {
    Write { node: usize, offset: u64, len: usize, byte: u8 },
    Truncate { node: usize, size: u64 },
    Punch { node: usize, offset: u64, len: u64 },
    Sync { node: usize },
    Successor,
    RevertOne { node: usize },
    PowerCut,
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..2_usize;
    prop_oneof![
        6 => (node.clone(), 0..60_000_u64, 1..20_000_usize, any::<u8>())
            .prop_map(|(node, offset, len, byte)| Step::Write { node, offset, len, byte }),
        3 => (node.clone(), 0..70_000_u64).prop_map(|(node, size)| Step::Truncate { node, size }),
        2 => (node.clone(), 0..60_000_u64, 1..30_000_u64)
            .prop_map(|(node, offset, len)| Step::Punch { node, offset, len }),
        2 => node.clone().prop_map(|node| Step::Sync { node }),
        1 => Just(Step::Successor),
        1 => node.prop_map(|node| Step::RevertOne { node }),
        1 => Just(Step::PowerCut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_leaves_what_was_synced(
        steps in prop::collection::vec(step(), 1..60),
        limit in prop::sample::select(vec![u64::MAX, 50_000]),
    ) {
        let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let mut durable = [Vec::new(), Vec::new()];
        let log = Undo::create().unwrap();
        let mut undo = Undo::open(log.try_clone().unwrap(), limit).unwrap();
        for step in steps.into_iter().chain([Step::PowerCut]) {
            let keep = |undo: &mut Undo, durable: &mut [Vec<u8>; 2], node: usize, offset, len| {
                let kept = undo.keep(node as u64, files[node].as_fd(), offset, len, |synced| {
                    let synced = usize::try_from(synced).unwrap();
                    durable[synced] = contents(&files[synced]);
                    Ok(())
                });
                kept.unwrap()
            };
            let changed = match step {
                Step::Write { node, offset, len, byte } => {
                    let kept = keep(&mut undo, &mut durable, node, offset, len as u64);
                    files[node].write_all_at(&vec![byte; len], offset).unwrap();
                    Some((node, kept))
                }
                Step::Truncate { node, size } => {
                    let kept = keep(&mut undo, &mut durable, node, size, u64::MAX);
                    files[node].set_len(size).unwrap();
                    Some((node, kept))
                }
                Step::Punch { node, offset, len } => {
                    let kept = keep(&mut undo, &mut durable, node, offset, len);
                    punch(&files[node], offset, len).unwrap();
                    Some((node, kept))
                }
                Step::Sync { node } => {
                    undo.synced(node as u64).unwrap();
                    Some((node, Kept::TooLarge))
                }
                Step::Successor => {
                    let before = undo.bytes;
                    undo = Undo::open(log.try_clone().unwrap(), limit).unwrap();
                    prop_assert_eq!(undo.bytes, before);
                    None
                }
                Step::RevertOne { node } => {
                    undo.revert(node as u64, files[node].as_fd()).unwrap();
                    prop_assert!(contents(&files[node]) == durable[node]);
                    None
                }
                Step::PowerCut => {
                    undo.revert_all(|node| files[usize::try_from(node).unwrap()].try_clone().ok()).unwrap();
                    prop_assert!(contents(&files[0]) == durable[0] && contents(&files[1]) == durable[1]);
                    prop_assert_eq!((undo.bytes, undo.nodes().len()), (0, 0));
                    None
                }
            };
            if let Some((node, Kept::TooLarge)) = changed {
                durable[node] = contents(&files[node]);
            }
            prop_assert!(undo.bytes <= limit);
        }
    }
}

#[test]
fn a_hot_block_is_kept_once() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    let mut undo = undo(u64::MAX);
    for _ in 0..1000 {
        undo.keep(7, file.as_fd(), 0, 4096, no_sync).unwrap();
        file.write_all_at(&[2; 4096], 0).unwrap();
    }
    assert_eq!(undo.bytes, 4096);
    undo.revert(7, file.as_fd()).unwrap();
    assert_eq!(contents(&file), [1; 4096]);
}

#[test]
fn a_hole_costs_nothing_and_is_a_hole_again() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 40).unwrap();
    let mut undo = undo(1 << 20);
    undo.keep(7, file.as_fd(), 0, u64::MAX, no_sync).unwrap();
    file.set_len(0).unwrap();
    assert_eq!(undo.bytes, 0);
    undo.revert(7, file.as_fd()).unwrap();
    let stat = rustix::fs::fstat(&file).unwrap();
    assert_eq!((stat.st_size, stat.st_blocks), (1 << 40, 0));
}

#[test]
fn past_the_limit_the_oldest_file_becomes_durable() {
    let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    let mut undo = undo(6000);
    let mut synced = Vec::new();
    for (node, file) in (0..).zip(&files) {
        file.write_all_at(&[1; 4096], 0).unwrap();
        let kept = undo.keep(node, file.as_fd(), 0, 4096, |node| {
            synced.push(node);
            Ok(())
        });
        assert_eq!(kept.unwrap(), Kept::Yes);
    }
    assert_eq!((synced, undo.made_durable(), undo.nodes()), (vec![0], 1, vec![1]));
}
