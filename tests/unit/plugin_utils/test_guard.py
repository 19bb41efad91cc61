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
VALUES = yaml.safe_load((ROOT / "playbooks/group_vars/all.yml").read_text())
HUB = list(yaml.safe_load_all((ROOT / "tests/unit/golden/hub/demo.yml").read_text()))

API_SERVER_PORTS = {443, 6443}


def test_rules_are_golden() -> None:
    allowed = ["192.168.9.0/24", "192.168.7.20/32", "192.168.9.128/25", "fd00::/8"]
    assert guard_rules([2049, 22, 10250, 22], MACHINES, "10.244.0.0/16", [8888, 53], allowed) == GOLDEN.read_text()


def test_nothing_need_be_allowed() -> None:
    assert "set allowed {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t}" in guard_rules(
        [22], MACHINES, "10.244.0.0/16", [53], []
    )


def test_the_bridge_is_that_of_the_pods() -> None:
    bridge = cni_conflist("10.244.1.0/24")["plugins"][0]["bridge"]
    assert guard_rules([22], MACHINES, "10.244.0.0/16", [53], []).count(f'iifname "{bridge}"') == 2


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
        guard_rules(ports, machines, pods, [53], [])


def test_wrong_ports_of_pods_are_named() -> None:
    with pytest.raises(ValueError, match="node_guard_pod_ports"):
        guard_rules([22], MACHINES, "10.244.0.0/16", [], [])


def test_pods_reach_the_ports_that_the_network_policies_let_them() -> None:
    """Those of the policies that come from pods; what is scraped comes from a node, and the API server is on one."""
    policies = {item["metadata"]["name"]: item["spec"] for item in HUB if item["kind"] == "NetworkPolicy"}
    rules = [rule for spec in policies.values() for way in ("ingress", "egress") for rule in spec[way]]
    pods = [rule for rule in rules if not any("ipBlock" in peer for peer in rule.get("from", rule.get("to", [])))]
    ports = {port["port"] for rule in pods for port in rule.get("ports", [])}
    assert sorted(ports - API_SERVER_PORTS) == VALUES["site_guard_pod_ports"]
    assert not API_SERVER_PORTS & set(VALUES["site_guard_ports"])


def test_the_port_of_another_pod_that_verify_tries_is_there_and_closed() -> None:
    (service,) = (item for item in HUB if item["kind"] == "Service" and item["metadata"]["name"] == "proxy-metrics")
    (port,) = service["spec"]["ports"]
    assert f"'proxy-metrics.' ~ site_namespace ~ ':{port['port']}'" in VALUES["site_closed_ports"]
    assert port["port"] not in VALUES["site_guard_pod_ports"]


def test_what_the_documentation_says_is_the_default() -> None:
    options = yaml.safe_load((ROOT / "roles/node/meta/argument_specs.yml").read_text())["argument_specs"]["main"][
        "options"
    ]
    text = options["node_guard_ports"]["description"][0]
    said: set[int] = set()
    for group in text.partition("(")[2].split("("):
        for part in group.partition(")")[0].split(", "):
            first, _, last = part.partition(" to ")
            said |= set(range(int(first), int(last or first) + 1))
    assert said == set(VALUES["site_guard_ports"])
