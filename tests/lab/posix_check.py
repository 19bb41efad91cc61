#!/usr/bin/env python3
"""What a home directory on NFS has to do, checked as the calling user: posix_check.py DIRECTORY.

Works in a new directory inside DIRECTORY and removes it. Prints a line for each check; exit status 0 when all passed.
Runs inside the lab's machines, so it needs Python's own library only.
"""

# The system calls themselves are what is checked here, so they are called as such and not through pathlib.
# ruff: noqa: PTH101, PTH102, PTH103, PTH104, PTH106, PTH108, PTH110, PTH112, PTH115, PTH116, PTH118, PTH121, PTH123
# ruff: noqa: PTH208, PTH211, PT017, PT018, SIM115

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

checks: list[Callable[[], str | None]] = []


def check(function: Callable[[], str | None]) -> Callable[[], str | None]:
    """Register a check: it raises when it fails, and may return a word to print instead of "ok"."""
    checks.append(function)
    return function


def write(path: str, data: bytes = b"x", mode: str = "wb") -> None:
    """Write the data to the file."""
    with open(path, mode) as f:
        f.write(data)


def read(path: str) -> bytes:
    """Return what the file holds."""
    with open(path, "rb") as f:
        return f.read()


def raises(error: int, function: Callable[..., object], *arguments: object) -> None:
    """Assert that the call fails with this errno."""
    try:
        function(*arguments)
    except OSError as e:
        assert e.errno == error, (errno.errorcode[e.errno or 0], "wanted", errno.errorcode[error])
        return
    raise AssertionError("no error, wanted " + errno.errorcode[error])


@check
def create_modes() -> None:
    old = os.umask(0o027)
    write("a")
    os.mkdir("d", 0o777)
    os.umask(old)
    assert os.stat("a").st_mode & 0o7777 == 0o640 and os.stat("d").st_mode & 0o7777 == 0o750
    s = os.stat("a")
    assert (s.st_uid, s.st_gid) == (os.getuid(), os.getgid()), s


