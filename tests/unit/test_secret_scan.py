"""Molecule's search for secrets finds one that is planted."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from pathlib import Path

SCAN = Path(__file__).parents[2] / "molecule/shared/secret_scan.py"
SECRET = "planted-9c1f7be2"
STORE = base64.b64encode(json.dumps({"secrets": {"token": {"value": SECRET}}}).encode()).decode()


def scan(*where: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCAN), *where], input=STORE, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_process_that_is_gone_was_noted(tmp_path: Path) -> None:
    log = tmp_path / "processes.log"
    with subprocess.Popen([sys.executable, str(SCAN), "--record", str(log)]) as recorder:
        try:
            for argument in ("harmless", SECRET):
                subprocess.run(["/bin/sh", "-c", "sleep 1.5; exit 0", argument], check=True)
        finally:
            recorder.kill()
    (tmp_path / "empty").mkdir()
    found = scan(str(tmp_path / "empty"), "--log", str(log))
    assert found.returncode == 1
    assert found.stderr.strip() == f"token in {log}"
    log.write_text("/bin/sh -c sleep harmless\n")
    assert scan(str(tmp_path / "empty"), "--log", str(log)).returncode == 0


def test_a_file_that_anybody_may_read_is_found(tmp_path: Path) -> None:
    (tmp_path / "open").write_text(f"password: {SECRET}")
    (tmp_path / "closed").write_text(f"password: {SECRET}")
    (tmp_path / "closed").chmod(0o600)
    tmp_path.chmod(0o755)
    assert scan(str(tmp_path)).stderr.strip() == f"token in {tmp_path}/open"


def test_a_running_process_is_found(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 30; exit 0", SECRET]) as process:
        try:
            time.sleep(0.2)
            assert f"token in process {process.pid}" in scan(str(tmp_path)).stderr
        finally:
            process.kill()
