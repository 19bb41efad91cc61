"""Which files a unit was started before. systemd's part of it is tried on the lab."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.jhok.lab.plugins.modules.unit_fresh import newer, runs, unread


def test_a_file_that_changed_since_is_found_whatever_time_it_bears(tmp_path: Path) -> None:
    """As rsync and tar set it."""
    path = tmp_path / "program"
    path.write_text("x")
    os.utime(path, (1, 1))
    assert newer([str(path), str(path)], time.time() - 10) == [str(path)]


def test_a_file_that_was_there_before_is_not(tmp_path: Path) -> None:
    (tmp_path / "conf").write_text("x")
    assert newer([str(tmp_path / "conf")], time.time() + 10) == []


def test_a_file_that_is_not_there_counts_for_nothing(tmp_path: Path) -> None:
    assert newer([str(tmp_path / "none")], 0) == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"Type": "notify", "RemainAfterExit": "no", "ActiveState": "active"}, True),
        ({"Type": "simple", "RemainAfterExit": "no", "ActiveState": "activating"}, True),
        ({"Type": "simple", "RemainAfterExit": "no", "ActiveState": "inactive"}, False),
        ({"Type": "oneshot", "RemainAfterExit": "yes", "ActiveState": "active"}, True),
        ({"Type": "oneshot", "RemainAfterExit": "yes", "ActiveState": "inactive"}, False),
        ({"Type": "oneshot", "RemainAfterExit": "no", "ActiveState": "inactive", "FragmentPath": "/x"}, True),
        ({"Type": "oneshot", "RemainAfterExit": "no", "ActiveState": "inactive", "FragmentPath": ""}, False),
        ({}, False),
    ],
)
def test_what_is_started_again(state: dict[str, str], expected: bool) -> None:
    assert runs(state) is expected


@pytest.mark.parametrize(
    ("state", "own", "expected"),
    [
        ({"NeedDaemonReload": "no", "FragmentPath": "/lib/systemd/system/x.service"}, "", False),
        ({"NeedDaemonReload": "yes", "FragmentPath": "/lib/systemd/system/x.service"}, "", True),
        ({"NeedDaemonReload": "no", "FragmentPath": "/lib/systemd/system/x.service"}, "/etc/x.service", True),
        ({"NeedDaemonReload": "no", "FragmentPath": "/etc/x.service"}, "/etc/x.service", False),
        ({"NeedDaemonReload": "no", "FragmentPath": ""}, "/etc/x.service", False),
    ],
)
def test_a_unit_file_in_the_place_of_a_packages_is_read(state: dict[str, str], own: str, expected: bool) -> None:
    assert unread(state, own) is expected
