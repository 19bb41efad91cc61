"""Rules on a cluster that is there already: its version against the bundle's, and what an existing one must be."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight import Site
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight_cluster import judge_existing, judge_versions

BARE: dict[str, Any] = {"control_plane": "", "foreign": False, "kubelet": ""}


def site(carried: str = "", **given: Any) -> Site:  # noqa: ANN401
    specs = {
        "bundle": {
            "bundle_source": {"type": "str", "default": "modules"},
            "bundle_kubernetes_version": {"type": "str", "default": "1.37"},
        },
        "kubernetes": {"kubernetes_manage": {"type": "bool", "default": True}},
    }
    groups = {"kube_control_plane": ["master"], "kube_node": ["gpu1", "master"], "nfs_server": ["nas"]}
    return Site(groups=groups, given={"localhost": given, "master": given}, specs=specs, carried=carried)


def machines(running: str, *kubelets: str) -> dict[str, dict[str, Any]]:
    """Return the facts of master and gpu1; a kubelet that is not given is not there."""
    first, second = (*kubelets, "", "")[:2]
    return {
        "gpu1": {**BARE, "kubelet": second},
        "master": {**BARE, "control_plane": running, "kubelet": first},
        "nas": BARE,
    }


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (site(), machines("")),
        (site(), machines("v1.37.2", "v1.37.2", "v1.37.2")),
        (site(bundle_kubernetes_version="v1.36.3"), machines("v1.36.3", "v1.36.3")),
        (site(bundle_source="upstream", bundle_kubernetes_version=1.36), machines("v1.36.3", "v1.36.3", "v1.36.3")),
        # The control plane was cut short and is begun again, with any version; its kubelet lies there already.
        (site(), machines("", "v1.36.3")),
        (site(bundle_source="directory", carried="v1.37.0"), machines("v1.37.0", "v1.37.0", "v1.37.0")),
        # Role bundle tells that nothing has been carried here.
        (site(bundle_source="directory"), machines("v1.36.3", "v1.36.3", "v1.36.3")),
        (site(kubernetes_manage=False), machines("v1.35.0", "v1.35.0")),
    ],
    ids=[
        "bare machines",
        "the same version",
        "a worker that has not joined",
        "a minor release that YAML takes for a number",
        "cut short",
        "carried",
        "not carried yet",
        "existing cluster",
    ],
)
def test_a_run_that_keeps_the_version_is_fine(wanted: Site, found: dict[str, dict[str, Any]]) -> None:
    assert judge_versions(wanted, found) == []


@pytest.mark.parametrize(
    ("wanted", "running", "pieces", "absent"),
    [
        (
            site(),
            "v1.36.3",
            [
                "bundle_kubernetes_version = v1.37.2",
                "the cluster of master runs v1.36.3",
                "newer than its API server",
                'set bundle_kubernetes_version: "1.36"',
                "playbooks/upgrade.yml",
            ],
            ["reset"],
        ),
        (
            site(bundle_kubernetes_version="1.36"),
            "v1.37.2",
            [
                "bundle_kubernetes_version = v1.36.3",
                "the cluster of master runs v1.37.2",
                "no cluster goes back",
                'set bundle_kubernetes_version: "1.37"',
            ],
            ["upgrade.yml", "reset"],
        ),
        (
            site(),
            "v1.37.1",
            ["= v1.37.2", "runs v1.37.1", "the version of this collection that made the cluster", "upgrade.yml"],
            ["reset", "set bundle_kubernetes_version"],
        ),
        (
            site(),
            "v1.38.0",
            [
                "= v1.37.2",
                "runs v1.38.0",
                "no cluster goes back",
                "the version of this collection that made the cluster",
            ],
            ["reset", "upgrade.yml", "set bundle_kubernetes_version"],
        ),
        (
            site(),
            "v1.20.2",
            [
                "= v1.37.2",
                "runs v1.20.2",
                "made anew",
                "playbooks/backup.yml",
                "kubeadm reset --force && rm -f /etc/kubernetes/jhok-init-*",
                "homes, the hub's database and its secrets stay",
            ],
            ["upgrade.yml", "set bundle_kubernetes_version"],
        ),
        (
            site(bundle_source="directory", carried="v1.37.2"),
            "v1.36.3",
            ["bundle_source = directory (v1.37.2)", "runs v1.36.3", "carry a bundle of v1.36.3 here", "upgrade.yml"],
            ["reset", "set bundle_kubernetes_version"],
        ),
    ],
    ids=["newer", "older", "newer patch", "newer than the table", "older than the table", "carried"],
)
def test_another_version_than_the_clusters_is_refused(
    wanted: Site, running: str, pieces: list[str], absent: list[str]
) -> None:
    # One problem, whatever the kubelets are: the control plane decides.
    (problem,) = judge_versions(wanted, machines(running, "v1.37.2", "v1.36.3"))
    assert not problem.warning
    assert all(piece in str(problem) for piece in pieces), str(problem)
    assert not [piece for piece in absent if piece in str(problem)], str(problem)


@pytest.mark.parametrize(
    ("kubelet", "piece"),
    [
        ("v1.36.3", "older than the cluster"),
        ("v1.37.3", "newer than its API server (v1.37.2), which Kubernetes does not"),
    ],
)
def test_a_kubelet_that_differs_does_not_stop_the_run_that_puts_it_right(kubelet: str, piece: str) -> None:
    (problem,) = judge_versions(site(), machines("v1.37.2", "v1.37.2", kubelet))
    assert problem.warning
    assert f"gpu1: kubelet = {kubelet}" in str(problem)
    assert piece in str(problem)
    assert "site.yml installs v1.37.2" in str(problem)


@pytest.mark.parametrize(
    ("kubelet", "refused"), [("v1.36.3", True), ("v1.38.0", True), ("v1.37.2", False), ("", False)]
)
def test_without_its_control_plane_a_kubelet_decides(kubelet: str, refused: bool) -> None:
    """A run may be limited to workers."""
    found = judge_versions(site(), {"gpu1": {**BARE, "kubelet": kubelet}})
    assert len(found) == refused
    assert all(not p.warning and "gpu1" in str(p) and kubelet in str(p) and "--limit" in str(p) for p in found)


def test_a_control_plane_of_somebody_else_is_refused_before_any_advice_to_reset_it() -> None:
    found = machines("v1.33.1", "v1.33.1", "v1.33.1")
    found["master"]["foreign"] = True
    (problem,) = judge_versions(site(), found)
    assert not problem.warning
    assert "master: control plane = /etc/kubernetes/admin.conf" in str(problem)
    assert "this collection did not make" in str(problem)
    assert "kubernetes_manage: false" in str(problem)
    assert judge_versions(site(kubernetes_manage=False), found) == []


EXISTING = {"kubernetes_manage": False, "kubernetes_kubeconfig": "/root/.kube/config"}


@pytest.mark.parametrize("version", ["v1.34.0", "v1.34.9+k3s1", "v1.37.2", "v2.0.0"])
def test_an_existing_cluster_of_a_supported_version_is_fine(version: str) -> None:
    assert judge_existing(site(**EXISTING), version) == []


@pytest.mark.parametrize("version", ["v1.33.7-gke.100", "v1.20.2"])
def test_an_existing_cluster_that_is_too_old_is_refused(version: str) -> None:
    (problem,) = judge_existing(site(**EXISTING), version)
    assert not problem.warning
    for piece in (
        "kubernetes_kubeconfig = /root/.kube/config",
        f"the cluster runs {version}",
        "made for and tested with 1.34 and newer",
        "upgrade the cluster",
    ):
        assert piece in str(problem)


def test_an_existing_cluster_that_does_not_answer_is_refused() -> None:
    (problem,) = judge_existing(site(**EXISTING), "", "read the version: no answer. Check the address.")
    assert not problem.warning
    assert "kubernetes_kubeconfig = /root/.kube/config\n   its version cannot be asked: read the version" in str(
        problem
    )
    assert "Check the address.\n" in str(problem)
    assert "kubectl --kubeconfig /root/.kube/config version" in str(problem)
