"""What the homes' limits are worked out to be, and what is told of them; tests/kernel has a kernel to enforce them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jhok_quota
import pytest
from jhok_quota import Share, candidates, project_ids, shares

MIB = 1024 * 1024
QUOTAS = [
    {"name": "large", "users": ["bob", "absent"], "limit": 50 * MIB, "shared": False},
    {"name": "class", "users": ["ann", "ben"], "limit": 30 * MIB, "shared": True},
]
CONFIG: dict[str, Any] = {"mode": "report", "limit": 20 * MIB, "quotas": QUOTAS}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is exported, with some homes."""
    monkeypatch.setattr(jhok_quota, "STATE", tmp_path / "quota.json")
    monkeypatch.setattr(jhok_quota, "CONFIG", tmp_path / "config.json")
    monkeypatch.setattr(jhok_quota, "SETTLE_SECONDS", 0)
    for name in ("alice", "ann", "ben", "lost+found", ".hidden"):
        (tmp_path / "nfs/homes" / name).mkdir(parents=True)
    (tmp_path / "nfs/homes/a-file").touch()
    (tmp_path / "nfs/homes/a-link").symlink_to("alice")
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "path": str(tmp_path / "nfs")}))
    return tmp_path / "nfs"


class Kernel:
    """A file system's projects, kept here."""

    def __init__(self) -> None:
        self.limits: dict[int, int] = {}
        self.projects: dict[int, int] = {}  # by inode
        self.calls: list[tuple[int, int | None]] = []
        self.adopted: list[str] = []
        self.unreachable: list[str] = []

    def of(self, project: int) -> tuple[int, int | None]:
        return 7, self.limits.get(project)

    def limit(self, project: int, limit: int | None) -> None:
        if self.limits.get(project) != limit:
            self.calls.append((project, limit))
            self.limits.pop(project, None)
            if limit is not None:
                self.limits[project] = limit

    def limited(self) -> Iterator[int]:
        yield from self.limits

    def project_of(self, descriptor: int) -> tuple[int, bool]:
        project = self.projects.get(os.fstat(descriptor).st_ino, 0)
        return project, bool(project)

    def adopt(self, descriptor: int, project: int) -> list[str]:
        self.projects[os.fstat(descriptor).st_ino] = project
        self.adopted.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        return self.unreachable


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(jhok_quota, "project_of", kernel.project_of)
    monkeypatch.setattr(jhok_quota, "adopt", kernel.adopt)
    return kernel


def enforce(
    kernel: Kernel, site: Path, config: Mapping[str, Any], known: Mapping[str, Any] | None = None
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    opened = jhok_quota.open_homes(site / "homes")
    try:
        return jhok_quota.enforce(kernel, opened, config, known or {})  # type: ignore[arg-type]
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


# ------------------------------------------------------------------ what the inventory wants


def test_shares() -> None:
    assert shares(CONFIG, ["alice", "ann", "ben", "bob"]) == {
        "alice": Share("home/alice", 20 * MIB),
        "ann": Share("shared/class", 30 * MIB, "class"),
        "ben": Share("shared/class", 30 * MIB, "class"),
        "bob": Share("home/bob", 50 * MIB),
    }
    assert shares({"limit": None, "quotas": []}, ["alice"]) == {"alice": Share("home/alice")}


def test_ids_are_stable_and_leave_small_ones_to_others() -> None:
    # Homes on disks in the field have them: another hash would walk through every home again.
    assert candidates("home/alice")[0] == 927141210
    for key in ("home/alice", "shared/class", "home/shared/class"):
        assert all(2**20 <= number < 2**31 for number in candidates(key))
    assert candidates("home/class") != candidates("shared/class")


def test_ids_that_collide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jhok_quota, "candidates", lambda key: {"a": [1, 2], "b": [1, 3], "c": [1, 2]}[key])
    assert project_ids({"a": {0}, "b": {0}}) == {"a": 1, "b": 3}
    assert project_ids({"a": {0}, "b": {1}}) == {"a": 2, "b": 1}, "who has it keeps it"
    assert project_ids({"a": {1}, "b": {1}}) == {"a": 1, "b": 3}, "a home that was copied with its id gives it back"
    assert project_ids({"a": {99}}) == {"a": 1}, "an id of something else is not kept"
    assert project_ids({"a": {1}, "b": {3}, "c": {0}}) == {"a": 1, "b": 3, "c": 2}
    with pytest.raises(ValueError, match="c"):
        project_ids({"a": {2}, "b": {1}, "c": {0}})


