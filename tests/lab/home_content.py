"""What homes have in them, and all of it that a backup has to bring back. Runs on the machine of the homes, too.

`home_content.py fill DIRECTORY` fills a home, whose files then have the home's owner; `home_content.py facts DIRECTORY`
prints the facts of everything in it as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

MIB = 1024 * 1024
SMALL_FILES = 10_000
LONG_AGO = 1_500_000_000_123_456_789


def own(home: Path, uid: int, gid: int) -> None:
    """Give everything in a home to its user."""
    for path in [home, *home.rglob("*")]:
        os.chown(path, uid, gid, follow_symlinks=False)


def fill(home: Path) -> None:
    """Put into a home what homes have: a repository, a database, small and sparse files, odd names, links, modes."""
    owner = home.stat()
    if shutil.which("git"):
        repository = home / "project"
        git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", "init", "-q", str(repository)], check=True)
        (repository / "main.py").write_text("print(1)\n")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)
    with sqlite3.connect(home / "results.sqlite") as database:
        database.execute("CREATE TABLE runs (number INTEGER)")
        database.executemany("INSERT INTO runs VALUES (?)", ((n,) for n in range(1000)))
    database.close()
    for number in range(SMALL_FILES):
        directory = home / "small" / str(number % 100)
        if number < 100:
            directory.mkdir(parents=True)
        (directory / f"{number}.txt").write_text(f"file {number}\n")
    with (home / "sparse.bin").open("wb") as file:
        file.write(b"begin")
        file.seek(200 * MIB)
        file.write(b"end")
    (home / "数据 é\u0301" / "new\nline 'quote\" * [x]").mkdir(parents=True)
    (home / "数据 é\u0301" / "文件 😀.txt").write_text("unicode", encoding="utf-8")
    (home / os.fsdecode(b"latin-\xe9.txt")).write_text("no unicode at all")
    (home / "big.bin").write_bytes(os.urandom(5 * MIB))
    os.link(home / "big.bin", home / "small" / "the same.bin")
    (home / "link").symlink_to("project/main.py")
    (home / "dangling").symlink_to("/nowhere/at all")
    (home / "empty").mkdir()
    own(home, owner.st_uid, owner.st_gid)
    (home / "shared").mkdir()
    os.chown(home / "shared", owner.st_uid, 2000)
    (home / "shared").chmod(0o2775)
    (home / "secret").write_text("only for me")
    os.chown(home / "secret", owner.st_uid, owner.st_gid)
    os.setxattr(home / "secret", "user.origin", b"from \x00 somewhere")
    (home / "secret").chmod(0o400)
    (home / "run.sh").write_text("#!/bin/sh\n")
    os.chown(home / "run.sh", 1234, 5678)
    (home / "run.sh").chmod(0o4755)
    for path in ("link", "empty", "small/0", "big.bin", "数据 é\u0301"):
        os.utime(home / path, ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    os.utime(home, ns=(LONG_AGO, LONG_AGO))


def facts(directory: Path) -> dict[str, list[Any]]:
    """Return mode, owner, group, time, size, content and attributes by path; hard links by the first of their paths."""
    found: dict[str, list[Any]] = {}
    first: dict[int, str] = {}
    for path in sorted([directory, *directory.rglob("*")]):
        status, name = path.lstat(), str(path.relative_to(directory))
        content: object = ""
        if path.is_symlink():
            content = str(path.readlink())
        elif path.is_file():
            content = [hashlib.sha256(path.read_bytes()).hexdigest(), first.setdefault(status.st_ino, name)]
        names = [] if path.is_symlink() else [[x, os.getxattr(path, x).hex()] for x in sorted(os.listxattr(path))]
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        found[name] = [status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, size, content, names]
    return found


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill(Path(sys.argv[2]))
    else:
        print(json.dumps(facts(Path(sys.argv[2]))))
