"""Saves the homes, the hub's database, the secrets and the inventory with restic, and brings them back.

`jhok_backup.py init` makes the repository, `run` saves, `status` says how old the last good backup is, `plan` and
`restore` bring back all, one user's home or one file; `archive` packs one home and removes it. Each prints one JSON
object; what went wrong goes to stderr. The configuration is /etc/jhok/backup.json, or standard input with `--config -`.

A snapshot holds `homes/`, `hub/` (the database), `etc/` (the secrets) and `inventory/`, wherever the site has them:
restic sees them under one directory of bind mounts, in a mount namespace of this process, so that nothing stays
mounted whatever happens. What is there is never overwritten by a restore: everything is first brought back whole
beside the homes, then what is there is moved aside, and the other moved in.

Needs nothing but Python 3.10, restic 0.12 and util-linux; runs as root, since nobody else may look into homes.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

CONFIG = "/etc/jhok/backup.json"
TAG = "jhok"  # also the host in snapshots: a new machine of another name goes on where the old one ended
PARTS = ("homes", "hub", "etc", "inventory")
PASSWORD = "backup/password"  # noqa: S105 - the name of the secret
HIDDEN = "********"
HOME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?))?")
CHECK_DAYS = 6.5  # a nightly backup checks once a week
CHECK_PARTS = 13  # each check reads one of these, so that all was read within a quarter
SPARSE_BYTES = 1024 * 1024  # files below this are not worth looking at
CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")
UNSHARED = "JHOK_BACKUP_UNSHARED"


class BackupError(Exception):
    """What went wrong, and what to do about it."""


# ------------------------------------------------------------------ pure parts


def shown(repository: str) -> str:
    """Return a repository's address as people may see it, without user and password."""
    return CREDENTIALS.sub("", repository)


def excludes(patterns: Sequence[str], homes: Path) -> list[str]:
    """Return restic's options for patterns that are relative to each home."""
    return [f"--exclude={homes}/*/{pattern}" for pattern in patterns]


def keeps(keep: Mapping[str, int]) -> list[str]:
    """Return restic's options for how many snapshots of each period are kept, besides all of the last two days.

    Else a backup made by hand in an emergency would drop the one of the night before.
    """
    return ["--keep-within=2d"] + [
        f"--keep-{period}={number}" for period, number in sorted(keep.items()) if int(number) > 0
    ]


def literal(path: str) -> str:
    """Return a pattern that only this path fits."""
    return re.sub(r"([\\*?\[])", r"\\\1", path)


def moment(text: str) -> float:
    """Return restic's time (RFC 3339 with nanoseconds) in seconds since 1970."""
    text = re.sub(r"(\.\d{6})\d+", r"\1", re.sub(r"\.(\d{1,5})(?=\D|$)", lambda m: "." + m[1].ljust(6, "0"), text))
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def choose(snapshots: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any]:
    """Return the snapshot that `wanted` means.

    Args:
        snapshots: as restic lists them.
        wanted: `latest`, an id or its beginning, or a date with or without time (this machine's clock): then the newest
            snapshot of that moment, or of the end of that day.

    Raises:
        BackupError: there is none.

    """
    ordered = sorted(snapshots, key=lambda one: moment(one["time"]))
    if not ordered:
        raise BackupError("there is no backup yet")
    known = f"there are {len(ordered)}, from {ordered[0]['time'][:16]} to {ordered[-1]['time'][:16]}"
    if wanted == "latest":
        return ordered[-1]
    date = DATE.fullmatch(wanted)
    if date:
        try:
            end = datetime.fromisoformat(f"{date[1]} {date[2] or '00:00'}").astimezone()
        except ValueError:
            raise BackupError(f"{wanted} is no date") from None
        if not date[2]:
            end += timedelta(days=1, microseconds=-1)
        found = [one for one in ordered if moment(one["time"]) <= end.timestamp()]
        if not found:
            raise BackupError(f"there is no backup as old as {wanted}: {known}")
        return found[-1]
    found = [one for one in ordered if len(wanted) >= 4 and one["id"].startswith(wanted)]
    if len(found) != 1:
        what = "several backups have ids that begin so" if found else "no backup has this id, and it is no date"
        raise BackupError(f"{wanted}: {what}; {known}")
    return found[0]


