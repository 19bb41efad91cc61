"""Role node: containerd's configuration, and what it says of names that a machine cannot look up, by a real run."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).parents[3]


def test_a_name_that_is_unknown_is_named(tmp_path: Path) -> None:
    names = ["127.0.0.1", "localhost", "nas.invalid", "$(touch x).invalid"]
    task = {
        "ansible.builtin.include_role": {"name": "jhok.lab.node", "tasks_from": "guard_addresses"},
        "vars": {"node_guard_addresses": names},
    }
    play = {"hosts": "localhost", "gather_facts": False, "tasks": [task]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    playbook = Path(sys.executable).with_name("ansible-playbook")
    values = "{'site_bundle_dir': '/x', 'site_registry': 'x:1', 'site_pause_image': 'x', 'ip': '127.0.0.1'}"
    others = (
        "{'site_guard_ports': [22], 'site_guard_pod_ports': [53], 'site_guard_allowed_cidrs': [], 'site_pod_cidr': 'x'}"
    )
    interpreter = f"ansible_python_interpreter={sys.executable}"
    command = [
        str(playbook),
        "-i",
        "localhost,",
        "-c",
        "local",
        "-e",
        interpreter,
        "-e",
        values,
        "-e",
        others,
        str(tmp_path / "play.yml"),
    ]
    environment = os.environ | {"ANSIBLE_NOCOLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
    output = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 2, output
    wanted = "node_guard_addresses: localhost finds no IPv4 address of nas.invalid, $(touch x).invalid."
    assert wanted in output, output
    assert not list(ROOT.glob("x"))


@pytest.mark.parametrize(
    ("runtimes", "default", "expected"),
    [
        ({}, "runc", {"runc": {"BinaryName": "/usr/local/bin/runc", "SystemdCgroup": True}}),
        (
            {"nvidia": {"BinaryName": "/usr/bin/nvidia-container-runtime"}, "runc": {"SystemdCgroup": False}},
            "nvidia",
            {
                "nvidia": {"BinaryName": "/usr/bin/nvidia-container-runtime", "SystemdCgroup": True},
                "runc": {"BinaryName": "/usr/local/bin/runc", "SystemdCgroup": False},
            },
        ),
    ],
)
def test_runtimes_of_containerd(runtimes: dict[str, Any], default: str, expected: dict[str, Any]) -> None:
    values = {
        "ansible_managed": "Ansible managed",
        "node_pause_image": "172.16.0.100:5000/kubernetes/pause:3.10.2",
        "node_runtimes": runtimes,
        "node_default_runtime": default,
    }
    text = (ROOT / "roles/node/templates/config.toml.j2").read_text()
    rendered = Templar(loader=DataLoader(), variables=values).template(trust_as_template(text))
    assert tomllib.loads(rendered)["version"] == 3
    plugins = tomllib.loads(rendered)["plugins"]
    containerd = plugins["io.containerd.cri.v1.runtime"]["containerd"]
    assert containerd["default_runtime_name"] == default
    found = containerd["runtimes"]
    assert {name: runtime["options"] for name, runtime in found.items()} == expected
    assert {runtime["runtime_type"] for runtime in found.values()} == {"io.containerd.runc.v2"}
    images = plugins["io.containerd.cri.v1.images"]
    assert images["pinned_images"]["sandbox"] == values["node_pause_image"]
    assert images["registry"]["config_path"] == "/etc/containerd/certs.d"
