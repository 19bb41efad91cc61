"""kubeadm's configuration in every API version, against golden files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.filter.kubeadm import kubeadm_config
from ansible_collections.jhok.lab.plugins.plugin_utils.kubeadm import KUBELET, init_documents, join_documents

GOLDEN = Path(__file__).parents[1] / "golden" / "kubeadm"
VERSIONS = ("1.20.2", "1.24.17", "1.29.15", "1.31.4")
INIT: dict[str, Any] = {
    "node_name": "master",
    "node_address": "172.16.0.100",
    "api_endpoint": "172.16.0.100:6443",
    "pod_cidr": "10.244.0.0/16",
    "service_cidr": "10.96.0.0/16",
    "image_repository": "172.16.0.100:5000/kubernetes",
    "taints": [],
    "extra_sans": ["master.lab.example"],
    "kubelet": {"imageGCHighThresholdPercent": 100, "evictionHard": {"memory.available": "100Mi"}},
    "conntrack_max_per_core": 0,
    "token": "abcdef.0123456789abcdef",
}
JOIN: dict[str, Any] = {
    "node_name": "worker1",
    "node_address": "172.16.0.101",
    "api_endpoint": "172.16.0.100:6443",
    "token": "abcdef.0123456789abcdef",
    "ca_cert_hashes": ["sha256:" + 64 * "a"],
}
BUILDERS = {"init": (init_documents, INIT), "join": (join_documents, JOIN)}


@pytest.mark.parametrize("action", BUILDERS)
@pytest.mark.parametrize("version", VERSIONS)
def test_documents_are_golden(version: str, action: str) -> None:
    build, settings = BUILDERS[action]
    golden = GOLDEN / f"{version}-{action}.yaml"
    assert build({"version": f"v{version}", **settings}) == list(yaml.safe_load_all(golden.read_text()))


@pytest.mark.parametrize(
    ("version", "api"),
    [
        ("1.15.0", "v1beta2"),
        ("v1.21.14", "v1beta2"),
        ("v1.22.0", "v1beta3"),
        ("v1.30.9", "v1beta3"),
        ("v1.31.0", "v1beta4"),
        ("v1.36.0-rc.1", "v1beta4"),
    ],
)
def test_api_version_follows_kubeadm(version: str, api: str) -> None:
    documents = init_documents({"version": version, **INIT})
    assert [d["apiVersion"] for d in documents[:2]] == [f"kubeadm.k8s.io/{api}"] * 2
    assert documents[1]["kubernetesVersion"] == "v" + version.removeprefix("v")


@pytest.mark.parametrize("given", ["/run/containerd/containerd.sock", "unix:///run/containerd/containerd.sock"])
def test_socket_has_the_form_that_kubeadm_wants(given: str) -> None:
    def socket(version: str) -> str:
        registration = join_documents({"version": version, "cri_socket": given, **JOIN})[0]["nodeRegistration"]
        return str(registration["criSocket"])

    assert socket("v1.23.17") == "/run/containerd/containerd.sock"
    assert socket("v1.24.0") == "unix:///run/containerd/containerd.sock"


def test_defaults_are_left_to_kubeadm() -> None:
    settings = {key: INIT[key] for key in ("node_name", "node_address", "pod_cidr", "service_cidr")}
    init, cluster, kubelet = init_documents({"version": "v1.29.0", **settings, "taints": None})
    assert "taints" not in init["nodeRegistration"]
    assert "bootstrapTokens" not in init
    assert init["localAPIEndpoint"] == {"advertiseAddress": "172.16.0.100"}
    assert not {"imageRepository", "controlPlaneEndpoint", "apiServer"} & set(cluster)
    assert kubelet == {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "systemd",
        **KUBELET,
    }
    assert KUBELET["podPidsLimit"] == 4096


def test_filter_writes_documents_that_ansible_values_can_enter() -> None:
    class Tagged(str):
        """Stands for Ansible's own subclasses of str, which YAML's dumper refuses."""

    class TaggedInt(int):
        """Stands for Ansible's own subclasses of int."""

    kubelet = {**INIT["kubelet"], "imageGCHighThresholdPercent": TaggedInt(100)}
    text = kubeadm_config({"version": "v1.20.2", **INIT, "node_name": Tagged("master"), "kubelet": kubelet})
    assert text.startswith("---\n")
    assert list(yaml.safe_load_all(text)) == init_documents({"version": "v1.20.2", **INIT})


@pytest.mark.parametrize(
    ("action", "change", "words"),
    [
        ("init", {"version": "1.20"}, ["kubernetes_version", "1.20", "v1.20.2"]),
        ("init", {"version": "v1.14.0"}, ["kubernetes_version", "1.15"]),
        ("init", {"pod_cidr": None}, ["kubernetes_pod_cidr", "set it"]),
        ("init", {"pod_cidr": "10.244.0.1/16"}, ["kubernetes_pod_cidr", "host bits", "10.244.0.0/16"]),
        ("init", {"pod_cidr": "10.96.0.0/16"}, ["kubernetes_pod_cidr", "kubernetes_service_cidr"]),
        ("init", {"pod_cidr": "10.244.0.0/25"}, ["kubernetes_node_cidr_mask_size", "24", "25 to 30"]),
        ("init", {"node_cidr_mask_size": 31}, ["kubernetes_node_cidr_mask_size", "16 to 30"]),
        ("init", {"pod_cidr": "10.0.0.0/7", "service_cidr": "172.31.0.0/16"}, ["kubernetes_node_cidr_mask_size"]),
        ("init", {"service_cidr": "fd00::/108"}, ["kubernetes_service_cidr", "fd00::/108"]),
        ("init", {"node_address": "master"}, ["kubernetes_node_address", "172.16.0.100"]),
        ("init", {"advertise_address": "0.0.0.300"}, ["kubernetes_advertise_address"]),
        ("init", {"node_name": "Master_1"}, ["kubernetes_node_name", "lower case"]),
        ("init", {"cri_socket": "containerd.sock"}, ["kubernetes_cri_socket", "absolute"]),
        ("init", {"cgroup_driver": "cgroup"}, ["kubernetes_cgroup_driver", "systemd or cgroupfs"]),
        ("init", {"kubelet": {"cgroupDriver": "systemd"}}, ["kubernetes_kubelet", "kubernetes_cgroup_driver"]),
        ("init", {"podcidr": "10.0.0.0/16"}, ["podcidr", "pod_cidr"]),
        ("join", {"token": "secret"}, ["kubernetes_token", "kubeadm token create"]),
        ("join", {"ca_cert_hashes": ["sha1:00"]}, ["kubernetes_ca_cert_hashes", "sha256"]),
        ("join", {"api_endpoint": ""}, ["kubernetes_api_endpoint"]),
    ],
)
def test_wrong_settings_name_variable_and_remedy(action: str, change: dict[str, Any], words: list[str]) -> None:
    build, settings = BUILDERS[action]
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are checked below)
        build({"version": "v1.20.2", **settings, **change})
    assert [word for word in words if word not in str(caught.value)] == []
    assert "secret" not in json.dumps(str(caught.value))
