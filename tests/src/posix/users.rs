//! Who may do what, and what an operation leaves of setuid, setgid and capabilities: by the programs that people use, as root
//! and as nobody.

use std::path::Path;
use std::process::Command;

use super::Seen;
use crate::fsi::{output, text};

/// Each kind of file, by each operation, by each user; what is left of its mode, owner, capabilities and content.
const TABLE: &str = r#"
as_root() { "$@"; }
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
as_group() { setpriv --reuid=65534 --regid=65534 --groups=60 "$@"; }
chmod 777 .
for user in root nobody group; do
  for kind in 4777 2777 6777 2767 6766 4766 0777; do
    for owner in 0:0 65534:60; do
      for operation in append overwrite truncate same-size empty own group mode allocate touch rename; do
        cp /bin/true f; chown $owner f; chmod $kind f
        [ $kind != 0777 ] || setcap cap_net_raw+ep f
        case $operation in
          append) as_$user sh -c 'echo x >> f' ;;
          overwrite) as_$user dd if=/dev/zero of=f bs=10 count=1 conv=notrunc ;;
          truncate) as_$user truncate --size=5 f ;;
          same-size) as_$user truncate --size=+0 f ;;
          empty) as_$user sh -c ': > f' ;;
          own) as_$user chown 65534 f ;;
          group) as_$user chgrp 60 f ;;
          mode) as_$user chmod g+s,o-r f ;;
          allocate) as_$user fallocate --length 100000 f ;;
          touch) as_$user touch f ;;
          rename) as_$user mv f g ; mv g f ;;
        esac >/dev/null 2>&1
        echo "$user $operation $kind $owner: $? $(stat --format='%a %u:%g %s' f) $(getcap f)"
        rm -f f g
      done
    done
  done
done
"#;

/// What new files inherit: the group and setgid of a directory, the umask, access lists.
const INHERITED: &str = r#"
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
show() { echo "$1: $(stat --format='%A %a %u:%g' "$2")"; }
for mode in 0777 2777 3777; do
  mkdir d; chown 0:60 d; chmod $mode d
  for mask in 0 022 077 0777; do
    (umask $mask; as_nobody sh -c 'mkdir d/dir; : > d/file; mkfifo d/fifo; ln -s x d/link') 2>/dev/null
    for name in dir file fifo link; do show "$mode umask $mask $name" d/$name; done
    rm -rf d/*
  done
  as_nobody sh -c ': > d/s; chmod 2755 d/s'; show "$mode setgid of a group that is not ours" d/s
  : > d/roots; as_nobody rm -f d/roots 2>/dev/null; echo "$mode remove root's: $?"
  as_nobody mv d/roots d/moved 2>/dev/null; echo "$mode rename root's: $?"
  rm -rf d
done
mkdir a; chmod 755 a; setfacl -m u:65534:rwx,d:u:65534:rw,d:g::r,d:o::-,d:m::rw a
umask 022; : > a/file; mkdir a/dir
for name in a a/file a/dir; do echo "acl $name: $(getfacl --numeric --omit-header $name | tr '\n' ' ') $(stat --format=%a $name)"; done
as_nobody sh -c 'echo x > a/file'; echo "write by list: $?"
as_nobody sh -c ': > a/new' ; echo "make by list: $?"; show "made" a/new
chmod 700 a/file; echo "acl after chmod: $(getfacl --numeric --omit-header a/file | tr '\n' ' ')"
setfacl -m u:65534:- a/file; as_nobody cat a/file 2>/dev/null; echo "read against the list: $?"
setfacl -b a/file; echo "acl removed: $(getfacl --numeric --omit-header a/file | tr '\n' ' ')"
cp --preserve=all a/dir/. a/copy -r; echo "copied: $(getfacl --numeric --omit-header a/copy | tr '\n' ' ')"
for mode in 000 100 200 400 500 600 700; do
  mkdir p; : > p/f; chown -R 65534 p; chmod $mode p
  as_nobody ls p >/dev/null 2>&1; list=$?; as_nobody cat p/f 2>/dev/null; read=$?; as_nobody sh -c ': > p/g' 2>/dev/null
  echo "directory $mode: list $list read $read make $?"
  rm -rf p
done
: > flags; chattr +aA flags; echo "flags: $? $(lsattr flags | cut -d' ' -f1)"
(echo x > flags) 2>/dev/null; echo "write over append-only: $?"; echo x >> flags; echo "append to it: $?"
chattr -aA flags; as_nobody chattr +A flags 2>/dev/null; echo "flags by nobody: $? $(lsattr flags | cut -d' ' -f1)"
cp /bin/true x; chmod 644 x; ./x 2>/dev/null; echo "execute 644: $?"; chmod 711 x; as_nobody ./x; echo "execute 711: $?"
as_nobody cat x 2>/dev/null; echo "read 711: $?"
"#;

pub(super) fn see(directory: &Path, seen: &mut Seen) {
    for (name, script) in [("table", TABLE), ("inherited", INHERITED)] {
        let own = directory.join(name);
        std::fs::create_dir(&own).expect("a directory");
        let output = output(Command::new("sh").args(["-uc", script]).current_dir(&own).env("LC_ALL", "C"));
        for line in text(&output.stdout).lines() {
            let (case, what) = line.split_once(": ").unwrap_or((line, ""));
            seen.saw(case, what);
        }
        seen.saw(&format!("all of the {name}"), (output.status.code(), text(&output.stderr)));
    }
}