def parts_of(path: str) -> list[str]:
    """Return the names along a path inside a home; BackupError unless it stays there."""
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise BackupError(f"{path!r} is not a path inside a home: write it like notes/a.ipynb")
    return parts


def merged(saved: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """Return the saved secrets, but with the password that has just opened the repository."""
    secrets = dict(saved["secrets"])
    if PASSWORD in present.get("secrets", {}):
        secrets[PASSWORD] = present["secrets"][PASSWORD]
    return {**saved, "secrets": secrets}


def metrics(state: Mapping[str, Any]) -> str:
    """Return what the node exporter tells. A backup that was tried and never done is as old as time itself."""
    done = state.get("last_success") or {}
    lines = []
    for name, about, value in (
        (
            "last_success_timestamp_seconds",
            "When the last good backup began, in seconds since 1970.",
            done.get("began", 0),
        ),
        ("last_run_success", "Whether the last run of the backup was good.", int(state["last_run"]["ok"])),
        ("duration_seconds", "How long the last good backup took.", done.get("seconds")),
        ("size_bytes", "What the last good backup holds, in bytes.", done.get("bytes")),
        ("added_bytes", "What the last good backup added to the repository, in bytes.", done.get("added_bytes")),
    ):
        if value is not None:
            lines += [
                f"# HELP jhok_backup_{name} {about}",
                f"# TYPE jhok_backup_{name} gauge",
                f"jhok_backup_{name} {value}",
            ]
    return "".join(f"{line}\n" for line in lines)


def verdict(state: Mapping[str, Any], days: float, now: float) -> tuple[bool, str]:
    """Return whether the site has a backup that is good and new enough, and in words how that is."""
    done, last = state.get("last_success"), state.get("last_run") or {}
    failure = "" if last.get("ok", True) else f"; the last run failed: {last['message']}"
    if state.get("damage"):
        return False, f"the repository is damaged: {state['damage']}"
    since = done["began"] if done else state.get("initialised", 0)
    fresh = now - since <= days * 86400
    if not done:
        return fresh and not failure, f"none yet, set up {age(now - since)} ago{failure}"
    text = f"{age(now - since)} old, snapshot {done['snapshot'][:8]}, {done['files']} files, {gigabytes(done['bytes'])}"
    return fresh, f"{text}{'' if fresh else f', older than {days:g} days'}{failure}"


def gigabytes(size: float) -> str:
    """Return a number of bytes in words."""
    return f"{size / 1e9:.2f} GB"


def age(seconds: float) -> str:
    """Return a time in words."""
    for unit, size in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} minutes"


# ------------------------------------------------------------------ files


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file in one step; it keeps its owner."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.chmod(mode)
    new.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return a file's JSON object; an empty one where there is no file."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise BackupError(f"{path} is not valid JSON: restore it, or move it away") from None


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite database that is in use, consistently, and check the copy."""
    try:
        # rw, since a database whose writer was killed is first put right.
        with (
            contextlib.closing(sqlite3.connect(f"file:{quote(str(source))}?mode=rw", uri=True, timeout=60)) as old,
            contextlib.closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            answer = new.execute("PRAGMA integrity_check").fetchone()[0]
    except sqlite3.Error as error:
        raise BackupError(f"the hub's database {source} cannot be copied: {error}") from None
    if answer != "ok":
        raise BackupError(f"the hub's database {source} is damaged: {answer}")
    status = source.stat()
    os.chown(target, status.st_uid, status.st_gid)
    target.chmod(stat.S_IMODE(status.st_mode))


def dig_holes(directory: Path) -> None:
    """Give back the room of long runs of zeros, as sparse files have them, where the file system can do so."""
    seen = set()
    for parent, _directories, names in os.walk(directory):
        for path in (Path(parent, name) for name in names):
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size < SPARSE_BYTES or status.st_ino in seen:
                continue
            seen.add(status.st_ino)
            if subprocess.run(["fallocate", "--dig-holes", path], capture_output=True, check=False).returncode:  # noqa: S603, S607
                return
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


# ------------------------------------------------------------------ mounts


def run(*command: str | Path) -> str:
    """Run a program and return what it printed; BackupError with its words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise BackupError(f"{Path(command[0]).name}: {words[-1] if words else f'ended with {done.returncode}'}")
    return done.stdout


