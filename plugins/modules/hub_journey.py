#!/usr/bin/python
"""Ansible module hub_journey: use a JupyterHub as a person would, and say how each step went."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hub_journey
short_description: Uses a JupyterHub as a person would and reports every step
version_added: 0.1.0
description:
  - Signs in, starts a server, opens JupyterLab, runs code in a kernel that writes a file, stops, starts again (on
    another node when there is one), reads the file, stops. With O(closed) it also tries what must not be reached.
  - Removes what it made, also after a failed step, and what an interrupted journey left behind. The user's home
    directory on the NFS server is not its business; a task after it removes that.
  - Never fails by itself; a step that could not be done is a line with O(ignore:ok=false) under RV(probes).
  - The hub must honour the user option C(node) for this user, so that servers can be started on a chosen node.
requirements: [kubernetes (with O(kubeconfig))]
extends_documentation_fragment: [jhok.lab.hub, jhok.lab.hub.visitor]
options:
  kubeconfig:
    description: Kubeconfig of the cluster; servers are then started on two nodes in turn and their pods looked at.
    type: path
  namespace:
    description: Namespace of the users' pods.
    type: str
    default: jupyterhub
  closed:
    description: Addresses (C(host:port), TCP) that a user's server must not reach; tried on both starts.
    type: list
    elements: str
    default: []
  code_timeout:
    description: Seconds until a kernel must have started and run the code.
    type: int
    default: 60
  timeout:
    description: Seconds until any single request must be answered.
    type: int
    default: 15
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: Use the hub as a person would
  jhok.lab.hub_journey:
    url: http://172.16.0.100:30080
    password: "{{ secrets.verify_password }}"
    service_token: "{{ secrets.verify_token }}"
    kubeconfig: artifacts/kubeconfig
  register: journey
"""

RETURN = r"""
probes:
  description: One line per step.
  returned: always
  type: list
  elements: dict
  sample:
    - {check: journey, asked: GET /user/jhok-verify/lab, got: JupyterLab, ok: true, seconds: 0.03}
click_to_jupyter:
  description: Seconds from the request to start a server to its JupyterLab page, for each start that got there.
  returned: always
  type: list
  elements: float
  sample: [4.2, 3.9]
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.jhok.lab.plugins.module_utils import hub_client, k8s
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError, ProbeLog

WRITE = """
import pathlib
path = pathlib.Path.home() / {file!r}
path.write_text({nonce!r})
print(path.read_text(), sum(range(1000)))
"""
# The hub's API is asked for first: a server that reaches nothing at all proves nothing.
OPEN = """
import concurrent.futures, os, socket, urllib.parse
def connects(host, port):
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True
hub = urllib.parse.urlsplit(os.environ["JUPYTERHUB_API_URL"])
ports = {ports!r}
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    answers = list(pool.map(lambda port: connects(*port), ports))
print("hub" if connects(hub.hostname, hub.port or 80) else "nothing")
print(", ".join("%s:%d" % port for port, answer in zip(ports, answers) if answer))
"""
READ = """
import pathlib
path = pathlib.Path.home() / {file!r}
print(path.read_text())
path.unlink()
"""


class Cluster:
    """The users' pods in a namespace, seen through the Kubernetes API."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self._api = k8s.connect(kubeconfig)
        self._namespace = namespace

    def nodes(self) -> list[str]:
        """Return the names of the nodes on which an ordinary pod may start."""
        return sorted(node["metadata"]["name"] for node in self._api.list("v1", "Node") if schedulable(node))

    def pods(self, user: str) -> dict[str, str]:
        """Return the user's pods with the names of their nodes."""
        label = f"hub.jupyter.org/username={user}"
        pods = self._api.list("v1", "Pod", self._namespace, label_selector=label)
        return {pod["metadata"]["name"]: pod["spec"].get("nodeName", "") for pod in pods}


def schedulable(node: dict[str, Any]) -> bool:
    """Return whether a pod without tolerations may start on the node."""
    spec = node.get("spec", {})
    taints = {taint["effect"] for taint in spec.get("taints") or []}
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions") or [])
    return ready and not spec.get("unschedulable") and taints <= {"PreferNoSchedule"}


