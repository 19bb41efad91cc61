"""Molecule's search for secrets finds one that is planted."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCAN = Path(__file__).parents[2] / "molecule/shared/secret_scan.py"


@pytest.fixture
def secret() -> str:
    """Return a secret of this test alone: those that run beside it have theirs in processes."""
    return f"planted-{secrets.token_hex(8)}"


def store(**values: str) -> str:
    content = {"secrets": {name: {"value": value} for name, value in values.items()}}
    return base64.b64encode(json.dumps(content).encode()).decode()


def scan(stores: str, *where: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCAN), *where], input=stores, capture_output=True, text=True, check=False, timeout=60
    )


def test_a_process_that_is_gone_was_noted(tmp_path: Path, secret: str) -> None:
    log = tmp_path / "processes.log"
    with subprocess.Popen([sys.executable, str(SCAN), "--record", str(log)]) as recorder:
        try:
            for argument in ("harmless", secret):
                subprocess.run(["/bin/sh", "-c", "sleep 1.5; exit 0", argument], check=True)
        finally:
            recorder.kill()
    (tmp_path / "empty").mkdir()
    found = scan(store(token=secret), str(tmp_path / "empty"), "--log", str(log))
    assert found.returncode == 1
    assert found.stderr.strip() == f"token in {log}"
    log.write_text("/bin/sh -c sleep harmless\n")
    assert scan(store(token=secret), str(tmp_path / "empty"), "--log", str(log)).returncode == 0


def test_a_file_that_anybody_may_read_is_found(tmp_path: Path, secret: str) -> None:
    (tmp_path / "open").write_text(f"password: {secret}")
    (tmp_path / "closed").write_text(f"password: {secret}")
    (tmp_path / "closed").chmod(0o600)
    tmp_path.chmod(0o755)
    assert scan(store(token=secret), str(tmp_path)).stderr.strip() == f"token in {tmp_path}/open"


def test_every_store_counts_and_base64_too(tmp_path: Path, secret: str) -> None:
    (tmp_path / "data").write_text(f"token: {base64.b64encode(secret.encode()).decode()}")
    (tmp_path / "url").write_text(f"https://lab:{secret[::-1]}@proxy.example.org")
    tmp_path.chmod(0o755)
    found = scan(f"{store(token=secret)} {store(proxy=secret[::-1])}", str(tmp_path)).stderr.strip().splitlines()
    assert sorted(found) == [f"proxy in {tmp_path}/url", f"token in base64 in {tmp_path}/data"]


def test_a_running_process_is_found(tmp_path: Path, secret: str) -> None:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 30; exit 0", secret]) as process:
        try:
            time.sleep(0.2)
            assert f"token in process {process.pid}" in scan(store(token=secret), str(tmp_path)).stderr
        finally:
            process.kill()
