"""kubeadm's and the kubelet's configuration, against golden files.

``tests/integration/test_kubeadm.py`` has the bundle's own kubeadm judge the same files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.jhok.lab.plugins.filter.kubeadm import kubeadm_config, kubelet_config
from ansible_collections.jhok.lab.plugins.plugin_utils.kubeadm import (
    KUBELET,
    init_documents,
    join_documents,
    kubelet_document,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "kubeadm"
INIT: dict[str, Any] = {
    "version": "v1.37.2",
    "node_name": "master",
    "node_address": "172.16.0.100",
    "api_endpoint": "172.16.0.100:6443",
    "pod_cidr": "10.244.0.0/16",
    "service_cidr": "10.96.0.0/16",
    "image_repository": "172.16.0.100:5000/kubernetes",
    "taints": [],
    "extra_sans": ["master.lab.example"],
    "conntrack_max_per_core": 0,
}
JOIN: dict[str, Any] = {
    "version": "v1.37.2",
    "node_name": "worker1",
    "node_address": "172.16.0.101",
    "api_endpoint": "172.16.0.100:6443",
    "token": "abcdef.0123456789abcdef",
    "ca_cert_hashes": ["sha256:" + 64 * "a"],
}
BUILDERS = {"init": (init_documents, INIT), "join": (join_documents, JOIN)}


@pytest.mark.parametrize("cgroup", ["v1", "v2"])
@pytest.mark.parametrize("action", BUILDERS)
def test_documents_are_golden(action: str, cgroup: str) -> None:
    build, settings = BUILDERS[action]
    golden = (GOLDEN / f"{action}-cgroup-{cgroup}.yaml").read_text()
    assert build({**settings, "cgroup_v1": cgroup == "v1"}) == list(yaml.safe_load_all(golden))


def test_defaults_are_left_to_kubeadm() -> None:
    needed = ("version", "node_name", "node_address", "api_endpoint", "pod_cidr", "service_cidr")
    init, cluster, proxy = init_documents({**{key: INIT[key] for key in needed}, "taints": None})
    assert not {"taints", "ignorePreflightErrors"} & set(init["nodeRegistration"])
    assert "imageRepository" not in cluster
    assert "certSANs" not in cluster["apiServer"]
    assert set(proxy) == {"apiVersion", "kind", "mode"}


def test_the_kubelet_is_told_of_cgroup_v1_where_it_is() -> None:
    plain = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", **KUBELET}
    assert kubelet_document({}, cgroup_v1=False) == plain
    assert kubelet_document({}, cgroup_v1=True) == {**plain, "failCgroupV1": False}
    assert KUBELET["podPidsLimit"] == 4096
    assert KUBELET["singleProcessOOMKill"] is True


def test_a_field_of_the_kubelet_is_replaced_whole() -> None:
    extra = {"evictionHard": {"memory.available": "100Mi"}, "maxPods": 60}
    document = kubelet_document(extra, cgroup_v1=False)
    assert document["evictionHard"] == extra["evictionHard"]
    assert document["maxPods"] == 60


@pytest.mark.parametrize("field", ["cgroupDriver", "failCgroupV1", "kind", "serverTLSBootstrap", "tlsCertFile"])
def test_what_is_ours_is_refused_for_the_kubelet(field: str) -> None:
    with pytest.raises(AnsibleFilterError, match=rf"kubernetes_kubelet_config: {field} .* remove it"):
        kubelet_config({field: "x"})


class Tagged(str):
    """Stands for Ansible's own subclasses of str, which YAML's dumper refuses."""


class TaggedInt(int):
    """Stands for Ansible's own subclasses of int."""


def test_filters_write_documents_that_ansible_values_can_enter() -> None:
    text = kubeadm_config({**INIT, "node_name": Tagged("master")})
    assert text.startswith("---\n")
    assert list(yaml.safe_load_all(text)) == init_documents(INIT)
    kubelet = kubelet_config({"maxPods": TaggedInt(60)}, cgroup_v1=True)
    assert yaml.safe_load(kubelet) == kubelet_document({"maxPods": 60}, cgroup_v1=True)


@pytest.mark.parametrize(
    ("action", "change", "words"),
    [
        ("init", {"version": "1.37"}, ["kubernetes_version", "1.37", "v1.37.2"]),
        ("init", {"pod_cidr": None}, ["kubernetes_pod_cidr", "set it"]),
        ("init", {"pod_cidr": "10.244.0.1/16"}, ["kubernetes_pod_cidr", "host bits", "10.244.0.0/16"]),
        ("init", {"pod_cidr": "10.96.0.0/16"}, ["kubernetes_pod_cidr", "kubernetes_service_cidr"]),
        ("init", {"pod_cidr": "10.244.0.0/25"}, ["kubernetes_pod_cidr", "/8 and /24"]),
        ("init", {"pod_cidr": "10.0.0.0/7", "service_cidr": "172.31.0.0/16"}, ["kubernetes_pod_cidr", "/8 and /24"]),
        ("init", {"service_cidr": "fd00::/108"}, ["kubernetes_service_cidr", "fd00::/108"]),
        ("init", {"node_address": "master"}, ["kubernetes_node_address", "172.16.0.100"]),
        ("init", {"api_endpoint": ""}, ["kubernetes_api_endpoint"]),
        ("init", {"node_name": "Master_1"}, ["kubernetes_node_name", "lower case"]),
        ("init", {"podcidr": "10.0.0.0/16"}, ["podcidr", "pod_cidr"]),
        ("join", {"token": "secret"}, ["kubernetes_token", "kubeadm token create"]),
        ("join", {"ca_cert_hashes": ["sha1:00"]}, ["kubernetes_ca_cert_hashes", "sha256"]),
        ("join", {"api_endpoint": ""}, ["kubernetes_api_endpoint"]),
    ],
)
def test_wrong_settings_name_variable_and_remedy(action: str, change: dict[str, Any], words: list[str]) -> None:
    build, settings = BUILDERS[action]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are checked below)
        build({**settings, **change})
    assert [word for word in words if word not in str(caught.value)] == []
    assert "secret" not in json.dumps(str(caught.value))
