"""A user whose home is full, in the site's image on a real kernel's NFS: what is told, what is kept, the way out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient
from machines import EXPORT, FREE_SECONDS, OVER, SPARE, Machine, available, in_image, wait_until_free

USER, UID, NOBODY = "eve", 1020, 65534
CONTENTS = f"/user/{USER}/api/contents"
UNIT = "notebooks"
START_SECONDS, CODE_SECONDS = 90, 60
NOTEBOOK, FILLER = "work.ipynb", "filler"
MIB = 1024
QUOTA, OLD, NEW = 20 * MIB, MIB // 4, 4 * MIB

Leave = Callable[[int], None]


def fill(file: str, left: int) -> str:
    """Return a script that makes a file as large as leaves about `left` KiB to whoever runs it."""
    room = f"$(($(df --output=avail $(dirname {file}) | tail -n 1) - {left} - {SPARE}))"
    # The user's server, too, writes now and then.
    most = f"for i in 1 2 3 4 5; do fallocate --length {room}KiB {file} && break; done"
    rest = f"! dd if=/dev/zero of={file} bs=4K count=1000 oflag=append conv=notrunc,fsync status=none 2> /dev/null"
    return f"{most}\n{'' if left else rest}"


def notebook(size: int, mark: str) -> dict[str, Any]:
    """Return a notebook of about `size` KiB."""
    cell = {"cell_type": "markdown", "id": "one", "metadata": {}, "source": (mark * MIB)[:MIB] * size}
    return {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def save(hub: HubClient, content: dict[str, Any], name: str = NOTEBOOK) -> requests.Response:
    """Save a notebook as JupyterLab does."""
    body = {"type": "notebook", "format": "json", "content": content}
    return hub.request("PUT", f"{CONTENTS}/{name}", body=body, accept=(200, 201, 500))


def opened(hub: HubClient) -> Any:  # noqa: ANN401
    """Open the notebook as JupyterLab does; return its text."""
    return hub.request("GET", f"{CONTENTS}/{NOTEBOOK}").json()["content"]["cells"][0]["source"]


@pytest.fixture(scope="module")
def home(client: Machine, server: Machine, name: str) -> Iterator[str]:
    path = f"/mnt/{name}/homes/{USER}"
    client.run(f"mkdir -m 0700 {path}", uid=UID)
    server.run("systemctl start jhok-quota.service")
    yield path
    client.run(f"rm -r {path}", uid=UID)
    server.run("systemctl start jhok-quota.service")


@pytest.fixture(scope="module")
def hub(client: Machine, home: str, name: str) -> Iterator[HubClient]:
    """The user's own server, which is started when the home is full already, or (on XFS) before."""
    if name == "ext4":
        client.run(fill(f"{home}/{FILLER}", 0), uid=UID)
        client.run(f"dd if=/dev/zero of={home}/more bs=4K count=1 conv=fsync", uid=UID, fails=True)
    become = f"setpriv --reuid={UID} --regid=100 --clear-groups --no-new-privs --bounding-set=-all"
    jupyter = f"jupyter-lab --no-browser --ip=127.0.0.1 --ServerApp.base_url=/user/{USER}/"
    start = in_image(home, USER, f"--unit={UNIT}", "--setenv=JUPYTER_TOKEN=t")
    client.run(f"{start} {become} tini -g -- start-singleuser {jupyter}")
    try:
        with client.port(8888) as port:
            user = HubClient(f"http://127.0.0.1:{port}", token="t", timeout=CODE_SECONDS)
            until = time.monotonic() + START_SECONDS
            while True:
                try:
                    user.request("GET", f"/user/{USER}/api")
                    break
                except requests.ConnectionError:
                    log = client.run(f"journalctl --unit={UNIT} --no-pager")
                    assert time.monotonic() < until, log
                    time.sleep(0.5)
            yield user
    finally:
        client.run(f"systemctl stop {UNIT}")


@pytest.fixture(params=["quota", "disk"])
def full(request: pytest.FixtureRequest) -> str:
    """What is full: the user's share of the disk, or the whole."""
    return str(request.param)


@pytest.fixture
def leave(full: str, client: Machine, server: Machine, home: str) -> Iterator[Leave]:
    """Return what leaves the user so many KiB. There are 6 MiB in `mine` that the user may delete."""
    client.run(f"rm -f {home}/*", uid=UID)
    hidden = int(client.run(f"du -sk {home} | cut -f 1", uid=UID))
    wait_until_free(client, home, QUOTA - hidden)
    client.run(f"fallocate --length {6 * MIB}KiB {home}/mine", uid=UID)
    if full == "quota":
        yield lambda left: client.run(fill(f"{home}/{FILLER}", left), uid=UID) and None
        client.run(f"rm -f {home}/{FILLER}", uid=UID)
    else:
        before, room = available(server, EXPORT), f"{EXPORT}/room"
        server.run(f"install -d -o {NOBODY} {room}")
        yield lambda left: server.run(fill(f"{room}/{FILLER}", left), uid=NOBODY) and None
        server.run(f"rm -r {room}")
        wait_until_free(server, EXPORT, before - NEW - 2 * OLD)


@pytest.fixture
def reason(full: str, name: str) -> str:
    return OVER[name] if full == "quota" else "No space left on device"


# A copy of the old notebook is made before the new one is written: with nothing left that fails, with some it does not.
@pytest.mark.parametrize("left", [0, MIB])
def test_a_notebook_that_does_not_fit_is_told_and_the_old_one_kept(
    hub: HubClient, server: Machine, leave: Leave, reason: str, left: int
) -> None:
    path = f"{EXPORT}/homes/{USER}"
    save(hub, notebook(OLD, "old"))
    before = server.run(f"sha256sum < {path}/{NOTEBOOK}")
    leave(left)
    refused = save(hub, notebook(NEW, "new"))
    assert refused.status_code == 500
    assert refused.json()["message"].startswith(f"Unexpected error while saving file: {NOTEBOOK} ")
    assert reason in refused.json()["message"]
    assert server.run(f"sha256sum < {path}/{NOTEBOOK}") == before
    assert reason in save(hub, notebook(NEW, "new"), "other.ipynb").json()["message"]
    assert server.run(f"ls -A {path} | grep ipynb$").split() == [NOTEBOOK], "a new one is not there in part"
    assert opened(hub) == notebook(OLD, "old")["cells"][0]["source"]
    # Who deletes something, in the file browser, can save again.
    hub.request("DELETE", f"{CONTENTS}/mine", accept=(204,))
    until = time.monotonic() + FREE_SECONDS
    while (answer := save(hub, notebook(NEW, "new"))).status_code != 200:
        assert time.monotonic() < until, answer.json()
    assert opened(hub) == notebook(NEW, "new")["cells"][0]["source"]
    assert server.run(f"ls -A {path} | grep ipynb$").split() == [NOTEBOOK]


WRITE = """
try:
    with open("more", "wb") as more:
        more.write(bytes(1 << 20))
except OSError as error:
    print(error.strerror)
"""


def test_a_kernel_starts_and_says_why_nothing_can_be_written(hub: HubClient, leave: Leave, reason: str) -> None:
    leave(0)
    assert hub.run(USER, WRITE, CODE_SECONDS).strip() == reason
