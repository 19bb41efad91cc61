#!/usr/bin/python
"""Ansible module kube_probe: whether a cluster is as the inventory says, and works."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kube_probe
short_description: Asks a Kubernetes cluster about its nodes, pods, claims, DNS and network
version_added: 0.1.0
description:
  - Asks only what its options name. Runs on the control machine.
  - Changes nothing and never fails by itself; what is wrong is a line with C(ok=false) under RV(probes).
requirements: [kubernetes]
attributes:
  check_mode:
    support: full
    description: It only reads, and runs commands in a pod that only read.
options:
  check:
    description: Area of the report that the lines belong to.
    type: str
    required: true
  kubeconfig:
    description: Path of the kubeconfig.
    type: path
    required: true
  api:
    description: Whether to ask for the API server's version and how long its certificate lasts.
    type: bool
    default: false
  version:
    description: Version that the API server and all kubelets must have; empty for any.
    type: str
    default: ""
  certificate_days:
    description: Days that the API server's certificate must last at least.
    type: int
    default: 30
  nodes:
    description: Name → address of the nodes that must be there and no others; empty for whatever nodes there are.
    type: dict
  namespaces:
    description: Namespaces whose pods must all be ready.
    type: list
    elements: str
    default: []
  claims:
    description: PersistentVolumeClaims that must be bound, as C(namespace/name).
    type: list
    elements: str
    default: []
  asking_pod:
    description: Pod with Python in it, from which DNS and the pod network are asked.
    type: dict
    suboptions:
      namespace:
        description: Its namespace.
        type: str
        required: true
      label_selector:
        description: Labels that find it; the first that runs is taken.
        type: str
        required: true
  names:
    description: Names of Services that must resolve in O(asking_pod), as C(name.namespace).
    type: list
    elements: str
    default: [kubernetes.default]
  node_port:
    description: Port on which every node must answer C(GET /hub/health) with 200; 0 asks nothing.
    type: int
    default: 0
  timeout:
    description: Seconds until a command in a pod, or a node's answer, must be done.
    type: int
    default: 30
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: Ask about nodes and system pods
  jhok.lab.kube_probe:
    check: kubernetes
    kubeconfig: artifacts/kubeconfig
    api: true
    version: v1.37.2
    nodes:
      master: 172.16.0.100
      worker1: 172.16.0.101
    namespaces: [kube-system]
  register: cluster
"""

RETURN = r"""
probes:
  description: One line per question.
  returned: always
  type: list
  elements: dict
  sample:
    - {check: kubernetes, asked: node worker1, got: "ready, 172.16.0.101, v1.37.2", ok: true, seconds: 0.01}
"""

import datetime
import functools
import http.client
import ipaddress
import json
import ssl
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.jhok.lab.plugins.module_utils import k8s
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError, ProbeLog

UNKNOWN_NAME = "jhok-verify-no-such-service.default"

# Runs in the pod. The cluster's domain comes from the pod's own search list. EAI_NONAME (-2) and EAI_NODATA (-5) are a
# server's "no such name"; other codes mean that no server answered.
RESOLVE = """
import json, socket, sys
with open("/etc/resolv.conf") as file:
    search = [w for line in file if line.startswith("search") for w in line.split()[1:]]
domain = next((w for w in search if w.startswith("svc.")), "svc.cluster.local")
found = {}
for name in sys.argv[1:]:
    try:
        answers = socket.getaddrinfo(f"{name}.{domain}.", None, type=socket.SOCK_STREAM)
        found[name] = sorted({answer[4][0] for answer in answers})
    except socket.gaierror as error:
        found[name] = "no such name" if error.errno in (-2, -5) else str(error)
print(json.dumps(found))
"""
CONNECT = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
"""


def condition(obj: dict[str, Any], kind: str) -> bool:
    """Return whether an object's condition of this type is true."""
    return any(c["type"] == kind and c["status"] == "True" for c in obj.get("status", {}).get("conditions") or [])


def judge_node(node: dict[str, Any] | None, address: str, version: str) -> str:
    """Return a node's state in words; ProbeError unless it is ready and as it should be. Empty wishes match all."""
    if node is None:
        raise ProbeError("the cluster has no such node")
    addresses = [a["address"] for a in node["status"].get("addresses") or [] if a["type"] == "InternalIP"]
    kubelet = node["status"]["nodeInfo"]["kubeletVersion"]
    ready = condition(node, "Ready")
    text = f"{'ready' if ready else 'not ready'}, {', '.join(addresses) or 'no address'}, {kubelet}"
    if not ready or (address and address not in addresses) or (version and kubelet != version):
        wish = ", ".join(word for word in ("ready", address, version) if word)
        raise ProbeError(f"{text}; should be {wish}")
    if node.get("spec", {}).get("unschedulable"):
        text += ", takes no new pods"
    return text


