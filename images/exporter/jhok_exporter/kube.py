"""The cluster's state as metrics, in kube-state-metrics' names and labels, so that it may stand in this one's place."""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes.client import Configuration
from kubernetes.config.incluster_config import InClusterConfigLoader
from kubernetes.utils.quantity import parse_quantity
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

PAGE = 25
"""Objects in one answer of the API: bounds the memory of a scrape (with 500 pods 12 MiB less than all at once)."""

TIMEOUT = urllib3.Timeout(connect=3, read=8)
"""Seconds to wait for the API server: less than the 10 s that Prometheus waits for a scrape."""

USERNAME = "hub.jupyter.org/username"
"""The annotation in which the hub says whose pod it is."""

POD_PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")
CLAIM_PHASES = ("Pending", "Bound", "Lost")
VOLUME_PHASES = ("Pending", "Available", "Bound", "Released", "Failed")

POD = ("namespace", "pod")
CONTAINER = (*POD, "container")
RESOURCE = ("resource", "unit")
CLAIM = ("namespace", "persistentvolumeclaim")
DEPLOYMENT = ("namespace", "deployment")
METRICS = {
    "kube_pod_info": ("Where a pod runs.", (*POD, "node", "pod_ip", "host_ip", "uid")),
    "kube_pod_created": ("Unix time of a pod's making.", POD),
    "kube_pod_status_phase": ("1 for the phase that a pod is in.", (*POD, "phase")),
    "kube_pod_annotations": ("Whose server a pod is.", (*POD, "annotation_hub_jupyter_org_username")),
    "kube_pod_container_resource_requests": ("What a container is sure to have.", (*CONTAINER, "node", *RESOURCE)),
    "kube_pod_container_resource_limits": ("What a container may use.", (*CONTAINER, "node", *RESOURCE)),
    "kube_pod_container_status_restarts_total": ("How often a container was started again.", CONTAINER),
    "kube_pod_container_status_ready": ("1 for a container that is ready.", CONTAINER),
    "kube_pod_container_status_waiting_reason": ("Why a container waits.", (*CONTAINER, "reason")),
    "kube_pod_container_status_last_terminated_reason": ("Why a container ended last time.", (*CONTAINER, "reason")),
    "kube_node_info": (
        "What a node runs.",
        ("node", "internal_ip", "kernel_version", "os_image", "container_runtime_version", "kubelet_version"),
    ),
    "kube_node_status_condition": ("1 for the status that a condition has.", ("node", "condition", "status")),
    "kube_node_status_allocatable": ("What a node has for pods.", ("node", *RESOURCE)),
    "kube_node_status_capacity": ("What a node has in all.", ("node", *RESOURCE)),
    "kube_node_spec_unschedulable": ("1 for a node that takes no new pods.", ("node",)),
    "kube_deployment_spec_replicas": ("Pods that a Deployment shall have.", DEPLOYMENT),
    "kube_deployment_status_replicas_available": ("Pods of a Deployment that serve.", DEPLOYMENT),
    "kube_persistentvolume_status_phase": ("1 for the phase that a volume is in.", ("persistentvolume", "phase")),
    "kube_persistentvolumeclaim_status_phase": ("1 for the phase that a claim is in.", (*CLAIM, "phase")),
    "kube_persistentvolumeclaim_resource_requests_storage_bytes": ("Size that a claim asks for.", CLAIM),
    "jhok_exporter_collect_seconds": ("How long reading the cluster's state took.", ()),
}
"""Metric → its help text and labels."""

Obj = Mapping[str, Any]
Family = GaugeMetricFamily | CounterMetricFamily


class ApiError(Exception):
    """The Kubernetes API did not give what was asked for."""


class Api:
    """The Kubernetes API with a pod's service account. May be used by several threads.

    Args:
        service_account: Directory with the account's ``token`` (read again as it is renewed) and ``ca.crt``.

    Raises:
        kubernetes.config.ConfigException: There is no such file, or no ``KUBERNETES_SERVICE_HOST`` and ``_PORT``.

    """

    def __init__(self, service_account: Path) -> None:
        self._configuration = Configuration()
        InClusterConfigLoader(str(service_account / "token"), str(service_account / "ca.crt")).load_and_set(
            self._configuration
        )
        context = ssl.create_default_context(cafile=str(service_account / "ca.crt"))
        # Certificates of older clusters lack fields that Python asks for since 3.13.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._pool = urllib3.PoolManager(maxsize=2, ssl_context=context, timeout=TIMEOUT, retries=False)

    def list(self, path: str) -> Iterator[Obj]:
        """Yield all objects at `path`, such as ``/api/v1/pods``.

        Raises:
            ApiError: The API server cannot be reached, refuses, or answers no list.

        """
        token = ""
        while True:
            query = {"limit": str(PAGE)} | ({"continue": token} if token else {})
            login = str(self._configuration.get_api_key_with_prefix("BearerToken"))
            try:
                answer = self._pool.request(
                    "GET", f"{self._configuration.host}{path}?{urlencode(query)}", headers={"Authorization": login}
                )
                if answer.status != 200:
                    raise ApiError(f"GET {path}: the API server answered {answer.status}: {answer.data[:300]!r}")
                listing = json.loads(answer.data)
            except (urllib3.exceptions.HTTPError, ValueError) as error:
                raise ApiError(f"GET {path}: {error}") from error
            yield from listing["items"] or []
            token = listing["metadata"].get("continue", "")
            if not token:
                return


