"""Role lab by real runs of its playbooks: what it refuses before it makes anything, and two labs on one machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
HOST = "stranger"  # no lab of this repository has it, so that one that runs is left alone
NETWORK = "198.51.100"  # kept free for examples (RFC 5737): neither a real network nor another lab uses it
KERNEL = Path("/run/jhok-lab")
PANIC = Path("/proc/sys/kernel/panic")


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    return write_inventory(tmp_path, "172.16.0.250", {})


def write_inventory(directory: Path, address: str, variables: dict[str, Any]) -> Path:
    machines = {"hosts": {HOST: {"ansible_host": address}}}
    path = directory / "hosts.yml"
    children = {"kube_control_plane": machines, "lab": machines}
    path.write_text(yaml.safe_dump({"all": {"vars": variables, "children": children}}))
    return path


def play(name: str, inventory: Path, *options: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*prefix, str(ANSIBLE_PLAYBOOK), "-i", str(inventory), f"playbooks/{name}.yml", *options]
    environment = os.environ | {"ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)


def refused(name: str, inventory: Path, *prefix: str) -> str:
    """Run the playbook, which has to fail, and return what it printed."""
    done = play(name, inventory, prefix=prefix)
    assert done.returncode == 2, done.stdout + done.stderr
    return " ".join(done.stdout.split())


def podman(*arguments: str) -> str:
    return subprocess.check_output(["podman", *arguments], text=True)


def containers() -> list[str]:
    return podman("ps", "--all", "--format", "{{.Names}}").split()


def test_a_subnet_that_another_network_uses_is_refused(inventory: Path) -> None:
    # A network namespace of its own is a machine that stands in such a network.
    office = "ip link add office0 type bridge && ip address add 172.16.0.9/24 dev office0 && ip link set office0 up"
    printed = refused("lab_up", inventory, "unshare", "--net", "sh", "-c", f'{office} && exec "$@"', "sh")
    assert "lab_subnet 172.16.0.0/24 is in use on this machine by office0." in printed
    assert f"jhok-{HOST}" not in containers()
    assert list(inventory.parent.iterdir()) == [inventory], "something was made before the refusal"


@pytest.fixture
def foreign_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    name = f"jhok-{HOST}"
    label = "jhok.lab/artifacts=/srv/elsewhere/artifacts"
    podman("create", "--name", name, "--label", label, "--rootfs", str(tmp_path_factory.mktemp("root")), "true")
    yield name
    podman("rm", name)


@pytest.mark.parametrize("playbook", ["lab_up", "lab_down"])
def test_the_lab_of_another_checkout_is_refused(inventory: Path, foreign_node: str, playbook: str) -> None:
    printed = refused(playbook, inventory)
    assert "already has a lab that was made with /srv/elsewhere/artifacts." in printed
    assert "Run `make demo-down` in that checkout first." in printed
    assert "-e lab_artifacts_dir=/srv/elsewhere/artifacts" in printed
    assert list(inventory.parent.iterdir()) == [inventory], "something was made before the refusal"
    assert foreign_node in containers()


class Lab:
    """A lab of one machine, whose name other labs' machines have too."""

    def __init__(self, directory: Path, number: int) -> None:
        self.name, self.artifacts, self.address = f"jhok-side{number}", directory / "artifacts", f"{NETWORK}.{number}0"
        variables = {
            "lab_name": self.name,
            "lab_subnet": f"{NETWORK}.{number * 16 - 16}/28",
            "lab_gateway": f"{NETWORK}.{number * 16 - 15}",
            "lab_publish_ports": [],
        }
        directory.mkdir()
        self.inventory = write_inventory(directory, self.address, variables)

    def play(self, name: str, *options: str) -> None:
        done = play(name, self.inventory, *options)
        assert done.returncode == 0, done.stdout + done.stderr

    def volumes(self) -> list[dict[str, Any]]:
        listed = json.loads(podman("volume", "ls", "--format", "json"))
        return [volume for volume in listed if volume["Name"].startswith(f"{self.name}-")]

    def networks(self) -> list[dict[str, Any]]:
        listed = json.loads(podman("network", "ls", "--format", "json"))
        return [network for network in listed if network["name"].startswith(f"{self.name}-")]

    def files(self) -> dict[str, tuple[float, bytes]]:
        found = self.artifacts.iterdir() if self.artifacts.exists() else []
        return {path.name: (path.stat().st_mtime, path.read_bytes()) for path in found}

    def machine(self) -> dict[str, Any]:
        [machine] = json.loads(podman("inspect", f"{self.name}-{HOST}"))
        return {key: machine[key] for key in ("Id", "State", "Mounts", "NetworkSettings")}

    def cgroups(self) -> set[str]:
        """Return the machine's cgroups, as this machine sees them."""
        return set(Path(f"/proc/{self.machine()['State']['Pid']}/cgroup").read_text().split())

    def all_of_it(self) -> list[object]:
        return [self.machine(), self.networks(), self.volumes(), self.files()]

    def answers(self) -> bool:
        options = ["-o", f"UserKnownHostsFile={self.artifacts}/known_hosts", "-o", "ControlPath=none"]
        command = ["ssh", "-i", str(self.artifacts / "lab_ed25519"), *options, f"root@{self.address}", "hostname"]
        return subprocess.check_output(command, text=True).strip() == HOST


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[list[Lab]]:
    labs = [Lab(tmp_path / str(number), number) for number in (1, 2)]
    panic = PANIC.read_text()
    yield labs
    removed = [play("lab_down", lab.inventory, "-e", "lab_remove_homes=true") for lab in labs]
    PANIC.write_text(panic)
    assert [done.stdout for done in removed if done.returncode] == []


def test_two_labs_on_one_machine_do_not_touch_each_other(labs: list[Lab]) -> None:
    stays, goes = labs
    panic = PANIC.read_text()
    for lab in labs:
        lab.play("lab_up")
    PANIC.write_text("11")  # as a kubelet does
    before = stays.all_of_it()
    assert goes.answers()
    assert goes.cgroups() & stays.cgroups() == set()

    goes.play("lab_down", "-e", "lab_remove_homes=true")
    assert f"{goes.name}-{HOST}" not in containers()
    assert [goes.networks(), goes.volumes(), goes.files()] == [[], [], {}]
    assert stays.all_of_it() == before
    assert stays.answers()
    assert PANIC.read_text().strip() == "11", "a lab that is there needs its kernel settings"

    others = {path.stem for path in KERNEL.glob("*.conf")} - {stays.name}
    stays.play("lab_down", "-e", "lab_remove_homes=true")
    assert [stays.networks(), stays.volumes(), stays.files()] == [[], [], {}]
    assert PANIC.read_text() == panic or others, "the last lab puts them back"