@contextlib.contextmanager
def mounted(target: Path, *options: str | Path) -> Iterator[Path]:
    """Have something mounted for a while."""
    target.mkdir(parents=True, exist_ok=True)
    run("mount", *options, target)
    try:
        yield target
    finally:
        done = subprocess.run(["umount", "--recursive", target], capture_output=True, check=False)  # noqa: S603, S607
        if done.returncode:
            subprocess.run(["umount", "--recursive", "--lazy", target], capture_output=True, check=False)  # noqa: S603, S607


@contextlib.contextmanager
def storage(config: Mapping[str, Any]) -> Iterator[Path]:
    """Give the directory that has `homes`: the one on this machine, or the server's, mounted for a while."""
    where = config["storage"]
    if where["server"]:
        source = f"{where['server']}:{where['path']}"
        options = ("-t", "nfs", "-o", ",".join(where["options"]) or "defaults", source)
        with mounted(Path(config["run"]) / "storage", *options) as path:
            yield path
    else:
        yield Path(where["path"])


@contextlib.contextmanager
def view(config: Mapping[str, Any], homes: Path, hub: Path) -> Iterator[Path]:
    """Give one directory that has all parts of a snapshot, read-only."""
    root = Path(config["run"]) / "view"
    sources = {
        "homes": homes,
        "hub": hub,
        "etc": Path(config["secrets"]).parent,
        "inventory": Path(config["inventory"]),
    }
    with contextlib.ExitStack() as stack:
        for part in PARTS:
            (root / part).mkdir(parents=True, exist_ok=True)
            if sources[part].is_dir():
                stack.enter_context(mounted(root / part, "--rbind", sources[part]))
                run("mount", "-o", "remount,bind,ro", root / part)
        yield root


@contextlib.contextmanager
def locked(config: Mapping[str, Any]) -> Iterator[None]:
    """Let no other backup or restore run meanwhile. A process that dies lets go."""
    directory = Path(config["run"])
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BackupError("another backup or restore is at work: wait for its end") from None
    finally:
        os.close(lock)


# ------------------------------------------------------------------ restic


class Restic:
    """The program, with the site's repository. Secrets reach it in its environment, which only root can read."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        secrets = read_json(Path(config["secrets"])).get("secrets", {})
        if PASSWORD not in secrets:
            raise BackupError(f"{config['secrets']} has no {PASSWORD}: run site.yml")
        self.repository = config["repository"]
        given = {name: str(value) for name, value in config["environment"].items()}
        self._environment = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "HOME": os.environ.get("HOME", "/root"),
            "LC_ALL": "C.UTF-8",
            **given,
            "RESTIC_REPOSITORY": self.repository,
            "RESTIC_PASSWORD": secrets[PASSWORD]["value"],
            "RESTIC_CACHE_DIR": config["cache"],
            "RESTIC_PROGRESS_FPS": "0.01",
        }
        self._secrets = [secrets[PASSWORD]["value"], *(value for value in given.values() if len(value) > 5)]

    def start(self, *arguments: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run restic to its end, whatever that is."""
        try:
            return subprocess.run(  # noqa: S603
                ["restic", *arguments],  # noqa: S607
                env=self._environment,
                cwd=directory,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="surrogateescape",
                check=False,
            )
        except FileNotFoundError:
            raise BackupError("restic is not installed: run site.yml") from None

    def call(self, *arguments: str) -> str:
        """Run restic and return what it printed; BackupError with its words when it fails."""
        done = self.start(*arguments)
        if done.returncode:
            raise self.error(arguments[0], done)
        return done.stdout

    def error(self, what: str, done: subprocess.CompletedProcess[str]) -> BackupError:
        """Return what restic complained about, in one line and without secrets."""
        lines = [line for line in (done.stderr.strip() or done.stdout.strip()).splitlines() if line.strip()]
        fatal = [line for line in lines if "Fatal" in line] or lines[-1:] or [f"ended with {done.returncode}"]
        text = shown(f"restic {what}, {self.repository}: {' '.join(fatal)}")
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return BackupError(text)

    def unlock(self) -> None:
        """Remove the locks that processes have left which are dead."""
        if self.call("list", "locks").split():
            self.call("unlock")  # what is old, or whose number no process has
        locks = self.call("list", "locks").split()
        if locks and all(is_dead(json.loads(self.call("--no-lock", "cat", "lock", lock))) for lock in locks):
            self.call("unlock", "--remove-all")

    def version(self) -> tuple[int, ...]:
        """Return restic's version."""
        found = re.search(r"(\d+)\.(\d+)", self.call("version"))
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def snapshots(self) -> list[dict[str, Any]]:
        """Return all snapshots of the site."""
        return list(json.loads(self.call("snapshots", "--json", f"--tag={TAG}")) or [])

    def listed(self, snapshot: str, path: str, *, deep: bool = True) -> list[dict[str, Any]]:
        """Return what a snapshot has at and below a path."""
        options = ["--recursive"] if deep else []
        lines = self.call("ls", "--json", *options, snapshot, path).splitlines()
        nodes = (json.loads(line) for line in lines if line.startswith("{"))
        return [node for node in nodes if node.get("struct_type", node.get("message_type")) == "node"]


