"""The demo's lab and the tests' share no name, network, address or port."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
INVENTORIES = {"demo": ROOT / "inventory/demo", "tests": ROOT / "molecule/inventory"}
DEFAULTS = yaml.safe_load((ROOT / "roles/lab/defaults/main.yml").read_text())
VARIABLES = ("lab_name", "lab_subnet", "lab_gateway", "lab_publish_address")


def inventory(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((INVENTORIES[name] / "hosts.yml").read_text())["all"]
    return content


def settings(name: str) -> dict[str, str]:
    given = DEFAULTS | inventory(name).get("vars", {})
    return {variable: given[variable] for variable in VARIABLES}


def addresses(name: str) -> list[str]:
    groups = inventory(name)["children"].values()
    return [host["ansible_host"] for group in groups for host in group["hosts"].values() if host]


def test_the_labs_differ() -> None:
    demo, tests = settings("demo"), settings("tests")
    assert [variable for variable in VARIABLES if demo[variable] == tests[variable]] == []
    networks = [ipaddress.ip_network(lab["lab_subnet"]) for lab in (demo, tests)]
    assert not networks[0].overlaps(networks[1])


@pytest.mark.parametrize("name", INVENTORIES)
def test_a_labs_addresses_are_in_its_network(name: str) -> None:
    network = ipaddress.ip_network(settings(name)["lab_subnet"])
    found = [*addresses(name), settings(name)["lab_gateway"]]
    assert len(set(found)) == 3
    assert [address for address in found if ipaddress.ip_address(address) not in network] == []


def test_the_scenarios_do_not_name_the_demos_lab() -> None:
    words = re.compile(r"inventory/demo|172\.16\.0\.|jhok-master|jhok-worker|127\.0\.0\.1:30")
    found = [path for path in (ROOT / "molecule").rglob("*.yml") if words.search(path.read_text())]
    assert [str(path.relative_to(ROOT)) for path in found] == []