@check
def excl() -> None:
    os.close(os.open("ex", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    raises(errno.EEXIST, os.open, "ex", os.O_CREAT | os.O_EXCL)


@check
def write_to_0444_new_file() -> None:  # git objects
    fd = os.open("ro", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o444)
    os.write(fd, b"data")
    os.fsync(fd)
    os.ftruncate(fd, 2)
    os.close(fd)
    assert read("ro") == b"da"
    if os.getuid():
        raises(errno.EACCES, open, "ro", "wb")


@check
def append() -> None:
    for i in range(50):
        write("ap", b"%03d\n" % i, "ab")
    assert read("ap") == b"".join(b"%03d\n" % i for i in range(50))
    a, b = open("ap2", "ab", 0), open("ap2", "ab", 0)
    for _ in range(20):
        a.write(b"a")
        b.write(b"b")
    assert read("ap2") == b"ab" * 20
    with open("ap2", "a+b") as f:
        f.write(b"END")
        f.seek(0)
        assert f.read() == b"ab" * 20 + b"END"


@check
def truncate() -> None:
    write("tr", b"0123456789")
    os.truncate("tr", 4)
    assert read("tr") == b"0123"
    os.truncate("tr", 8)
    assert read("tr") == b"0123\0\0\0\0"
    write("tr", b"z")
    assert read("tr") == b"z"


@check
def sparse_pw() -> None:
    fd = os.open("sp", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"end", 5 << 20)
    assert os.fstat(fd).st_size == (5 << 20) + 3 and os.pread(fd, 4, 1000) == b"\0" * 4
    os.close(fd)


@check
def rename_replace() -> None:
    write("r1", b"1")
    write("r2", b"2")
    os.rename("r1", "r2")
    assert read("r2") == b"1"
    raises(errno.ENOENT, os.stat, "r1")
    os.mkdir("rd1")
    write("rd1/x")
    os.mkdir("rd2")
    os.rename("rd1", "rd2")
    assert os.listdir("rd2") == ["x"]
    os.mkdir("rd3")
    write("rd3/y")
    raises(errno.ENOTEMPTY, os.rename, "rd2", "rd3")


@check
def unlink_open() -> None:
    f = open("uo", "w+b")
    f.write(b"keep")
    f.flush()
    os.unlink("uo")
    raises(errno.ENOENT, os.stat, "uo")
    f.seek(0)
    assert f.read() == b"keep"
    f.write(b"more")
    f.flush()
    assert [n for n in os.listdir(".") if n.startswith(".nfs")]
    f.close()
    for _ in range(20):  # release is asynchronous
        if not [n for n in os.listdir(".") if n.startswith(".nfs")]:
            return
        time.sleep(0.1)
    raise AssertionError("silly file left")


@check
def rename_over_open() -> None:
    write("ro1", b"old")
    f = open("ro1", "rb")
    write("ro2", b"new")
    os.rename("ro2", "ro1")
    assert f.read() == b"old" and read("ro1") == b"new"
    f.close()


@check
def tempfiles() -> None:
    with tempfile.TemporaryFile(dir=".") as f:
        f.write(b"q" * 100000)
        f.seek(0)
        assert len(f.read()) == 100000


@check
def links() -> None:
    write("l1", b"L")
    os.link("l1", "l2")
    assert os.stat("l1").st_nlink == 2 and os.path.samefile("l1", "l2")
    os.unlink("l1")
    assert read("l2") == b"L" and os.stat("l2").st_nlink == 1
    os.symlink("l2", "s")
    assert os.readlink("s") == "l2" and read("s") == b"L"
    os.symlink("no" * 200, "dang")
    assert os.readlink("dang") == "no" * 200 and os.lstat("dang").st_size == 400


@check
def chmod_times() -> None:
    write("c")
    os.chmod("c", 0o751)
    assert os.stat("c").st_mode & 0o7777 == 0o751
    os.utime("c", ns=(10**18 + 7, 10**18 + 123456789))
    s = os.stat("c")
    assert s.st_mtime_ns == 10**18 + 123456789 and s.st_atime_ns == 10**18 + 7, s
    os.utime("c")
    assert abs(os.stat("c").st_mtime - time.time()) < 5
    os.mkdir("sg")
    os.chmod("sg", 0o2775)
    assert os.stat("sg").st_mode & 0o7777 == 0o2775
    os.chmod("c", 0o000)
    if os.getuid():
        raises(errno.EACCES, open, "c")
    os.chmod("c", 0o600)


@check
def chown() -> None:
    write("co")
    others = [g for g in os.getgroups() if g != os.getgid()]
    if os.getuid():
        raises(errno.EPERM, os.chown, "co", 4242, -1)
        for g in others:
            os.chown("co", -1, g)
            assert os.stat("co").st_gid == g
    else:
        os.chown("co", 1000, 100)
        s = os.stat("co")
        assert (s.st_uid, s.st_gid) == (1000, 100)


@check
def supplementary_group() -> str | None:
    others = [g for g in os.getgroups() if g != os.getgid()]
    if not os.getuid() or not others:
        return "skipped"
    d = os.path.join(sys.argv[1], "..", f"grp{others[0]}")
    if not os.path.isdir(d):
        return "skipped"
    p = os.path.join(d, f"f{os.getpid()}")
    write(p)
    os.unlink(p)
    return None


@check
def dirs() -> None:
    os.makedirs("x/y/z")
    raises(errno.ENOTEMPTY, os.rmdir, "x/y")
    raises(errno.EEXIST, os.mkdir, "x")
    os.removedirs("x/y/z")
    raises(errno.ENOTDIR, os.listdir, "c")
    raises(errno.ENOENT, os.rmdir, "nope")


@check
def names() -> None:
    for n in ("with space", "ünïcode-文件", "a" * 255, "new\nline", "-dash"):
        write(n)
        assert n in os.listdir(".")
        os.unlink(n)
    raises(errno.ENAMETOOLONG, write, "b" * 256)


@check
def big_dir() -> None:
    os.mkdir("bd")
    n = 3000
    for i in range(n):
        os.close(os.open(f"bd/f{i:05d}", os.O_CREAT | os.O_WRONLY))
    assert sorted(os.listdir("bd")) == [f"f{i:05d}" for i in range(n)]
    assert sum(e.stat().st_size == 0 for e in os.scandir("bd")) == n
    for e in os.scandir("bd"):
        os.unlink(e.path)  # delete while reading
    os.rmdir("bd")


@check
def flock_and_fcntl() -> None:
    f, g = open("lk", "w"), open("lk", "w")
    fcntl.flock(f, fcntl.LOCK_EX)
    raises(errno.EWOULDBLOCK, fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(f, fcntl.LOCK_UN)
    fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(g, fcntl.LOCK_UN)
    fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
    code = (
        "import fcntl,sys\n"
        "try: fcntl.lockf(open('lk','r+'),fcntl.LOCK_EX|fcntl.LOCK_NB,10,%s)\n"
        "except OSError: sys.exit(9)"
    )
    assert (
        subprocess.call([sys.executable, "-c", code % 10]) == 9
        and subprocess.call([sys.executable, "-c", code % 50]) == 0
    )
    fcntl.lockf(f, fcntl.LOCK_UN, 10, 5)
    assert subprocess.call([sys.executable, "-c", code % 10]) == 0


@check
def mmap_shared() -> None:
    write("mm", b"\0" * 65536)
    with open("mm", "r+b") as f:
        m = mmap.mmap(f.fileno(), 0)
        m[100:105] = b"hello"
        m[65000:65003] = b"end"
        m.flush()
        m.close()
    d = read("mm")
    assert d[100:105] == b"hello" and d[65000:65003] == b"end"


@check
def sqlite() -> None:
    for mode in ("delete", "truncate", "persist", "wal"):
        db = sqlite3.connect(f"s-{mode}.db")
        db.execute("pragma journal_mode=" + mode)
        db.execute("create table t(a integer primary key, b text)")
        for i in range(30):
            with db:
                db.execute("insert into t(b) values(?)", ("x" * i,))
        assert db.execute("select count(*) from t").fetchone() == (30,)
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        db.close()


@check
def sqlite_two_writers() -> None:
    sqlite3.connect("s2.db").execute("create table t(a)").connection.commit()
    code = (
        "import sqlite3\n"
        "db=sqlite3.connect('s2.db',timeout=30)\n"
        "for i in range(40):\n"
        " with db: db.execute('insert into t values(1)')"
    )
    ps = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [p.wait() for p in ps] == [0, 0, 0]
    assert sqlite3.connect("s2.db").execute("select count(*) from t").fetchone() == (120,)


@check
def random_io() -> None:
    rnd, size = random.Random(7), 3_000_000
    ref = bytearray(size)
    write("rio", bytes(ref))
    with open("rio", "r+b", 0) as f:
        for _ in range(400):
            off, n = rnd.randrange(size - 1), rnd.choice((1, 100, 4096, 5000, 70000, 1500000))
            n = min(n, size - off)
            if rnd.random() < 0.5:
                d = rnd.randbytes(n)
                f.seek(off)
                assert f.write(d) == n
                ref[off : off + n] = d
            else:
                f.seek(off)
                assert f.read(n) == bytes(ref[off : off + n])
    assert read("rio") == bytes(ref)


@check
def threads() -> None:
    errs = []

    def one(k: int) -> None:
        try:
            for i in range(60):
                p = f"th{k}-{i}"
                write(p, b"%d" % i * 100)
                assert read(p) == b"%d" % i * 100
                os.rename(p, p + "r")
                os.unlink(p + "r")
        except Exception as e:
            errs.append(e)

    ts = [threading.Thread(target=one, args=(k,)) for k in range(12)]
    for thread in ts:
        thread.start()
    for thread in ts:
        thread.join()
    assert not errs, errs


@check
def statfs_fifo_socket() -> None:
    s = os.statvfs(".")
    assert s.f_blocks > 0 and s.f_namemax == 255
    os.mkfifo("ff")
    assert stat.S_ISFIFO(os.stat("ff").st_mode)
    u = socket.socket(socket.AF_UNIX)
    u.bind("sk")
    u.listen()
    c = socket.socket(socket.AF_UNIX)
    c.connect("sk")
    assert stat.S_ISSOCK(os.stat("sk").st_mode)


@check
def exec_and_copy() -> None:
    write("sh", b"#!/bin/sh\necho ran\n")
    os.chmod("sh", 0o755)
    assert subprocess.check_output(["./sh"]) == b"ran\n"
    subprocess.check_call(["cp", "-p", "/bin/ls", "ls2"])
    assert subprocess.call(["./ls2", "sh"], stdout=subprocess.DEVNULL) == 0
    subprocess.check_call(["cp", "--reflink=auto", "--sparse=always", "ls2", "ls3"])
    assert read("ls3") == read("/bin/ls")
    subprocess.check_call("tar cf - ls2 sh s | (mkdir tx && tar xf - -C tx) && diff -r ls2 tx/ls2", shell=True)


@check
def odirect_fallocate() -> None:
    fd = os.open("od", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    m = mmap.mmap(-1, 8192)
    m[:] = b"D" * 8192
    assert os.write(fd, m) == 8192
    os.close(fd)
    assert read("od") == b"D" * 8192
    fd = os.open("fa", os.O_CREAT | os.O_RDWR)
    os.posix_fallocate(fd, 0, 100000)
    assert os.fstat(fd).st_size == 100000
    os.close(fd)


@check
def xattr_acl_refused() -> None:
    write("xa")
    try:
        os.setxattr("xa", "user.a", b"1")
    except OSError as e:
        assert e.errno in (errno.EOPNOTSUPP, errno.ENOSYS)


def main() -> int:
    """Run all checks in a new directory and return how many failed."""
    base = tempfile.mkdtemp(prefix="posix-check-", dir=sys.argv[1])
    os.chdir(base)
    failed = 0
    for function in checks:
        start = time.monotonic()
        try:
            result = function() or "ok"
        except Exception as e:
            failed += 1
            result = f"FAIL {type(e).__name__}: {e}"
        print(f"{function.__name__:<26} {time.monotonic() - start:6.2f}s {result}", flush=True)
    os.chdir("/")
    subprocess.call(["rm", "-rf", base])
    if os.path.exists(base):
        failed += 1
        print("the directory could not be removed")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
