"""Limits of the homes' sizes on the NFS server, and what each home holds.

`jhok_quota.py apply` makes the limits those of /etc/jhok/quota.json: `path` (what is exported; the homes are in `homes`
there), `mode`, `limit` (bytes of a home; null for none) and `quotas` (`name`, `users`, `limit`, `shared`). In mode
`enforce` every home is a project of the file system, ext4's and XFS' alike, and the kernel refuses what goes beyond a
project's limit; those who share a quota are one project. In mode `report` nothing is limited. What a home holds is
written for its user to `usage/<name>/home.json` beside `homes`, and for monitoring to /var/lib/jhok/quota.json.

`jhok_quota.py clear PATH` takes everything back. `jhok_quota.py probe PATH` says whether the file system enforces
limits of projects, and `jhok_quota.py verify CONFIGURATION` whether those in force are those of a configuration, given
as JSON.

Needs Python 3.10 and Linux 5.14, and du to measure; runs as root. It asks the kernel by system calls where chattr,
lsattr, setquota and repquota would be a process per file or home: those follow a path, and in a home a path may lead
elsewhere by the time that root gets there. Here every file is reached through the open directory that it is in.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import resource
import shutil
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/jhok/quota.json")
STATE = Path("/var/lib/jhok/quota.json")
# What the hub lets a user be called. Anything else beside the homes, such as lost+found, is no home.
HOME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# Ids of our projects. An admin's own, whose numbers are small by habit, are left alone.
FIRST_PROJECT, PROJECTS = 1 << 20, 1 << 30
CANDIDATES = 64
SETTLE_SECONDS = 1  # between two looks for new homes, so that a user who keeps on touching a home costs little
FRESH_SECONDS = 300  # how old what is told to a user may become while nothing changes


@dataclass(frozen=True)
class Share:
    """What a home counts towards: itself, or what several homes share.

    key: tells it from all others. limit: in bytes; None for none. shared: name of the quota that is shared.
    """

    key: str
    limit: int | None = None
    shared: str | None = None


# ------------------------------------------------------------------ what the inventory wants


def shares(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Share]:
    """Return for each home what it counts towards."""
    found = {name: Share(f"home/{name}", config["limit"]) for name in names}
    for quota in config["quotas"]:
        for user in quota["users"]:
            if user in found and quota["shared"]:
                found[user] = Share(f"shared/{quota['name']}", quota["limit"], quota["name"])
            elif user in found:
                found[user] = Share(f"home/{user}", quota["limit"])
    return found


def candidates(key: str) -> list[int]:
    """Return the project ids that something may have, the best first: all told by its name, so that none is kept."""
    hashes = (hashlib.sha256(f"{key}:{number}".encode()).digest() for number in range(CANDIDATES))
    return [FIRST_PROJECT + int.from_bytes(digest[:8], "big") % PROJECTS for digest in hashes]


def project_ids(wanted: Mapping[str, set[int]]) -> dict[str, int]:
    """Return the project id of each key.

    Where two names lead to one id, the key that has it already keeps it, else the first by name; the other takes its
    next one.

    Args:
        wanted: the keys, each with the ids that its homes have now.

    Raises:
        ValueError: an id is left to a key only with more homes than there ever are.

    """
    given: dict[str, int] = {}
    for current in (True, False):
        for key in sorted(set(wanted) - set(given)):
            free = (number for number in candidates(key) if number not in given.values())
            chosen = next((number for number in free if not current or number in wanted[key]), None)
            if chosen is not None:
                given[key] = chosen
            elif not current:
                raise ValueError(f"no project id is left for {key}")
    return given


# ------------------------------------------------------------------ projects of files

# linux/fs.h: struct fsxattr has flags, two sizes, the project, another size
_FSXATTR = struct.Struct("=IIIII8x")
_GET_FSXATTR, _SET_FSXATTR = 0x801C581F, 0x401C5820
_INHERIT = 0x200
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def project_of(descriptor: int) -> tuple[int, bool]:
    """Return the project of an open file or directory, and whether what is made in it gets the same."""
    flags, _, _, project, _ = _FSXATTR.unpack(fcntl.ioctl(descriptor, _GET_FSXATTR, bytes(_FSXATTR.size)))
    return project, bool(flags & _INHERIT)


def set_project(descriptor: int, project: int, *, inherit: bool) -> None:
    """Put an open file, or a directory with what will be made in it, into a project."""
    flags, size, extents, now, cow = _FSXATTR.unpack(fcntl.ioctl(descriptor, _GET_FSXATTR, bytes(_FSXATTR.size)))
    wanted = flags | _INHERIT if inherit else flags
    if (flags, now) != (wanted, project):
        fcntl.ioctl(descriptor, _SET_FSXATTR, _FSXATTR.pack(wanted, size, extents, project, cow))


def adopt(home: int, project: int) -> list[str]:
    """Put an open home with all that is in it into a project; return what could not be.

    A directory is put there before it is read, so that what its user makes meanwhile is not missed. What is no file of
    the disk (links, sockets) takes no room, and what lies on another file system is not this one's.
    """
    problems = []
    device = os.fstat(home).st_dev
    set_project(home, project, inherit=True)
    for path, directories, files, parent in os.fwalk(".", dir_fd=home):
        for name in [*directories, *files]:
            try:
                if not _adopt_one(parent, name, device, project) and name in directories:
                    directories.remove(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                problems.append(f"{os.path.join(path, name)}: {error.strerror}")  # noqa: PTH118
    return problems


def _adopt_one(parent: int, name: str, device: int, project: int) -> bool:
    """Put one entry of an open directory into a project; return whether it can be there."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if status.st_dev != device or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return False
    descriptor = os.open(name, _OPEN, dir_fd=parent)
    try:
        set_project(descriptor, project, inherit=stat.S_ISDIR(status.st_mode))
    finally:
        os.close(descriptor)
    return True