class Journey:
    """The steps, in order; after the first that failed the others are noted as not asked."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.user: str = params["user"]
        self.log = ProbeLog("journey", [params["password"], params["service_token"]])
        self.clicks: list[float] = []
        self.admin = HubClient(params["url"], token=params["service_token"], timeout=params["timeout"])
        self.visitor = HubClient(params["url"], timeout=params["timeout"])
        self.cluster: Cluster | None = None
        self.failed = ""
        self.file = f".jhok-verify-{secrets.token_hex(4)}"
        self.nonce = secrets.token_hex(16)

    def go(self) -> None:
        """Make the journey; every step is a line of the log, whatever happens."""
        self._step("GET /hub/health", self._health, check="hub")
        self._step("version of the hub's API", self._version, check="hub")
        self._step(f"remove what an earlier journey of {self.user} left", self._clean)
        try:
            places = self._places()
            self._step(f"sign in as {self.user}", self._sign_in)
            for place, code in zip(places, (WRITE, READ), strict=True):
                self._visit(place, code)
        finally:
            # Also after a failed step: nothing stays. What failed to be removed is a failed line.
            self.log.ask(f"remove server, tokens and record of {self.user}", self._clean)

    def _visit(self, place: str, code: str) -> None:
        """Start a server, use it, stop it. `place`: name of a node, or empty for any."""
        begin = time.monotonic()
        self._step(f"start a server{f' on {place}' if place else ''}", lambda: self._start(place))
        if self._step(f"GET /user/{self.user}/lab", self._lab_page):
            self.clicks.append(round(time.monotonic() - begin, 3))
        verb = "write" if code is WRITE else "read"
        self._step(f"{verb} a file of the home in a kernel{f' on {place}' if place else ''}", lambda: self._run(code))
        if self.params["closed"]:
            asked = f"try {len(self.params['closed'])} closed ports from the server{f' on {place}' if place else ''}"
            failed = self.failed
            self._step(asked, self._closed)
            self.failed = failed  # an open port is no reason not to go on
        self._step("stop the server", self._stop)

    def _step(self, asked: str, question: Callable[[], str], check: str | None = None) -> bool:
        if self.failed:
            self.log.not_asked(asked, f"'{self.failed}' failed", check)
            return False
        if self.log.ask(asked, question, check):
            return True
        self.failed = asked
        return False

    def _places(self) -> tuple[str, str]:
        """Return the nodes of the two starts: two different ones where there are two."""
        kubeconfig = self.params["kubeconfig"]
        nodes: list[str] = []

        def find() -> str:
            self.cluster = Cluster(kubeconfig, self.params["namespace"])
            nodes.extend(self.cluster.nodes())
            if not nodes:
                raise ProbeError("no node takes pods")
            return ", ".join(nodes)

        if kubeconfig:
            self._step("nodes that take users' servers", find)
        return (nodes[0], nodes[min(1, len(nodes) - 1)]) if nodes else ("", "")

    def _health(self) -> str:
        self.visitor.health()
        return "200"

    def _version(self) -> str:
        return f"JupyterHub {self.visitor.version()}"

    def _sign_in(self) -> str:
        if self.params["password"]:
            self.visitor.sign_in(self.user, self.params["password"])
            return "signed in by the login page's form"
        self.admin.create_user(self.user)
        token = self.admin.create_token(self.user, expires_in=3600)
        self.log.hide(token)
        self.visitor = HubClient(self.params["url"], token=token, timeout=self.params["timeout"])
        return "an API token"

    def _start(self, place: str) -> str:
        options = {"node": place} if place else {}
        message = self.visitor.start_server(self.user, options, self.params["start_timeout"])
        if self.cluster is None:
            return message
        nodes = set(self.cluster.pods(self.user).values())
        if nodes != {place}:
            raise ProbeError(
                f"the pod is on {', '.join(sorted(nodes)) or 'no node'}: does the hub honour the option 'node'?"
            )
        return f"ready on {place}"

    def _lab_page(self) -> str:
        self.visitor.lab_page(self.user)
        return "the page of JupyterLab"

    def _run(self, code: str) -> str:
        printed = self.visitor.run(
            self.user, code.format(file=self.file, nonce=self.nonce), self.params["code_timeout"]
        )
        expected = f"{self.nonce} 499500" if code is WRITE else self.nonce
        if printed.strip() != expected:
            raise ProbeError(f"printed {printed.strip()[:80]!r} instead of {expected!r}")
        return "what was written" if code is READ else "the text and a sum"

    def _closed(self) -> str:
        ports = [(host, int(port)) for host, _, port in (item.rpartition(":") for item in self.params["closed"])]
        lines = self.visitor.run(self.user, OPEN.format(ports=ports), self.params["code_timeout"]).splitlines()
        if lines[:1] != ["hub"]:
            raise ProbeError("the server does not reach the hub either, so this proves nothing")
        if len(lines) > 1 and lines[1]:
            raise ProbeError(f"it reaches {lines[1]}")
        return "none answers"

    def _stop(self) -> str:
        self.visitor.stop_server(self.user, self.params["stop_timeout"])
        self._wait_for_no_pod()
        return "gone"

    def _clean(self) -> str:
        self.admin.stop_server(self.user, self.params["stop_timeout"])
        self._wait_for_no_pod()
        return "removed" if self.admin.delete_user(self.user) else "there was nothing"

    def _wait_for_no_pod(self) -> None:
        deadline = time.monotonic() + self.params["stop_timeout"]
        while self.cluster is not None and (pods := self.cluster.pods(self.user)):
            if time.monotonic() > deadline:
                raise ProbeError(f"pod {', '.join(pods)} is still there after {self.params['stop_timeout']} s")
            time.sleep(hub_client.POLL_SECONDS)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "user": {"type": "str", "default": "jhok-verify"},
            "password": {"type": "str", "default": "", "no_log": True},
            "service_token": {"type": "str", "required": True, "no_log": True},
            "kubeconfig": {"type": "path"},
            "namespace": {"type": "str", "default": "jupyterhub"},
            "closed": {"type": "list", "elements": "str", "default": []},
            "start_timeout": {"type": "int", "default": 300},
            "stop_timeout": {"type": "int", "default": 90},
            "code_timeout": {"type": "int", "default": 60},
            "timeout": {"type": "int", "default": 15},
        },
        supports_check_mode=False,
    )
    if hub_client.IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("requests, websocket-client"), exception=hub_client.IMPORT_ERROR)
    journey = Journey(module.params)
    journey.go()
    module.exit_json(changed=False, probes=journey.log.as_dicts(), click_to_jupyter=journey.clicks)


if __name__ == "__main__":
    main()
