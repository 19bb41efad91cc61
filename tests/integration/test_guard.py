"""The node guard's rules, loaded in network namespaces: two nodes with pods, and what is around them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.guard import guard_rules

PODS = "10.244.0.0/16"
NODES = {"node1": "172.31.9.101", "node2": "172.31.9.102"}
# Addresses that the machine which is no part of the site has: all sorts of things that a pod may ask.
OUTSIDE = {
    "printer": "172.31.9.50",
    "metadata": "169.254.169.254",
    "allowed": "192.168.7.20",
    "forbidden": "192.168.7.21",
    "internet": "203.0.113.5",
}
# What is allowed opens neither pods nor the machines' closed ports.
ALLOWED = ["192.168.7.20/32", "fd00::/8", "10.244.1.0/24", "172.31.9.101/32"]
RULES = guard_rules([22, 2049], NODES.values(), PODS, [53, 8000, 8001, 8888], ALLOWED)
# In place of kube-proxy: a Service's two ports on a pod of the node itself.
SERVICE = """
table ip services {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 10.96.0.9 tcp dport 80 dnat to 10.244.1.12:8888
		ip daddr 10.96.0.9 tcp dport 81 dnat to 10.244.1.12:8002
	}
}
"""
# A socket for each address besides those for all: UDP's answers have to come from the address that was asked.
LISTEN = """
import select, socket, sys
sockets = []
for address in ("::", "0.0.0.0", *sys.argv[1:]):
    for port in (22, 53, 80, 6443, 8002, 8888):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            if kind == socket.SOCK_STREAM and address in sys.argv:
                continue
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            entry = socket.socket(family, kind)
            entry.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                entry.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            entry.bind((address, port))
            if kind == socket.SOCK_STREAM:
                entry.listen(16)
            sockets.append(entry)
print("ready", flush=True)
while True:
    for entry in select.select(sockets, [], [])[0]:
        if entry.type == socket.SOCK_STREAM:
            entry.accept()[0].close()
        else:
            entry.sendto(b"heard", entry.recvfrom(100)[1])
"""
ASK = """
import concurrent.futures, json, socket, sys
def ask(item):
    kind, host, port = item
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    entry = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    entry.settimeout(2)
    try:
        if kind == "broadcast":
            entry.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            # From a port that pods may answer to: otherwise the answer alone would be kept back.
            entry.bind(("", port))
            entry.sendto(b"hello", (host, 8888))
            while entry.recvfrom(100)[1][0] != "10.244.1.12":  # the node and the sender itself answer, too
                pass
        else:
            entry.connect(socket.getaddrinfo(host, port, family)[0][4])
            if kind == "udp":
                entry.send(b"hello")
                entry.recv(100)
    except TimeoutError:
        return "silent"
    except OSError:
        return "refused"
    return "open"
with concurrent.futures.ThreadPoolExecutor(32) as pool:
    print(json.dumps(list(pool.map(ask, json.loads(sys.argv[1])))))