def is_dead(lock: Mapping[str, Any]) -> bool:
    """Return whether a lock is of a process of this machine whose number something else has, as after a restart."""
    if lock["hostname"] != os.uname().nodename:
        return False
    try:
        name, _, rest = Path(f"/proc/{lock['pid']}/stat").read_text().partition("(")[2].rpartition(")")
    except FileNotFoundError:
        return True
    return name != "restic" or rest.split()[0] == "Z"


def init(config: Mapping[str, Any]) -> dict[str, Any]:
    """Make the repository, or see that the password opens the one that is there."""
    refuse_same_disk(config, Path(config["storage"]["path"]) / "homes")
    restic = Restic(config)
    made = False
    there = restic.start("cat", "config")
    if there.returncode:
        if re.search(r"wrong password|no key found", there.stderr):
            raise BackupError(
                f"the repository {shown(restic.repository)} is there, but password {PASSWORD} in {config['secrets']} "
                f"does not open it. Put the right one into {config['password_copy']} on the control machine, remove "
                f"{PASSWORD} from {config['secrets']} on this machine, and run site.yml again"
            )
        restic.call("init")
        made = True
    state = Path(config["state"]) / "state.json"
    old = read_json(state)
    if old.get("repository") != restic.repository:
        old = {"repository": restic.repository, "initialised": time.time()}
        state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(state, json.dumps(old, indent=2))
    return {"changed": made, "repository": shown(restic.repository), "snapshots": len(restic.snapshots())}


def refuse_same_disk(config: Mapping[str, Any], homes: Path) -> None:
    """Refuse a repository on the disk of the homes, with which it would be lost."""
    repository = Path(config["repository"])
    if config["allow_same_disk"] or not repository.is_absolute() or config["storage"]["server"] or not homes.exists():
        return
    there = next(path for path in (repository, *repository.parents) if path.exists())
    if there.stat().st_dev == homes.stat().st_dev:
        raise BackupError(
            f"backup_repository {repository} lies on the file system of the homes ({homes}) and would go with it. "
            "Is the backup's disk mounted? Name another place, or set backup_allow_same_disk: true"
        )


# ------------------------------------------------------------------ backup


