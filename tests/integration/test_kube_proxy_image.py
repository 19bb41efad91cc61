"""kube-proxy's nft on machines with an older and with a newer nft of their own, each in a network of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.versions import NEWEST

pytestmark = pytest.mark.integration

IMAGE = f"localhost/jhok/kubernetes-{NEWEST}/kube-proxy:latest"
OLD = "LD_LIBRARY_PATH=/opt/nft-old /opt/nft-old/nft"  # the nft of a machine with Debian 12
NEW = "/usr/sbin/nft"  # of one with Debian 13
SET = "map allowed {\n type ipv4_addr . inet_service : verdict\n elements = { 192.0.2.1 . 22 : accept }\n }\n"


@pytest.fixture
def machine() -> Iterator[str]:
    """Return a container of the image without a network but its own."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    podman = ["podman"] if unified else ["podman", "--runtime", "runc"]
    limits = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")  # podman asks for more than some machines allow
    options = ("--detach", "--rm", "--network=none", "--cap-add=NET_ADMIN", "--entrypoint=sleep", *limits)
    command = [*podman, "run", *options, IMAGE]
    container = subprocess.check_output([*command, "600"], text=True).strip()
    yield container
    subprocess.run(["podman", "rm", "--force", "--time=0", container], check=True, capture_output=True)


def run(container: str, script: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = ["podman", "exec", "--interactive", container, "sh", "-c", script]
    return subprocess.run(command, input=text, text=True, capture_output=True)


@pytest.mark.parametrize("own", [OLD, NEW], ids=["old", "new"])
def test_kube_proxy_and_the_machine_read_each_others_tables(machine: str, own: str) -> None:
    assert run(machine, f"{own} -f -", f"table inet site {{ {SET} }}").returncode == 0
    # As kube-proxy calls it: commands by standard input, answers as JSON. The first call finds out which nft is right.
    assert run(machine, "nft -f -", f"table ip kube-proxy {{ {SET} }}").returncode == 0
    done = run(machine, "nft -f -", f"table ip again {{ {SET} }}")
    assert (done.returncode, done.stderr) == (0, "")
    listed = run(machine, "nft --json list maps ip")
    assert listed.returncode == 0
    assert '"table": "kube-proxy"' in listed.stdout
    for what in ("list tables", "list ruleset"):
        read = run(machine, f"{own} {what}")
        assert read.returncode == 0, f"{what}: {read.stderr}"
        assert {"site", "kube-proxy", "again"} <= set(read.stdout.split())


def test_an_older_nft_dies_at_a_newer_ones_map(machine: str) -> None:
    """What the two programs are there for; when this fails, one is enough."""
    assert run(machine, f"{NEW} -f -", f"table ip site {{ {SET} }}").returncode == 0
    assert run(machine, f"{OLD} list ruleset").returncode == 139


@pytest.mark.parametrize("own", [OLD, NEW], ids=["old", "new"])
def test_what_is_wrong_with_the_commands_is_said(machine: str, own: str) -> None:
    assert run(machine, f"{own} -f -", f"table inet site {{ {SET} }}").returncode == 0
    done = run(machine, "nft -f -", "add rule ip nowhere input accept")
    assert done.returncode == 1
    assert "No such file or directory" in done.stderr
