"""What role lab refuses before it makes anything, by real runs of playbooks/lab_up.yml."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
HOST = "stranger"  # no lab of this repository has it, so that one that runs is left alone
IMAGE = "localhost/jhok/kubernetes-build:latest"


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    machines = {"hosts": {HOST: {"ansible_host": "172.16.0.250"}}}
    path = tmp_path / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"children": {"kube_control_plane": machines, "lab": machines}}}))
    return path


def lab_up(inventory: Path, *prefix: str) -> str:
    """Run the playbook, which has to fail, and return what it printed."""
    command = [*prefix, str(ANSIBLE_PLAYBOOK), "-i", str(inventory), "playbooks/lab_up.yml"]
    environment = os.environ | {"ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def containers() -> list[str]:
    listed = subprocess.check_output(["podman", "ps", "--all", "--format", "json"], text=True)
    return [name for container in json.loads(listed) for name in container["Names"]]


def test_a_subnet_that_another_network_uses_is_refused(inventory: Path) -> None:
    # A network namespace of its own is a machine that stands in such a network.
    office = "ip link add office0 type bridge && ip address add 172.16.0.9/24 dev office0 && ip link set office0 up"
    printed = lab_up(inventory, "unshare", "--net", "sh", "-c", f'{office} && exec "$@"', "sh")
    assert "lab_subnet 172.16.0.0/24 is in use on this machine by office0." in printed
    assert f"jhok-{HOST}" not in containers()
    assert list(inventory.parent.iterdir()) == [inventory], "something was made before the refusal"


@pytest.fixture
def foreign_node() -> Iterator[None]:
    name = f"jhok-{HOST}"
    label = "jhok.lab/artifacts=/srv/elsewhere/artifacts"
    subprocess.run(["podman", "create", "--name", name, "--label", label, IMAGE, "true"], check=True)
    yield
    subprocess.run(["podman", "rm", name], check=True)


@pytest.mark.usefixtures("foreign_node")
def test_the_lab_of_another_checkout_is_refused(inventory: Path) -> None:
    printed = lab_up(inventory)
    assert "already has a lab that was made with /srv/elsewhere/artifacts." in printed
    assert "Run `make demo-down` in that checkout first." in printed
    assert list(inventory.parent.iterdir()) == [inventory], "something was made before the refusal"
