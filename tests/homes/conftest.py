"""Two users with homes and servers, and the machines below them. molecule/homes says where the lab is.

    JHOK_HOMES_SITE  a JSON file, see Site

The files are worked through in the order of their names: what breaks machines comes last.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import requests
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError
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


def pytest_configure(config: pytest.Config) -> None:
    if not os.environ.get("JHOK_HOMES_SITE") and not config.option.collectonly:
        pytest.exit("JHOK_HOMES_SITE is not set: these tests are run by molecule's scenario `homes`.", 4)


@pytest.fixture(scope="session")
def site() -> Site:
    return Site(**json.loads(Path(os.environ["JHOK_HOMES_SITE"]).read_text()))


@pytest.fixture(scope="session")
def people(site: Site) -> Iterator[dict[str, Person]]:
    people = {}
    try:
        for name, password in site.passwords.items():
            people[name] = Person(site, name, HubClient(site.hub_url, timeout=60))
            people[name].hub.sign_in(name, password)
            people[name].start()
        yield people
    finally:
        for person in people.values():
            with contextlib.suppress(HubError, requests.RequestException):
                person.stop()


@pytest.fixture
def ada(people: dict[str, Person]) -> Person:
    return people[ADA]


@pytest.fixture
def linus(people: dict[str, Person]) -> Person:
    return people[LINUS]