def backup(config: Mapping[str, Any], *, allow_empty: bool = False) -> dict[str, Any]:
    """Save everything; note how it went, for `status`, Prometheus and the journal."""
    path = Path(config["state"]) / "state.json"
    state = read_json(path)
    began = time.time()
    failure = ""
    try:
        save(config, state, began, allow_empty=allow_empty)
    except (BackupError, OSError, SystemExit) as error:
        failure = "it was stopped" if isinstance(error, SystemExit) else str(error)
        raise
    finally:
        state["last_run"] = {"time": began, "ok": not failure, "message": failure}
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write(path, json.dumps(state, indent=2))
        if config["metrics"] and Path(config["metrics"]).is_dir():
            write(Path(config["metrics"]) / "jhok_backup.prom", metrics(state), 0o644)
    return dict(state["last_success"])


def save(config: Mapping[str, Any], state: dict[str, Any], began: float, *, allow_empty: bool) -> None:
    """Make a snapshot, check part of the repository once a week, drop old snapshots; `state` learns of it."""
    restic = Restic(config)
    stage = Path(config["state"]) / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(mode=0o700, parents=True)
    with storage(config) as root:
        homes = root / "homes"
        if not homes.is_dir():
            raise BackupError(f"there is no {homes}: is the homes' disk mounted?")
        refuse_same_disk(config, homes)
        number = sum(1 for _entry in homes.iterdir())
        if not number and state.get("homes") and not allow_empty:
            raise BackupError(
                f"{homes} is empty, and had {state['homes']} homes at the last backup: is their disk there? If they "
                "are really gone, run the backup once with --allow-empty"
            )
        restic.unlock()
        copy_database(Path(config["hub_db"]), stage / Path(config["hub_db"]).name)
        with view(config, homes, stage) as saved:
            summary = snapshot(restic, config, saved)
    state["homes"] = number
    state["last_success"] = {
        "began": began,
        "snapshot": summary["snapshot_id"],
        "homes": number,
        "files": summary["total_files_processed"],
        "bytes": summary["total_bytes_processed"],
        "added_bytes": summary["data_added"],
        "seconds": round(time.time() - began, 1),
        "vanished": summary["vanished"],
    }
    if state.get("damage") or began - state.get("checked", 0) > CHECK_DAYS * 86400:
        part = state.get("check_part", 0) % CHECK_PARTS + 1
        try:
            restic.call("check", f"--read-data-subset={part}/{CHECK_PARTS}")
        except BackupError as error:
            state["damage"] = str(error)
            raise
        state.update(checked=began, check_part=part, damage="")
    # Last: of a damaged repository nothing is dropped.
    restic.call("forget", "--prune", f"--tag={TAG}", "--group-by=", *keeps(config["keep"]))


def snapshot(restic: Restic, config: Mapping[str, Any], saved: Path) -> dict[str, Any]:
    """Make a snapshot and return restic's summary of it.

    People go on working, so a file may be gone when its turn comes. Anything else that cannot be read is a failure,
    though the snapshot stays.
    """
    options = ["--json", f"--tag={TAG}", f"--host={TAG}", *excludes(config["exclude"], saved / "homes")]
    done = restic.start("backup", *options, *PARTS, directory=saved)
    messages = []
    for line in (done.stdout + done.stderr).splitlines():
        with contextlib.suppress(ValueError):
            messages.append(json.loads(line))
    messages = [message for message in messages if isinstance(message, dict)]
    summary = next((m for m in messages if m.get("message_type") == "summary"), None)
    if summary is None or done.returncode not in (0, 3):
        raise restic.error("backup", done)
    unread = {str(m.get("item")): reason(m) for m in messages if m.get("message_type") == "error"}
    left = sorted(item for item in unread if os.path.lexists(saved / item))
    if left or (done.returncode and not unread):
        words = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        why = unread[left[0]] if left else words[0] if words else f"restic ended with {done.returncode}"
        raise BackupError(f"snapshot {summary['snapshot_id'][:8]} lacks {len(left)} files: {' '.join(left[:1])} {why}")
    return {**summary, "vanished": len(unread)}


def reason(message: Mapping[str, Any]) -> str:
    """Return why restic could not read something; versions differ in how they say it."""
    error = message.get("error") or {}
    if isinstance(error, str) or "message" in error:
        return error if isinstance(error, str) else str(error["message"])
    number = error.get("Err")
    return os.strerror(number) if isinstance(number, int) else json.dumps(error)


