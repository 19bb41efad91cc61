"""hub_culler.py: who is stopped and why. The service itself runs in tests/integration/test_culling.py."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hub_culler
import pytest
from traitlets.config import Config

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR, DAY = 3600, 86400
SETTINGS: dict[str, Any] = {
    "idle_timeout": 7 * DAY,
    "max_age": 0,
    "idle_check_interval": 600,
    "environments": [
        {"name": "default", "title": "Default"},
        {"name": "gpu", "idle_timeout": HOUR, "max_age": DAY},
        {"name": "forever", "idle_timeout": 0, "max_age": None},
    ],
}


def ago(seconds: float) -> str:
    """Return a time as the hub writes it."""
    return (NOW - timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


def server(started: float, used: float | None, environment: str | None = "default") -> dict[str, Any]:
    return {
        "started": ago(started),
        "last_activity": None if used is None else ago(used),
        "user_options": {"environment": environment} if environment else None,
    }


def stops(record: dict[str, Any], **changes: object) -> str | None:
    return hub_culler.why_stop(record, hub_culler.rules(SETTINGS | changes), NOW)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (server(30 * DAY, 7 * DAY + 59), None),
        (server(30 * DAY, 7 * DAY + 60), "last used 7 days, 0:01:00 ago (limit 7 days, 0:00:00)"),
        (server(30 * DAY, 8 * DAY, None), "last used 8 days, 0:00:00 ago (limit 7 days, 0:00:00)"),
        (server(30 * DAY, 8 * DAY, "no longer offered"), "last used 8 days, 0:00:00 ago (limit 7 days, 0:00:00)"),
        (server(8 * DAY, None), "last used 8 days, 0:00:00 ago (limit 7 days, 0:00:00)"),
        (server(DAY, None), None),
        (server(2 * HOUR, HOUR + 60, "gpu"), "last used 1:01:00 ago (limit 1:00:00)"),
        (server(DAY - 1, 0, "gpu"), None),
        (server(DAY, 5, "gpu"), "it is 1 day, 0:00:00 old (limit 1 day, 0:00:00), last used 0:00:05 ago"),
        (server(1000 * DAY, 1000 * DAY, "forever"), None),
        (server(0, 0), None),
    ],
)
def test_why_a_server_is_stopped(record: dict[str, Any], reason: str | None) -> None:
    assert stops(record) == reason


def test_the_sites_maximum_age_holds_where_an_environment_names_none() -> None:
    assert stops(server(2 * HOUR, 0), max_age=2 * HOUR) == "it is 2:00:00 old (limit 2:00:00), last used 0:00:00 ago"
    assert stops(server(2 * HOUR, 0, "gpu"), max_age=2 * HOUR) is None


@pytest.mark.parametrize("started", [-DAY, -1000 * DAY])
def test_a_clock_that_was_set_back_stops_nothing(started: float) -> None:
    assert stops(server(started, started, "gpu")) is None


def test_a_record_without_times_stops_nothing() -> None:
    assert stops({"started": None, "last_activity": ago(100 * DAY), "user_options": {}}) is None


def test_no_limit() -> None:
    assert stops(server(1000 * DAY, 1000 * DAY), idle_timeout=0) is None


def test_the_hub_is_told() -> None:
    config = Config()
    config.JupyterHub.services, config.JupyterHub.load_roles = [], []
    config.Spawner.environment = {"HOME": "/home/x"}
    hub_culler.configure(config, SETTINGS, lambda name: pytest.fail(f"reads the secret {name}"))
    [service], [role] = config.JupyterHub.services, config.JupyterHub.load_roles
    assert role["services"] == [service["name"]]
    assert Path(service["command"][1]).is_file()
    assert json.loads(service["command"][2]) == hub_culler.rules(SETTINGS)
    assert config.JupyterHub.last_activity_interval == 60
    assert config.Spawner.environment == {"HOME": "/home/x", "JUPYTERHUB_ACTIVITY_INTERVAL": "0"}


def test_a_short_check_interval_asks_the_proxy_as_often() -> None:
    assert hub_culler.rules(SETTINGS | {"idle_check_interval": 5})["activity_interval"] == 5
