"""The host files of role nfs_server, rendered with the role's own defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).parents[3] / "roles" / "nfs_server"
GOLDEN = Path(__file__).parents[1] / "golden" / "nfs"


def load(path: str) -> Any:  # noqa: ANN401
    return yaml.safe_load((ROLE / path).read_text())


def variables(**given: object) -> dict[str, Any]:
    values = {
        **load("defaults/main.yml"),
        **load("vars/main.yml"),
        "ansible_managed": "Ansible managed",
        "nfs_server_clients": ["172.16.0.101", "172.16.0.100", "172.16.0.101"],
        "nfs_server_root_clients": [],
    }
    return values | given


def render(template: str, **given: object) -> str:
    text = (ROLE / "templates" / f"{template}.j2").read_text()
    return str(Templar(loader=DataLoader(), variables=variables(**given)).template(trust_as_template(text)))


@pytest.mark.parametrize(
    ("golden", "template", "given"),
    [
        ("jhok.exports", "exports", {}),
        ("root.jhok.exports", "exports", {"nfs_server_root_clients": ["172.16.0.100"]}),
        ("kernel.nfs.conf", "nfs.conf", {"__nfs_server_implementation": "kernel", "nfs_server_grace_seconds": 15}),
        ("ganesha.nfs.conf", "nfs.conf", {"__nfs_server_implementation": "ganesha"}),
        ("ganesha.conf", "ganesha.conf", {}),
        ("graceless.ganesha.conf", "ganesha.conf", {"nfs_server_grace_seconds": 0, "nfs_server_path": "/srv/homes"}),
        ("root.ganesha.conf", "ganesha.conf", {"nfs_server_root_clients": ["172.16.0.100"]}),
        ("nfs-ganesha.service.conf", "nfs-ganesha.service.conf", {}),
    ],
)
def test_host_file(golden: str, template: str, given: dict[str, Any]) -> None:
    assert render(template, **given) == (GOLDEN / golden).read_text()


def condition(word: str) -> str:
    """The condition in tasks/check.yml whose message names the variable."""
    checks = next(task for task in load("tasks/check.yml") if task["name"] == "Check the values")
    return next(item["that"] for item in checks["loop"] if word in item["that"])


@pytest.mark.parametrize(
    ("word", "given", "accepted"),
    [
        ("length > 0", {"nfs_server_clients": []}, False),
        ("length > 0", {"nfs_server_clients": ["172.16.0.100"]}, True),
        ("reject", {"nfs_server_clients": ["172.16.0.100", "fd00::1", "node-1.lab"]}, True),
        ("reject", {"nfs_server_clients": ["172.16.0.100", "172.16.0.0/24"]}, False),
        ("reject", {"nfs_server_clients": ["*"]}, False),
        ("reject", {"nfs_server_clients": ["*.lab"]}, False),
        ("reject", {"nfs_server_clients": ["@nodes"]}, False),
        ("reject", {"nfs_server_clients": ["a(rw) b"]}, False),
        ("reject", {"nfs_server_clients": [""]}, False),
        ("root_clients", {"nfs_server_root_clients": ["172.16.0.100"]}, True),
        ("root_clients", {"nfs_server_root_clients": ["172.16.0.102"]}, False),
        ("path", {"nfs_server_path": "/data/nfs"}, True),
        ("path", {"nfs_server_path": "/"}, False),
        ("path", {"nfs_server_path": "data/nfs"}, False),
        ("path", {"nfs_server_path": "/data/my homes"}, False),
        ("path", {"nfs_server_path": "/data/nfs;"}, False),
        ("grace", {"nfs_server_grace_seconds": 10}, True),
        ("grace", {"nfs_server_grace_seconds": 9}, False),
        ("grace", {"nfs_server_grace_seconds": 120}, True),
        ("grace", {"nfs_server_grace_seconds": 121}, False),
        ("grace", {"nfs_server_grace_seconds": 0, "__nfs_server_implementation": "ganesha"}, True),
        ("grace", {"nfs_server_grace_seconds": 0, "__nfs_server_implementation": "kernel"}, False),
    ],
)
def test_values(word: str, given: dict[str, Any], accepted: bool) -> None:
    values = variables(**({"__nfs_server_implementation": "kernel"} | given))
    assert Templar(loader=DataLoader(), variables=values).template(trust_as_template(condition(word))) is accepted
