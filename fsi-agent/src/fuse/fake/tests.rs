//! Patterns verify at any offset; memory holds what was written, to its bound, for the successor too.

use std::os::fd::{AsFd as _, OwnedFd};

use proptest::prelude::*;

use super::memory::PAGE;
use super::*;

#[test]
fn the_pattern_is_the_documented_one() {
    let mut bytes = [0; 16];
    fill(0, 0, &mut bytes);
    assert_eq!(bytes[..8], [0; 8]);
    // The finalizer of SplitMix64 of its first increment: the first output of that generator for seed 0.
    fill(1, 0, &mut bytes);
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().unwrap()), 0xE220_A839_7B1D_CDAF);
}

proptest! {
    #[test]
    fn any_part_of_the_pattern_is_the_same(ino in any::<u64>(), start in 0_usize..500, len in 0_usize..500, base in 0..u64::MAX / 2) {
        let (mut whole, mut part) = (vec![0; 1000], vec![0; len]);
        fill(ino, base, &mut whole);
        fill(ino, base + start as u64, &mut part);
        prop_assert_eq!(&whole[start..start + len], &part[..]);
    }

    #[test]
    fn memory_holds_what_was_written(
        steps in prop::collection::vec((1_u64..3, 0_u64..40_000, 0_u64..10_000, any::<u8>(), any::<bool>(), any::<bool>()), 1..40),
    ) {
        let store = Memory::create().unwrap();
        let open = || Memory::open(store.try_clone().unwrap(), 12 * PAGE).unwrap();
        // Whole pages that are cleared are those below again: the file there was cut as well.
        let below = |_at: u64, buffer: &mut [u8]| { buffer.fill(0); Ok(()) };
        let mut memory = open();
        let mut model = [vec![0; 60_000], vec![0; 60_000]];
        for (file, offset, len, byte, write, successor) in steps {
            let at = usize::try_from(offset).unwrap();
            let model_of = &mut model[usize::try_from(file - 1).unwrap()];
            let len_bytes = usize::try_from(len).unwrap();
            if write {
                match memory.write(file, offset, &vec![byte; len_bytes], &below) {
                    Ok(done) => model_of[at..at + done].fill(byte),
                    Err(error) => {
                        prop_assert_eq!(error.raw_os_error(), Some(libc::ENOSPC));
                        prop_assert_eq!(memory.used(), memory.limit());
                    }
                }
            } else {
                memory.clear(file, offset, offset + len).unwrap();
                model_of[at..at + len_bytes].fill(0);
            }
            if successor {
                let used = memory.used();
                memory = open();
                prop_assert_eq!(memory.used(), used);
            }
        }
        for (file, expected) in (1..).zip(&model) {
            let mut found = vec![1; expected.len()];
            memory.read(file, 0, &mut found, &below).unwrap();
            prop_assert!(&found == expected);
            memory.clear(file, 0, u64::MAX).unwrap();
        }
        prop_assert_eq!(memory.used(), 0);
    }
}

#[test]
fn sizes_only_grow_by_writing_and_cost_nothing() {
    let file: OwnedFd = tempfile::tempfile().unwrap().into();
    let sizes = Sizes::default();
    std::thread::scope(|scope| {
        for writer in 0..4_u64 {
            let (sizes, file) = (&sizes, &file);
            scope.spawn(move || {
                for round in 0..100 {
                    sizes.grow(file.as_fd(), (round * 4 + writer + 1) * 1000).unwrap();
                }
            });
        }
    });
    let stat = rustix::fs::fstat(&file).unwrap();
    assert_eq!((stat.st_size, stat.st_blocks), (400_000, 0));
    assert_eq!(sizes.readable(file.as_fd(), 399_990, 100).unwrap(), 10);
    sizes.set(file.as_fd(), 5).unwrap();
    assert_eq!(sizes.readable(file.as_fd(), 9, 100).unwrap(), 0);
}

#[test]
fn what_was_not_written_lies_below() {
    let below = |at: u64, buffer: &mut [u8]| {
        buffer.iter_mut().zip(at..).for_each(|(byte, at)| *byte = u8::try_from(at % 251).unwrap_or(0));
        Ok(())
    };
    let mut memory = Memory::open(Memory::create().unwrap(), 3 * PAGE).unwrap();
    memory.write(7, PAGE - 2, &[255; 4], &below).unwrap();
    let mut found = vec![0; 3 * 4096];
    memory.read(7, 0, &mut found, &below).unwrap();
    let mut expected = vec![0; 3 * 4096];
    below(0, &mut expected).unwrap();
    expected[4094..4098].fill(255);
    assert!(found == expected);
}
