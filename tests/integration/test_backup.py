"""The backup script with real restic, as root, in temporary directories: what comes back is what was there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jhok_backup
import pytest
from home_content import MIB, SMALL_FILES, facts, fill, own

SCRIPT = Path(__file__).parents[2] / "roles" / "backup" / "files" / "jhok_backup.py"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="owners and mounts need root"),
]


@dataclass
class Machine:
    """A control plane host with homes, in one directory."""

    root: Path
    config: dict[str, Any]

    @property
    def homes(self) -> Path:
        return self.root / "nfs/homes"

    @property
    def database(self) -> Path:
        return Path(self.config["hub_db"])

    @property
    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.root / "state/state.json").read_text()))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the script in a process group of its own, as systemd would."""
        (self.root / "backup.json").write_text(json.dumps(self.config))
        command = [sys.executable, "-I", str(SCRIPT), *arguments, f"--config={self.root}/backup.json"]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def do(self, *arguments: str) -> dict[str, Any]:
        """Run the script, which has to succeed."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert err == ""
        return dict(json.loads(out))

    def refused(self, *arguments: str) -> str:
        """Run the script, which has to fail, and return what it says."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out) == (1, ""), out + err
        assert "Traceback" not in err
        return err


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with a repository and two small homes."""
    if not shutil.which("restic"):
        pytest.fail("restic is not installed: apt-get install restic.", pytrace=False)
    for path in ("nfs/homes", "hub/db", "etc", "inventory/group_vars", "metrics"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "inventory/group_vars/all.yml").write_text("jupyterhub_users: [alice, bob]\n")
    secrets = {
        "backup/password": {"kind": "alphanumeric", "value": "the-repository-opens-with-this"},
        "jupyterhub/password/alice": {"kind": "alphanumeric", "value": "of alice"},
    }
    (tmp_path / "etc/secrets.json").write_text(json.dumps({"format": 1, "secrets": secrets}))
    config = {
        "repository": str(tmp_path / "repository"),
        "environment": {},
        "keep": {"daily": 7, "weekly": 4, "monthly": 6},
        "exclude": [".cache"],
        "allow_same_disk": True,
        "storage": {"path": str(tmp_path / "nfs"), "server": "", "options": []},
        "hub_db": str(tmp_path / "hub/db/jupyterhub.sqlite"),
        "secrets": str(tmp_path / "etc/secrets.json"),
        "inventory": str(tmp_path / "inventory"),
        "state": str(tmp_path / "state"),
        "cache": str(tmp_path / "cache"),
        "run": str(tmp_path / "run"),
        "metrics": str(tmp_path / "metrics"),
        "password_copy": "artifacts/backup-password",
    }
    made = Machine(tmp_path, config)
    with sqlite3.connect(made.database) as database:
        database.execute("CREATE TABLE users (name TEXT)")
        database.execute("INSERT INTO users VALUES ('alice'), ('bob')")
    database.close()
    os.chown(made.database, 1000, 1000)
    made.database.chmod(0o644)
    for user in ("alice", "bob"):
        home = made.homes / user
        (home / "notes").mkdir(parents=True)
        (home / "notes" / "a.ipynb").write_text(f"the first of {user}")
        own(home, 1000, 100)
        home.chmod(0o700)
    assert made.do("init") == {"changed": True, "repository": config["repository"], "snapshots": 0}
    yield made
    left = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(tmp_path) in line]
    assert left == []


def test_all_comes_back_byte_for_byte_after_a_backup_under_load(machine: Machine) -> None:
    alice = machine.homes / "alice"
    fill(alice)
    os.mkfifo(alice / "empty" / "pipe")
    (alice / ".cache").mkdir()
    (alice / ".cache" / "wheel").write_text("can be had again")
    before = facts(machine.homes)
    log = machine.root / "nfs/homes/carol/log.txt"
    log.parent.mkdir()
    end = threading.Event()
    counted = threading.Event()

    def append() -> None:
        with log.open("a") as file, sqlite3.connect(machine.database, timeout=30) as database:
            number = 0
            while not end.is_set():
                number += 1
                file.write(f"{number:08}\n")
                file.flush()
                database.execute("INSERT INTO users VALUES (?)", (f"user-{number}",))
                database.commit()
                passing = log.with_name(f"{number}.tmp")
                passing.write_text("soon gone")
                passing.unlink()
                counted.set()
        database.close()

    writer = threading.Thread(target=append)
    writer.start()
    try:
        counted.wait(10)
        done = machine.do("run")
    finally:
        end.set()
        writer.join()

    assert done["homes"] == 3
    assert done["files"] > SMALL_FILES
    shutil.rmtree(machine.homes)
    machine.homes.mkdir()
    machine.database.unlink()
    kept = json.loads((machine.root / "etc/secrets.json").read_text())
    fresh = {"format": 1, "secrets": {"backup/password": kept["secrets"]["backup/password"]}}
    (machine.root / "etc/secrets.json").write_text(json.dumps(fresh))

    assert machine.do("plan")["homes"] == ["alice", "bob", "carol"]
    answer = machine.do("restore")

    after = facts(machine.homes)
    lines = (machine.homes / "carol/log.txt").read_text().splitlines()
    assert lines[:-1] == [f"{number + 1:08}" for number in range(len(lines) - 1)]
    left_out = {name for name in before if name.startswith("alice/.cache")}
    compared = {name: fact for name, fact in after.items() if not name.startswith("carol")}
    assert compared.keys() == before.keys() - left_out
    # Of what has lost its cache, and of the directory that has got a home, only the time is another.
    assert {n for n, fact in compared.items() if fact != before[n]} <= {"."}
    assert (alice / "sparse.bin").stat().st_blocks * 512 < 2 * MIB
    assert len(answer["moved_aside"]) == 1  # the secrets
    assert json.loads((machine.root / "etc/secrets.json").read_text()) == kept
    with sqlite3.connect(machine.database) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT name FROM users LIMIT 2").fetchall() == [("alice",), ("bob",)]
    database.close()
    status = machine.database.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 1000, 0o644)
    assert sorted(path.name for path in (machine.root / "nfs").iterdir()) == ["homes"]
    assert (
        subprocess.run(["git", "-c", "safe.directory=*", "-C", alice / "project", "fsck"], check=False).returncode == 0
    )


def test_the_second_backup_adds_only_what_is_new(machine: Machine) -> None:
    (machine.homes / "alice/big.bin").write_bytes(os.urandom(20 * MIB))
    assert machine.do("run")["added_bytes"] > 20 * MIB
    (machine.homes / "alice/new.txt").write_text("new")
    assert machine.do("run")["added_bytes"] < MIB


def test_metrics_and_status(machine: Machine) -> None:
    status = machine.do("status")
    assert (status["ok"], status["got"]) == (True, "none yet, set up 0 minutes ago")
    begin = time.time()
    done = machine.do("run")
    page = (machine.root / "metrics/jhok_backup.prom").read_text()
    found = {line.split()[0]: float(line.split()[1]) for line in page.splitlines() if not line.startswith("#")}
    assert begin <= found["jhok_backup_last_success_timestamp_seconds"] <= time.time()
    assert found["jhok_backup_last_run_success"] == 1
    assert found["jhok_backup_size_bytes"] == done["bytes"]
    assert stat.S_IMODE((machine.root / "metrics/jhok_backup.prom").stat().st_mode) == 0o644
    status = machine.do("status")
    assert status["ok"]
    assert status["got"].startswith(f"0 minutes old, snapshot {done['snapshot'][:8]}, ")
    old = machine.state
    old["last_success"]["began"] -= 3 * 86400
    (machine.root / "state/state.json").write_text(json.dumps(old))
    status = machine.do("status", "--max-age-days=2")
    assert not status["ok"]
    assert "3.0 days old" in status["got"]
    assert "older than 2 days" in status["got"]


# ------------------------------------------------------------------ one user, one file


def test_one_user_comes_back_and_nobody_else(machine: Machine) -> None:
    machine.do("run")
    (machine.homes / "alice/notes/a.ipynb").write_text("spoilt")
    (machine.homes / "bob/notes/a.ipynb").write_text("gone on")
    answer = machine.do("restore", "--user=alice")
    assert (machine.homes / "alice/notes/a.ipynb").read_text() == "the first of alice"
    assert (machine.homes / "bob/notes/a.ipynb").read_text() == "gone on"
    [aside] = answer["moved_aside"]
    assert (Path(aside) / "notes/a.ipynb").read_text() == "spoilt"
    assert stat.S_IMODE(Path(aside).parent.stat().st_mode) == 0o700
    assert Path(aside).parent.parent == machine.root / "nfs"


def test_one_file_comes_back_beside_what_is_there(machine: Machine) -> None:
    odd = machine.homes / "alice/notes/*[x]?.txt"
    odd.write_text("odd")
    machine.do("run")
    file = machine.homes / "alice/notes/a.ipynb"
    old = file.lstat()
    file.write_text("spoilt")
    (machine.homes / "alice/notes/b[x]c.txt").write_text("not touched")
    answer = machine.do("restore", "--user=alice", "--path=notes/a.ipynb")
    assert file.read_text() == "the first of alice"
    assert (file.lstat().st_mtime_ns, file.lstat().st_uid) == (old.st_mtime_ns, 1000)
    [aside] = answer["moved_aside"]
    assert Path(aside).parent == file.parent
    assert Path(aside).read_text() == "spoilt"
    odd.unlink()
    assert machine.do("restore", "--user=alice", "--path=notes/*[x]?.txt")["moved_aside"] == []
    assert odd.read_text() == "odd"


def test_a_file_comes_back_with_the_directories_that_it_was_in(machine: Machine) -> None:
    deep = machine.homes / "alice/one/two/three.txt"
    deep.parent.mkdir(parents=True)
    deep.write_text("deep")
    own(machine.homes / "alice", 1000, 100)
    deep.parent.parent.chmod(0o750)
    machine.do("run")
    shutil.rmtree(machine.homes / "alice/one")
    machine.do("restore", "--user=alice", "--path=one/two/three.txt")
    assert deep.read_text() == "deep"
    status = deep.parent.parent.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1000, 100, 0o750)


def test_a_restore_follows_no_link_out_of_a_home(machine: Machine) -> None:
    machine.do("run")
    outside = machine.root / "outside"
    outside.mkdir()
    (outside / "a.ipynb").write_text("not alice's")
    shutil.rmtree(machine.homes / "alice/notes")
    (machine.homes / "alice/notes").symlink_to(outside)
    assert "no directory now" in machine.refused("restore", "--user=alice", "--path=notes/a.ipynb")
    assert (outside / "a.ipynb").read_text() == "not alice's"
    assert sorted(path.name for path in outside.iterdir()) == ["a.ipynb"]
    assert sorted(path.name for path in (machine.root / "nfs").iterdir()) == ["homes"]


def test_a_restore_of_nonsense_is_refused(machine: Machine) -> None:
    machine.do("run")
    before = facts(machine.root / "nfs")
    for arguments, reason in (
        (("--user=alice", "--path=../bob/notes/a.ipynb"), "not a path inside a home"),
        (("--user=alice", "--path=/etc/passwd"), "not a path inside a home"),
        (("--user=../alice",), "not the name of a user"),
        (("--user=dora",), "has no /homes/dora"),
        (("--user=alice", "--path=notes/none.ipynb"), "has no /homes/alice/notes/none.ipynb"),
        (("--snapshot=2020-01-01",), "no backup as old as 2020-01-01"),
        (("--snapshot=ffffffffffff",), "no backup has this id"),
    ):
        assert reason in machine.refused("restore", *arguments), arguments
    assert facts(machine.root / "nfs") == before


def test_an_older_backup_by_date_and_id(machine: Machine) -> None:
    first = machine.do("run")
    time.sleep(1.1)  # the moments that choose between them are whole seconds
    middle = time.strftime("%Y-%m-%d %H:%M:%S")
    file = machine.homes / "alice/notes/a.ipynb"
    file.write_text("the second")
    second = machine.do("run")
    assert machine.do("plan")["snapshot"].startswith(second["snapshot"])
    assert machine.do("plan", f"--snapshot={middle}")["snapshot"].startswith(first["snapshot"])
    machine.do("restore", "--user=alice", "--path=notes/a.ipynb", f"--snapshot={first['snapshot'][:8]}")
    assert file.read_text() == "the first of alice"


# ------------------------------------------------------------------ what goes wrong


def test_a_wrong_password(machine: Machine) -> None:
    machine.do("run")
    path = machine.root / "etc/secrets.json"
    right = path.read_text()
    path.write_text(right.replace("the-repository-opens-with-this", "another-password"))
    for command in (("run",), ("plan",), ("restore",)):
        said = machine.refused(*command)
        assert "wrong password" in said
        assert "another-password" not in said
    said = machine.refused("init")
    assert "artifacts/backup-password" in said
    status = machine.do("status")
    assert not status["ok"]
    assert "jhok_backup_last_run_success 0" in (machine.root / "metrics/jhok_backup.prom").read_text()
    path.write_text(right)
    machine.do("run")


def test_a_repository_that_is_gone(machine: Machine) -> None:
    machine.do("run")
    (machine.root / "repository").rename(machine.root / "elsewhere")
    assert str(machine.root / "repository") in machine.refused("run")
    assert not (machine.root / "repository").exists(), "a new one was made in its place"
    status = machine.do("status")
    assert not status["ok"]
    state = machine.state
    assert not state["last_run"]["ok"]
    assert state["last_success"]["snapshot"], "the last good one is remembered"


def test_homes_that_are_gone_are_no_backup(machine: Machine) -> None:
    machine.do("run")
    shutil.rmtree(machine.homes)
    machine.homes.mkdir()
    assert "is empty, and had 2 homes" in machine.refused("run")
    machine.homes.rmdir()
    assert "is the homes' disk mounted" in machine.refused("run")
    machine.homes.mkdir()
    machine.do("run", "--allow-empty")


def test_a_repository_on_the_homes_disk(machine: Machine) -> None:
    machine.config["allow_same_disk"] = False
    for command in ("init", "run"):
        assert "backup_allow_same_disk: true" in machine.refused(command)


def test_a_damaged_database(machine: Machine) -> None:
    machine.database.write_bytes(b"no database at all" * 1000)
    assert "the hub's database" in machine.refused("run")
    assert "jhok_backup_last_success_timestamp_seconds 0" in (machine.root / "metrics/jhok_backup.prom").read_text()


def test_a_damaged_repository_is_found_and_nothing_dropped(machine: Machine) -> None:
    (machine.homes / "alice/big.bin").write_bytes(os.urandom(5 * MIB))
    machine.do("run")
    packs = sorted(
        (machine.root / "repository/data").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size
    )
    kept = packs[-1].read_bytes()
    packs[-1].unlink()
    state = machine.state
    state["checked"] = 0
    (machine.root / "state/state.json").write_text(json.dumps(state))
    assert "restic check" in machine.refused("run")
    answer = machine.do("status")
    assert not answer["ok"]
    assert "the repository is damaged" in answer["got"]
    packs[-1].write_bytes(kept)
    machine.do("run")
    assert machine.do("status")["ok"]


def test_a_file_that_cannot_be_read_is_no_good_backup(machine: Machine, tmp_path: Path) -> None:
    """A stand-in for a disk's error: a restic that could not read one file."""
    machine.do("run")
    program = tmp_path / "bin/restic"
    program.parent.mkdir()
    error = {"message_type": "error", "error": {"Op": "read", "Err": 5}, "during": "archival"}
    lines = [{**error, "item": "/homes/alice/notes/a.ipynb"}, {**error, "item": "/homes/alice/gone"}]
    # Paths as restic gives them, which are those of the directory that it is in.
    program.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = backup ] || exec {shutil.which("restic")} "$@"\n'
        f'{shutil.which("restic")} "$@" || exit\n'
        + "".join(f"echo '{json.dumps(line)}' | sed \"s#/homes#$PWD/homes#\" >&2\n" for line in lines)
        + "exit 3\n"
    )
    program.chmod(0o755)
    os.environ["PATH"], path = f"{program.parent}:{os.environ['PATH']}", os.environ["PATH"]
    try:
        said = machine.refused("run")
    finally:
        os.environ["PATH"] = path
    assert "lacks 1 files: " in said
    assert "/homes/alice/notes/a.ipynb Input/output error" in said


