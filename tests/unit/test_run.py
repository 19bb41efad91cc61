"""tests/make/run.py with real processes: parts are targets of a small Makefile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from run import ROOT, Part, main

FIRST = Part("check", 0.1, 1, first=True)
LONG, OTHER = Part("molecule", 0.1, 1), Part("integration", 0.1, 1)


def makefile(directory: Path, **recipes: str) -> None:
    """Write a Makefile with these targets; each notes that it was run."""
    lines = [f"{name}:\n\t@echo {name} >> ran\n\t@{recipe}\n" for name, recipe in recipes.items()]
    (directory / "Makefile").write_text("test-look:\n\t@echo how to look\n" + "".join(lines))


def ran(directory: Path) -> list[str]:
    return (directory / "ran").read_text().split()


def test_all_parts_pass(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    makefile(tmp_path, check="echo 3 passed in 1.2s", molecule="true", integration="true")
    assert main([], (FIRST, LONG, OTHER), tmp_path) == 0
    assert ran(tmp_path) == ["check", "molecule", "integration"]
    output = capfd.readouterr().out
    assert "\n3 passed in 1.2s\n" in output
    assert output.count("  passed") == 3
    assert "how to look" not in output


def test_a_cheap_part_that_fails_ends_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    makefile(tmp_path, check="false", molecule="true")
    assert main([], (FIRST, LONG), tmp_path) == 1
    assert ran(tmp_path) == ["check"]
    output = capfd.readouterr().out
    assert "check         FAILED: exit status 2" in output
    assert "molecule      not done" in output
    assert "how to look" not in output


def test_the_others_run_whatever_fails_and_failures_are_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    makefile(tmp_path, check="true", molecule="false", integration="[ -e again ] || { touch again; exit 1; }")
    assert main([], (FIRST, LONG, OTHER), tmp_path) == 1
    assert ran(tmp_path) == ["check", "molecule", "integration", "molecule", "integration"]
    output = capfd.readouterr().out
    assert "molecule      FAILED: exit status 2, then exit status 2" in output
    assert "integration   FLAKY: exit status 2, then passed" in output
    assert output.endswith("how to look\n")


def test_a_flaky_part_does_not_fail_the_run(tmp_path: Path) -> None:
    makefile(tmp_path, integration="[ -e again ] || { touch again; exit 1; }")
    assert main([], (OTHER,), tmp_path) == 0


def test_a_part_that_does_not_fit_is_not_tried_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    makefile(tmp_path, molecule="false", integration="false")
    assert main(["--minutes", "40"], (Part("molecule", 48, 75), OTHER), tmp_path) == 1
    assert ran(tmp_path) == ["molecule", "integration", "integration"]
    assert "molecule is not run once more: 40 min are left" in capfd.readouterr().out


def test_no_part_begins_when_the_time_is_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    makefile(tmp_path, integration="true")
    assert main(["--minutes", "0"], (OTHER,), tmp_path) == 1
    assert not (tmp_path / "ran").exists()
    assert "FAILED: no time was left for it" in capfd.readouterr().out


def test_a_part_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Two processes that do not listen, of which one is in a session of its own, and one that cleans up.
    deaf = "trap '' INT; echo $$$$ >> pids; exec sleep 1000"
    tidy = "trap 'echo tidied up; exit 1' INT; echo at test_slow"
    (tmp_path / "deaf.sh").write_text(deaf.replace("$$$$", "$$"))
    (tmp_path / "tidy.sh").write_text(f"{tidy}\nsh deaf.sh &\nsetsid sh deaf.sh &\nwait\n")
    makefile(tmp_path, integration="bash tidy.sh")
    part = Part("integration", 5, 2 / 60)
    assert main(["--minutes", "1"], (part,), tmp_path, grace=2) == 1
    output = capfd.readouterr().out
    assert "make --no-print-directory integration: ended after 0 min. When it was ended, its last lines were:" in output
    assert "  | at test_slow" in output
    assert "tidied up" in output
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    assert [pid for pid in pids if alive(int(pid))] == []


def alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_run_that_is_ended_ends_its_part(tmp_path: Path) -> None:
    makefile(tmp_path, integration="echo $$$$ > pid; exec sleep 1000")
    (tmp_path / "go.py").write_text(
        "import run, signal, sys\nfrom pathlib import Path\nsignal.signal(signal.SIGTERM, run.stop)\n"
        "part = run.Part('integration', 1, 1)\nsys.exit(run.main([], (part,), Path(sys.argv[1]), grace=5))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests/make")}
    command = [sys.executable, str(tmp_path / "go.py"), str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "integration   not done" in output
    assert not alive(int((tmp_path / "pid").read_text()))
