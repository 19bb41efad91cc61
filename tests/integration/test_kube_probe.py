"""Module kube_probe against a real API server, which has no nodes: what it asks, not what it is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml
from ansible_collections.jhok.lab.plugins.modules.kube_probe import Asker

if TYPE_CHECKING:
    from conftest import ApiServer

pytestmark = pytest.mark.integration


def make_pod(api_server: ApiServer, namespace: str, name: str, node: str) -> None:
    """Make a pod that listens, and give it the status that a kubelet would."""
    cluster = yaml.safe_load(api_server.kubeconfig.read_text())["clusters"][0]["cluster"]
    pods = f"{cluster['server']}/api/v1/namespaces/{namespace}/pods"
    container = {"name": "a", "image": "x", "ports": [{"containerPort": 8080}]}
    spec: dict[str, Any] = {"nodeName": node, "containers": [container], "automountServiceAccountToken": False}
    status = {"podIP": "10.244.1.7", "conditions": [{"type": "Ready", "status": "True"}]}
    for method, url, body, kind in (
        ("POST", pods, {"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}, "json"),
        ("PATCH", f"{pods}/{name}/status", {"status": status}, "merge-patch+json"),
    ):
        headers = {"Authorization": "Bearer admin-token", "Content-Type": f"application/{kind}"}
        ca = cluster["certificate-authority"]
        answer = requests.request(method, url, data=json.dumps(body), headers=headers, verify=ca, timeout=30)
        assert answer.ok, answer.text


def test_pods_of_strangers_are_not_connected_to(api_server: ApiServer) -> None:
    for name in ("probe-hub", "probe-stranger", "kube-system"):
        api_server.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    make_pod(api_server, "probe-hub", "hub", "node-a")
    make_pod(api_server, "probe-hub", "alice", "node-b")
    make_pod(api_server, "probe-stranger", "database", "node-c")
    make_pod(api_server, "kube-system", "dns", "node-d")
    params = {
        "check": "hub",
        "kubeconfig": str(api_server.kubeconfig),
        "asking_pod": {"namespace": "probe-hub", "label_selector": "app=hub"},
        "names": ["kubernetes.default"],
        "timeout": 5,
        "api": False,
        "nodes": None,
        "namespaces": [],
        "claims": [],
        "node_port": 0,
    }
    asker = Asker(params)
    asker.go()
    asked = [line["asked"] for line in asker.log.as_dicts() if line["check"] == "network"]
    assert asked == [
        "pod on node-a connects to alice on node-b (10.244.1.7:8080)",
        "pod on node-a connects to dns on node-d (10.244.1.7:8080)",
    ]