def wait_until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_the_backup_after_one_that_was_killed_is_good(machine: Machine, kill: signal.Signals) -> None:
    (machine.homes / "alice/big.bin").write_bytes(os.urandom(200 * MIB))
    process = machine.start("run")
    data, before = machine.root / "repository/data", machine.root / "repository/locks"
    wait_until(lambda: any(before.iterdir()) and any(path.is_file() for path in data.rglob("*")))
    os.killpg(process.pid, kill)
    process.communicate(timeout=30)
    assert process.returncode
    assert list((machine.root / "repository/snapshots").iterdir()) == []
    done = machine.do("run")
    assert done["bytes"] > 200 * MIB
    assert list(before.iterdir()) == []
    kept = facts(machine.homes / "alice")
    shutil.rmtree(machine.homes / "alice")
    machine.do("restore", "--user=alice")
    assert facts(machine.homes / "alice") == kept


def test_two_do_not_run_at_once(machine: Machine) -> None:
    (machine.homes / "alice/big.bin").write_bytes(os.urandom(100 * MIB))
    first = machine.start("run")
    wait_until(lambda: (machine.root / "run/view/homes").exists() or first.poll() is not None)
    assert "another backup or restore is at work" in machine.refused("restore", "--user=alice")
    _out, err = first.communicate(timeout=60)
    assert first.returncode == 0, err


