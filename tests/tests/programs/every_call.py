"""Every system call that is an operation on files, in each of its forms, succeeding and failing; and beside each what is none."""
import ctypes, fcntl, mmap, os, signal, socket, stat, struct, threading

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, EMPTY, BAD = -100, 0x1000, 999
buffer = ctypes.create_string_buffer(4096)


def call(number, *arguments):
    kinds = [a if isinstance(a, (bytes, ctypes.Array)) or a is None else ctypes.c_long(a) for a in arguments]
    return libc.syscall(ctypes.c_long(number), *kinds)


def iovecs(*lengths):
    array = ctypes.create_string_buffer(b"".join(struct.pack("QQ", ctypes.addressof(buffer), n) for n in lengths))
    return array, len(lengths)


# Opening and closing, each way.
f = call(2, b"f", os.O_CREAT | os.O_RDWR, 0o644)
call(85, b"creat", 0o600)
call(437, AT_FDCWD, b"f", struct.pack("QQQ", os.O_RDONLY, 0, 0), 24)
call(437, AT_FDCWD, b"f", struct.pack("QQQ", 1 << 60, 0, 0), 24)
call(257, BAD, b"relative", 0)
call(257, BAD, b"/etc/passwd", 0)
call(257, AT_FDCWD, b".", os.O_TMPFILE | os.O_RDWR, 0o600)
call(257, AT_FDCWD, b".", 0o10000000)
call(304, AT_FDCWD, buffer, 0)
call(2, None, 0)
call(3, BAD)
d = os.open(".", os.O_RDONLY)
r, w = os.pipe()
# A device of its own: what is done to it as root stays done.
os.mknod("null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
n = os.open("null", os.O_RDWR)
m = call(319, b"memory", 0)
h = call(319, b"huge", 4)
secret = call(447, 0)
inotify = call(294, 0)
pid = call(434, os.getpid(), 0)
ns = os.open("/proc/self/ns/mnt", os.O_RDONLY)
s, t = socket.socketpair()
others = [r, w, n, m, h, secret, inotify, pid, ns, s.fileno(), BAD, -1]

# Reading and writing, plain, vectored and placed; the others do not count.
vector, count = iovecs(10, 20, 30)
for fd in [f, w, n, m, BAD]:
    call(1, fd, b"0123456789" * 10, 100)
    call(18, fd, b"0123456789" * 10, 50, 200)
    call(20, fd, vector, count)
    call(296, fd, vector, count, 500, 0)
    call(328, fd, vector, count, 600, 0, 0)
    call(328, fd, vector, count, -1, -1, 0)
for fd in [f, r, n, m, BAD, d]:
    call(17, fd, buffer, 100, 0)
    call(295, fd, vector, count, 10, 0)
    call(327, fd, vector, count, 20, 0, 0)
    call(8, fd, 0, 0)
    call(0, fd, buffer, 7)
    call(19, fd, vector, count)
call(0, f, None, 10)
call(17, f, buffer, 10, -5)

# Between descriptors.
g = os.open("g", os.O_CREAT | os.O_RDWR)
call(8, f, 0, 0)
for to in [g, w, n, s.fileno(), BAD]:
    call(40, to, f, None, 5)
call(40, w, n, None, 5)
call(326, f, None, g, None, 9, 0)
call(326, f, None, w, None, 9, 0)
call(275, f, None, w, None, 6, 0)
call(275, r, None, g, None, 6, 0)
call(275, r, None, n, None, 6, 0)
call(275, f, None, g, None, 6, 0)

# What one asks of a descriptor.
for fd in [f, d, *others]:
    call(5, fd, buffer)
    call(262, fd, b"", buffer, EMPTY)
    call(262, fd, b"", buffer, 0)
    call(332, fd, b"", EMPTY, 0x7FF, buffer)
    call(332, fd, b"f", 0, 0x7FF, buffer)
    call(439, fd, b"", 4, EMPTY)
    call(138, fd, buffer)
    call(74, fd)
    call(75, fd)
    call(277, fd, 0, 0, 0)
    call(306, fd)
    call(77, fd, 100)
    call(285, fd, 0, 0, 200)
    call(217, fd, buffer, 4096)
    call(78, fd, buffer, 4096)
    call(91, fd, 0o600)
    call(93, fd, -1, -1)
    call(260, fd, b"", -1, -1, EMPTY)
    call(280, fd, None, None, 0)
    call(196, fd, buffer, 100)
    call(193, fd, b"user.x", buffer, 100)
    call(190, fd, b"user.x", b"v", 1, 0)
    call(199, fd, b"user.x")
    call(73, fd, 1 | 4)
    call(73, fd, 8)
    call(16, fd, 0x541B, buffer)
    call(16, fd, 0x80086601, buffer)
    call(72, fd, 1)
    call(72, fd, 3)
    call(72, fd, 1033 + 1)
    call(72, fd, 6, struct.pack("hhqqi", 1, 0, 0, 0, 0))
    call(72, fd, 5, struct.pack("hhqqi", 1, 0, 0, 0, 0))
    call(72, fd, 37, struct.pack("hhqqi", 2, 0, 0, 0, 0))
    call(9, 0, 4096, 1, 2, fd, 0)
    call(9, 0, 4096, 1, 2 | 0x20, fd, 0)

# What one asks of a path.
for path in [b"f", b"none", b"f/x", b"p" * 300, b"", None, b"null", b"/proc/self/status"]:
    for number, *rest in [(4, buffer), (6, buffer), (21, 4), (137, buffer), (89, buffer, 10), (80,), (90, 0o644), (92, -1, -1), (94, -1, -1)]:
        call(number, path, *rest)
    os.chdir("/proc/self/fd/%d" % d)
    call(191, path, b"user.x", buffer, 10)
    call(192, path, b"user.x", buffer, 10)
    call(194, path, buffer, 10)
    call(195, path, buffer, 10)
    call(197, path, b"user.x")
    call(198, path, b"user.x")
    call(188, path, b"user.x", b"v", 1, 0)
    call(189, path, b"user.x", b"v", 1, 0)
    call(132, path, None)
    call(235, path, None)
    call(261, d, path, None)
    call(267, d, path, buffer, 10)
    call(269, d, path, 4)
    call(268, d, path, 0o644)
    call(76, path, -1)
    call(280, d, path, None, 0)
    call(262, AT_FDCWD, path, buffer, EMPTY)

# Names made, moved and removed.
call(83, b"dir", 0o755)
call(258, d, b"dir", 0o755)
call(133, b"fifo", 0o10644, 0)
call(259, d, b"node", 0o20644, 0x103)
call(86, b"f", b"hard")
call(265, f, b"", d, b"hard2", EMPTY)
call(265, w, b"", d, b"hard3", EMPTY)
call(265, d, b"f", d, b"hard4", 0)
call(88, b"to", b"soft")
call(266, b"to", d, b"soft2")
call(82, b"hard", b"moved")
call(264, d, b"moved", d, b"dir/moved")
call(316, d, b"g", d, b"f", 2)
call(316, d, b"g", d, b"f", 1)
call(84, b"dir")
call(263, d, b"dir/moved", 0)
call(263, d, b"dir", 0)
call(263, d, b"dir", 0x200)
call(87, b"soft")
call(87, b"none")
call(81, d)
call(81, f)

# Descriptors that come and go without an operation.
x = os.dup(f)
call(33, g, x)
call(292, d, x, 0)
call(436, x, x, 0)

# A lock that a signal interrupts, with and without restart.
holder = os.open("f", os.O_RDWR)
fcntl.flock(holder, fcntl.LOCK_EX)
signal.signal(signal.SIGALRM, lambda *_: fcntl.flock(holder, fcntl.LOCK_UN))
for restarts in [True, False]:
    fcntl.flock(holder, fcntl.LOCK_EX)
    signal.siginterrupt(signal.SIGALRM, not restarts)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    call(73, f, 2)
    call(73, f, 8)

# A process that becomes another from a thread that is not its first.
threading.Thread(target=lambda: os.execv("/bin/cat", ["cat", "f", "none"])).start()
signal.pause()