"""

Question = tuple[str, str, int]


def run(command: str, text: str | None = None) -> str:
    done = subprocess.run(command.split(), input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@dataclass
class Network:
    """Namespaces of this test's own; no address of theirs is seen outside of them."""

    stack: ExitStack
    prefix: str = field(default_factory=lambda: f"jg{os.getpid()}-")

    def add(self, name: str) -> None:
        run(f"ip netns add {self.prefix}{name}")
        self.stack.callback(run, f"ip netns delete {self.prefix}{name}")
        self.ip(name, "link set lo up")
        # An IPv6 address is not used until it is known to be nobody else's; few refusals are sent a second.
        for setting in ("net.ipv6.conf.default.accept_dad", "net.ipv4.icmp_ratelimit"):
            run(" ".join(self.inside(name, f"sysctl -qw {setting}=0")))

    def ip(self, name: str, arguments: str) -> None:
        run(f"ip -netns {self.prefix}{name} {arguments}")

    def inside(self, name: str, program: str) -> list[str]:
        return ["ip", "netns", "exec", self.prefix + name, *program.split()]

    def nft(self, name: str, rules: str) -> None:
        run(" ".join(self.inside(name, "nft --file -")), rules)

    def join(self, name: str, port: str, place: str, bridge: str) -> None:
        """Give a namespace an interface eth0 at another one's bridge."""
        self.ip(place, f"link add {port} type veth peer name eth0 netns {self.prefix}{name}")
        self.ip(place, f"link set {port} master {bridge} up")
        self.ip(place, f"link set {port} type bridge_slave hairpin on")
        self.ip(name, "link set eth0 up")

    def bridge(self, name: str, bridge: str, *addresses: str) -> None:
        self.ip(name, f"link add {bridge} type bridge mcast_snooping 0")
        self.ip(name, f"link set {bridge} up")
        for address in addresses:
            self.ip(name, f"address add {address} dev {bridge}")

    def listen(self, name: str) -> None:
        command = [*self.inside(name, sys.executable), "-c", LISTEN, *self.addresses(name)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"

    def ask(self, name: str, questions: list[Question]) -> list[str]:
        command = [*self.inside(name, sys.executable), "-c", ASK, json.dumps(questions)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return list(json.loads(done.stdout))

    def addresses(self, name: str) -> list[str]:
        links = json.loads(run(f"ip -json -4 -netns {self.prefix}{name} address show"))
        return [str(item["local"]) for link in links for item in link["addr_info"]]

    def link_local(self, name: str) -> str:
        (link,) = json.loads(run(f"ip -json -netns {self.prefix}{name} address show dev eth0"))
        return next(str(item["local"]) for item in link["addr_info"] if item["scope"] == "link")


def built(stack: ExitStack) -> Network:
    """Two nodes and their pods as role kubernetes connects them."""
    net = Network(stack)
    net.add("world")
    net.bridge("world", "lan", "172.31.9.50/24")
    for address in ("169.254.169.254", "192.168.7.20", "192.168.7.21", "203.0.113.5"):
        net.ip("world", f"address add {address}/32 dev lo")
    for number, (node, address) in enumerate(NODES.items(), 1):
        net.add(node)
        net.join(node, node, "world", "lan")
        net.ip(node, f"address add {address}/24 dev eth0")
        net.bridge(node, "cni0", f"10.244.{number}.1/24")
        run(" ".join(net.inside(node, "sysctl -qw net.ipv4.ip_forward=1")))
        # What role node sets for br_netfilter.
        for family in ("", "6"):
            run(" ".join(net.inside(node, f"sysctl -qw net.bridge.bridge-nf-call-ip{family}tables=1")))
        for pod in ("a", "b") if number == 1 else ("c",):
            net.add(pod)
            net.join(pod, f"pod-{pod}", node, "cni0")
            net.ip(pod, f"address add 10.244.{number}.{10 + 'abc'.index(pod) + 1}/24 brd + dev eth0")
            net.ip(pod, f"route add default via 10.244.{number}.1")
        net.ip(node, "route add default via 172.31.9.50")
    for number, (node, peer) in enumerate(zip(NODES, reversed(NODES.values()), strict=True), 1):
        net.ip(node, f"route add 10.244.{3 - number}.0/24 via {peer}")
        net.ip("world", f"route add 10.244.{number}.0/24 via {NODES[node]}")
        net.nft(node, SERVICE)
    for name in ("world", *NODES, "a", "b", "c"):
        net.listen(name)
    return net


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    if os.geteuid():
        pytest.skip("needs root for network namespaces")
    with ExitStack() as stack:
        yield built(stack)


B, C = "10.244.1.12", "10.244.2.13"
CLOSED: list[Question] = [
    # Another pod of the same node, and of another.
    *((kind, pod, port) for kind in ("tcp", "udp") for pod in (B, C) for port in (22, 80, 8002)),
    # The machines, and the node's own addresses.
    *((kind, node, 22) for kind in ("tcp", "udp") for node in (*NODES.values(), "10.244.1.1", "10.244.2.1")),
    # What is around.
    *(
        (kind, OUTSIDE[name], port)
        for kind in ("tcp", "udp")
        for name in ("printer", "forbidden")
        for port in (80, 8888)
    ),
    ("tcp", OUTSIDE["metadata"], 80),
]
OPEN: list[Question] = [
    *((kind, pod, port) for kind in ("tcp", "udp") for pod in (B, C) for port in (53, 8888)),
    ("tcp", "10.96.0.9", 80),
    *(("tcp", node, port) for node in NODES.values() for port in (80, 6443)),
    *((kind, OUTSIDE[name], 53) for kind in ("tcp", "udp") for name in ("printer", "forbidden")),
    *((kind, OUTSIDE[name], 22) for kind in ("tcp", "udp") for name in ("allowed", "internet")),
]


def test_what_pods_reach(network: Network) -> None:
    silent: list[Question] = [
        *((kind, f"{network.link_local('b')}%eth0", 8888) for kind in ("tcp", "udp")),
        ("broadcast", "10.244.1.255", 8000),
        ("broadcast", "255.255.255.255", 8001),
        # A reset over the bridge bears the pod's address, not the Service's, so the client takes no notice of it.
        ("tcp", "10.96.0.9", 81),
    ]
    every = CLOSED + OPEN + silent
    # Without the guard everything answers: nothing else keeps the pods apart.
    before = network.ask("a", every)
    assert [item for item, answer in zip(every, before, strict=True) if answer != "open"] == []
    for node in NODES:
        network.nft(node, RULES)
    after = dict(zip(every, network.ask("a", every), strict=True))
    wanted = dict.fromkeys(CLOSED, "refused") | dict.fromkeys(OPEN, "open") | dict.fromkeys(silent, "silent")
    assert {item: answer for item, answer in after.items() if answer != wanted[item]} == {}


def test_who_is_no_pod_reaches_pods_and_machines(network: Network) -> None:
    for node in NODES:
        network.nft(node, RULES)
    questions: list[Question] = [(kind, host, 8002) for kind in ("tcp", "udp") for host in (B, C, *NODES.values())]
    for asking in ("node1", "node2", "world"):
        assert network.ask(asking, questions) == ["open"] * len(questions), asking


def test_the_other_node_refuses_for_itself(network: Network) -> None:
    """A node without the guard does not open the pods of the others."""
    network.nft("node2", RULES)
    run(" ".join(network.inside("node1", "nft delete table inet jhok_guard")))
    questions: list[Question] = [("tcp", C, 8002), ("tcp", C, 8888), ("tcp", NODES["node2"], 22), ("tcp", B, 8002)]
    assert network.ask("a", questions) == ["refused", "open", "refused", "open"]
