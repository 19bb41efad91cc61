"""The site with two users' homes, and these users."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient
from kubernetes import client, config

ADA, LINUS = "ada", "linus"
START_SECONDS, CODE_SECONDS = 180, 90


@dataclass(frozen=True)
class Site:
    """What molecule/homes says of the site."""

    hub_url: str
    passwords: dict[str, str] = field(repr=False)
    kubeconfig: str
    namespace: str
    machines: dict[str, str]  # how to reach each by SSH
    lab: str  # what the machines' containers are called begins with it
    addresses: dict[str, str]
    nfs_server: str
    nfs_path: str

    @cached_property
    def api(self) -> client.CoreV1Api:
        return client.CoreV1Api(config.new_client_from_config(self.kubeconfig))

    def run(self, machine: str, command: str, stdin: bytes = b"", seconds: float = 60) -> str:
        """Run a command on a machine."""
        argv = [*shlex.split(self.machines[machine]), command]
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=seconds)
        assert done.returncode == 0, f"{machine}: {command}: {done.stderr.decode()}"
        return done.stdout.decode()

    def pods(self, user: str) -> list[Any]:
        """Return a user's pods."""
        label = f"hub.jupyter.org/username={user}"
        return list(self.api.list_namespaced_pod(self.namespace, label_selector=label).items)

    def pod(self, user: str) -> Any:  # noqa: ANN401
        """Return the pod of a user whose server runs."""
        [pod] = self.pods(user)
        return pod


@dataclass(frozen=True)
class Person:
    """A user who has signed in and whose server runs."""

    site: Site
    name: str
    hub: HubClient

    def run(self, code: str) -> str:
        """Run code in a kernel of the server."""
        return self.hub.run(self.name, code, CODE_SECONDS).strip()

    def start(self) -> None:
        self.hub.start_server(self.name, {"environment": "standard"}, START_SECONDS)
        self.hub.lab_page(self.name)  # brings the server's cookies

    def stop(self) -> None:
        self.hub.stop_server(self.name, START_SECONDS)
