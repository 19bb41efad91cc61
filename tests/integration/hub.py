"""A JupyterHub of real processes, for tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import requests

CONFIG = Path(__file__).with_name("jupyterhub_config.py")
PASSWORD = "Test-password-4711"  # of every user
TOKEN = "0123456789abcdef0123456789abcdef"  # of the service `verify`
STOP_SECONDS = 120  # it first stops the servers that run, one after the other
DEADLINE_SECONDS = 60
PAGES: dict[str, Any] = {
    "site_name": "Physics lab",
    "notice": "",
    "contact": "",
    "dashboards_url": "",
    "dashboards_viewers": "users",
    "environments": [],
    "sizes": [],
    "gpus": [],
    "idle_timeout": 0,
    "max_age": 0,
}
"""What hub_pages.py reads of the settings."""


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_hub(directory: Path, proxy_command: str, config: Path = CONFIG, **extra: str) -> Iterator[str]:
    """Run a hub with its proxy on loopback; yields its URL.

    Its log is hub.log in `directory`. `config` is its configuration, `extra` its environment besides.
    """
    url = extra.get("TEST_HUB_URL") or f"http://127.0.0.1:{free_port()}"
    environment = os.environ | {
        "TEST_HUB_DIR": str(directory),
        "TEST_HUB_URL": url,
        "TEST_HUB_INTERNAL_URL": f"http://127.0.0.1:{free_port()}",
        "TEST_HUB_PROXY_API": f"http://127.0.0.1:{free_port()}",
        "TEST_HUB_PROXY": proxy_command,
        "TEST_HUB_USERS": "jhok-verify",
        "TEST_HUB_PASSWORD": PASSWORD,
        "TEST_HUB_TOKEN": TOKEN,
        "CONFIGPROXY_AUTH_TOKEN": "proxy-token",
        **extra,
    }
    with (directory / "hub.log").open("w") as log:
        hub = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(config)],
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
        hub.wait(timeout=STOP_SECONDS)


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


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait until `condition` holds; `what` is said when it does not."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not after {DEADLINE_SECONDS} s: {what}"
        time.sleep(0.1)
