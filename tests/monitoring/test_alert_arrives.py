"""Alerts of real causes arrive at a real receiver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from activity import MOVER, Activity
from lab import EXPORTER, Receiver, Site, Visitor, wait_for


@pytest.fixture
def stopped(site: Site) -> Iterator[str]:
    """Stop the node exporter of a machine that monitoring does not run on."""
    machine = next(name for name in site.machines if name != site.node)
    site.run(machine, f"systemctl stop {EXPORTER}")
    yield machine
    site.run(machine, f"systemctl start {EXPORTER}")


def test_arrives(stopped: str, receiver: Receiver, person: Visitor) -> None:
    silent = f'up{{job="node",node="{stopped}"}} == 0'
    wait_for("Prometheus sees it", lambda: person.query(silent), 240)
    assert person.value("count(up == 0)") >= 1, "the overview's figure"

    def told() -> list[dict[str, object]]:
        return [alert for alert in receiver.alerts("ExporterStopped", "firing") if alert["labels"]["node"] == stopped]

    alert = wait_for("the alert at the receiver", told, 240)[0]
    assert alert["annotations"]["summary"] == f"No figures of {stopped}"
    waiting = {
        (alert["labels"]["alertname"], alert["labels"].get("node")): alert["state"]
        for alert in person.api("alerts")["alerts"]
    }
    assert waiting["NodeDown", stopped] == "pending", "the product's own rule does not see it"


def test_traffic_over_budget_arrives(activity: Activity, receiver: Receiver, person: Visitor) -> None:
    name = "UserOverTrafficBudget"
    firing = f'ALERTS{{alertname="{name}",user="{MOVER}",alertstate="firing"}}'
    if person.query(firing, activity.before):
        assert person.query(firing)  # told by a run within the last 24 hours, and not again
        return
    # Traffic by day is worked out every two minutes, and what is no emergency is told a minute later.
    alert = wait_for("the alert at the receiver", lambda: list(receiver.alerts(name, "firing")), 400)[0]
    assert alert["labels"]["user"] == MOVER
    assert alert["annotations"]["runbook_url"].endswith(f"/site/runbooks.html#{name.lower()}")