@pytest.mark.parametrize(("limit", "kept"), [(None, None), (20 * MIB, 20 * MIB), (1025, 1024), (1, 1024)])
def test_limits_as_the_kernel_keeps_them(limit: int | None, kept: int | None) -> None:
    assert jhok_quota.kernel_limit(limit) == kept


# ------------------------------------------------------------------ enforcing


def test_limits_are_set_once(site: Path, kernel: Kernel) -> None:
    homes, problems = enforce(kernel, site, CONFIG)
    own, shared = candidates("home/alice")[0], candidates("shared/class")[0]
    assert problems == []
    assert kernel.limits == {own: 20 * MIB, shared: 30 * MIB}
    assert homes["alice"] == {"used": 7, "limit": 20 * MIB, "shared": None, "project": own}
    assert homes["ben"] == {"used": 7, "limit": 30 * MIB, "shared": "class", "project": shared}
    assert sorted(kernel.adopted) == ["alice", "ann", "ben"]
    kernel.calls.clear()
    kernel.adopted.clear()
    assert enforce(kernel, site, CONFIG, homes)[0] == homes
    assert (kernel.calls, kernel.adopted) == ([], [])


def test_what_the_inventory_drops_is_lifted(site: Path, kernel: Kernel) -> None:
    homes, _ = enforce(kernel, site, CONFIG)
    homes, _ = enforce(kernel, site, {**CONFIG, "limit": None, "quotas": QUOTAS[:1]}, homes)
    assert kernel.limits == {}
    assert homes["ann"]["project"] == candidates("home/ann")[0], "who no longer shares is a project of their own"


def test_a_walk_that_missed_something_is_made_again(site: Path, kernel: Kernel) -> None:
    kernel.unreachable = ["./x: Resource temporarily unavailable"]
    homes, problems = enforce(kernel, site, CONFIG)
    assert "alice: ./x: Resource temporarily unavailable" in problems
    kernel.unreachable = []
    homes, problems = enforce(kernel, site, CONFIG, homes)
    assert (sorted(kernel.adopted), problems) == (["alice", "alice", "ann", "ann", "ben", "ben"], [])


# ------------------------------------------------------------------ measuring and telling


def told(site: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((site / "usage" / name / "home.json").read_text()))


def test_report_measures(site: Path) -> None:
    (site / "homes/alice/file").write_bytes(b"x" * MIB)
    (site / "homes/ann/file").write_bytes(b"x" * 2 * MIB)
    assert jhok_quota.main(["apply"]) == 0
    assert MIB <= told(site, "alice")["used"] < 2 * MIB
    assert (told(site, "alice")["limit"], told(site, "alice")["shared"]) == (20 * MIB, None)
    assert 2 * MIB <= told(site, "ben")["used"] < 3 * MIB, "what they have together"
    assert told(site, "ben")["shared"] == "class"
    state = json.loads(jhok_quota.STATE.read_text())
    assert (state["mode"], set(state["homes"])) == ("report", {"alice", "ann", "ben"})


def test_nobody_but_root_can_change_what_is_told(site: Path) -> None:
    os.umask(0)
    jhok_quota.main(["apply"])
    modes = {path.relative_to(site).as_posix(): path.stat().st_mode & 0o777 for path in site.glob("usage/**/*")}
    assert (site / "usage").stat().st_mode & 0o7777 == 0o1733, "users add to it, and see and touch nobody else's"
    assert modes == {
        name: mode
        for user in ("alice", "ann", "ben")
        for name, mode in {f"usage/{user}": 0o755, f"usage/{user}/home.json": 0o644}.items()
    }


