"""What role monitoring makes of the inventory and of the machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).parents[3] / "roles/monitoring"
VARIABLES = yaml.safe_load((ROLE / "vars/main.yml").read_text())
THREADS = "rc 0 12 30\nth {} 0 0.000 0.000\nnet 30 0 30 2\n"  # as /proc/net/rpc/nfsd has it


def setting(name: str, **given: object) -> Any:  # noqa: ANN401
    text = trust_as_template(VARIABLES["__monitoring_settings"][name])
    return Templar(loader=DataLoader(), variables={"groups": {}, **given}).template(text)


@pytest.mark.parametrize(
    ("told", "serves"),
    [
        ({"stdout": THREADS.format(16)}, True),
        ({"stdout": THREADS.format(0)}, False),  # the kernel could, but another server serves
        ({"stdout": "", "rc": 1}, False),  # no such file: nfs-ganesha on a kernel without nfsd
        ({"skipped": True}, False),  # an NFS server that is no machine of ours
        (None, False),  # nobody asked, as before the first run
    ],
)
def test_requests_are_shown_where_the_kernel_serves(told: dict[str, Any] | None, serves: bool) -> None:
    assert setting("nfs_kernel", **({} if told is None else {"__monitoring_nfsd": told})) is serves


def test_homes_are_shown_where_they_are_measured() -> None:
    """An NFS server that is no machine of ours has an address and tells no sizes."""
    assert setting("homes_measured", groups={"nfs_server": ["nas"]}) is True
    assert setting("homes_measured", groups={"nfs_server": []}) is False
    assert setting("homes_measured") is False


def test_quotas_are_passed_on() -> None:
    assert setting("quotas", monitoring_quotas="true") is True
    assert setting("quotas", monitoring_quotas=False) is False


@pytest.mark.parametrize(
    ("given", "has"),
    [({}, False), ({"storage_quota": "", "storage_quotas": []}, False), ({"storage_quota": "20G"}, True),
     ({"storage_quotas": [{"name": "large", "users": ["ann"], "size": "1T"}]}, True)],
)  # fmt: skip
def test_a_site_has_quotas_when_it_names_some(given: dict[str, object], has: bool) -> None:
    text = yaml.safe_load((Path(__file__).parents[3] / "playbooks/group_vars/all.yml").read_text())["site_has_quotas"]
    assert Templar(loader=DataLoader(), variables=given).template(trust_as_template(text)) is has


def test_the_exporter_s_guard_is_back_after_nftables_has_emptied_all_tables() -> None:
    """In a file of its own: role node's guard has jhok.conf there."""
    tasks = yaml.safe_load((ROLE / "tasks/machine_exporter.yml").read_text())
    written = {item["dest"]: item["src"] for task in tasks for item in task.get("loop", []) if "src" in item}
    unit = (ROLE / "templates" / written["/etc/systemd/system/nftables.service.d/jhok-exporter.conf"]).read_text()
    rules = next(path for path, source in written.items() if source == "node-exporter.nft.j2")
    for moment in ("ExecStartPost", "ExecReload"):
        assert f"{moment}=/usr/sbin/nft --file {rules}" in unit


@pytest.mark.parametrize("own", [[], ["monitoring_rules"], ["monitoring_panels", "monitoring_receivers"]])
def test_what_is_a_site_s_own_has_to_be_judged(own: list[str]) -> None:
    task = yaml.safe_load((ROLE / "tasks/check.yml").read_text())[0]
    names = ("monitoring_rules", "monitoring_panels", "monitoring_receivers")
    values = {name: [{"name": "mine"}] if name in own else [] for name in names}
    text = trust_as_template(task["jhok.lab.monitoring_check"]["own"])
    assert Templar(loader=DataLoader(), variables=values).template(text) == own