def status(config: Mapping[str, Any], days: float) -> dict[str, Any]:
    """Return how old the last good backup is, and whether the repository still has it."""
    state = read_json(Path(config["state"]) / "state.json")
    ok, got = verdict(state, days, time.time())
    done = state.get("last_success")
    try:
        if ok and done and not any(one["id"].startswith(done["snapshot"]) for one in Restic(config).snapshots()):
            ok, got = False, f"the repository has no snapshot {done['snapshot'][:8]} any more"
    except BackupError as error:
        ok, got = False, str(error)
    return {"ok": ok, "got": got, "last_run": state.get("last_run"), "last_success": done}


# ------------------------------------------------------------------ restore


def plan(config: Mapping[str, Any], wanted: str, user: str, path: str) -> dict[str, Any]:
    """Return which snapshot would be taken, and what of it."""
    restic = Restic(config)
    one = choose(restic.snapshots(), wanted)
    nodes = restic.listed(one["id"], inside(user, path))
    if user and not nodes:
        raise BackupError(f"the backup {one['id'][:8]} of {one['time'][:16]} has no {inside(user, path)}")
    files = [node for node in nodes if node["type"] == "file"]
    homes = [node["name"] for node in nodes if Path(node["path"]).parent == Path("/homes")]
    return {
        "snapshot": one["id"],
        "time": one["time"][:19],
        "homes": homes,
        "files": len(files),
        "bytes": sum(node.get("size", 0) for node in files),
    }


def inside(user: str, path: str) -> str:
    """Return where a snapshot has a user's home, or something in it; without a user, all homes."""
    if not user:
        return "/homes"
    if not HOME_NAME.fullmatch(user):
        raise BackupError(f"{user!r} is not the name of a user")
    return "/".join(["/homes", user, *(parts_of(path) if path else [])])


def restore(config: Mapping[str, Any], wanted: str, user: str, path: str) -> dict[str, Any]:
    """Bring back a file, a home, or, without a user, everything; return what was done."""
    found = plan(config, wanted, user, path)
    restic = Restic(config)
    stamp = time.strftime("%Y%m%dT%H%M%S")
    with storage(config) as root, contextlib.ExitStack() as stack:
        homes = root / "homes"
        room = os.statvfs(homes)
        if room.f_bavail * room.f_frsize < found["bytes"]:
            raise BackupError(
                f"{homes} has {gigabytes(room.f_bavail * room.f_frsize)} free, and what comes back needs "
                f"{gigabytes(found['bytes'])}, since what is there is kept: make room"
            )
        stage = stack.enter_context(scratch(root / f".restore-{stamp}"))
        fetch(restic, found["snapshot"], inside(user, path), stage)
        if user and path:
            moved = [put_file(homes, stage / "homes", restic, found["snapshot"], user, parts_of(path), stamp)]
        elif user:
            moved = put_homes(homes, stage / "homes", [user], root / f".before-restore-{stamp}")
        else:
            # Everything is here before anything is changed.
            own = stack.enter_context(scratch(Path(config["state"]) / f"restore-{stamp}"))
            for part in ("/hub", "/etc"):
                fetch(restic, found["snapshot"], part, own)
            moved = put_homes(homes, stage / "homes", found["homes"], root / f".before-restore-{stamp}")
            moved.append(put_database(own / "hub" / Path(config["hub_db"]).name, Path(config["hub_db"]), stamp))
            moved.append(put_secrets(own / "etc" / Path(config["secrets"]).name, Path(config["secrets"]), stamp))
    local = str(Path(config["run"]) / "storage")
    kept = [str(one).replace(local, config["storage"]["path"], 1) for one in moved if one]
    return {**found, "homes": len(found["homes"]), "moved_aside": kept}