class Families:
    """The metrics of one scrape."""

    def __init__(self) -> None:
        self.all: dict[str, Family] = {
            name: (CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily)(name, text, labels=labels)
            for name, (text, labels) in METRICS.items()
        }

    def add(self, name: str, *labels: str, value: float = 1) -> None:
        """Add a sample; `labels` in the order of METRICS."""
        self.all[name].add_metric(labels, value)

    def add_phases(self, name: str, phases: tuple[str, ...], *labels: str, phase: str | None) -> None:
        """Add a sample per phase, 1 for the one that holds."""
        for each in phases:
            self.add(name, *labels, each, value=each == phase)

    def add_resources(self, name: str, *labels: str, resources: Obj | None) -> None:
        """Add a sample per resource."""
        for resource, quantity in (resources or {}).items():
            label = re.sub(r"[^a-zA-Z0-9_]", "_", resource)
            self.add(name, *labels, label, unit_of(resource), value=float(parse_quantity(quantity)))


def unit_of(resource: str) -> str:
    """Return kube-state-metrics' unit of a resource."""
    if resource == "cpu":
        return "core"
    is_bytes = resource in ("memory", "storage", "ephemeral-storage") or resource.startswith("hugepages-")
    return "byte" if is_bytes else "integer"


def add_pod(found: Families, pod: Obj) -> None:
    """Add a pod's samples."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    at = (metadata["namespace"], metadata["name"])
    node = spec.get("nodeName", "")
    found.add("kube_pod_info", *at, node, status.get("podIP", ""), status.get("hostIP", ""), metadata["uid"])
    created = datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()
    found.add("kube_pod_created", *at, value=created)
    found.add_phases("kube_pod_status_phase", POD_PHASES, *at, phase=status.get("phase"))
    user = (metadata.get("annotations") or {}).get(USERNAME)
    if user:
        found.add("kube_pod_annotations", *at, user)
    for container in spec["containers"]:
        name, resources = container["name"], container.get("resources") or {}
        for kind in ("requests", "limits"):
            metric = f"kube_pod_container_resource_{kind}"
            found.add_resources(metric, *at, name, node, resources=resources.get(kind))
    for container in status.get("containerStatuses") or []:
        name, state = container["name"], container.get("state") or {}
        found.add("kube_pod_container_status_restarts_total", *at, name, value=container["restartCount"])
        found.add("kube_pod_container_status_ready", *at, name, value=container["ready"])
        if state.get("waiting"):
            reason = state["waiting"].get("reason", "")
            found.add("kube_pod_container_status_waiting_reason", *at, name, reason)
        ended = (container.get("lastState") or {}).get("terminated")
        if ended:
            found.add("kube_pod_container_status_last_terminated_reason", *at, name, ended.get("reason", ""))


def add_node(found: Families, node: Obj) -> None:
    """Add a node's samples."""
    name, status = node["metadata"]["name"], node.get("status") or {}
    info = status.get("nodeInfo") or {}
    addresses = {address["type"]: address["address"] for address in reversed(status.get("addresses") or [])}
    keys = ("kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion")
    found.add("kube_node_info", name, addresses.get("InternalIP", ""), *(info.get(key, "") for key in keys))
    found.add("kube_node_spec_unschedulable", name, value=bool(node["spec"].get("unschedulable")))
    for condition in status.get("conditions") or []:
        for each in ("true", "false", "unknown"):
            holds = condition["status"].lower() == each
            found.add("kube_node_status_condition", name, condition["type"], each, value=holds)
    for kind in ("allocatable", "capacity"):
        found.add_resources(f"kube_node_status_{kind}", name, resources=status.get(kind))


def add_deployment(found: Families, deployment: Obj) -> None:
    """Add a Deployment's samples."""
    at = (deployment["metadata"]["namespace"], deployment["metadata"]["name"])
    found.add("kube_deployment_spec_replicas", *at, value=deployment["spec"]["replicas"])
    available = (deployment.get("status") or {}).get("availableReplicas", 0)
    found.add("kube_deployment_status_replicas_available", *at, value=available)


def add_volume(found: Families, volume: Obj) -> None:
    """Add a PersistentVolume's samples."""
    phase = (volume.get("status") or {}).get("phase")
    found.add_phases("kube_persistentvolume_status_phase", VOLUME_PHASES, volume["metadata"]["name"], phase=phase)


def add_claim(found: Families, claim: Obj) -> None:
    """Add a PersistentVolumeClaim's samples."""
    at = (claim["metadata"]["namespace"], claim["metadata"]["name"])
    phase = (claim.get("status") or {}).get("phase")
    found.add_phases("kube_persistentvolumeclaim_status_phase", CLAIM_PHASES, *at, phase=phase)
    size = float(parse_quantity(claim["spec"]["resources"]["requests"]["storage"]))
    found.add("kube_persistentvolumeclaim_resource_requests_storage_bytes", *at, value=size)


KINDS = {
    "/api/v1/pods": add_pod,
    "/api/v1/nodes": add_node,
    "/apis/apps/v1/deployments": add_deployment,
    "/api/v1/persistentvolumes": add_volume,
    "/api/v1/persistentvolumeclaims": add_claim,
}


class ClusterCollector(Collector):
    """Reads the API at each scrape, so that a number is never older than its scrape."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def collect(self) -> Iterator[Family]:
        """Yield the metrics.

        Raises:
            ApiError: The API server did not give all of them.

        """
        start = time.monotonic()
        found = Families()
        for path, add in KINDS.items():
            for item in self._api.list(path):
                add(found, item)
        found.add("jhok_exporter_collect_seconds", value=time.monotonic() - start)
        yield from found.all.values()
