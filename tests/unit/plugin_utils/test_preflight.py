"""Rules that the broken inventories do not reach: messages, secrets, and the machines."""

from __future__ import annotations

import dataclasses
import datetime
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.modules.machine_facts import (
    cluster_of,
    control_plane,
    disks,
    dropping,
    installed,
    is_foreign,
    kubelet_version,
    listening,
    os_release,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight import Problem, Site, judge, report
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight_files import Definition, Scan
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight_machine import judge_machines
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight_values import faults, show

LIMITS = {
    "control_plane_memory_mb": 1950,
    "node_memory_mb": 1650,
    "control_plane_cpus": 2,
    "disk_gb": 20,
    "clock_seconds": 30,
}
GOOD: dict[str, Any] = {
    "os_id": "debian",
    "os_version": "12",
    "architecture": "x86_64",
    "memory_mb": 2000,
    "cpus": 2,
    "free_gb": {"/": 30.0, "/var": 30.0},
    "disks_gb": {"/": 40.0, "/var/lib/jhok": 12.0, "/data": 2000.0},
    "swap": [],
    "clock_offset": 0.4,
    "addresses": ["172.16.7.100"],
    "hostname": "master",
    "machine_id": "a",
    "product_uuid": "",
    "cluster": "",
    "control_plane": "",
    "foreign": False,
    "kubelet": "",
    "cgroup": 2,
    "firewalls": [],
    "docker": [],
    "kernel_release": "6.1",
    "kernel": ["overlay", "br_netfilter"],
    "ports": {"22": "sshd", "6443": "kube-apiserver", "2049": "", "9100": "prometheus-node", "9790": "prometheus"},
}
WORKER = {"addresses": ["172.16.7.101"], "hostname": "gpu1", "machine_id": "b", "memory_mb": 1700}


def site() -> Site:
    groups = {"kube_control_plane": ["master"], "kube_node": ["gpu1"], "nfs_server": ["master"]}
    return Site(
        groups=groups,
        host_groups={"master": ["kube_control_plane", "nfs_server"], "gpu1": ["kube_node"]},
        given={"master": {"ansible_host": "172.16.7.100"}, "gpu1": {"ansible_host": "172.16.7.101"}},
        specs={"jupyterhub": {"jupyterhub_node_port": {"type": "int", "default": 30080}}},
    )


def judged(worker: dict[str, Any] | None = None, **master: Any) -> list[str]:  # noqa: ANN401
    machines = {"master": {**GOOD, **master}, "gpu1": {**GOOD, **WORKER, **(worker or {})}}
    return [str(p) for p in judge_machines(site(), machines, LIMITS)]


def test_good_machines_have_no_problem() -> None:
    assert judged() == []


@pytest.mark.parametrize(
    ("change", "pieces"),
    [
        ({"os_version": "11"}, ["master", "debian 11", "not supported", "Ubuntu 22.04"]),
        ({"os_id": "rocky", "os_version": "9"}, ["master", "rocky 9"]),
        ({"architecture": "aarch64"}, ["master: architecture = aarch64", "x86_64 only"]),
        ({"firewalls": ["ufw"]}, ["master: firewall = ufw", "ufw disable", "preflight_own_firewall: true"]),
        ({"firewalls": ["ip filter FORWARD"]}, ["firewall = ip filter FORWARD", "iptables -P FORWARD ACCEPT"]),
        ({"memory_mb": 1800}, ["memory = 1800 MB", "control plane needs 1950 MB"]),
        ({"cpus": 1}, ["CPUs = 1", "kubeadm refuses less"]),
        ({"free_gb": {"/": 30.0, "/var": 3.25}}, ["free disk on /var = 3.2 GB", "20 GB", "preflight_disk_gb"]),
        ({"clock_offset": -95.0}, ["clock = -95 s", "more than 30 s"]),
        ({"addresses": ["10.0.0.4"]}, ["ansible_host of master = 172.16.7.100", "it has 10.0.0.4"]),
        ({"kernel": ["overlay"]}, ["kernel = br_netfilter", "6.1 lacks"]),
        ({"ports": {"6443": "haproxy"}}, ["port = 6443", "haproxy holds the port"]),
        ({"ports": {"30080": "nginx"}}, ["port = 30080", "nginx"]),
        ({"ports": {"5002": "python3"}}, ["port = 5002", "python3"]),
        ({"ports": {"9790": "python"}}, ["port = 9790", "python holds the port"]),
        ({"ports": {"9100": "node_exporter"}}, ["port = 9100", "node_exporter"]),
        ({"ports": {"2049": "memcached"}}, ["port = 2049", "memcached"]),
        ({"control_plane": "v1.36.3"}, ["bundle_kubernetes_version = v1.37.2", "the cluster of master runs v1.36.3"]),
        ({"swap": ["/swapfile"]}, ["swap = /swapfile", "role node turns it off"]),
    ],
)
def test_one_fault_of_a_machine_is_one_problem(change: dict[str, Any], pieces: list[str]) -> None:
    (problem,) = judged(**change)
    assert all(piece in problem for piece in pieces), problem


@pytest.mark.parametrize(
    ("master", "worker", "refused"), [("a", "a", False), ("a", "", False), ("", "a", True), ("a", "b", True)]
)
def test_a_worker_of_another_cluster_is_refused(master: str, worker: str, refused: bool) -> None:
    found = judged(worker={"cluster": worker}, cluster=master)
    assert len(found) == refused
    assert all("gpu1: cluster" in p and "node of another cluster than master's" in p and "reset" in p for p in found)


def test_a_cluster_is_known_by_its_ca() -> None:
    """Where its API server is reached may differ from node to node."""
    text = "clusters:\n- cluster:\n    certificate-authority-data: {}\n    server: https://{}:6443\n"
    assert cluster_of(text.format("QUJD", "a")) == cluster_of(text.format("QUJD", "b"))
    assert cluster_of(text.format("QUJD", "a")) != cluster_of(text.format("QUJE", "a"))
    assert cluster_of("") == ""


def test_a_firewall_that_the_admin_answers_for_is_let_be() -> None:
    assert judge_machines(site(), {"master": {**GOOD, "firewalls": ["ufw"]}}, {**LIMITS, "own_firewall": True}) == []


def test_chains_that_drop_what_is_forwarded_are_found() -> None:
    chains = [
        {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"},
        {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"},
        {"family": "inet", "table": "jhok_guard", "name": "forward", "hook": "forward", "policy": "accept"},
        {"family": "ip", "table": "filter", "name": "own"},
    ]
    text = json.dumps({"nftables": [{"metainfo": {"version": "1"}}, *({"chain": chain} for chain in chains)]})
    assert dropping(text) == ["ip filter FORWARD"]
    assert dropping("") == dropping("{}") == []


def test_swap_alone_does_not_stop_the_run() -> None:
    (problem,) = judge_machines(site(), {"master": {**GOOD, "swap": ["/dev/sda2"]}}, LIMITS)
    assert problem.warning


@pytest.mark.parametrize(
    ("change", "pieces"),
    [
        (
            {"cgroup": 1},
            ["gpu1: cgroup = v1", "failCgroupV1: false", "not before 1.38", "systemd.unified_cgroup_hierarchy=1"],
        ),
        (
            {"docker": ["containerd.io", "dockerd"]},
            [
                "gpu1: Docker = containerd.io, dockerd",
                "in /usr/local",
                "containerd.service",
                "containers that run go on",
                "/etc/containerd/config.toml is replaced",
                "node_runtimes",
            ],
        ),
    ],
)
def test_a_node_that_is_set_up_otherwise_is_a_warning(change: dict[str, Any], pieces: list[str]) -> None:
    machines = {"master": GOOD, "gpu1": {**GOOD, **WORKER, **change}}
    (problem,) = judge_machines(site(), machines, LIMITS)
    assert problem.warning
    assert all(piece in str(problem) for piece in pieces), str(problem)
    # Neither concerns a machine that is no node, or a cluster that somebody else keeps.
    nas = dataclasses.replace(site(), groups={"kube_control_plane": ["master"], "nfs_server": ["gpu1"]})
    assert judge_machines(nas, machines, LIMITS) == []
    assert judged_existing(monitoring=True, **change) == []


def test_clones_are_told_apart() -> None:
    found = judged(
        worker={"hostname": "master", "machine_id": "x", "product_uuid": "u"}, machine_id="x", product_uuid="u"
    )
    assert [p.splitlines()[0] for p in found] == [
        "master: hostname = master",
        "master: machine id = x",
        "master: product uuid = u",
    ]
    assert all("gpu1 has the same" in p for p in found)


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (
            {"memory_limit": "4G"},
            ["jupyterhub_sizes[1].memory_guarantee = 4G", "takes servers has about 1574 MB left"],
        ),
        # The machine has it, but not for servers: the kubelet keeps 256 and 200 MiB, system pods take some.
        ({"memory_limit": "2G"}, ["jupyterhub_sizes[1].memory_guarantee = 2G", "about 1574 MB"]),
        (
            {"memory_limit": "8G", "memory_guarantee": "1G", "cpu_guarantee": 2},
            ["jupyterhub_sizes[1].cpu_guarantee = 2", "largest that takes servers has about 1.7 cores left"],
        ),
    ],
)
def test_a_size_that_no_machine_can_hold_is_refused(size: dict[str, Any], pieces: list[str]) -> None:
    values = {"jupyterhub_sizes": [{"name": "small", "memory_limit": "1G"}, {"name": "large", **size}]}
    wanted = dataclasses.replace(site(), given={**site().given, "localhost": values})
    # The control plane takes no servers, however large it is.
    machines = {"master": {**GOOD, "memory_mb": 64000, "cpus": 32}, "gpu1": {**GOOD, **WORKER, "memory_mb": 2200}}
    (problem,) = map(str, judge_machines(wanted, machines, LIMITS))
    assert all(piece in problem for piece in pieces), problem
    large = {**machines, "gpu1": {**machines["gpu1"], "memory_mb": 64000, "cpus": 32}}
    assert judge_machines(wanted, large, LIMITS) == []


def test_what_the_kubelet_is_told_to_keep_counts() -> None:
    values = {
        "jupyterhub_sizes": [{"name": "large", "memory_limit": "14G", "cpu_guarantee": 1}],
        "kubernetes_kubelet_config": {"systemReserved": {"memory": "2Gi"}, "evictionHard": {"nodefs.available": "1%"}},
    }
    specs = {**site().specs, "kubernetes": {"kubernetes_kubelet_config": {"type": "dict"}}}
    wanted = dataclasses.replace(site(), specs=specs, given={**site().given, "localhost": values})
    machines = {"master": GOOD, "gpu1": {**GOOD, **WORKER, "memory_mb": 16384}}
    (problem,) = map(str, judge_machines(wanted, machines, LIMITS))
    # Without a threshold of its own in evictionHard, the kubelet's counts: 100 MiB.
    assert f"about {16384 - 2048 - 100 - 170} MB left" in problem


@pytest.mark.parametrize(
    ("values", "pieces"),
    [
        # 85 % of 12 GB (10^9 bytes) are 9.5 GB (2^30 bytes).
        ({"retention_gb": 9}, []),
        (
            {"retention_gb": 10},
            ["monitoring_retention_gb = 10", "master at /var/lib/jhok has 12 GB", "10 may be in use"],
        ),
        ({"retention_gb": 30, "storage_path": "/var/lib/jhoker"}, []),
        ({"retention_gb": 40, "storage_path": "/var/lib/jhoker"}, ["master at / has 40 GB", "34 may be in use"]),
        ({"retention_gb": 1500, "storage_path": "/data/monitoring/"}, []),
        ({"retention_gb": 20, "node": "gpu1"}, ["gpu1 at / has 20 GB"]),
        ({"retention_gb": 20, "node": "elsewhere"}, []),
        ({"retention_gb": 2000, "enabled": False}, []),
    ],
)
def test_figures_that_outgrow_their_disk_are_refused(values: dict[str, Any], pieces: list[str]) -> None:
    given = {f"monitoring_{name}": value for name, value in {"storage_path": "/var/lib/jhok/mon", **values}.items()}
    wanted = dataclasses.replace(site(), given={**site().given, "localhost": given})
    machines = {"master": GOOD, "gpu1": {**GOOD, **WORKER, "disks_gb": {"/": 20.0}}}
    found = "\n".join(map(str, judge_machines(wanted, machines, LIMITS)))
    assert bool(found) == bool(pieces)
    assert all(piece in found for piece in pieces), found


def test_only_disks_of_the_machine_itself_are_measured() -> None:
    mounts = (
        "overlay / overlay rw 0 0\n/dev/vda1 /var/lib/my\\040disk ext4 rw 0 0\ntank/data /data zfs rw 0 0\n"
        "172.16.0.9:/srv /mnt nfs4 rw 0 0\nproc /proc proc rw 0 0\ntmpfs /run tmpfs rw 0 0\n"
    )
    assert list(disks(mounts)) == ["/", "/var/lib/my disk", "/data"]


def test_problems_of_all_machines_are_reported_at_once() -> None:
    assert len(judged(worker={"memory_mb": 512}, cpus=1, os_version="10")) == 3


def test_a_worker_needs_no_port_of_the_control_plane() -> None:
    assert judged(worker={"ports": {"6443": "haproxy", "2049": "memcached"}}) == []


def judged_existing(monitoring: bool, **worker: Any) -> list[str]:  # noqa: ANN401
    existing = site()
    existing.specs["kubernetes"] = {"kubernetes_manage": {"type": "bool"}}
    existing.specs["monitoring"] = {"monitoring_enabled": {"type": "bool", "default": monitoring}}
    existing.given["master"]["kubernetes_manage"] = False
    theirs = {"6443": "haproxy", "10250": "k3s", "30080": "nginx", "9790": "python", "2049": "memcached"}
    changed = {"memory_mb": 100, "kernel": [], "architecture": "arm", "ports": theirs, **worker}
    machines = {"master": GOOD, "gpu1": {**GOOD, **WORKER, **changed}}
    return [str(problem) for problem in judge_machines(existing, machines, LIMITS)]


def test_an_existing_cluster_is_judged_for_what_is_ours() -> None:
    assert judged_existing(monitoring=True) == []
    assert judged_existing(monitoring=False, os_id="rocky", ports={"9100": "node_exporter"}) == []


def test_an_existing_cluster_is_judged_for_what_monitoring_needs() -> None:
    (problem,) = judged_existing(monitoring=True, os_id="rocky")
    assert "gpu1: operating system = rocky" in problem
    (problem,) = judged_existing(monitoring=True, ports={"9100": "node_exporter"})
    assert "gpu1: port = 9100" in problem


def test_a_report_numbers_the_problems() -> None:
    problem = Problem("all.yml:3", "a_port", "80", "too low", "choose another")
    assert report([problem, problem], "Two.") == (
        "Two.\n\n1. all.yml:3: a_port = 80\n   too low.\n   To do: choose another."
        "\n\n2. all.yml:3: a_port = 80\n   too low.\n   To do: choose another."
    )


def test_problems_come_in_the_order_of_the_lines() -> None:
    unordered = site()
    unordered.scan = Scan([Definition(f"jupyterhub_{n}", f"all.yml:{n}", "group", "all") for n in (10, 9, 100)])
    assert [p.where for p in judge(unordered, datetime.date(2026, 11, 28))] == [
        "all.yml:9",
        "all.yml:10",
        "all.yml:100",
    ]


@pytest.mark.parametrize(
    "value",
    ["hunter2", ["hunter2"], {"password": ["hunter2"]}, {"pasword": "hunter2"}],
)
def test_a_secret_is_never_shown(value: object) -> None:
    option = {"type": "dict", "options": {"password": {"type": "str", "no_log": True}}}
    found = list(faults("thing", value, option))
    assert found
    assert "hunter2" not in str(found)


def test_a_secret_that_is_no_choice_is_not_shown() -> None:
    found = list(faults("thing", "hunter2", {"type": "str", "no_log": True, "choices": ["a"]}))
    assert found
    assert "hunter2" not in str(found)


def test_long_values_are_cut() -> None:
    assert len(show("x" * 500)) == 80
    assert show("a\nb") == "a\\nb"


def test_the_inventory_of_the_closest_group_wins() -> None:
    scan = Scan(
        [
            Definition("a", f"{owner}:1", scope, owner)
            for scope, owner in (
                ("host", "h"),
                ("group", "near"),
                ("group", "far"),
                ("group", "all"),
                ("host", "other"),
            )
        ]
    )
    found = scan.locate("a", "h", ["far", "near"])
    assert found is not None
    assert found.where == "h:1"
    found = scan.locate("a", "i", ["far", "near"])
    assert found is not None
    assert found.where == "near:1"
    assert scan.locate("b", "h", []) is None


def test_installed_packages_are_read() -> None:
    text = (
        "Package: docker-ce\nStatus: deinstall ok config-files\nDescription: x\n\n"
        "Package: containerd.io\nStatus: install ok installed\n\nPackage: vim\nStatus: install ok installed\n"
    )
    assert installed(text, ["docker-ce", "containerd.io"]) == ["containerd.io"]


@pytest.mark.parametrize(
    ("manifest", "version"),
    [
        ("    image: 172.16.0.100:5000/kubernetes/kube-apiserver:v1.37.2\n    name: kube-apiserver\n", "v1.37.2"),
        ("  - image: 'registry.example.org/kube-apiserver:v1.36.3@sha256:0123'\n", "v1.36.3"),
        ("    image: 172.16.0.100:5000/kubernetes/etcd:3.7.0-0\n", ""),
        ("", ""),
    ],
)
def test_the_control_planes_version_is_its_api_servers(tmp_path: Path, manifest: str, version: str) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "kube-apiserver.yaml").write_text(manifest)
    assert control_plane(tmp_path) == version


