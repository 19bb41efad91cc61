"""The node guard: what keeps pods away from the services of the machines themselves."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from ansible_collections.jhok.lab.plugins.plugin_utils.podnet import BRIDGE

# Pods are known by their address on whichever machine a packet comes in, and on their own by the bridge, too: there, no
# made-up address helps, and IPv6's link-local ones, which every pod has, count as well. The hooks see packets after a
# Service's address was replaced and before the node's own takes the place of the pod's.
RULES = """\
# Pods do not reach the services of the machines themselves. Load with: nft -f
# A table of its own: rules of others are in other tables and stay as they are.
table inet jhok_guard
delete table inet jhok_guard
table inet jhok_guard {{
\tset machines {{
\t\ttype ipv4_addr
\t\telements = {{ {machines} }}
\t}}
\tset ports {{
\t\ttype inet_service
\t\telements = {{ {ports} }}
\t}}
\tchain input {{
\t\ttype filter hook input priority filter - 10; policy accept;
\t\tiifname "{bridge}" goto pods
\t\tip saddr {pods} goto pods
\t}}
\tchain forward {{
\t\ttype filter hook forward priority filter - 10; policy accept;
\t\tip daddr @machines iifname "{bridge}" goto pods
\t\tip daddr @machines ip saddr {pods} goto pods
\t}}
\tchain pods {{
\t\tct state established,related accept
\t\ttcp dport @ports counter reject with tcp reset
\t\tudp dport @ports counter reject
\t}}
}}
"""


def guard_rules(ports: Iterable[int], machines: Iterable[str], pods: str) -> str:
    """Return a node's rules, for `nft -f`; they replace those of an earlier run.

    Args:
        ports: TCP and UDP ports of the machines that are closed to pods.
        machines: IPv4 addresses of all machines of the site.
        pods: the network of all pods, e.g. `10.244.0.0/16`.

    Raises:
        ValueError: no ports or machines, or one that is none.

    """
    numbers = sorted({int(port) for port in ports})
    if not numbers or numbers[0] < 1 or numbers[-1] > 65535:
        raise ValueError(
            f"node_guard_ports: {numbers} are no ports; give some from 1 to 65535, or set node_guard: false"
        )
    addresses = sorted({ipaddress.IPv4Address(machine) for machine in machines})
    if not addresses:
        raise ValueError("node_guard_addresses: none is known; name the machines of the site")
    return RULES.format(
        machines=", ".join(map(str, addresses)),
        ports=", ".join(map(str, numbers)),
        bridge=BRIDGE,
        pods=ipaddress.IPv4Network(pods),
    )
