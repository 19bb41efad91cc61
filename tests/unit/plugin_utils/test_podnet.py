"""CNI configuration, routes and masquerade rules of a node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.podnet import cni_conflist, pod_routes

GOLDEN = Path(__file__).parents[1] / "golden" / "podnet"
NODES = [
    {"name": "worker2", "address": "172.16.0.102", "pod_cidr": "10.244.2.0/24"},
    {"name": "master", "address": "172.16.0.100", "pod_cidr": "10.244.0.0/24"},
    {"name": "worker1", "address": "172.16.0.101", "pod_cidr": "10.244.1.0/24"},
]


def test_conflist_is_golden() -> None:
    assert cni_conflist("10.244.1.0/24") == json.loads((GOLDEN / "worker1.conflist").read_text())


def test_routes_and_rules_are_golden() -> None:
    result = pod_routes(NODES, "worker1", "10.244.0.0/16")
    assert result["routes"] == [
        {"dst": "10.244.0.0/24", "via": "172.16.0.100"},
        {"dst": "10.244.2.0/24", "via": "172.16.0.102"},
    ]
    assert result["nftables"] == (GOLDEN / "worker1.nft").read_text()


def test_single_node_has_no_routes() -> None:
    assert pod_routes(NODES[1:2], "master", "10.244.0.0/16")["routes"] == []


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([{**NODES[0], "pod_cidr": ""}, NODES[2]], ["podCIDR of node worker2"]),
        ([{**NODES[0], "pod_cidr": "10.9.0.0/24"}, NODES[2]], ["worker2", "kubernetes_pod_cidr", "reset"]),
        ([{**NODES[0], "pod_cidr": "10.244.1.0/24"}, NODES[2]], ["worker2", "worker1", "both"]),
        ([{**NODES[0], "address": "worker2"}, NODES[2]], ["address of node worker2", "ip"]),
        (NODES[:2], ["worker1", "not among", "join"]),
    ],
)
def test_wrong_nodes_are_named(nodes: list[dict[str, str]], words: list[str]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are checked below)
        pod_routes(nodes, "worker1", "10.244.0.0/16")
    assert [word for word in words if word not in str(caught.value)] == []