def judge_pods(pods: list[dict[str, Any]]) -> str:
    """Return how many pods are ready; ProbeError when one is not. Pods that ended well do not count."""
    pods = [pod for pod in pods if pod.get("status", {}).get("phase") != "Succeeded"]
    waiting = [pod["metadata"]["name"] for pod in pods if not condition(pod, "Ready")]
    if waiting or not pods:
        raise ProbeError(f"not ready: {', '.join(waiting)}" if waiting else "there is no pod")
    return f"{len(pods)} ready"


def judge_certificate(expires: datetime.datetime, now: datetime.datetime, days: int) -> str:
    """Return how long a certificate lasts; ProbeError when that is less than `days`."""
    left = (expires - now).days
    text = f"{left} days, until {expires:%Y-%m-%d}"
    if left < days:
        raise ProbeError(f"{text}; should be {days} days at least")
    return text


def judge_name(name: str, answer: list[str] | str) -> str:
    """Return what a name resolved to; ProbeError unless that is an address, or none for the unknown name."""
    text = answer if isinstance(answer, str) else ", ".join(answer)
    if (name == UNKNOWN_NAME) != (answer == "no such name") or (isinstance(answer, str) and answer != "no such name"):
        raise ProbeError(text)
    return text


def reachable_pod(pods: list[dict[str, Any]], node: str) -> tuple[str, str, int] | None:
    """Return name, address and a TCP port of a ready pod on `node` that is in the pod network, or None."""
    for pod in pods:
        if pod["spec"].get("hostNetwork") or pod["spec"].get("nodeName") != node or not condition(pod, "Ready"):
            continue
        for container in pod["spec"]["containers"]:
            for port in container.get("ports") or []:
                if port.get("protocol", "TCP") == "TCP":
                    return pod["metadata"]["name"], pod["status"]["podIP"], port["containerPort"]
    return None


