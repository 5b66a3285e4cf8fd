//! How to read a system call as an operation on a file: one word per call, in a table that the agent makes for the
//! running architecture and the chosen operations (`fsi_agent::probe::syscalls`) and the kernel side looks up first.

use crate::op::OpKind;

/// Calls in the table; the numbers of x86_64 and aarch64 end well below.
pub const CALLS: usize = 512;

/// Stands where a call has no such argument.
pub const NO_ARGUMENT: u8 = 7;

/// Where the object of a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Shape {
    /// Not a call we look at.
    None = 0,
    /// A descriptor.
    Descriptor = 1,
    /// One or two paths, each relative to a directory.
    Path = 2,
    /// A path, and a descriptor as the result.
    Open = 3,
    /// Counted as what it is; its argument is no file.
    Count = 4,
    /// No operation, but its second argument's file may be closed by it (dup2, dup3).
    Replace = 5,
    /// No operation; only its side effects on what we know matter (mount, umount, ...).
    Watch = 6,
    /// An address in a mapping of a file.
    Mapping = 7,
}

impl Shape {
    #[inline(always)]
    const fn from_bits(bits: u64) -> Self {
        match bits {
            1 => Self::Descriptor,
            2 => Self::Path,
            3 => Self::Open,
            4 => Self::Count,
            5 => Self::Replace,
            6 => Self::Watch,
            7 => Self::Mapping,
            _ => Self::None,
        }
    }
}

/// One system call, packed: a zero word is a call that is none of our business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Call(pub u64);

const OP: u32 = 0;
const SHAPE: u32 = 8;
const DIR1: u32 = 12;
const PATH1: u32 = 15;
const DIR2: u32 = 18;
const PATH2: u32 = 21;
const AT_FLAGS: u32 = 24;
const BYTES: u32 = 27;
const ASKED: u32 = 29;
const ASKED_IOVEC: u32 = 32;
const OFFSET: u32 = 33;
const OFFSET_POSITION: u32 = 36;
const MOVES_PATHS: u32 = 37;
const OPEN_FLAGS: u32 = 38;
const NULL_IS_DESCRIPTOR: u32 = 41;
const OPEN_HOW: u32 = 42;

impl Call {
    /// Not looked at.
    pub const NONE: Self = Self(0);

    const fn new(op: u8, shape: Shape) -> Self {
        let none = NO_ARGUMENT as u64;
        let mut word = (op as u64) << OP | (shape as u64) << SHAPE;
        word |= none << DIR1 | none << PATH1 | none << DIR2 | none << PATH2;
        word |= none << AT_FLAGS | none << ASKED | none << OFFSET | none << OPEN_FLAGS;
        Self(word)
    }

    const fn with(self, at: u32, argument: u8) -> Self {
        Self(self.0 & !(7 << at) | (argument as u64) << at)
    }

    const fn flag(self, at: u32) -> Self {
        Self(self.0 | 1 << at)
    }

    const fn argument(self, at: u32) -> u8 {
        (self.0 >> at & 7) as u8
    }

    #[expect(clippy::cast_possible_truncation, reason = "the codes are below 256")]
    const fn code(op: OpKind) -> u8 {
        op.code() as u8
    }

    /// An operation on the descriptor in that argument.
    #[must_use]
    pub const fn descriptor(op: OpKind, argument: u8) -> Self {
        Self::new(Self::code(op), Shape::Descriptor).with(DIR1, argument)
    }

    /// An operation on the path in that argument, relative to the working directory.
    #[must_use]
    pub const fn path(op: OpKind, path: u8) -> Self {
        Self::new(Self::code(op), Shape::Path).with(PATH1, path)
    }

    /// An operation on the path in that argument, relative to the directory in another.
    #[must_use]
    pub const fn path_at(op: OpKind, dir: u8, path: u8) -> Self {
        Self::path(op, path).with(DIR1, dir)
    }

    /// A call that opens the path in that argument.
    #[must_use]
    pub const fn open(path: u8, open_flags: u8) -> Self {
        Self::new(Self::code(OpKind::Open), Shape::Open).with(PATH1, path).with(OPEN_FLAGS, open_flags)
    }

    /// The same, relative to the directory in an argument.
    #[must_use]
    pub const fn open_at(dir: u8, path: u8, open_flags: u8) -> Self {
        Self::open(path, open_flags).with(DIR1, dir)
    }

    /// An operation on the file that is mapped at the first argument.
    #[must_use]
    pub const fn mapping(op: OpKind) -> Self {
        Self::new(Self::code(op), Shape::Mapping)
    }

    /// The open flags stand first in a structure that the argument points to.
    #[must_use]
    pub const fn open_how(self) -> Self {
        self.flag(OPEN_HOW)
    }

    /// Bytes go from the first descriptor to that one.
    #[must_use]
    pub const fn to_descriptor(self, argument: u8) -> Self {
        self.with(DIR2, argument)
    }

    /// A call that is counted and whose object is no file.
    #[must_use]
    pub const fn count(op: OpKind) -> Self {
        Self::new(Self::code(op), Shape::Count)
    }

    /// A call that replaces the descriptor in that argument.
    #[must_use]
    pub const fn replace(argument: u8) -> Self {
        Self::new(0, Shape::Replace).with(DIR1, argument)
    }

