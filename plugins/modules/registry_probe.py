#!/usr/bin/python
"""Ansible module registry_probe: whether a node can pull what it needs, and can write nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_probe
short_description: Asks the site's registry as a node would
version_added: 0.1.0
description:
  - Asks whether the registry answers, has every image of the bundle, refuses to be written, keeps its write side to
    itself, and tells its metrics.
  - Leaves nothing behind and never fails by itself; what is wrong is a line with C(ok=false) under RV(probes).
attributes:
  check_mode:
    support: full
    description: Nothing that it asks changes anything.
options:
  registry:
    description: Host and port of the side that nodes read from.
    type: str
    required: true
  write_port:
    description: Port of the write side, which must not answer on the registry's address.
    type: int
    default: 5001
  images:
    description: The images of the bundle's manifest; C(name) and C(digest) are used.
    type: list
    elements: dict
    required: true
  metrics:
    description: Host and port of the read side's metrics, asked by the machine that may. Default, nobody asks.
    type: str
    default: ""
  host:
    description: Name of the asking machine in the report.
    type: str
    required: true
  timeout:
    description: Seconds until any single request must be answered.
    type: int
    default: 10
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: Ask the registry
  jhok.lab.registry_probe:
    registry: 172.16.0.100:5000
    images: "{{ manifest.images }}"
    host: "{{ inventory_hostname }}"
  register: registry
"""

RETURN = r"""
probes:
  description: One line per question.
  returned: always
  type: list
  elements: dict
  sample:
    - check: registry
      asked: HEAD of 10 images at 172.16.0.100:5000 from worker1
      got: all there
      ok: true
      seconds: 0.1
"""

import http.client
import socket
from collections.abc import Mapping, Sequence
from contextlib import closing

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError, ProbeLog

ACCEPT = ", ".join(
    [
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ]
)


class Registry:
    """One registry, asked over plain HTTP without any proxy: it stands in the lab's network."""

    def __init__(self, address: str, timeout: float) -> None:
        self.address = address
        self.timeout = timeout

    def send(self, method: str, path: str) -> tuple[int, Mapping[str, str]]:
        """Return status and headers (names in lower case) of one request."""
        with closing(http.client.HTTPConnection(self.address, timeout=self.timeout)) as connection:
            connection.request(method, path, headers={"Accept": ACCEPT})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}

    def answers(self) -> str:
        """Ask for the API's version check."""
        status, _ = self.send("GET", "/v2/")
        if status != 200:
            raise ProbeError(f"{status}")
        return f"{status}"

    def has(self, images: Sequence[Mapping[str, str]]) -> str:
        """Ask for every image by digest."""
        if not images:
            raise ProbeError("the bundle's manifest names no image")
        wrong = []
        for image in images:
            status, headers = self.send("HEAD", f"/v2/{image['name']}/manifests/{image['digest']}")
            found = headers.get("docker-content-digest", image["digest"])
            if status != 200 or found != image["digest"]:
                wrong.append(f"{image['name']}: {status if status != 200 else found}")
        if wrong:
            raise ProbeError(f"{len(wrong)} of {len(images)} missing: {', '.join(wrong)}")
        return "all there"

    def refuses_writes(self) -> str:
        """Ask to begin an upload, which the read side must refuse."""
        status, headers = self.send("POST", "/v2/jhok/verify/blobs/uploads/")
        if 400 <= status < 500:
            return f"refused: {status}"
        if status == 202:  # it began: end it
            location = headers.get("location", "")
            self.send("DELETE", location.partition(self.address)[2] or location)
        raise ProbeError(f"not refused: {status}")

    def hides(self, port: int) -> str:
        """Try to connect to the write side's port at the registry's address."""
        host = self.address.rpartition(":")[0].strip("[]")
        try:
            socket.create_connection((host, port), timeout=self.timeout).close()
        except OSError as error:
            return f"no connection: {error}"
        raise ProbeError("it accepts connections: anybody in the network can write images")

    def tells(self, metrics: str) -> str:
        """Ask for the metrics at this address."""
        with closing(http.client.HTTPConnection(metrics, timeout=self.timeout)) as connection:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            found = [line for line in response.read().decode().splitlines() if line.startswith("registry_")]
        if response.status != 200 or not found:
            raise ProbeError(f"{response.status}, {len(found)} values of the registry")
        return f"{len(found)} values"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "registry": {"type": "str", "required": True},
            "write_port": {"type": "int", "default": 5001},
            "images": {"type": "list", "elements": "dict", "required": True},
            "metrics": {"type": "str", "default": ""},
            "host": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    address, images, port = module.params["registry"], module.params["images"], module.params["write_port"]
    here = f"from {module.params['host']}"
    registry = Registry(address, module.params["timeout"])
    log = ProbeLog("registry")
    log.ask(f"GET http://{address}/v2/ {here}", registry.answers)
    log.ask(f"HEAD of {len(images)} images at {address} {here}", lambda: registry.has(images))
    log.ask(f"POST of an upload to {address} {here}", registry.refuses_writes)
    log.ask(f"write side {address.rpartition(':')[0]}:{port} {here}", lambda: registry.hides(port))
    if metrics := module.params["metrics"]:
        log.ask(f"GET http://{metrics}/metrics {here}", lambda: registry.tells(metrics))
    module.exit_json(changed=False, probes=log.as_dicts())


if __name__ == "__main__":
    main()
