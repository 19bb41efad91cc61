"""hub_metrics.py: figures as JupyterHub's own registry gives them to Prometheus."""

from __future__ import annotations

from types import SimpleNamespace

import hub_metrics
import pytest
from hub_spawner import LabSpawner
from jupyterhub.app import JupyterHub
from kubespawner.spawner import EventReflector, PodReflector
from prometheus_client import REGISTRY


@pytest.fixture(autouse=True)
def _configured() -> None:
    hub_metrics.configure(None, {}, str)


def reflector(kind: type[PodReflector] | type[EventReflector], *names: str) -> PodReflector | EventReflector:
    """A watch as it is after its first look, without the task that goes on looking."""
    watch = kind.__new__(kind)
    watch.resources = {f"jupyterhub/{name}": {} for name in names}
    return watch


def test_pods_are_those_of_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        ("pods", "jupyterhub"): reflector(PodReflector, "jupyter-ann", "jupyter-bob"),
        ("events", "jupyterhub"): reflector(EventReflector, "jupyter-ann.1", "jupyter-ann.2", "jupyter-ann.3"),
    }
    monkeypatch.setattr(LabSpawner, "reflectors", known)
    assert REGISTRY.get_sample_value("jhok_hub_pods") == 2


def test_there_is_no_pod_before_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LabSpawner, "reflectors", {})
    assert REGISTRY.get_sample_value("jhok_hub_pods") == 0


@pytest.mark.parametrize("status", ["success", "failure"])
def test_sign_ins_are_counted_from_nought(status: str) -> None:
    """Under the name that JupyterHub gives, which the dashboards ask for."""
    labels = {"status": f"LoginStatus.{status}"}
    assert REGISTRY.get_sample_value("jupyterhub_login_duration_seconds_count", labels) == 0


def test_a_server_counts_when_it_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JupyterHub, "initialized", lambda: False)
    assert REGISTRY.get_sample_value("jhok_hub_servers") == 0
    users = SimpleNamespace(count_active_users=lambda: {"active": 5, "pending": 2, "ready": 3})
    monkeypatch.setattr(JupyterHub, "initialized", lambda: True)
    monkeypatch.setattr(JupyterHub, "instance", lambda: SimpleNamespace(users=users))
    assert REGISTRY.get_sample_value("jhok_hub_servers") == 3
