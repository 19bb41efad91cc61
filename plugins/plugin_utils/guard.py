"""The node guard: what keeps pods away from the machines, from each other, and from private networks."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from ansible_collections.jhok.lab.plugins.plugin_utils.podnet import BRIDGE, PRIVATE_CIDRS

# Pods are known by their address on whichever machine a packet comes in, and on their own by the bridge, too: there, no
# made-up address helps, and IPv6's link-local ones, which every pod has, count as well. The hooks see packets after a
# Service's address was replaced and before the node's own takes the place of the pod's. What one pod of a node sends to
# another is not routed at all; br_netfilter brings it into `forward`, where it comes from the bridge.
# What belongs to no connection is not answered with a reset, which would end the one that it is taken for.
RULES = """\
# Pods do not reach the services of the machines themselves, few ports of each other, and no private network.
# Load with: nft -f
# A table of its own: rules of others are in other tables and stay as they are.
table inet jhok_guard
delete table inet jhok_guard
table inet jhok_guard {{
{sets}
\tchain input {{
\t\ttype filter hook input priority filter - 10; policy accept;
\t\tiifname "{bridge}" goto machine
\t\tip saddr {pods} goto machine
\t}}
\tchain forward {{
\t\ttype filter hook forward priority filter - 10; policy accept;
\t\tiifname "{bridge}" goto pods
\t\tip saddr {pods} goto pods
\t}}
\tchain machine {{
\t\tct state established,related accept
\t\ttcp dport @ports counter reject with tcp reset
\t\tudp dport @ports counter reject
\t}}
\tchain pods {{
\t\tmeta pkttype {{ broadcast, multicast }} counter drop
\t\tct state established,related accept
\t\tct state invalid counter drop
\t\tmeta nfproto ipv6 counter drop
\t\tip daddr @machines goto machine
\t\tip daddr {pods} tcp dport @pod_ports accept
\t\tip daddr {pods} udp dport @pod_ports accept
\t\tip daddr {pods} goto refused
\t\ttcp dport 53 accept
\t\tudp dport 53 accept
\t\tip daddr @allowed accept
\t\tip daddr @private goto refused
\t}}
\tchain refused {{
\t\tmeta l4proto tcp counter reject with tcp reset
\t\tcounter reject
\t}}
}}
"""


def guard_rules(
    ports: Iterable[int], machines: Iterable[str], pods: str, pod_ports: Iterable[int], allowed: Iterable[str]
) -> str:
    """Return a node's rules, for `nft -f`; they replace those of an earlier run.

    Args:
        ports: TCP and UDP ports of the machines that are closed to pods.
        machines: IPv4 addresses of all machines of the site.
        pods: the network of all pods, e.g. `10.244.0.0/16`.
        pod_ports: TCP and UDP ports of pods that other pods may reach.
        allowed: private networks that pods may reach; IPv6 ones count for nothing, since pods have no such address.

    Raises:
        ValueError: no ports or machines, or one that is none.

    """
    addresses = sorted({ipaddress.IPv4Address(machine) for machine in machines})
    if not addresses:
        raise ValueError("node_guard_addresses: none is known; name the machines of the site")
    networks = [network for cidr in allowed if isinstance(network := ipaddress.ip_network(cidr), ipaddress.IPv4Network)]
    sets = [
        _set("machines", "ipv4_addr", addresses),
        _set("ports", "inet_service", _ports("node_guard_ports", ports, "set node_guard: false")),
        _set("pod_ports", "inet_service", _ports("node_guard_pod_ports", pod_ports, "leave it out")),
        _set("private", "ipv4_addr", PRIVATE_CIDRS, interval=True),
        _set("allowed", "ipv4_addr", ipaddress.collapse_addresses(networks), interval=True),
    ]
    return RULES.format(sets="\n".join(sets), bridge=BRIDGE, pods=ipaddress.IPv4Network(pods))


def _ports(name: str, ports: Iterable[int], otherwise: str) -> list[int]:
    """Return ports in order, each once."""
    numbers = sorted({int(port) for port in ports})
    if not numbers or numbers[0] < 1 or numbers[-1] > 65535:
        raise ValueError(f"{name}: {numbers} are no ports; give some from 1 to 65535, or {otherwise}")
    return numbers


def _set(name: str, kind: str, elements: Iterable[object], *, interval: bool = False) -> str:
    """Return the text of a set, which may be empty."""
    lines = [f"type {kind}"]
    if interval:
        lines.append("flags interval")
    if text := ", ".join(map(str, elements)):
        lines.append(f"elements = {{ {text} }}")
    return f"\tset {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}"
