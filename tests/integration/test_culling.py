"""Who is stopped and who is not: the service idle-culler, a hub, its proxy and single-user servers, all real.

Without $JHOK_CULLING_SITE a hub runs beside the test. With it the cases run on a lab: a JSON file with `url` and
`passwords` of the USERS, of a site with short limits (molecule/culling).
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import websocket
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError
from hub import PASSWORD, running_hub

pytestmark = pytest.mark.integration

USERS = ("printer", "tab", "coder", "aged")
LIMITS = {"idle_timeout": 20, "max_age": 0, "stop_warning": 10, "idle_check_interval": 2}
SHORT = {"name": "short", "title": "Short", "max_age": 30, "idle_timeout": 0}
CULLED_SECONDS = 180  # within which a server that is to be stopped has to be gone
START_SECONDS = 120
# Prints for ever; the file tells afterwards how long it did.
PRINTER = """
import pathlib, time
pathlib.Path.home().joinpath("work.txt").write_text("kept")
while True:
    print("still computing")
    pathlib.Path.home().joinpath("printed.txt").write_text(str(time.time()))
    time.sleep(0.2)
"""


@dataclass
class Site:
    """A hub with the limits above, and its users' passwords."""

    url: str
    passwords: dict[str, str]

    def visitor(self, user: str) -> HubClient:
        """Return a browser in which `user` has just signed in."""
        client = HubClient(self.url)
        client.sign_in(user, self.passwords[user])
        return client


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    given = os.environ.get("JHOK_CULLING_SITE")
    if given:
        yield Site(**json.loads(Path(given).read_text()))
        return
    directory = tmp_path_factory.mktemp("hub")
    for user in USERS:
        settings = directory / "homes" / user / ".jupyter/jupyter_server_config.py"
        settings.parent.mkdir(parents=True)
        # Stands in for code-server: jupyter-server-proxy and a program behind it.
        command = ["python3", "-m", "http.server", "--bind=127.0.0.1", "{port}"]
        settings.write_text(f"c.ServerProxy.servers = {{'vscode': {{'command': {command}}}}}\n")
    limits = json.dumps({**LIMITS, "environments": [SHORT]})
    proxy = request.getfixturevalue("proxy_command")
    with running_hub(directory, proxy, TEST_HUB_CULLER=limits, TEST_HUB_USERS=" ".join(USERS)) as url:
        yield Site(url, dict.fromkeys(USERS, PASSWORD))


class Busy(threading.Thread):
    """Does `step` again and again until it is told to stop or the server is gone."""

    def __init__(self, step: Callable[[], object], pause: float = 0) -> None:
        super().__init__(daemon=True)
        self.step, self.pause = step, pause
        self.done = threading.Event()
        self.steps = 0
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError, HubError, websocket.WebSocketException):
            while not self.done.wait(self.pause):
                self.step()
                self.steps += 1

    def stop(self) -> None:
        self.done.set()


def record(client: HubClient, user: str) -> dict[str, Any] | None:
    """Return what the hub knows of the user's server; None when there is none."""
    servers = (client.user(user) or {}).get("servers") or {}
    return servers.get("")


def wait_until_stopped(client: HubClient, user: str) -> None:
    deadline = time.monotonic() + CULLED_SECONDS
    while found := record(client, user):
        assert time.monotonic() < deadline, f"the server of {user} still runs: {found}"
        time.sleep(0.5)


def open_tab(client: HubClient, user: str) -> tuple[websocket.WebSocket, Busy]:
    """Open JupyterLab as a tab in the background has it: no notebook, no terminal, one websocket that answers pings."""
    client.lab_page(user)
    socket = client.socket(f"/user/{user}/api/events/subscribe", timeout=CULLED_SECONDS)
    return socket, Busy(socket.recv)


def test_who_is_stopped(site: Site) -> None:
    clients = {user: site.visitor(user) for user in USERS}
    # Those who stay start first, so that theirs is the longer time when the printing kernel's server is stopped.
    for user in ("tab", "coder", "printer"):
        clients[user].start_server(user, {}, START_SECONDS)
        if user == "tab":
            tab_socket, _ = open_tab(clients["tab"], "tab")
        if user == "coder":
            clients["coder"].request("GET", "/user/coder/vscode/")
            coding = Busy(lambda: clients["coder"].request("GET", "/user/coder/vscode/"), pause=1)

    clients["printer"].lab_page("printer")
    kernel = clients["printer"].request("POST", "/user/printer/api/kernels", body={"name": "python3"}, accept=(201,))
    channels = clients["printer"].socket(f"/user/printer/api/kernels/{kernel.json()['id']}/channels", START_SECONDS)
    execute(channels, PRINTER)
    wait_for_stream(channels)
    closed = time.time()
    channels.close()  # the browser is closed, the kernel goes on

    wait_until_stopped(clients["printer"], "printer")
    for user in ("tab", "coder"):
        found = record(clients[user], user)
        assert found, f"the server of {user} was stopped while it was in use"
        assert found["ready"]

    tab_socket.close()
    coding.stop()
    for user in ("tab", "coder"):
        wait_until_stopped(clients[user], user)

    # Signing in leads to the options, not to a server; the home is as it was.
    again = site.visitor("printer")
    page = again.request("GET", "/hub/")
    assert page.url.endswith("/hub/spawn"), page.url
    assert record(again, "printer") is None
    again.start_server("printer", {}, START_SECONDS)
    again.lab_page("printer")
    work, printed = (
        again.request("GET", f"/user/printer/api/contents/{name}?content=1").json()["content"]
        for name in ("work.txt", "printed.txt")
    )
    again.stop_server("printer", START_SECONDS)
    assert work == "kept"
    assert float(printed) - closed > LIMITS["idle_timeout"] / 2, "the kernel printed on without the browser"


def test_the_maximum_age_ends_a_used_server(site: Site) -> None:
    client = site.visitor("aged")
    client.start_server("aged", {"environment": "short"}, START_SECONDS)
    socket, _ = open_tab(client, "aged")
    using = Busy(lambda: client.request("GET", "/user/aged/api/status"), pause=0.5)
    wait_until_stopped(client, "aged")
    assert using.steps > 0
    using.stop()
    socket.close()


def execute(channels: websocket.WebSocket, code: str) -> None:
    """Ask a kernel to run code, without waiting for its end."""
    header = {"msg_id": "1", "msg_type": "execute_request", "username": "", "session": "1", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
    channels.send(json.dumps(message))


def wait_for_stream(channels: websocket.WebSocket) -> None:
    while json.loads(channels.recv())["header"]["msg_type"] != "stream":
        pass
