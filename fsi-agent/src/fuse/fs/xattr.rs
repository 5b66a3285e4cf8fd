//! Extended attributes, POSIX ACLs among them.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{Ask, Call, Interposer, On};
use crate::fuse::open_files::object_path;
use crate::rules::op::Op;

/// As large as a value or a list may be.
const MAX_BYTES: usize = 65_536;
const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

impl Interposer {
    pub fn getxattr<A>(self: &Arc<Self>, call: Call, number: u64, name: &[u8], answer: A)
    where
        A: FnOnce(Result<Vec<u8>, Errno>) + Send + 'static,
    {
        self.run(
            call,
            &Ask::new(Op::Getxattr, On::Node(number)),
            |_way| {
                let mut value = vec![0; MAX_BYTES];
                let length = self.on_object(number, |path| rustix::fs::getxattr(path, name, &mut value[..]))?;
                value.truncate(length);
                Ok(value)
            },
            answer,
        );
    }

    pub fn listxattr<A>(self: &Arc<Self>, call: Call, number: u64, answer: A)
    where
        A: FnOnce(Result<Vec<u8>, Errno>) + Send + 'static,
    {
        self.run(
            call,
            &Ask::new(Op::Listxattr, On::Node(number)),
            |_way| {
                let mut names = vec![0; MAX_BYTES];
                let length = self.on_object(number, |path| rustix::fs::listxattr(path, &mut names[..]))?;
                names.truncate(length);
                Ok(names)
            },
            answer,
        );
    }

    pub fn setxattr<A>(self: &Arc<Self>, call: Call, number: u64, name: &[u8], value: &[u8], flags: u32, answer: A)
    where
        A: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        self.run(
            call,
            &Ask::new(Op::Setxattr, On::Node(number)),
            |way| {
                let node = self.nodes.get(number)?;
                let file = self.nodes.file(&node)?;
                let path = object_path(file.as_fd());
                let flags = XattrFlags::from_bits_retain(flags);
                let before = flags.contains(XattrFlags::CREATE).then(|| way.under.before(|| (there(&path, name), 0)));
                let set = || rustix::fs::setxattr(&path, name, value, flags);
                // An access list sets the mode, and with it takes the setgid bit from whoever chmod would take it from.
                match if name == ACCESS_LIST { self.for_caller(call, &node, set) } else { set() } {
                    // The server that was killed had set it.
                    Err(Errno::EXIST) if before.is_some_and(|before| before.begun && before.name == 0) => Ok(()),
                    done => done,
                }
            },
            answer,
        );
    }

    pub fn removexattr<A>(self: &Arc<Self>, call: Call, number: u64, name: &[u8], answer: A)
    where
        A: FnOnce(Result<(), Errno>) + Send + 'static,
    {
        self.run(
            call,
            &Ask::new(Op::Removexattr, On::Node(number)),
            |way| {
                self.on_object(number, |path| {
                    let before = way.under.before(|| (there(path, name), 0));
                    match rustix::fs::removexattr(path, name) {
                        Err(Errno::NODATA) if before.begun && before.name != 0 => Ok(()),
                        removed => removed,
                    }
                })
            },
            answer,
        );
    }

    /// Calls with a path that leads to the object.
    fn on_object<T>(&self, number: u64, call: impl FnOnce(&str) -> Result<T, Errno>) -> Result<T, Errno> {
        let node = self.nodes.get(number)?;
        let file = self.nodes.file(&node)?;
        call(&object_path(file.as_fd()))
    }
}

/// 1 where the object has that attribute, 0 where not.
fn there(path: &str, name: &[u8]) -> u64 {
    u64::from(rustix::fs::getxattr(path, name, &mut [0_u8; 0][..]).is_ok())
}
