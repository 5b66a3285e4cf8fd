//! Directories: open, read, close. Positions are those of the backing file system, so a successor goes on where its predecessor was.

use std::mem::MaybeUninit;
use std::sync::Arc;

use rustix::fs::{OFlags, RawDir, SeekFrom};
use rustix::io::Errno;

use super::names::Entry;
use super::open::Opened;
use super::{Ask, Call, Interposer, On, Outcome};
use crate::fuse::open_files::{Kind, reopen};
use crate::rules::op::Op;

/// One name in a directory.
#[derive(Debug)]
pub struct DirectoryEntry {
    pub ino: u64,
    /// Where to go on after it.
    pub next: u64,
    /// `d_type`
    pub kind: rustix::fs::FileType,
    pub name: Vec<u8>,
}

impl Outcome for Vec<DirectoryEntry> {}

/// Names read at a time; more than a request of the kernel takes.
const BUFFER: usize = 32 << 10;

impl Interposer {
    pub fn opendir<A>(self: &Arc<Self>, call: Call, number: u64, flags: OFlags, answer: A)
    where
        A: FnOnce(Result<Opened, Errno>) + Send + 'static,
    {
        self.run(
            call,
            &Ask::new(Op::Opendir, On::Node(number)),
            |way| {
                self.close_unanswered(way);
                let node = self.nodes.get(number)?;
                let flags = flags | OFlags::DIRECTORY;
                let file = reopen(&self.nodes, &node, flags)?;
                let mut io = node.io();
                self.hold_nameless(&node, &io)?;
                let note = |handle| way.under.opens(handle);
                let open = self.open_files.add(number, flags, Kind::Directory, Some(file), note);
                let open = open.inspect_err(|_error| self.let_go(&node, &io))?;
                open.kind.opened(&mut io);
                drop(io);
                Ok(Opened { handle: open.handle, backing: None, direct: false, wants_flush: false })
            },
            answer,
        );
    }

    /// The names from a position on, as many as one read of the backing directory gives. `.` and `..` are among them.
    pub fn readdir<A>(self: &Arc<Self>, call: Call, number: u64, handle: u64, position: u64, answer: A)
    where
        A: FnOnce(Result<Vec<DirectoryEntry>, Errno>) + Send + 'static,
    {
        self.run(
            call,
            &Ask::new(Op::Readdir, On::Node(number)),
            |_way| {
                let open = self.open_files.get(handle)?;
                let file = open.file(&self.nodes)?;
                rustix::fs::seek(file, SeekFrom::Start(position))?;
                let mut buffer = [MaybeUninit::uninit(); BUFFER];
                let mut directory = RawDir::new(file, &mut buffer);
                let mut entries = Vec::new();
                while let Some(entry) = directory.next() {
                    let entry = entry?;
                    entries.push(DirectoryEntry {
                        ino: entry.ino(),
                        next: entry.next_entry_cookie(),
                        kind: entry.file_type(),
                        name: entry.file_name().to_bytes().to_vec(),
                    });
                    if directory.is_buffer_empty() {
                        break;
                    }
                }
                Ok(entries)
            },
            answer,
        );
    }

    /// The attributes of a name that readdir gave, for an answer with both; counts a lookup. No rule is asked: the name was not.
    /// Where one wants to see lookups, the kernel keeps nothing and asks when the name is.
    pub fn entry_of(&self, parent: u64, name: &[u8]) -> Result<Entry, Errno> {
        let directory = self.nodes.get(parent)?;
        let (node, stat) = self.nodes.look_up(&directory, name)?;
        Ok(Entry { number: node.number, generation: self.generation(&node), stat, ttl: self.ttl_of(&node) })
    }
}
