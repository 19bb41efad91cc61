"""tests/make/times.py, see there."""

from __future__ import annotations

from pathlib import Path

import pytest
from times import KEPT, main


def note(path: Path, run: str, seconds: int, stage: str) -> None:
    main(["note", str(path), run, str(seconds), stage])


def shown(path: Path, run: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    main(["show", str(path), run])
    return capsys.readouterr().out.splitlines()


def test_a_run_is_shown_beside_the_median_of_the_earlier_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "times"
    for day, seconds in enumerate((40, 70, 10), 1):
        note(path, f"2026-11-0{day}T10:00:00 unit abc", seconds, "unit")
    note(path, "2026-11-09T10:00:00 test def", 55, "unit")
    note(path, "2026-11-09T10:00:00 test def", 3000, "molecule")
    assert shown(path, "2026-11-09T10:00:00 test def", capsys) == [
        "How long it took (2026-11-09T10:00:00 test def), and the median of earlier runs:",
        "    55 s     40 s  unit",
        "  3000 s        -  molecule",
        "  3055 s           in all",
    ]


def test_a_later_run_is_no_earlier_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    note(tmp_path / "times", "2026-11-01T10:00:00 unit abc", 40, "unit")
    note(tmp_path / "times", "2026-11-02T10:00:00 unit abc", 50, "unit")
    assert "    40 s        -  unit" in shown(tmp_path / "times", "2026-11-01T10:00:00 unit abc", capsys)


def test_the_last_runs_of_each_target_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "times"
    note(path, "2026-11-01T10:00:00 test abc", 3000, "molecule")
    for minute in range(KEPT + 5):
        note(path, f"2026-11-02T10:{minute:02}:00 unit abc", minute, "unit")
        note(path, f"2026-11-02T10:{minute:02}:00 unit abc", minute, "again")
    lines = path.read_text().splitlines()
    assert lines[0] == "2026-11-01T10:00:00 test abc\t3000\tmolecule"
    assert lines[1] == "2026-11-02T10:05:00 unit abc\t5\tunit"
    assert len(lines) == 1 + 2 * KEPT
    assert "     7 s  again" in capsys.readouterr().out


def test_make_times_shows_the_last_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, now = tmp_path / "times", "2026-11-03T10:00:00 times abc"
    assert shown(path, now, capsys) == ["Nothing was timed yet."]
    note(path, "2026-11-01T10:00:00 unit abc", 40, "unit")
    note(path, "2026-11-02T10:00:00 unit abc", 50, "unit")
    assert "    50 s     40 s  unit" in shown(path, now, capsys)


def test_nothing_is_kept_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["note", "", "2026-11-02T10:00:00 unit abc", "50", "unit"])
    assert list(tmp_path.iterdir()) == []
