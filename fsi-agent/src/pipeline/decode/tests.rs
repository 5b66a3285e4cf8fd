//! Decoding against records that are too short, too long, of unknown codes, at every maximum, and made of noise.

use proptest::prelude::*;
use zerocopy::IntoBytes as _;

use super::*;

fn bytes_of(record: &impl IntoBytesRecord, names: &[&[u8]]) -> Vec<u8> {
    record.with_names(names)
}

/// The records, with the header filled in.
trait IntoBytesRecord {
    fn with_names(&self, names: &[&[u8]]) -> Vec<u8>;
}

macro_rules! record {
    ($type:ty, $kind:expr) => {
        impl IntoBytesRecord for $type {
            fn with_names(&self, names: &[&[u8]]) -> Vec<u8> {
                let mut copy = *self;
                let len = size_of::<Self>() + names.iter().map(|name| name.len()).sum::<usize>();
                copy.header.kind = $kind as u16;
                copy.header.len = u32::try_from(len).unwrap();
                let mut bytes = copy.as_bytes().to_vec();
                names.iter().for_each(|name| bytes.extend_from_slice(name));
                bytes
            }
        }
    };
}

record!(OpRecord, RecordKind::Operation);
record!(PathRecord, RecordKind::Path);
record!(FileRecord, RecordKind::File);
record!(CloseRecord, RecordKind::Close);
record!(ProcessRecord, RecordKind::Process);
record!(CgroupRecord, RecordKind::Cgroup);

fn op() -> OpRecord {
    OpRecord { op: OpKind::Rename.code(), name1_len: 3, name2_len: 2, path1: 1, path2: 1, ..OpRecord::default() }
}

/// One good record of each kind.
fn good() -> Vec<Vec<u8>> {
    let (mut close, mut process) = (CloseRecord::default(), ProcessRecord::default());
    close.header.detail = CloseKind::Closed as u16;
    process.header.detail = ProcessEvent::Fork as u16;
    vec![
        bytes_of(&op(), &[b"abc", b"de"]),
        bytes_of(&PathRecord { state: 1, path_len: 4, ..PathRecord::default() }, &[b"/a/b"]),
        bytes_of(&FileRecord::default(), &[]),
        bytes_of(&close, &[]),
        bytes_of(&process, &[]),
        bytes_of(&CgroupRecord { header: RecordHeader::default(), id: 1, parent: 2, name: [b'a'; 256] }, &[]),
    ]
}

#[test]
fn good_records_decode_and_slack_behind_them_is_ignored() {
    for mut bytes in good() {
        decode(&bytes).unwrap();
        bytes.extend_from_slice(&[0xff; 24]);
        decode(&bytes).unwrap();
    }
}

#[test]
fn names_are_cut_where_their_lengths_say() {
    let bytes = bytes_of(&op(), &[b"abc", b"de"]);
    let Ok(Record::Operation(operation)) = decode(&bytes) else { panic!("no operation") };
    assert_eq!((operation.name1, operation.name2), (&b"abc"[..], &b"de"[..]));
}

#[test]
fn every_prefix_is_truncated() {
    for bytes in good() {
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]).map(|_| ()).unwrap_err().loss(), PipelineLoss::Truncated, "{len}");
        }
    }
}

#[test]
fn a_record_that_says_less_than_its_names_is_truncated_and_more_is_oversized() {
    for bytes in good() {
        let said = u32::try_from(bytes.len()).unwrap();
        for (len, loss) in [(said - 1, PipelineLoss::Truncated), (said + 1, PipelineLoss::Oversized)] {
            let mut wrong = bytes.clone();
            wrong.push(0);
            wrong[4..8].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(decode(&wrong).map(|_| ()).unwrap_err().loss(), loss);
        }
    }
}