class Asker:
    """Puts the questions that the parameters name."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.log = ProbeLog(params["check"])
        self.cluster: k8s.Cluster | None = None

    def go(self) -> None:
        """Ask everything; what depends on an answer that did not come is a failed line."""
        if self.params["api"]:
            self.log.ask("version of the API server", self.version)
            self.log.ask("certificate of the API server", self.certificate)
        if self.params["nodes"] is not None:
            self.nodes()
        for namespace in self.params["namespaces"]:
            self.log.ask(f"pods of {namespace}", functools.partial(self.pods, namespace))
        for claim in self.params["claims"]:
            self.log.ask(f"claim {claim}", functools.partial(self.claim, claim))
        if self.params["asking_pod"]:
            self.from_pod()
        if self.params["node_port"]:
            self.log.ask("nodes to reach the hub through", self.through_nodes, "network")

    @property
    def api(self) -> k8s.Cluster:
        """The cluster; connected when first asked, so that a failure is the asking line's."""
        if self.cluster is None:
            self.cluster = k8s.connect(self.params["kubeconfig"])
        return self.cluster

    def version(self) -> str:
        """Ask for the API server's version."""
        found, wanted = self.api.version().text, self.params["version"]
        if wanted and found != wanted:
            raise ProbeError(f"{found}; should be {wanted}")
        return found

    def certificate(self) -> str:
        """Look at the certificate that the API server shows. That it is trusted, the other questions prove."""
        from cryptography import x509

        parts = urlsplit(self.api.host)
        pem = ssl.get_server_certificate((str(parts.hostname), parts.port or 443), timeout=self.params["timeout"])
        expires = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
        return judge_certificate(expires, datetime.datetime.now(datetime.UTC), self.params["certificate_days"])

    def nodes(self) -> None:
        """Ask for all nodes and judge each."""
        wanted: dict[str, str] = self.params["nodes"]
        found: dict[str, dict[str, Any]] = {}

        def find() -> str:
            found.update({node["metadata"]["name"]: node for node in self.api.list("v1", "Node")})
            strangers = sorted(set(found) - set(wanted)) if wanted else []
            if strangers or not found:
                raise ProbeError(f"not in the inventory: {', '.join(strangers)}" if strangers else "there is no node")
            return f"{len(found)}: {', '.join(sorted(found))}"

        self.log.ask("nodes of the cluster", find)
        for name in sorted(set(wanted) | set(found)):
            self.log.ask(
                f"node {name}",
                lambda n=name: judge_node(found.get(n), wanted.get(n, ""), self.params["version"]),  # type: ignore[misc]
            )

    def pods(self, namespace: str) -> str:
        """Ask for the state of a namespace's pods; users' servers come and go and do not count."""
        return judge_pods(self.api.list("v1", "Pod", namespace, label_selector="component!=singleuser-server"))

    def through_nodes(self) -> str:
        """Ask for the hub's health through each node's port; every node has a line of its own."""
        nodes = self.api.list("v1", "Node")
        for node in nodes:
            address = next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
            host = f"{_url_host(address)}:{self.params['node_port']}"
            asked = f"GET http://{host}/hub/health through {node['metadata']['name']}"
            self.log.ask(asked, functools.partial(self.health, host), "network")
        return f"{len(nodes)}"

    def health(self, host: str) -> str:
        """Ask for the hub's health at `host:port`, without any proxy."""
        connection = http.client.HTTPConnection(host, timeout=self.params["timeout"])
        try:
            connection.request("GET", "/hub/health")
            status = connection.getresponse().status
        finally:
            connection.close()
        if status != 200:
            raise ProbeError(f"{status}")
        return f"{status}"

    def claim(self, full_name: str) -> str:
        """Ask for the state of a claim."""
        namespace, _, name = full_name.partition("/")
        claim = self.api.get("v1", "PersistentVolumeClaim", name, namespace)
        if claim is None:
            raise ProbeError("there is no such claim")
        phase = str(claim["status"].get("phase"))
        if phase != "Bound":
            raise ProbeError(phase)
        return f"Bound to {claim['spec'].get('volumeName')}"

    def from_pod(self) -> None:
        """Ask DNS and connect to other nodes' pods from inside a pod."""
        namespace, selector = self.params["asking_pod"]["namespace"], self.params["asking_pod"]["label_selector"]
        pods: list[dict[str, Any]] = []
        asker: dict[str, Any] = {}

        def find() -> str:
            # Pods of others on a cluster that is not ours may be nobody's to speak to.
            for place in {namespace, "kube-system"}:
                pods.extend(self.api.list("v1", "Pod", place))
            own = self.api.list("v1", "Pod", namespace, label_selector=selector)
            asker.update(next((pod for pod in own if condition(pod, "Ready")), {}))
            if not asker:
                raise ProbeError(f"no ready pod has {selector} in namespace {namespace}")
            return f"{asker['metadata']['name']} on {asker['spec']['nodeName']}"

        names = [*self.params["names"], UNKNOWN_NAME]
        if not self.log.ask("pod to ask from", find, "dns"):
            self.log.not_asked(f"names {', '.join(names)} in a pod", "there is no pod to ask from", "dns")
            self.log.not_asked("pods on other nodes", "there is no pod to ask from", "network")
            return
        self.resolve(asker["metadata"], names)
        here = asker["spec"]["nodeName"]
        others = sorted({pod["spec"].get("nodeName", "") for pod in pods} - {here, ""})
        for node in others:
            if target := reachable_pod(pods, node):
                name, address, port = target
                asked = f"pod on {here} connects to {name} on {node} ({_url_host(address)}:{port})"
                self.log.ask(asked, functools.partial(self.connect, asker["metadata"], address, port), "network")

    def resolve(self, pod: dict[str, Any], names: list[str]) -> None:
        """Resolve names in a pod; the unknown one must not be found."""
        found: dict[str, Any] = {}

        def ask_all() -> str:
            found.update(json.loads(self._exec(pod, [RESOLVE, *names])))
            return "answered"

        if not self.log.ask(f"DNS in pod {pod['name']}", ask_all, "dns"):
            return
        for name in names:
            self.log.ask(
                f"address of {name}{' (must not exist)' if name == UNKNOWN_NAME else ''}",
                lambda n=name: judge_name(n, found[n]),  # type: ignore[misc]
                "dns",
            )

    def connect(self, pod: dict[str, Any], address: str, port: int) -> str:
        """Open a TCP connection from a pod."""
        self._exec(pod, [CONNECT, address, str(port)])
        return "connected"

    def _exec(self, pod: dict[str, Any], arguments: list[str]) -> str:
        command = ["python3", "-c", *arguments]
        done = self.api.exec(pod["namespace"], pod["name"], command, timeout=self.params["timeout"])
        if done.code:
            said = done.stderr.strip().splitlines()
            raise ProbeError(said[-1] if said else f"ended with {done.code}")
        return done.stdout


def _url_host(address: str) -> str:
    return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "check": {"type": "str", "required": True},
            "kubeconfig": {"type": "path", "required": True},
            "api": {"type": "bool", "default": False},
            "version": {"type": "str", "default": ""},
            "certificate_days": {"type": "int", "default": 30},
            "nodes": {"type": "dict"},
            "namespaces": {"type": "list", "elements": "str", "default": []},
            "claims": {"type": "list", "elements": "str", "default": []},
            "asking_pod": {
                "type": "dict",
                "options": {
                    "namespace": {"type": "str", "required": True},
                    "label_selector": {"type": "str", "required": True},
                },
            },
            "names": {"type": "list", "elements": "str", "default": ["kubernetes.default"]},
            "node_port": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    asker = Asker(module.params)
    asker.go()
    module.exit_json(changed=False, probes=asker.log.as_dicts())


if __name__ == "__main__":
    main()