@contextlib.contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Have a directory that only root enters, for a while."""
    path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def fetch(restic: Restic, snapshot_id: str, path: str, target: Path) -> None:
    """Bring back part of a snapshot below a directory, and compare it with the repository."""
    sparse = restic.version() >= (0, 15)
    options = ["--verify", f"--target={target}", f"--include={literal(path)}", *(["--sparse"] if sparse else [])]
    restic.call("restore", *options, snapshot_id)
    if not os.path.lexists(f"{target}{path}"):
        raise BackupError(f"the backup {snapshot_id[:8]} has no {path}")
    if not sparse:
        dig_holes(target)


def put_homes(homes: Path, staged: Path, users: Sequence[str], aside: Path) -> list[Path | None]:
    """Put homes in their place; what is there goes into a directory that only root enters."""
    moved: list[Path | None] = []
    for user in (user for user in users if HOME_NAME.fullmatch(user) and user != "lost+found"):
        if os.path.lexists(homes / user):
            aside.mkdir(mode=0o700, exist_ok=True)
            (homes / user).rename(aside / user)
            moved.append(aside / user)
        try:
            (staged / user).rename(homes / user)
        except OSError:
            if moved and moved[-1] == aside / user:
                (aside / user).rename(homes / user)
            raise
    return moved


def put_file(
    homes: Path, staged: Path, restic: Restic, snapshot_id: str, user: str, parts: Sequence[str], stamp: str
) -> Path | None:
    """Put a file or directory in its place in a home; what is there gets another name beside it.

    The home is its user's, who may have made a symbolic link of any directory in it: none is followed.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(homes, flags)
    try:
        for number, part in enumerate([user, *parts[:-1]]):
            where = "/".join([user, *parts[:number]])
            try:
                deeper = os.open(part, flags, dir_fd=directory)
            except FileNotFoundError:
                make_directory(
                    directory, part, restic.listed(snapshot_id, f"/homes/{where}", deep=False), f"/homes/{where}"
                )
                deeper = os.open(part, flags, dir_fd=directory)
            except OSError:
                raise BackupError(
                    f"{where} in the homes is no directory now: restore the whole home, or remove it"
                ) from None
            os.close(directory)
            directory = deeper
        name, old = parts[-1], f"{parts[-1]}.before-restore-{stamp}"
        moved = name in os.listdir(directory)  # noqa: PTH208 - a descriptor
        if moved:
            os.rename(name, old, src_dir_fd=directory, dst_dir_fd=directory)
        source = staged.joinpath(user, *parts)
        try:
            os.rename(source, name, dst_dir_fd=directory)
        except OSError as error:
            if error.errno != errno.EXDEV:  # with quotas by directory, a file cannot be moved into a home
                raise
            run("cp", "--archive", "--no-target-directory", source, f"/proc/{os.getpid()}/fd/{directory}/{name}")
    finally:
        os.close(directory)
    return homes.joinpath(user, *parts[:-1], old) if moved else None


def make_directory(parent: int, name: str, nodes: Sequence[Mapping[str, Any]], path: str) -> None:
    """Make a directory that is gone, as the snapshot had it."""
    node = next(node for node in nodes if node["path"] == path)
    os.mkdir(name, 0o700, dir_fd=parent)
    made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chown(made, node["uid"], node["gid"])
        os.chmod(made, node["mode"] & 0o777)  # noqa: PTH101 - a descriptor
    finally:
        os.close(made)


def put_database(staged: Path, place: Path, stamp: str) -> Path | None:
    """Put the hub's database in its place; the hub is down meanwhile."""
    kept = None
    for suffix in ("", "-journal", "-wal", "-shm"):
        old = place.with_name(f"{place.name}{suffix}")
        if old.exists():
            new = old.with_name(f"{old.name}.before-restore-{stamp}")
            old.rename(new)
            kept = kept or new
    status = staged.stat()
    new = place.with_name(f".{place.name}.new")
    shutil.copy2(staged, new)
    os.chown(new, status.st_uid, status.st_gid)
    new.replace(place)
    return kept


def put_secrets(staged: Path, place: Path, stamp: str) -> Path | None:
    """Put the secrets in their place."""
    kept = None
    if place.exists():
        kept = place.with_name(f"{place.name}.before-restore-{stamp}")
        write(kept, place.read_text(encoding="utf-8"))
    write(place, json.dumps(merged(read_json(staged), read_json(place)), indent=2, sort_keys=True) + "\n")
    return kept