def test_old_snapshots_go_and_those_of_two_days_stay(machine: Machine) -> None:
    machine.config["keep"] = {"daily": 3}
    environment = {
        **os.environ,
        "RESTIC_REPOSITORY": machine.config["repository"],
        "RESTIC_PASSWORD": "the-repository-opens-with-this",
        "RESTIC_CACHE_DIR": machine.config["cache"],
    }
    now = time.time()
    for days in (9, 5, 4, 0.3):
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now - days * 86400))
        command = ["restic", "backup", "--quiet", "--host=jhok", "--tag=jhok", f"--time={moment}", str(machine.homes)]
        subprocess.run(command, env=environment, check=True)
    ids = [machine.do("run")["snapshot"] for _ in range(2)]
    listed = subprocess.run(["restic", "snapshots", "--json"], env=environment, capture_output=True, check=True)
    found = {one["short_id"]: one["time"] for one in json.loads(listed.stdout)}
    assert {one[:8] for one in ids} <= set(found)
    ages = sorted(round((now - jhok_backup.moment(one)) / 86400, 1) for one in found.values())
    # Of days: today, and of the two before that have one, yesterday's or the 4th and 5th.
    assert ages[-1] in (4, 5)
    assert 9 not in ages
    assert 0.3 in ages


# ------------------------------------------------------------------ archive


