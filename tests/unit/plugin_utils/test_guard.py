"""The nodes' rules against pods."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils.guard import guard_rules
from ansible_collections.jhok.lab.plugins.plugin_utils.podnet import cni_conflist

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/unit/golden/guard/node.nft"
MACHINES = ["172.16.0.101", "172.16.0.20", "172.16.0.101"]


def test_rules_are_golden() -> None:
    assert guard_rules([2049, 22, 10250, 22], MACHINES, "10.244.0.0/16") == GOLDEN.read_text()


def test_the_bridge_is_that_of_the_pods() -> None:
    bridge = cni_conflist("10.244.1.0/24")["plugins"][0]["bridge"]
    assert guard_rules([22], MACHINES, "10.244.0.0/16").count(f'iifname "{bridge}"') == 2


@pytest.mark.parametrize(
    ("ports", "machines", "pods", "words"),
    [
        ([], MACHINES, "10.244.0.0/16", "node_guard_ports"),
        ([0], MACHINES, "10.244.0.0/16", "node_guard_ports"),
        ([22, 65536], MACHINES, "10.244.0.0/16", "65536"),
        ([22], [], "10.244.0.0/16", "node_guard_addresses"),
        ([22], ["master"], "10.244.0.0/16", "master"),
        ([22], MACHINES, "10.244.0.1/16", "10.244.0.1/16"),
    ],
)
def test_wrong_values_are_named(ports: list[int], machines: list[str], pods: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        guard_rules(ports, machines, pods)


def test_what_the_documentation_says_is_the_default() -> None:
    values = yaml.safe_load((ROOT / "playbooks/group_vars/all.yml").read_text())
    options = yaml.safe_load((ROOT / "roles/node/meta/argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    text = options["node_guard_ports"]["description"][0]
    said: set[int] = set()
    for group in text.partition("(")[2].split("("):
        for part in group.partition(")")[0].split(", "):
            first, _, last = part.partition(" to ")
            said |= set(range(int(first), int(last or first) + 1))
    assert said == set(values["site_guard_ports"])