# ------------------------------------------------------------------ limits of projects

_QUOTACTL_FD = 443
_PROJECT_QUOTA = 2
_GET, _SET, _NEXT, _STATE = 0x800007, 0x800008, 0x800009, 0x5808
# linux/quota.h: limits in KiB (hard, soft) and bytes in use, the same of files, two times, what is meant, the next id
_DQBLK = struct.Struct("=8QII")
_BLOCK_LIMITS = 1
_KIB = 1024
_ENFORCED = 1 << 5  # linux/dqblk_xfs.h: FS_QUOTA_PDQ_ENFD
_NO_ENTRY = (errno.ENOENT, errno.ESRCH)


def kernel_limit(limit: int | None) -> int | None:
    """Return a limit as the kernel keeps it: whole KiB, at least one, since none at all is no limit."""
    return None if limit is None else max(limit // _KIB, 1) * _KIB


class FileSystem:
    """The project quotas of the file system that a directory lies on."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._libc = ctypes.CDLL(None, use_errno=True)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._descriptor)

    def _call(self, command: int, project: int, data: bytes) -> bytes:
        buffer = ctypes.create_string_buffer(data, len(data))
        code = command << 8 | _PROJECT_QUOTA
        if self._libc.syscall(_QUOTACTL_FD, self._descriptor, ctypes.c_uint(code), ctypes.c_uint(project), buffer):
            number = ctypes.get_errno()
            raise OSError(number, f"project quota: {os.strerror(number)}")
        return buffer.raw

    def enforced(self) -> bool:
        """Return whether limits of projects are enforced."""
        try:
            _version, flags = struct.unpack_from("=bxH", self._call(_STATE, 0, struct.pack("=b255x", 1)))
        except OSError:
            return False
        return bool(flags & _ENFORCED)

    def of(self, project: int) -> tuple[int, int | None]:
        """Return how many bytes a project has in use, and its limit."""
        try:
            hard, _soft, used, *_ = _DQBLK.unpack(self._call(_GET, project, bytes(_DQBLK.size)))
        except OSError as error:
            if error.errno in _NO_ENTRY:
                return 0, None
            raise
        return used, hard * _KIB or None

    def limit(self, project: int, limit: int | None) -> None:
        """Set a project's limit, unless it is in force: a hard one; a softer one would be a second number to know."""
        limit = kernel_limit(limit)
        if self.of(project)[1] != limit:
            self._call(_SET, project, _DQBLK.pack((limit or 0) // _KIB, 0, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS, 0))

    def limited(self) -> Iterator[int]:
        """Yield those of our projects that have a limit."""
        project = FIRST_PROJECT
        while project < FIRST_PROJECT + PROJECTS:
            try:
                hard, *_, found = _DQBLK.unpack(self._call(_NEXT, project, bytes(_DQBLK.size)))
            except OSError as error:
                if error.errno in _NO_ENTRY:
                    return
                raise
            if hard and found < FIRST_PROJECT + PROJECTS:
                yield found
            project = found + 1


# ------------------------------------------------------------------ homes


def home_names(homes: Path) -> list[str]:
    """Return the names of the homes that there are."""
    with os.scandir(homes) as entries:
        return sorted(e.name for e in entries if HOME_NAME.fullmatch(e.name) and e.is_dir(follow_symlinks=False))


def open_homes(homes: Path) -> dict[str, int]:
    """Return a descriptor of each home; one that vanished is left out."""
    found = {}
    for name in home_names(homes):
        try:
            found[name] = os.open(homes / name, _OPEN | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
    return found


def enforce(
    system: FileSystem, opened: Mapping[str, int], config: Mapping[str, Any], known: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Put the limits in force; return of each home what is to be told of it, and what could not be done.

    Args:
        system: the homes' file system.
        opened: a descriptor of each home.
        config: what the inventory wants.
        known: what was told the last time: a home whose project is in it has been walked through to the end.

    """
    wanted = shares(config, list(opened))
    now = {name: project_of(descriptor) for name, descriptor in opened.items()}
    have: dict[str, set[int]] = {share.key: set() for share in wanted.values()}
    for name, share in wanted.items():
        have[share.key].add(now[name][0])
    ids = project_ids(have)
    # First limits, then homes, and at last the limits that nothing counts towards any more: no home is ever without.
    limits = {ids[share.key]: share.limit for share in wanted.values()}
    for project, limit in limits.items():
        system.limit(project, limit)
    told: dict[str, dict[str, Any]] = {}
    problems = []
    for name, share in wanted.items():
        project = ids[share.key]
        missed: list[str] = []
        if now[name] != (project, True) or known.get(name, {}).get("project") != project:
            missed = adopt(opened[name], project)
            problems += [f"{name}: {problem}" for problem in missed]
        told[name] = {"limit": share.limit, "shared": share.shared, "project": None if missed else project}
    for project in list(system.limited()):
        if project not in limits:
            system.limit(project, None)
    for name, share in wanted.items():
        told[name]["used"] = system.of(ids[share.key])[0]
    return told, problems


def release(system: FileSystem) -> None:
    """Lift all limits, where there can be any."""
    if system.enforced():
        for project in list(system.limited()):
            system.limit(project, None)


def measure(homes: Path, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return of each home what is to be told of it, as du counts.

    Raises:
        OSError: the directory cannot be read, or there is no du.

    """
    listed = "".join(f"{name}\0" for name in home_names(homes))
    command = ["du", "--null", "--summarize", "--one-file-system", "--block-size=1", "--files0-from=-"]
    # Its complaints are about what vanished.
    done = subprocess.run(command, input=listed, capture_output=True, cwd=homes, text=True, check=False)  # noqa: S603
    sizes = (line.partition("\t") for line in done.stdout.split("\0") if line)
    used = {name: int(size) for size, _tab, name in sizes}
    wanted = shares(config, list(used))
    together: dict[str, int] = {}
    for name, share in wanted.items():
        together[share.key] = together.get(share.key, 0) + used[name]
    return {
        name: {"used": together[share.key], "limit": share.limit, "shared": share.shared, "project": None}
        for name, share in wanted.items()
    }


# ------------------------------------------------------------------ telling


def replace(path: Path, value: object, directory: int | None = None) -> None:
    """Write JSON to a file, of an open directory if there is one, in one step: nobody ever reads half of it."""
    new = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(new, flags, 0o644, dir_fd=directory), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o644)
        file.write(json.dumps(value, sort_keys=True) + "\n")
    os.replace(new, path, src_dir_fd=directory, dst_dir_fd=directory)


def remove(entry: Path) -> None:
    """Remove what is there, a directory with all that is in it; a link itself, not where it leads."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)


@contextlib.contextmanager
def taken_over(directory: Path) -> Iterator[int]:
    """Yield an open directory, root's from now on. It may be made by a user, on a machine that is not to be trusted."""
    if directory.is_symlink() or not directory.is_dir():
        remove(directory)
        directory.mkdir()
    descriptor = os.open(directory, _OPEN | os.O_DIRECTORY)
    try:
        os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o755)
        yield descriptor
    finally:
        os.close(descriptor)


def tell(usage: Path, homes: Mapping[str, dict[str, Any]], known: Mapping[str, Any], now: int) -> None:
    """Write for each user what the home holds, unless it is as it was a moment ago; add the time to `homes`."""
    usage.mkdir(exist_ok=True)
    usage.chmod(0o1733)  # a user's first server makes its directory, which it mounts
    for name, home in homes.items():
        before = known.get(name, {})
        directory = usage / name
        same = all(key in before and before[key] == home[key] for key in ("used", "limit", "shared"))
        fresh = now - FRESH_SECONDS < before.get("time", 0) <= now
        if same and fresh and (directory / "home.json").exists():
            home["time"] = before["time"]
            continue
        home["time"] = now
        with taken_over(directory) as descriptor:
            told = {key: home[key] for key in ("used", "limit", "shared", "time")}
            replace(Path("home.json"), told, descriptor)
    for entry in usage.iterdir():
        # A home may have come since they were listed, and its server be about to mount this.
        if entry.name not in homes and not (usage.parent / "homes" / entry.name).exists():
            remove(entry)


def read_state() -> dict[str, Any]:
    """Return of each home what was told the last time; nothing where that is lost."""
    try:
        return dict(json.loads(STATE.read_text(encoding="utf-8"))["homes"])
    except (OSError, ValueError, KeyError):
        return {}


# ------------------------------------------------------------------ program


def apply_once(config: Mapping[str, Any]) -> list[str]:
    """Make limits and figures those of the configuration; return what could not be done.

    Raises:
        OSError: limits are to be enforced where they cannot be, or the homes cannot be read.

    """
    path = Path(config["path"])
    known = read_state()
    problems: list[str] = []
    opened: dict[str, int] = {}
    system = FileSystem(path)
    try:
        if config["mode"] == "report":
            release(system)
            homes = measure(path / "homes", config)
        elif system.enforced():
            opened = open_homes(path / "homes")
            homes, problems = enforce(system, opened, config, known)
        else:
            raise OSError(f"the file system of {path} does not enforce limits of projects (mount option prjquota)")
    finally:
        for descriptor in opened.values():
            os.close(descriptor)
        system.close()
    now = int(time.time())
    tell(path / "usage", homes, known, now)
    replace(STATE, {"mode": config["mode"], "time": now, "homes": homes})
    return problems


def apply(config: Mapping[str, Any]) -> list[str]:
    """Do so until no home has come meanwhile: the path unit does not look as long as this runs."""
    homes = Path(config["path"]) / "homes"
    while True:
        names = home_names(homes)
        problems = apply_once(config)
        if config["mode"] == "report":
            return problems
        time.sleep(SETTLE_SECONDS)
        if home_names(homes) == names:
            return problems


def clear(path: Path) -> None:
    """Lift all limits, and remove what was told. Homes stay the projects that they are, which limits nothing."""
    system = FileSystem(path)
    try:
        release(system)
    finally:
        system.close()
    shutil.rmtree(path / "usage", ignore_errors=True)
    STATE.unlink(missing_ok=True)


def verify(config: Mapping[str, Any]) -> tuple[str, bool]:
    """Return what there is, in words, and whether it is what a configuration wants."""
    homes = Path(config["path"]) / "homes"
    if config["mode"] == "report":
        told = read_state()
        missing = [name for name in home_names(homes) if name not in told]
        return (f"not measured: {_some(missing)}", False) if missing else (f"{len(told)} homes, measured only", True)
    system = FileSystem(homes)
    opened = open_homes(homes)
    try:
        if not system.enforced():
            return "the file system enforces no limits of projects", False
        wanted = shares(config, list(opened))
        wrong = []
        for name, share in wanted.items():
            project, inherits = project_of(opened[name])
            limit = system.of(project)[1]
            if project not in candidates(share.key) or not inherits:
                wrong.append(f"{name} is in project {project}, which is not its own")
            elif limit != kernel_limit(share.limit):
                wrong.append(f"{name} has limit {limit}, not {share.limit}")
        limited = sum(share.limit is not None for share in wanted.values())
        return (_some(wrong), False) if wrong else (f"{limited} of {len(opened)} homes have a limit, in force", True)
    finally:
        for descriptor in opened.values():
            os.close(descriptor)
        system.close()


def _some(items: Sequence[str], most: int = 5) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def main(arguments: Sequence[str]) -> int:
    """Do what is asked for; return the exit status."""
    problems: list[str] = []
    # All homes are open at once, and by default a process has 1024 files.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    match list(arguments):
        case ["apply"]:
            problems = apply(json.loads(CONFIG.read_text(encoding="utf-8")))
        case ["clear", path]:
            clear(Path(path))
        case ["probe", path]:
            system = FileSystem(Path(path))
            print(json.dumps({"enforced": system.enforced()}))
            system.close()
        case ["verify", config]:
            got, ok = verify(json.loads(config))
            print(json.dumps({"got": got, "ok": ok}))
        case _:
            problems = ["say what to do: apply, clear PATH, probe PATH or verify CONFIGURATION"]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
