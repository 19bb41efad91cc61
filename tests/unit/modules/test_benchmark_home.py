"""benchmark_home: its program really does the work, in both places, and leaves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ansible_collections.jhok.lab.plugins.modules.benchmark_home import COMPARE, by_work, program


def test_the_program_works_in_both_places_and_leaves_nothing(tmp_path: Path) -> None:
    home, local = tmp_path / "home", tmp_path / "local"
    home.mkdir()
    local.mkdir()
    work = program(COMPARE.replace('"/tmp"', repr(str(local))), megabytes=2, files=50, committed=20, packaged=10)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", work], env=environment, capture_output=True, text=True, check=True)
    times = json.loads(done.stdout)
    assert times.keys() == {"home", "local"}
    assert times["home"].keys() == times["local"].keys()
    assert [*times["home"]] == [
        *("write 2 MB", "read 2 MB", "make 50 files", "list 50 files", "read 50 files", "remove 50 files"),
        *("git clone of 20 files", "pip install of 10 files"),
    ]
    assert all(seconds >= 0 for place in times.values() for seconds in place.values())
    assert not [path for path in tmp_path.rglob("*") if path not in (home, local)]


def test_rounds_are_told_by_what_was_done() -> None:
    rounds = [{"home": {"write": 2.0}, "local": {"write": 1.0}}, {"home": {"write": 4.0}, "local": {"write": 1.5}}]
    assert by_work(rounds, "home") == {"write": [2.0, 4.0]}
    assert by_work(rounds, "local") == {"write": [1.0, 1.5]}
    assert by_work([], "home") == {}