def test_what_a_user_has_made_leads_nowhere(site: Path, tmp_path: Path) -> None:
    """On a machine that is taken over, a user's number may put there what it likes."""
    secret = tmp_path / "secret"
    secret.write_text("kept")
    usage = site / "usage"
    (usage / "alice").mkdir(parents=True)
    (usage / "alice/home.new").symlink_to(secret)
    (usage / "alice/home.json").symlink_to(secret)
    (usage / "ann").symlink_to(tmp_path)
    (usage / "ben").write_text("in the way")
    (usage / "stranger").symlink_to(tmp_path)
    (usage / "alice").chmod(0o777)
    os.chown(usage / "alice", 1500, 1500)
    assert jhok_quota.main(["apply"]) == 0
    assert secret.read_text() == "kept"
    assert not (tmp_path / "home.json").exists()
    assert sorted(path.name for path in usage.iterdir()) == ["alice", "ann", "ben"]
    for user in ("alice", "ann", "ben"):
        status = (usage / user).lstat()
        assert (status.st_uid, status.st_mode & 0o7777) == (0, 0o755)
        assert told(site, user)["limit"]


def test_what_is_as_it_was_is_not_written_again(site: Path) -> None:
    jhok_quota.main(["apply"])
    file = site / "usage/alice/home.json"
    before = file.stat().st_ino, told(site, "alice")
    jhok_quota.main(["apply"])
    assert (file.stat().st_ino, told(site, "alice")) == before
    state = json.loads(jhok_quota.STATE.read_text())
    state["homes"]["alice"]["time"] -= jhok_quota.FRESH_SECONDS
    jhok_quota.STATE.write_text(json.dumps(state))
    jhok_quota.main(["apply"])
    assert file.stat().st_ino != before[0]
    file.unlink()
    jhok_quota.main(["apply"])
    assert told(site, "alice")["limit"] == 20 * MIB


def test_of_a_home_that_is_gone_nothing_is_told(site: Path) -> None:
    jhok_quota.main(["apply"])
    (site / "homes/ben").rmdir()
    jhok_quota.main(["apply"])
    assert sorted(path.name for path in (site / "usage").iterdir()) == ["alice", "ann"]


def test_clear_takes_all_back(site: Path) -> None:
    jhok_quota.main(["apply"])
    assert jhok_quota.main(["clear", str(site)]) == 0
    assert not (site / "usage").exists()
    assert not jhok_quota.STATE.exists()
    assert (site / "homes/alice").is_dir()


@pytest.mark.usefixtures("site")
def test_verify_of_report(capsys: pytest.CaptureFixture[str]) -> None:
    config = jhok_quota.CONFIG.read_text()
    assert jhok_quota.main(["verify", config]) == 0
    assert json.loads(capsys.readouterr().out) == {"got": "not measured: alice, ann, ben", "ok": False}
    jhok_quota.main(["apply"])
    jhok_quota.main(["verify", config])
    assert json.loads(capsys.readouterr().out) == {"got": "3 homes, measured only", "ok": True}


def test_a_file_system_without_limits_is_no_success(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jhok_quota.FileSystem, "enforced", lambda _self: False)
    config = {**CONFIG, "path": str(site), "mode": "enforce"}
    jhok_quota.main(["verify", json.dumps(config)])
    assert json.loads(capsys.readouterr().out) == {"got": "the file system enforces no limits of projects", "ok": False}
    jhok_quota.CONFIG.write_text(json.dumps(config))
    with pytest.raises(OSError, match="prjquota"):
        jhok_quota.main(["apply"])
    assert not (site / "usage").exists()


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert jhok_quota.main([]) == 1
    assert "say what to do" in capsys.readouterr().err
