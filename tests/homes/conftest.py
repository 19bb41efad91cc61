"""Two users with homes and servers, and the machines below them. molecule/homes says where the lab is.

    JHOK_HOMES_SITE  a JSON file, see people.Site

The files are worked through in the order of their names: what breaks machines comes last.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError
from people import ADA, LINUS, Person, Site


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