def test_an_archive_holds_the_home_and_the_home_is_gone(machine: Machine) -> None:
    alice = machine.homes / "alice"
    fill(alice)
    before = facts(alice)
    plan = machine.do("archive", "--user=alice", "--dry-run")
    assert facts(alice) == before
    assert not (machine.root / "nfs/archive").exists()
    done = machine.do("archive", "--user=alice")
    assert done["home"] == plan["home"] == str(alice)
    assert not alice.exists()
    assert (machine.homes / "bob").exists()
    place = Path(done["archive"])
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    command = ["tar", "--extract", "--zstd", "--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse"]
    subprocess.run([*command, f"--file={place}", f"--directory={machine.homes}"], check=True)
    assert {n for n, fact in facts(alice).items() if fact != before[n]} == set()
    assert (alice / "sparse.bin").stat().st_blocks * 512 < 2 * MIB


def test_a_home_that_changes_while_it_is_packed_stays(machine: Machine) -> None:
    log = machine.homes / "alice/log.txt"
    end = threading.Event()

    def append() -> None:
        with log.open("a") as file:
            while not end.is_set():
                file.write("x" * 1000)
                file.flush()

    writer = threading.Thread(target=append)
    writer.start()
    try:
        wait_until(log.exists)
        assert "tar: " in machine.refused("archive", "--user=alice")
    finally:
        end.set()
        writer.join()
    assert (machine.homes / "alice/notes/a.ipynb").exists()
    assert list((machine.root / "nfs/archive").iterdir()) == []


def test_nobodys_home_is_not_archived(machine: Machine) -> None:
    (machine.homes / "eve").symlink_to(machine.root / "etc")
    for user, reason in (("dora", "has no home"), ("eve", "has no home"), ("../homes/bob", "not the name of a user")):
        assert reason in machine.refused("archive", f"--user={user}")
    assert (machine.root / "etc/secrets.json").exists()
