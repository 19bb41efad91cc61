"""Module benchmark_load against a real hub with real single-user servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient
from hub import PASSWORD, TOKEN, running_hub

pytestmark = pytest.mark.integration

USERS = ["jhok-load-1", "jhok-load-2", "jhok-load-3"]
ROOT = Path(__file__).parents[2]


def load(url: str, **options: object) -> dict[str, Any]:
    """Run the module as Ansible does; no secret may be in anything it printed."""
    args = {"url": url, "users": USERS, "service_token": TOKEN, "password": PASSWORD} | options
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ansible", "adhoc", "localhost", "-c", "local", "-m", "jhok.lab.benchmark_load"),
            *("-vvv", "-e", f"ansible_python_interpreter={sys.executable}", "-a", json.dumps(args)),
        ],
        cwd=ROOT,
        env=os.environ
        | {
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_FORCE_COLOR": "0",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert PASSWORD not in done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert " => {" in done.stdout, done.stdout + done.stderr
    result: dict[str, Any] = json.loads("{" + done.stdout.partition(" => {")[2].rpartition("}")[0] + "}")
    return result


def test_starts_all_and_removes_all(tmp_path: Path, proxy_command: str) -> None:
    with running_hub(tmp_path, proxy_command, TEST_HUB_LOAD_USERS=" ".join(USERS)) as url:
        admin = HubClient(url, token=TOKEN)
        admin.create_user(USERS[0])  # an interrupted run left a running server
        admin.start_server(USERS[0], {}, timeout=60)
        result = load(url)
        assert (result["started"], result["not_started"]) == (3, [])
        assert 0 < result["ready"]["first"] <= result["ready"]["median"] <= result["ready"]["last"]
        assert set(result["pages"]) == {"/hub/login", "/hub/home"}
        assert all(page["asked"] > 5 and page["failed"] == 0 for page in result["pages"].values())
        assert [admin.user(user) for user in USERS] == [None, None, None]


def test_failed_starts_are_results(tmp_path: Path, proxy_command: str) -> None:
    extra = {"TEST_HUB_LOAD_USERS": " ".join(USERS), "TEST_HUB_BROKEN_SERVER": "1"}
    with running_hub(tmp_path, proxy_command, **extra) as url:
        result = load(url, password="")
        assert result["started"] == 0
        assert {entry["user"] for entry in result["not_started"]} == set(USERS)
        assert all("the server did not start" in entry["reason"] for entry in result["not_started"])
        assert set(result["pages"]) == {"/hub/login"}
        assert HubClient(url, token=TOKEN).user(USERS[0]) is None


def test_a_token_that_may_not_is_told(tmp_path: Path, proxy_command: str) -> None:
    with running_hub(tmp_path, proxy_command) as url:
        assert "404 from" in load(url)["msg"]