    /// A call that is no operation but moves paths.
    #[must_use]
    pub const fn watch() -> Self {
        Self::new(0, Shape::Watch).flag(MOVES_PATHS)
    }

    /// With a second path relative to the working directory.
    #[must_use]
    pub const fn and_path(self, path: u8) -> Self {
        self.with(PATH2, path)
    }

    /// With a second path, relative to the directory in an argument.
    #[must_use]
    pub const fn and_path_at(self, dir: u8, path: u8) -> Self {
        self.with(DIR2, dir).with(PATH2, path)
    }

    /// `AT_EMPTY_PATH` in that argument makes it an operation on the descriptor.
    #[must_use]
    pub const fn at_flags(self, argument: u8) -> Self {
        self.with(AT_FLAGS, argument)
    }

    /// A null path makes it an operation on the descriptor.
    #[must_use]
    pub const fn null_is_descriptor(self) -> Self {
        self.flag(NULL_IS_DESCRIPTOR)
    }

    /// The result is a number of bytes read from the file.
    #[must_use]
    pub const fn reads(self) -> Self {
        Self(self.0 | (crate::aggregate::READ as u64 >> 1) << BYTES)
    }

    /// The result is a number of bytes written to the file.
    #[must_use]
    pub const fn writes(self) -> Self {
        Self(self.0 | (crate::aggregate::WRITTEN as u64 >> 1) << BYTES)
    }

    /// That argument says how many bytes are asked for.
    #[must_use]
    pub const fn asked(self, argument: u8) -> Self {
        self.with(ASKED, argument)
    }

    /// That argument is a count of iovecs, and the one before points to them.
    #[must_use]
    pub const fn asked_iovec(self, argument: u8) -> Self {
        self.with(ASKED, argument).flag(ASKED_IOVEC)
    }

    /// That argument is the offset.
    #[must_use]
    pub const fn offset(self, argument: u8) -> Self {
        self.with(OFFSET, argument)
    }

    /// The offset is the position of the open file.
    #[must_use]
    pub const fn at_position(self) -> Self {
        self.flag(OFFSET_POSITION)
    }

    /// When it succeeds, objects may have another path than before.
    #[must_use]
    pub const fn moves_paths(self) -> Self {
        self.flag(MOVES_PATHS)
    }

    /// Code of the operation, 0 for none.
    #[inline(always)]
    #[must_use]
    pub const fn op(self) -> u16 {
        (self.0 >> OP & 0xff) as u16
    }

    /// Where the object stands.
    #[inline(always)]
    #[must_use]
    pub const fn shape(self) -> Shape {
        Shape::from_bits(self.0 >> SHAPE & 0xf)
    }

    /// Argument of the descriptor, or of the first path's directory.
    #[inline(always)]
    #[must_use]
    pub const fn dir1(self) -> u8 {
        self.argument(DIR1)
    }

    /// Argument of the first path.
    #[inline(always)]
    #[must_use]
    pub const fn path1(self) -> u8 {
        self.argument(PATH1)
    }

    /// Argument of the second path's directory.
    #[inline(always)]
    #[must_use]
    pub const fn dir2(self) -> u8 {
        self.argument(DIR2)
    }

    /// Argument of the second path.
    #[inline(always)]
    #[must_use]
    pub const fn path2(self) -> u8 {
        self.argument(PATH2)
    }

    /// Argument with the `AT_*` flags.
    #[inline(always)]
    #[must_use]
    pub const fn at_flags_argument(self) -> u8 {
        self.argument(AT_FLAGS)
    }

    /// Argument with the open flags.
    #[inline(always)]
    #[must_use]
    pub const fn open_flags_argument(self) -> u8 {
        self.argument(OPEN_FLAGS)
    }

    /// Argument with the bytes asked for.
    #[inline(always)]
    #[must_use]
    pub const fn asked_argument(self) -> u8 {
        self.argument(ASKED)
    }

    /// Argument with the offset.
    #[inline(always)]
    #[must_use]
    pub const fn offset_argument(self) -> u8 {
        self.argument(OFFSET)
    }

    /// [`crate::aggregate::READ`] and [`crate::aggregate::WRITTEN`] of the result.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "two bits")]
    pub const fn direction(self) -> u16 {
        ((self.0 >> BYTES & 3) << 1) as u16
    }

    /// Whether the bytes asked for are spread over iovecs.
    #[inline(always)]
    #[must_use]
    pub const fn is_iovec(self) -> bool {
        self.0 >> ASKED_IOVEC & 1 != 0
    }

    /// Whether the offset is the file's position.
    #[inline(always)]
    #[must_use]
    pub const fn is_at_position(self) -> bool {
        self.0 >> OFFSET_POSITION & 1 != 0
    }

    /// Whether its success can give objects another path.
    #[inline(always)]
    #[must_use]
    pub const fn does_move_paths(self) -> bool {
        self.0 >> MOVES_PATHS & 1 != 0
    }

    /// Whether the open flags stand in a structure.
    #[inline(always)]
    #[must_use]
    pub const fn is_open_how(self) -> bool {
        self.0 >> OPEN_HOW & 1 != 0
    }

    /// Whether a null path stands for the descriptor.
    #[inline(always)]
    #[must_use]
    pub const fn is_null_descriptor(self) -> bool {
        self.0 >> NULL_IS_DESCRIPTOR & 1 != 0
    }
}