#[test]
fn unknown_codes_are_named() {
    let detail = |code| RecordHeader { detail: code, ..RecordHeader::default() };
    let cases: [(Vec<u8>, DecodeError); 9] = [
        (bytes_of(&OpRecord { op: 0, ..OpRecord::default() }, &[]), DecodeError::Operation(0)),
        (bytes_of(&OpRecord { op: 999, ..OpRecord::default() }, &[]), DecodeError::Operation(999)),
        (bytes_of(&OpRecord { path1: 7, op: 1, ..OpRecord::default() }, &[]), DecodeError::PathState(7)),
        (bytes_of(&OpRecord { path2: 255, op: 1, ..OpRecord::default() }, &[]), DecodeError::PathState(255)),
        (bytes_of(&PathRecord { state: 1 << 16, ..PathRecord::default() }, &[]), DecodeError::PathState(1 << 16)),
        (bytes_of(&FileRecord { path: 7, ..FileRecord::default() }, &[]), DecodeError::PathState(7)),
        (bytes_of(&CloseRecord { header: detail(4), ..CloseRecord::default() }, &[]), DecodeError::CloseKind(4)),
        (bytes_of(&ProcessRecord { header: detail(0), ..ProcessRecord::default() }, &[]), DecodeError::ProcessEvent(0)),
        (RecordHeader { kind: 8, detail: 0, len: 8 }.as_bytes().to_vec(), DecodeError::Kind(8)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decode(&bytes).map(|_| ()).unwrap_err(), expected);
        assert_eq!(expected.loss(), PipelineLoss::UnknownCode);
    }
}

#[test]
fn every_field_may_be_at_its_maximum() {
    let longest = vec![b'x'; PATH_MAX];
    // The fields that are codes or lengths cannot be all ones; everything else is.
    let mut raw = OpRecord::read_from_bytes(&[0xff; size_of::<OpRecord>()]).unwrap();
    (raw.op, raw.path1, raw.path2) = (OpKind::IoUringEnter.code(), 6, 6);
    (raw.name1_len, raw.name2_len) = (4096, 4096);
    let bytes = bytes_of(&raw, &[&longest, &longest]);
    let Ok(Record::Operation(operation)) = decode(&bytes) else { panic!("no operation") };
    assert_eq!((operation.raw.start_ns, operation.raw.tgid, operation.raw.errno), (u64::MAX, u32::MAX, u16::MAX));
    assert_eq!(operation.raw.offset, -1);

    let mut raw = PathRecord::read_from_bytes(&[0xff; size_of::<PathRecord>()]).unwrap();
    (raw.state, raw.path_len) = (6, 4096);
    decode(&bytes_of(&raw, &[&longest])).unwrap();
    let mut raw = FileRecord::read_from_bytes(&[0xff; size_of::<FileRecord>()]).unwrap();
    raw.path = 6;
    decode(&bytes_of(&raw, &[])).unwrap();
    let mut raw = CloseRecord::read_from_bytes(&[0xff; size_of::<CloseRecord>()]).unwrap();
    raw.header.detail = 3;
    decode(&bytes_of(&raw, &[])).unwrap();
    let mut raw = ProcessRecord::read_from_bytes(&[0xff; size_of::<ProcessRecord>()]).unwrap();
    raw.header.detail = 3;
    decode(&bytes_of(&raw, &[])).unwrap();
}

#[test]
fn a_name_beyond_the_longest_path_is_oversized() {
    let name = vec![b'x'; PATH_MAX + 1];
    let raw = OpRecord { op: 1, name1_len: 4097, ..OpRecord::default() };
    let error = decode(&bytes_of(&raw, &[&name])).map(|_| ()).unwrap_err();
    assert_eq!((error, error.loss()), (DecodeError::NameTooLong(4097), PipelineLoss::Oversized));
    let raw = PathRecord { path_len: u32::MAX, ..PathRecord::default() };
    assert_eq!(decode(&bytes_of(&raw, &[])).map(|_| ()).unwrap_err().loss(), PipelineLoss::Oversized);
}

proptest! {
    #[test]
    fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(decode(&bytes));
    }

    #[test]
    fn noise_behind_a_plausible_header_never_panics(
        kind in 0u16..8,
        detail in 0u16..6,
        len in 0u32..400,
        rest in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut bytes = RecordHeader { kind, detail, len }.as_bytes().to_vec();
        bytes.extend_from_slice(&rest);
        drop(decode(&bytes));
    }
}
