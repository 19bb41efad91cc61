"""A server writes while the NFS server, or its own machine, is lost. What was acknowledged is there afterwards."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubError
from lab import wait_for
from people import ADA, Person, Site

OUTAGE = 60  # seconds
UNIT = "for unit in nfs-ganesha nfs-server; do systemctl is-active --quiet $unit && echo $unit; done; true"
# Writes a line each tenth of a second, and tells its number when the server says that it is on the disk.
WRITER = """
import os, socket, sys, time
tell = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
with open(os.path.expanduser("~/journal"), "w") as journal:
    for number in range(10000):
        print(number, file=journal, flush=True)
        os.fsync(journal.fileno())
        tell.sendto(b"%d" % number, ({address!r}, {port}))
        time.sleep(0.1)
"""
BEGIN = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', {writer!r}], start_new_session=True)"


class Acknowledged:
    """Hears on the control machine's address in the lab's network which lines are on the disk."""

    def __init__(self, network_gateway: str) -> None:
        self.numbers: list[int] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((network_gateway, 0))
        self.address, self.port = self.socket.getsockname()
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.numbers.append(int(self.socket.recv(64)))

    def more(self, than: int) -> Callable[[], bool]:
        return lambda: len(self.numbers) > than


@pytest.fixture
def acknowledged(site: Site) -> Iterator[Acknowledged]:
    """Give the numbers that were told."""
    node = socket.create_connection((site.addresses[site.nfs_server], 22), timeout=10)
    heard = Acknowledged(node.getsockname()[0])
    node.close()
    yield heard
    heard.socket.close()


def write(person: Person, heard: Acknowledged) -> None:
    person.run(BEGIN.format(writer=WRITER.format(address=heard.address, port=heard.port)))
    wait_for("the first lines", heard.more(20), 30)


def nothing_is_lost(site: Site, heard: Acknowledged) -> None:
    """Compare what the server's disk has with what was told before it is read."""
    told = list(heard.numbers)
    lines = site.run(site.nfs_server, f"cat {site.nfs_path}/homes/{ADA}/journal").splitlines()
    assert [int(line) for line in lines] == list(range(len(lines)))
    assert max(told) < len(lines)


def test_the_nfs_server_is_gone_for_a_minute(site: Site, ada: Person, acknowledged: Acknowledged) -> None:
    """Nothing fails: whoever writes waits. The hub answers all the while."""
    write(ada, acknowledged)
    unit = site.run(site.nfs_server, UNIT).strip()
    slowest = 0.0
    site.run(site.nfs_server, f"systemctl stop {unit}")
    try:
        silent = len(acknowledged.numbers)
        end = time.monotonic() + OUTAGE
        while time.monotonic() < end:
            begin = time.monotonic()
            assert requests.get(f"{site.hub_url}/hub/health", timeout=10).status_code == 200
            slowest = max(slowest, time.monotonic() - begin)
            time.sleep(1)
        assert len(acknowledged.numbers) - silent < 5, "something else than the server took the lines"
    finally:
        site.run(site.nfs_server, f"systemctl start {unit}")
    assert slowest < 5
    wait_for("lines after the outage", acknowledged.more(len(acknowledged.numbers) + 20), 120)
    nothing_is_lost(site, acknowledged)
    assert ada.run("print(open('journal').readline().strip())") == "0"


def test_a_server_s_pod_is_deleted(site: Site, ada: Person) -> None:
    """The hub notices, and the next server has the home as it was."""
    ada.run("open('kept', 'w').write('kept')")
    pod = site.pod(ADA).metadata.name
    site.api.delete_namespaced_pod(pod, site.namespace, grace_period_seconds=0)

    def noticed() -> bool:
        record = ada.hub.user(ADA) or {}
        return not record.get("servers") and not site.pods(ADA)

    wait_for("the hub notices", noticed, 120)
    ada.start()
    assert ada.run("print(open('kept').read())") == "kept"


def podman(*arguments: str) -> None:
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*sudo, "podman", *arguments], check=True, capture_output=True, timeout=60)


def test_the_machine_of_a_server_is_lost(site: Site, ada: Person, acknowledged: Acknowledged) -> None:
    """The server comes back there with the home as it was; a line that was told is in it."""
    worker = next(name for name in site.machines if name != site.nfs_server)
    others = [name for name in site.machines if name != worker]
    ada.stop()
    for name in others:
        site.api.patch_node(name, {"spec": {"unschedulable": True}})
    try:
        ada.start()
    finally:
        for name in others:
            site.api.patch_node(name, {"spec": {"unschedulable": None}})
    assert site.pod(ADA).spec.node_name == worker
    write(ada, acknowledged)
    podman("kill", f"{site.lab}-{worker}")
    cgroup_v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    podman(*([] if cgroup_v2 else ["--runtime", "runc"]), "start", f"{site.lab}-{worker}")
    nothing_is_lost(site, acknowledged)

    def works() -> bool:
        with contextlib.suppress(HubError, requests.RequestException):
            ada.hub.lab_page(ADA)  # the browser's page is loaded again: it had its session with the server that was
            return ada.run("print(open('journal').readline().strip())") == "0"
        return False

    wait_for("the server after its machine's loss", works, 240, 3)
    nothing_is_lost(site, acknowledged)
