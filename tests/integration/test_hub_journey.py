"""Module hub_journey against a real JupyterHub with its real proxy and real single-user servers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError
from hub import PASSWORD, TOKEN, free_port, running_hub

pytestmark = pytest.mark.integration

USER = "jhok-verify"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, proxy_command: str) -> Iterator[tuple[str, Path]]:
    directory = tmp_path_factory.mktemp("hub")
    with running_hub(directory, proxy_command) as url:
        yield url, directory


def journey(url: str, **options: object) -> dict[str, Any]:
    """Run the module as Ansible does and return its result; no secret may be in anything it printed."""
    args = {"url": url, "password": PASSWORD, "service_token": TOKEN, "user": USER} | options
    command = [
        sys.executable,
        "-m",
        "ansible",
        "adhoc",
        "localhost",
        "-c",
        "local",
        "-m",
        "jhok.lab.hub_journey",
        "-vvv",
    ]
    root = Path(__file__).parents[2]
    environment = os.environ | {
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_FORCE_COLOR": "0",
    }
    done = subprocess.run(
        [*command, "-e", f"ansible_python_interpreter={sys.executable}", "-a", json.dumps(args)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    for secret in (str(args["password"]), TOKEN):
        assert not secret or secret not in done.stdout + done.stderr
    assert " => {" in done.stdout, done.stdout + done.stderr
    result: dict[str, Any] = json.loads("{" + done.stdout.partition(" => {")[2].rpartition("}")[0] + "}")
    return result


def failures(result: dict[str, Any]) -> list[str]:
    return [f"{line['asked']}: {line['got']}" for line in result["probes"] if not line["ok"]]


def nothing_stays(url: str, directory: Path) -> None:
    assert HubClient(url, token=TOKEN).user(USER) is None
    assert [path.name for path in (directory / "homes" / USER).glob(".jhok-verify-*")] == []


@pytest.mark.parametrize("password", [PASSWORD, ""], ids=["password", "token"])
def test_green_journey_leaves_nothing(hub: tuple[str, Path], password: str) -> None:
    url, directory = hub
    result = journey(url, password=password)
    assert failures(result) == []
    assert not result["changed"]
    assert len(result["probes"]) == 13
    assert len(result["click_to_jupyter"]) == 2
    nothing_stays(url, directory)


def test_an_open_port_is_told_and_spoils_nothing_else(hub: tuple[str, Path]) -> None:
    url, directory = hub
    closed = f"127.0.0.1:{free_port()}"
    result = journey(url, closed=[closed])
    assert failures(result) == []
    assert [line["got"] for line in result["probes"] if "closed ports" in line["asked"]] == ["none answers"] * 2
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened = f"127.0.0.1:{listener.getsockname()[1]}"
        result = journey(url, closed=[closed, opened])
    assert failures(result) == [f"try 2 closed ports from the server: it reaches {opened}"] * 2
    assert len(result["probes"]) == 15
    nothing_stays(url, directory)


def test_cleans_up_after_an_interrupted_journey(hub: tuple[str, Path]) -> None:
    url, directory = hub
    visitor = HubClient(url)
    visitor.sign_in(USER, PASSWORD)
    visitor.start_server(USER, {"node": "somewhere"}, timeout=60)
    assert "{'node': 'somewhere'}" in (directory / "options.log").read_text()
    result = journey(url)
    assert failures(result) == []
    assert result["probes"][2]["got"] == "removed"
    nothing_stays(url, directory)


def test_wrong_password(hub: tuple[str, Path]) -> None:
    url, directory = hub
    result = journey(url, password="a-wrong-password")
    first, *others = failures(result)
    assert first == f"sign in as {USER}: the hub refused the sign-in of {USER}: Invalid username or password"
    assert len(others) == 8
    assert all(": not asked: 'sign in" in line for line in others)
    nothing_stays(url, directory)


def test_wrong_service_token(hub: tuple[str, Path]) -> None:
    url, _ = hub
    bad = journey(url, service_token="ffffffffffffffffffffffffffffffff")
    assert "403" in failures(bad)[0]
    assert len(failures(bad)) == 11


def test_kernel_that_dies(hub: tuple[str, Path]) -> None:
    url, _ = hub
    visitor = HubClient(url)
    visitor.sign_in(USER, PASSWORD)
    visitor.start_server(USER, {}, timeout=60)
    visitor.lab_page(USER)
    try:
        with pytest.raises(HubError, match="the kernel died"):
            visitor.run(USER, "import os; os._exit(1)", timeout=60)
        with pytest.raises(HubError, match="ZeroDivisionError"):
            visitor.run(USER, "1 / 0", timeout=60)
        with pytest.raises(HubError, match="did not answer in time"):
            visitor.run(USER, "import time; time.sleep(600)", timeout=5)
        with pytest.raises(HubError, match="404 from GET /user/jhok-verify/nowhere"):
            visitor.request("GET", f"/user/{USER}/nowhere")
    finally:
        visitor.stop_server(USER, timeout=60)
    assert HubClient(url, token=TOKEN).delete_user(USER)


def test_server_that_does_not_start(tmp_path: Path, proxy_command: str) -> None:
    with running_hub(tmp_path, proxy_command, TEST_HUB_BROKEN_SERVER="1") as url:
        result = journey(url)
        assert "the server did not start" in failures(result)[0]
        assert len(failures(result)) == 8
        assert result["click_to_jupyter"] == []
        nothing_stays(url, tmp_path)


def test_hub_that_is_down() -> None:
    result = journey(f"http://127.0.0.1:{free_port()}", timeout=2)
    assert len(result["probes"]) == len(failures(result)) == 13
    assert "Connection refused" in failures(result)[0]