# ------------------------------------------------------------------ archive


def archive(config: Mapping[str, Any], user: str, *, dry: bool) -> dict[str, Any]:
    """Pack a home beside the homes, compare, and only then remove it."""
    inside(user, "")  # a name, and no path
    with storage(config) as root:
        home = root / "homes" / user
        if home.is_symlink() or not home.is_dir():
            raise BackupError(f"{user} has no home at {config['storage']['path']}/homes")
        size = int(run("du", "--summarize", "--block-size=1", home).split()[0])
        name = f"{user}-{time.strftime('%Y%m%dT%H%M%S')}.tar.zst"
        answer = {"home": f"{config['storage']['path']}/homes/{user}", "bytes": size}
        answer["archive"] = f"{config['storage']['path']}/archive/{name}"
        if dry:
            return answer
        place = root / "archive"
        place.mkdir(mode=0o700, exist_ok=True)
        room = os.statvfs(place)
        if room.f_bavail * room.f_frsize < size:
            raise BackupError(
                f"{place} has {room.f_bavail * room.f_frsize} bytes free, and the home has {size}: make room"
            )
        partial = place / f".{name}.partial"
        try:
            pack(partial, root / "homes", user)
            partial.rename(place / name)
        finally:
            partial.unlink(missing_ok=True)
        # First out of sight, so that a removal that is interrupted leaves no half of a home.
        gone = place / f".removing-{name}"
        home.rename(gone)
        shutil.rmtree(gone)
        return {**answer, "archive_bytes": (place / name).stat().st_size}


def pack(target: Path, homes: Path, user: str) -> None:
    """Pack a home and see that the archive holds what the home does."""
    kept = ["--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*"]
    run("tar", "--create", "--zstd", "--sparse", *kept, f"--file={target}", f"--directory={homes}", user)
    run("zstd", "--test", "--quiet", target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    run("tar", "--compare", "--zstd", "--numeric-owner", f"--file={target}", f"--directory={homes}")


# ------------------------------------------------------------------ program


def alone(arguments: Sequence[str]) -> None:
    """Go on in a mount namespace of this process's own."""
    if os.environ.get(UNSHARED) != "1":
        command = ["unshare", "--mount", sys.executable, "-I", str(Path(__file__).resolve()), *arguments]
        os.execvpe(command[0], command, {**os.environ, UNSHARED: "1"})  # noqa: S606


def stopped(_signal: int, _frame: object) -> NoReturn:
    """Leave in order when somebody asks for it."""
    raise SystemExit(1)


def main(arguments: Sequence[str]) -> int:
    """Do what is asked; return the exit status."""
    parser = argparse.ArgumentParser(description="Backup and restore of the site.")
    parser.add_argument("command", choices=["init", "run", "status", "plan", "restore", "archive"])
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--max-age-days", type=float, default=2)
    parser.add_argument("--snapshot", default="latest")
    parser.add_argument("--user", default="")
    parser.add_argument("--path", default="")
    parser.add_argument("--allow-empty", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args(arguments)
    if given.command in ("run", "restore", "archive"):
        alone(arguments)
    signal.signal(signal.SIGTERM, stopped)
    os.umask(0o077)
    try:
        config = json.load(sys.stdin) if given.config == "-" else read_json(Path(given.config))
        if not config:
            raise BackupError(f"there is no {given.config}: set backup_repository and run site.yml")
        print(json.dumps(do(given, config)))
    except (BackupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def do(given: argparse.Namespace, config: Mapping[str, Any]) -> dict[str, Any]:
    """Do what is asked and return what is to be told."""
    if given.command == "init":
        return init(config)
    if given.command == "status":
        return status(config, given.max_age_days)
    if given.command == "plan":
        return plan(config, given.snapshot, given.user, given.path)
    if given.command == "archive":
        return archive(config, given.user, dry=given.dry_run)
    with locked(config):
        if given.command == "run":
            return backup(config, allow_empty=given.allow_empty)
        return restore(config, given.snapshot, given.user, given.path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
