"""The backup script's pure parts."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import jhok_backup
import pytest
from jhok_backup import BackupError
from prometheus_client.parser import text_string_to_metric_families

SNAPSHOTS = [
    {"id": "aaaa1111bbbb", "time": "2026-11-20T03:00:00.123456789Z"},
    {"id": "aaaa2222bbbb", "time": "2026-11-22T03:00:00+01:00"},
    {"id": "cccc3333dddd", "time": "2026-11-21T03:00:00.5Z"},
]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("latest", "aaaa2222bbbb"),
        ("cccc", "cccc3333dddd"),
        ("aaaa1111", "aaaa1111bbbb"),
        ("2026-11-21", "cccc3333dddd"),
        ("2026-11-20", "aaaa1111bbbb"),
        ("2026-11-21 02:59", "aaaa1111bbbb"),
        ("2026-11-21T03:00:01", "cccc3333dddd"),
        ("2027-01-01", "aaaa2222bbbb"),
    ],
)
def test_a_snapshot_is_chosen(wanted: str, chosen: str) -> None:
    assert jhok_backup.choose(SNAPSHOTS, wanted)["id"] == chosen
    assert jhok_backup.choose(SNAPSHOTS[::-1], wanted)["id"] == chosen


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("aaaa", "several backups"),
        ("ffff", "no backup has this id"),
        ("aa", "no backup has this id"),
        ("2026-11-19", "no backup as old as 2026-11-19: there are 3, from 2026-11-20T03:00 to 2026-11-22T03:00"),
        ("2026-13-01", "is no date"),
        ("yesterday", "it is no date"),
    ],
)
def test_a_snapshot_that_nobody_can_mean(wanted: str, reason: str) -> None:
    with pytest.raises(BackupError, match=reason):
        jhok_backup.choose(SNAPSHOTS, wanted)


def test_without_a_backup_there_is_none_to_choose() -> None:
    with pytest.raises(BackupError, match="there is no backup yet"):
        jhok_backup.choose([], "latest")


def test_an_address_is_shown_without_its_password() -> None:
    assert jhok_backup.shown("rest:https://ann:w0rd@nas/jhok") == "rest:https://nas/jhok"
    assert jhok_backup.shown("sftp:ann@nas:/backups") == "sftp:ann@nas:/backups"
    assert jhok_backup.shown("/mnt/backup") == "/mnt/backup"


def test_patterns_are_relative_to_each_home() -> None:
    assert jhok_backup.excludes([".cache", "**/node_modules"], Path("/v/homes")) == [
        "--exclude=/v/homes/*/.cache",
        "--exclude=/v/homes/*/**/node_modules",
    ]
    assert jhok_backup.literal("/homes/a/[x]*?\\") == r"/homes/a/\[x]\*\?\\"


def test_what_is_kept() -> None:
    assert jhok_backup.keeps({"weekly": 4, "daily": 7, "yearly": 0}) == [
        "--keep-within=2d",
        "--keep-daily=7",
        "--keep-weekly=4",
    ]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a/"])
def test_a_path_stays_in_the_home(path: str) -> None:
    with pytest.raises(BackupError, match="not a path inside a home"):
        jhok_backup.parts_of(path)


def test_the_password_that_opened_the_repository_outlives_a_restore() -> None:
    saved = {"format": 1, "secrets": {"backup/password": {"value": "old"}, "hub/cookie": {"value": "c"}}}
    present = {"format": 1, "secrets": {"backup/password": {"value": "new"}, "hub/other": {"value": "o"}}}
    assert jhok_backup.merged(saved, present) == {
        "format": 1,
        "secrets": {"backup/password": {"value": "new"}, "hub/cookie": {"value": "c"}},
    }
    assert jhok_backup.merged(saved, {}) == saved


DONE = {"began": 1000.0, "snapshot": "aaaa1111bbbb", "files": 7, "bytes": 2_500_000_000, "added_bytes": 5, "seconds": 9}


@pytest.mark.parametrize(
    ("state", "now", "ok", "words"),
    [
        ({"initialised": 0}, 3600, True, "none yet, set up 60 minutes ago"),
        ({"initialised": 0}, 3 * 86400, False, "none yet, set up 3.0 days ago"),
        (
            {"initialised": 0, "last_run": {"ok": False, "message": "no room"}},
            3600,
            False,
            "none yet, set up 60 minutes ago; the last run failed: no room",
        ),
        (
            {"last_success": DONE, "last_run": {"ok": True, "message": ""}},
            1000 + 7 * 3600,
            True,
            "7.0 hours old, snapshot aaaa1111, 7 files, 2.50 GB",
        ),
        (
            {"last_success": DONE, "last_run": {"ok": False, "message": "no room"}},
            1000 + 3 * 86400,
            False,
            "3.0 days old, snapshot aaaa1111, 7 files, 2.50 GB, older than 2 days; the last run failed: no room",
        ),
        ({"last_success": DONE, "damage": "pack"}, 1000, False, "the repository is damaged: pack"),
        ({}, 1e9, False, "none yet"),
    ],
)
def test_verdict(state: dict[str, Any], now: float, ok: bool, words: str) -> None:
    found, got = jhok_backup.verdict(state, 2, now)
    assert (found, got.startswith(words)) == (ok, True), got


def test_metrics_of_a_backup_that_was_never_good() -> None:
    text = jhok_backup.metrics({"last_run": {"ok": False}})
    found = {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}
    assert found == {"jhok_backup_last_success_timestamp_seconds": 0, "jhok_backup_last_run_success": 0}


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"error": {"message": "open: I/O error"}}, "open: I/O error"),
        ({"error": {"Op": "lstat", "Path": "/x", "Err": 13}}, "Permission denied"),
        ({"error": "plain"}, "plain"),
        ({"error": {}}, "{}"),
        ({}, "{}"),
    ],
)
def test_why_a_file_was_not_read(message: dict[str, Any], words: str) -> None:
    assert jhok_backup.reason(message) == words


def test_a_lock_of_this_machine_whose_process_is_gone_is_dead() -> None:
    own = {"hostname": os.uname().nodename, "pid": os.getpid()}  # this process is no restic
    assert jhok_backup.is_dead(own)
    assert jhok_backup.is_dead({**own, "pid": 2**22 + 1})
    assert not jhok_backup.is_dead({**own, "hostname": "another"})


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    jhok_backup.write(path, json.dumps({"a": 1}))
    assert jhok_backup.read_json(path) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{")
    with pytest.raises(BackupError, match="not valid JSON"):
        jhok_backup.read_json(path)
    assert jhok_backup.read_json(tmp_path / "none") == {}
