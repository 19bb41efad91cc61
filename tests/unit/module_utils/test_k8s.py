"""The parts of the API client that need no API server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.jhok.lab.plugins.module_utils.k8s import (
    K8sError,
    Resource,
    connect,
    error_of,
    full_name,
    resources_of,
    split_api_version,
    versions_of,
)


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "path"),
    [
        (Resource("v1", "Pod", "pods", True), "lab", "hub", "/api/v1/namespaces/lab/pods/hub"),
        (Resource("v1", "Pod", "pods", True), None, None, "/api/v1/pods"),
        (Resource("v1", "Namespace", "namespaces", False), None, "lab", "/api/v1/namespaces/lab"),
        (
            Resource("apps/v1", "Deployment", "deployments", True),
            "lab",
            None,
            "/apis/apps/v1/namespaces/lab/deployments",
        ),
        (
            Resource("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", False),
            None,
            "system:node",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
        ),
    ],
)
def test_path(resource: Resource, namespace: str | None, name: str | None, path: str) -> None:
    assert resource.path(namespace, name) == path


def test_path_needs_the_right_namespace() -> None:
    with pytest.raises(K8sError, match=r"Pod hub needs metadata\.namespace"):
        Resource("v1", "Pod", "pods", True).path(None, "hub")
    with pytest.raises(K8sError, match="Namespace lab has no namespace"):
        Resource("v1", "Namespace", "namespaces", False).path("lab", "lab")


def test_discovery() -> None:
    listing = {
        "groupVersion": "apps/v1",
        "resources": [
            {"name": "deployments", "kind": "Deployment", "namespaced": True},
            {"name": "deployments/status", "kind": "Deployment", "namespaced": True},
            {"name": "deployments/scale", "kind": "Scale", "namespaced": True},
        ],
    }
    assert resources_of(listing) == {"Deployment": Resource("apps/v1", "Deployment", "deployments", True)}
    groups = {
        "groups": [
            {
                "name": "batch",
                "versions": [{"groupVersion": "batch/v1beta1"}, {"groupVersion": "batch/v1"}],
                "preferredVersion": {"groupVersion": "batch/v1"},
            }
        ]
    }
    assert versions_of(groups) == {"batch": ["batch/v1", "batch/v1beta1"]}


def test_names() -> None:
    assert split_api_version("v1") == ("", "v1")
    assert split_api_version("apps/v1") == ("apps", "v1")
    assert full_name({"metadata": {"name": "hub", "namespace": "lab"}}) == "lab/hub"
    assert full_name({"metadata": {"name": "lab"}}) == "lab"


def status(message: str, **details: object) -> str:
    return json.dumps({"kind": "Status", "message": message, "details": details})


@pytest.mark.parametrize(
    ("code", "body", "reason", "texts"),
    [
        (401, "Unauthorized", "unauthorized", ["Fetch the kubeconfig again"]),
        (403, status('User "x" cannot list secrets'), "forbidden", ["cannot list", "admin.conf"]),
        (403, status("namespace lab is being terminated"), "forbidden", ["wait until it is gone"]),
        (403, status("exceeded quota"), "forbidden", ["exceeded quota", "quota of the cluster"]),
        (404, status('namespaces "lab" not found', kind="namespaces"), "not-found", ["Create the namespace first"]),
        (404, status('configmaps "a" not found', kind="configmaps"), "not-found", ['"a" not found.']),
        (
            409,
            status(
                "Apply failed with 1 conflict",
                causes=[
                    {
                        "reason": "FieldManagerConflict",
                        "field": ".spec.replicas",
                        "message": 'conflict with "kubectl" using apps/v1',
                    }
                ],
            ),
            "conflict",
            [".spec.replicas", '"kubectl"', "force_conflicts"],
        ),
        (409, status("the object has been modified"), "conflict", ["run again"]),
        (
            422,
            status("is invalid", causes=[{"field": "spec.replicas", "message": "must be positive"}]),
            "invalid",
            ["spec.replicas: must be positive"],
        ),
        (
            422,
            status("field is immutable", causes=[{"field": "spec.selector", "message": "field is immutable"}]),
            "invalid",
            ["spec.selector", "delete the object first"],
        ),
        (500, status("failed: .spec.foo: field not declared in schema"), "invalid", [".spec.foo"]),
        (500, "etcdserver: leader changed", "other", ["https://api answered 500", "leader changed"]),
        (503, "", "other", ["HTTP status 503"]),
    ],
)
def test_errors_say_what_to_do(code: int, body: str, reason: str, texts: list[str]) -> None:
    error = error_of(code, body, "apply ConfigMap lab/a", "https://api")
    assert error.reason == reason
    assert error.status == code
    assert str(error).startswith("apply ConfigMap lab/a: ")
    for text in texts:
        assert text in str(error)


def test_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(K8sError, match=r"none does not exist") as missing:
        connect(tmp_path / "none")
    assert missing.value.reason == "no-kubeconfig"
    broken = tmp_path / "broken"
    broken.write_text("apiVersion: v1\nkind: Config\n")
    with pytest.raises(K8sError, match=r"broken cannot be used") as wrong:
        connect(broken)
    assert wrong.value.reason == "kubeconfig"
