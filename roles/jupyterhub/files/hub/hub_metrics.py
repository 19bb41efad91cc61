"""What the hub tells Prometheus besides JupyterHub's own figures; both are at /hub/metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hub_spawner import LabSpawner
from jupyterhub.app import JupyterHub
from jupyterhub.metrics import LOGIN_DURATION_SECONDS, LoginStatus
from prometheus_client import Gauge

# JupyterHub's own jupyterhub_running_servers is counted up and down between starts, and is off after several at once.
SERVERS = Gauge("jhok_hub_servers", "Servers that run and can be reached.")
PODS = Gauge("jhok_hub_pods", "Pods of users that the hub's watch of Kubernetes knows.")


def servers() -> float:
    """Return how many servers people can use now."""
    return float(JupyterHub.instance().users.count_active_users()["ready"]) if JupyterHub.initialized() else 0


def pods() -> float:
    """Return how many pods the hub believes in; before its first look at Kubernetes, none."""
    return float(sum(len(watch.resources) for (kind, _), watch in LabSpawner.reflectors.items() if kind == "pods"))


def configure(c: Any, settings: dict[str, Any], secret: Callable[[str], str]) -> None:  # noqa: ANN401, ARG001
    """Have the figures read whenever Prometheus asks, and sign-ins counted from nought.

    The first of a counter that is not there before it is no increase.
    """
    for status in LoginStatus:
        LOGIN_DURATION_SECONDS.labels(status=status)
    SERVERS.set_function(servers)
    PODS.set_function(pods)