def test_a_control_plane_that_was_not_finished_has_no_version(tmp_path: Path) -> None:
    """Role kubernetes takes it down and begins again, with any version."""
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "kube-apiserver.yaml").write_text("    image: r/kube-apiserver:v1.37.2\n")
    (tmp_path / "jhok-init-started").touch()
    assert control_plane(tmp_path) == ""
    (tmp_path / "jhok-init-done").touch()
    assert control_plane(tmp_path) == "v1.37.2"


def test_a_control_plane_without_our_marks_is_somebody_elses(tmp_path: Path) -> None:
    assert not is_foreign(tmp_path)
    (tmp_path / "admin.conf").touch()
    assert is_foreign(tmp_path)
    (tmp_path / "jhok-init-started").touch()
    assert not is_foreign(tmp_path)


def test_a_kubelet_is_asked_only_on_a_machine_that_has_joined(tmp_path: Path) -> None:
    kubelet = tmp_path / "kubelet"
    kubelet.write_text("#!/bin/sh\necho Kubernetes v1.36.3\n")
    kubelet.chmod(0o755)
    assert kubelet_version(tmp_path, str(kubelet)) == ""
    (tmp_path / "kubelet.conf").touch()
    assert kubelet_version(tmp_path, str(kubelet)) == "v1.36.3"
    assert kubelet_version(tmp_path, str(tmp_path / "none")) == ""


def test_os_release_is_read() -> None:
    assert os_release('ID=ubuntu\nVERSION_ID="24.04"\n# x\n')["VERSION_ID"] == "24.04"


def test_only_listening_sockets_count() -> None:
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100\n"
        "   1: 0100007F:0016 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100\n"
    )
    assert list(listening(text)) == [(6443, "4711")]


def test_the_facts_of_this_machine_have_every_key(tmp_path: Path) -> None:
    arguments = tmp_path / "args.json"
    arguments.write_text(
        json.dumps({"ANSIBLE_MODULE_ARGS": {"asked_at": time.time() - 100, "_ansible_check_mode": True}})
    )
    command = [sys.executable, "-m", "ansible_collections.jhok.lab.plugins.modules.machine_facts", str(arguments)]
    root = Path(__file__).resolve().parents[3]
    result = subprocess.run(command, cwd=root / "collections", capture_output=True, text=True, check=True)
    answer = json.loads(result.stdout)
    assert answer["changed"] is False
    assert set(answer["machine"]) == set(GOOD)
    assert 99 < answer["machine"]["clock_offset"] < 160
    assert answer["machine"]["cpus"] >= 1
