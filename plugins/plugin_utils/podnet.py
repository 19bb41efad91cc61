"""The pod network of one node: bridge plugin, routes to the other nodes' pods, masquerade to the rest."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

BRIDGE = "cni0"  # to which the pods of a node are connected
PRIVATE_CIDRS = ["10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"]  # RFC 1918; a cloud's metadata

MASQUERADE = """\
# Pods reach what is outside the cluster under their node's address. Load with: nft -f
# A table of its own: kube-proxy's rules are in other tables and stay as they are.
table ip jhok_pods
delete table ip jhok_pods
table ip jhok_pods {{
\tchain postrouting {{
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip saddr {own} ip daddr != {cluster} masquerade
\t}}
}}
"""


def cni_conflist(pod_cidr: str) -> dict[str, Any]:
    """Return the CNI configuration for a node.

    Args:
        pod_cidr: the node's own ``spec.podCIDR``, e.g. ``10.244.1.0/24``.

    Raises:
        ValueError: ``pod_cidr`` is no IPv4 network.

    """
    return {
        "cniVersion": "0.4.0",
        "name": "jhok-pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": BRIDGE,
                "isGateway": True,
                "ipMasq": False,  # pod_routes() does it: this one would hide pods from pods on other nodes
                "hairpinMode": True,  # a pod reaches itself through its own Service
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": str(_network(pod_cidr, "podCIDR"))}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def pod_routes(nodes: Sequence[Mapping[str, str]], node_name: str, cluster_cidr: str) -> dict[str, Any]:
    """Return a node's routes to the pods of the others, and its masquerade rules.

    Args:
        nodes: all nodes of the cluster, each with ``name``, ``address`` (in the lab's network) and ``pod_cidr`` (its
            ``spec.podCIDR``).
        node_name: the node that the answer is for.
        cluster_cidr: the network of all pods, ``kubernetes_pod_cidr``.

    Returns:
        ``routes``: list of ``dst`` (a peer's podCIDR) and ``via`` (its address), sorted by address;
        ``nftables``: a ruleset for ``nft -f`` that replaces what an earlier one made.

    Raises:
        ValueError: a node without podCIDR, a podCIDR outside the cluster's or taken twice, an unknown ``node_name``.

    """
    cluster = _network(cluster_cidr, "kubernetes_pod_cidr")
    own: ipaddress.IPv4Network | None = None
    peers: list[tuple[ipaddress.IPv4Address, ipaddress.IPv4Network]] = []
    seen: dict[ipaddress.IPv4Network, str] = {}
    for node in nodes:
        name = str(node["name"])
        network = _network(node.get("pod_cidr") or "", f"podCIDR of node {name}")
        if not network.subnet_of(cluster):
            raise ValueError(
                f"podCIDR {network} of node {name} is outside kubernetes_pod_cidr {cluster}; "
                "the cluster was made with another network: set kubernetes_pod_cidr back, or reset the cluster"
            )
        for other, owner in seen.items():
            if network.overlaps(other):
                raise ValueError(f"nodes {owner} and {name} both have podCIDR {network}; delete one and join it again")
        seen[network] = name
        if name == node_name:
            own = network
        else:
            peers.append((_peer_address(node), network))
    if own is None:
        raise ValueError(f"node {node_name} is not among the cluster's nodes {sorted(seen.values())}; join it first")
    return {
        "routes": [{"dst": str(network), "via": str(address)} for address, network in sorted(peers)],
        "nftables": MASQUERADE.format(own=own, cluster=cluster),
    }


def _network(value: str, what: str) -> ipaddress.IPv4Network:
    """Return an IPv4 network, or say what is none."""
    try:
        return ipaddress.IPv4Network(str(value))
    except ValueError as error:
        raise ValueError(f"{what}: {value!s} is no IPv4 network ({error}); write it like 10.244.1.0/24") from None


def _peer_address(node: Mapping[str, str]) -> ipaddress.IPv4Address:
    """Return a node's address in the lab's network."""
    try:
        return ipaddress.IPv4Address(str(node["address"]))
    except ValueError:
        raise ValueError(f"address of node {node['name']}: {node['address']} is no IPv4 address; set its ip") from None
