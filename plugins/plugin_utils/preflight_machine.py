"""The rules by which the machines are judged, from what module `jhok.lab.machine_facts` learnt of each. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.kubeadm import KUBELET
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight import (
    KUBELET_CONFIG,
    MANAGE,
    MONITORING,
    MONITORING_NODE,
    MONITORING_PATH,
    NODE_PORTS,
    PODS_ON_CONTROL_PLANE,
    RETENTION_GB,
    SIZES,
    Problem,
    Site,
    addresses,
    memory_bytes,
    number_of,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight_cluster import judge_versions

ARCHITECTURE = "x86_64"  # the bundle's: its programs and images are made or fetched for no other
SUPPORTED = {"debian": ("12", "13"), "ubuntu": ("22.04", "24.04")}

# Who may already hold a port when site.yml runs again. The kernel's own listeners (NFS) have no process.
_OURS = {
    "",
    "containerd",
    "docker-registry",
    "etcd",
    "ganesha.nfsd",
    "kube-apiserver",
    "kube-controller",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
    "prometheus-node",  # the kernel keeps 15 characters of a name
    "registry",
    "rpcbind",
    "systemd",
}
_CONTROL_PORTS = (2379, 2380, 5000, 5001, 5002, 6443, 10257, 10259)
_NODE_PORTS = (10250, 10256)
_EXPORTER_PORT = 9100  # of every machine
_NFS_PORTS = (111, 2049)
# Monitoring's pod shares its machine's network; each port with the programs of ours that hold it.
_MONITORING_PORTS: dict[int, tuple[str, ...]] = {
    9759: ("nginx",),
    9790: ("prometheus",),
    9791: ("python",),
    9792: ("python",),
    9793: ("prometheus-aler",),
    9794: ("grafana", "grafana-server"),
}
# What pods of the cluster, the hub and monitoring ask for, in MiB and cores: the control plane's parts 100 and 0.65,
# name servers 140 and 0.2, hub and proxy 352 and 0.2, monitoring 340 and 0.1. A worker may get a name server and proxy.
_SYSTEM_PODS = {"control plane": (930, 1.15), "worker": (170, 0.2)}
_DISK_SHARE = 0.85  # of a disk in use, above which the kubelet deletes images
_MODULES = ("overlay", "br_netfilter")

Machines = Mapping[str, Mapping[str, Any]]


def judge_machines(site: Site, machines: Machines, limits: Mapping[str, Any]) -> list[Problem]:
    """Return every problem of the machines, warnings last.

    Args:
        site: the inventory.
        machines: per host, the `machine` that `jhok.lab.machine_facts` returned; a host without one is not judged.
        limits: `control_plane_memory_mb`, `node_memory_mb`, `control_plane_cpus`, `disk_gb`, `clock_seconds`.

    """
    found: list[Problem] = []
    for host in sorted(machines):
        machine = machines[host]
        for rule in (_system, _architecture, _firewalls, _docker, _resources, _kernel, _cgroup):
            found += rule(site, host, machine, limits)
        found += _identity(site, host, machine)
        found += _ports(site, host, machine)
    found += _same(machines)
    found += _clusters(site, machines)
    found += judge_versions(site, machines)
    found += _sizes(site, machines)
    found += _retention(site, machines)
    return sorted(found, key=lambda p: (p.warning, p.where, p.name, p.what))


def _is_control_plane(site: Site, host: str) -> bool:
    return host in site.groups.get("kube_control_plane", [])


def _is_node(site: Site, host: str) -> bool:
    return _is_control_plane(site, host) or host in site.groups.get("kube_node", [])


def _monitoring_node(site: Site) -> str:
    return str(site.value(MONITORING_NODE) or next(iter(site.groups.get("kube_control_plane", [])), ""))


def _system(site: Site, host: str, machine: Mapping[str, Any], _limits: Mapping[str, Any]) -> Iterator[Problem]:
    # On the nodes of an existing cluster role monitoring installs packages, and nothing else does.
    left_alone = site.value(MANAGE) is False and site.value(MONITORING) is False
    if left_alone and _is_node(site, host) and host not in site.groups.get("nfs_server", []):
        return
    os_id, version = str(machine["os_id"]), str(machine["os_version"])
    if version not in SUPPORTED.get(os_id, ()):
        supported = "; ".join(f"{name.capitalize()} {', '.join(versions)}" for name, versions in SUPPORTED.items())
        do = f"install one that is supported: {supported}"
        yield Problem(host, "operating system", f"{os_id} {version}".strip(), "not supported", do)


def _architecture(site: Site, host: str, machine: Mapping[str, Any], _limits: Mapping[str, Any]) -> Iterator[Problem]:
    if _is_node(site, host) and site.value(MANAGE) is not False and machine["architecture"] != ARCHITECTURE:
        what = f"the bundle's programs and images are for {ARCHITECTURE} only"
        yield Problem(host, "architecture", str(machine["architecture"]), what, "choose another machine")


def _firewalls(site: Site, host: str, machine: Mapping[str, Any], limits: Mapping[str, Any]) -> Iterator[Problem]:
    """Judge what would keep pods, nodes and the NFS server from each other."""
    if limits.get("own_firewall") or site.value(MANAGE) is False:
        return
    for name in machine["firewalls"]:
        what = (
            "it keeps pods and machines from each other unless it lets through all that docs/admin/inventory.md lists"
        )
        do = (
            "turn it off (ufw disable; systemctl disable --now firewalld; iptables -P FORWARD ACCEPT where Docker or "
            "a script set DROP), or write its rules by that list and set preflight_own_firewall: true"
        )
        yield Problem(host, "firewall", str(name), what, do)


def _docker(site: Site, host: str, machine: Mapping[str, Any], _limits: Mapping[str, Any]) -> Iterator[Problem]:
    if _is_node(site, host) and site.value(MANAGE) is not False and machine["docker"]:
        what = (
            "role node brings containerd and runc of its own in /usr/local, with a containerd.service of its own at "
            "the same socket: Docker's containers that run go on under it, Docker uses it from then on, and "
            "/etc/containerd/config.toml is replaced"
        )
        do = (
            "nothing, unless you have changed that file: then keep a copy, and name your runtimes in node_runtimes; "
            "to keep Docker apart from Kubernetes, choose another machine"
        )
        yield Problem(host, "Docker", ", ".join(machine["docker"]), what, do, warning=True)


def _cgroup(site: Site, host: str, machine: Mapping[str, Any], _limits: Mapping[str, Any]) -> Iterator[Problem]:
    if _is_node(site, host) and site.value(MANAGE) is not False and machine["cgroup"] == 1:
        what = (
            "Kubernetes runs on it here because the kubelet is told failCgroupV1: false; "
            "a later release, not before 1.38, will not run on it at all"
        )
        do = (
            "boot the machine with systemd.unified_cgroup_hierarchy=1 on its kernel's command line, "
            "or install a newer operating system, before you take such a release"
        )
        yield Problem(host, "cgroup", "v1", what, do, warning=True)


def _resources(site: Site, host: str, machine: Mapping[str, Any], limits: Mapping[str, Any]) -> Iterator[Problem]:
    if _is_node(site, host) and site.value(MANAGE) is not False:
        control = _is_control_plane(site, host)
        kind = "control plane" if control else "worker"
        need = int(limits["control_plane_memory_mb" if control else "node_memory_mb"])
        if machine["memory_mb"] < need:
            what = f"a {kind} needs {need} MB"
            yield Problem(host, "memory", f"{machine['memory_mb']} MB", what, "give the machine more memory")
        if control and machine["cpus"] < int(limits["control_plane_cpus"]):
            what = f"a control plane needs {limits['control_plane_cpus']} (kubeadm refuses less)"
            yield Problem(host, "CPUs", str(machine["cpus"]), what, "give the machine more CPUs")
        if machine["swap"]:
            what = "the kubelet needs swap off; role node turns it off"
            do = "nothing, unless something on the machine counts on swap"
            yield Problem(host, "swap", ", ".join(machine["swap"]), what, do, warning=True)
    for path, free in sorted(machine["free_gb"].items()):
        if free < float(limits["disk_gb"]):
            what = f"{limits['disk_gb']} GB are needed"
            do = "free some space (or lower preflight_disk_gb, at your own risk)"
            yield Problem(host, f"free disk on {path}", f"{free:.1f} GB", what, do)
    if abs(machine["clock_offset"]) > float(limits["clock_seconds"]):
        what = f"the clock differs from the control machine's by more than {limits['clock_seconds']} s"
        do = "synchronise both clocks (apt install systemd-timesyncd)"
        yield Problem(host, "clock", f"{machine['clock_offset']:+.0f} s", what, do)


def _kernel(site: Site, host: str, machine: Mapping[str, Any], _limits: Mapping[str, Any]) -> Iterator[Problem]:
    if not _is_node(site, host) or site.value(MANAGE) is False:
        return
    missing = [name for name in _MODULES if name not in machine["kernel"]]
    if missing:
        do = "install the distribution's own kernel (linux-image-amd64 or linux-generic) and reboot"
        yield Problem(host, "kernel", ", ".join(missing), f"{machine['kernel_release']} lacks what pods need", do)


def _identity(site: Site, host: str, machine: Mapping[str, Any]) -> Iterator[Problem]:
    name, value = addresses(site).get(host, ("ip", None))
    if value is not None and str(value) not in machine["addresses"]:
        held = ", ".join(machine["addresses"]) or "none"
        what = f"the machine does not have this address (it has {held})"
        yield Problem(
            site.where(name, host), f"{name} of {host}", str(value), what, "give the one in the lab's network"
        )


def _ports(site: Site, host: str, machine: Mapping[str, Any]) -> Iterator[Problem]:
    managed, monitoring = (site.value(name) is not False for name in (MANAGE, MONITORING))
    wanted: set[int] = set()
    if managed and _is_node(site, host):
        wanted |= {*_NODE_PORTS, *(int(site.value(n)) for n in NODE_PORTS if str(site.value(n)).isdigit())}
    if managed and _is_control_plane(site, host):
        wanted |= set(_CONTROL_PORTS)
    if monitoring:
        wanted |= {_EXPORTER_PORT, *(_MONITORING_PORTS if host == _monitoring_node(site) else ())}
    servers = site.groups.get("nfs_server") or (site.groups.get("kube_control_plane", []) if managed else [])
    if host in servers:
        wanted |= set(_NFS_PORTS)
    for port, owner in sorted((int(p), str(o)) for p, o in machine["ports"].items()):
        if port in wanted and owner not in _MONITORING_PORTS.get(port, _OURS):
            what = f"{owner} holds the port"
            yield Problem(host, "port", str(port), what, f"stop {owner}, or move it to another port")


def _same(machines: Machines) -> Iterator[Problem]:
    """Judge what must differ from machine to machine (clones of one disk image often share it)."""
    advice = {
        "hostname": "give each machine its own (hostnamectl set-hostname)",
        "machine_id": "rm /etc/machine-id && systemd-machine-id-setup, then reboot",
        "product_uuid": "give the virtual machine its own UUID",
    }
    for name, do in advice.items():
        seen: dict[str, str] = {}
        for host in sorted(machines):
            value = str(machines[host][name])
            if value and value in seen:
                yield Problem(host, name.replace("_", " "), value, f"{seen[value]} has the same", do)
            seen.setdefault(value, host)


def _clusters(site: Site, machines: Machines) -> Iterator[Problem]:
    """Judge whether machines that are nodes already are nodes of this cluster."""
    master = next(iter(site.groups.get("kube_control_plane", [])), "")
    if site.value(MANAGE) is False or master not in machines:
        return
    ours = machines[master]["cluster"]
    for host in sorted(set(machines) & set(site.groups.get("kube_node", []))):
        theirs = machines[host]["cluster"]
        if theirs and theirs != ours:
            what = f"the machine is a node of another cluster than {master}'s, or of one that {master} was before"
            do = "choose another machine, or take it out of that cluster and run `kubeadm reset` on it"
            yield Problem(host, "cluster", "/etc/kubernetes/kubelet.conf", what, do)


def _sizes(site: Site, machines: Machines) -> Iterator[Problem]:
    """Judge whether every size fits on a machine that takes servers; with one of them unknown nothing is said."""
    nodes = [h for h in site.groups.get("kube_node", []) if not _is_control_plane(site, h)]
    if site.value(PODS_ON_CONTROL_PLANE) is True or not nodes:
        nodes = [*nodes, *site.groups.get("kube_control_plane", [])]
    sizes = site.value(SIZES)
    if site.value(MANAGE) is False or not all(node in machines for node in nodes) or not isinstance(sizes, list):
        return
    free = [_allocatable(site, node, machines[node]) for node in nodes]
    most_memory = max((memory for memory, _cpus in free), default=0)
    most_cpus = max((cpus for _memory, cpus in free), default=0)
    for number, size in enumerate(sizes):
        memory = memory_bytes(size.get("memory_guarantee") or size.get("memory_limit")) or 0
        for key, wanted, there in (
            ("memory_guarantee", memory / 1024**2, most_memory),
            ("cpu_guarantee", number_of(size.get("cpu_guarantee")) or 0, most_cpus),
        ):
            if wanted > there:
                unit = "MB" if key == "memory_guarantee" else "cores"
                what = f"no machine can hold it: the largest that takes servers has about {there} {unit} left"
                shown = str(size.get(key) or size.get("memory_limit"))
                yield Problem(site.where(SIZES), f"{SIZES}[{number}].{key}", shown, what, "lower it")


def _allocatable(site: Site, node: str, machine: Mapping[str, Any]) -> tuple[int, float]:
    """Return about how many MiB of memory and how many cores of a node are left for servers."""
    given = site.value(KUBELET_CONFIG)
    config = {**KUBELET, **(given if isinstance(given, dict) else {})}
    reserved, evicted = (config.get(key) or {} for key in ("systemReserved", "evictionHard"))
    kept = [reserved.get("memory"), evicted.get("memory.available", "100Mi")]
    memory = machine["memory_mb"] - sum((memory_bytes(str(text).rstrip("i")) or 0) / 1024**2 for text in kept)
    cpu = re.fullmatch(r"(\d+)m", str(reserved.get("cpu")))
    system = _SYSTEM_PODS["control plane" if _is_control_plane(site, node) else "worker"]
    return int(memory - system[0]), round(machine["cpus"] - (int(cpu[1]) / 1000 if cpu else 0) - system[1], 2)


def _retention(site: Site, machines: Machines) -> Iterator[Problem]:
    """Judge whether the disk that holds monitoring's figures is as large as they may become."""
    node = _monitoring_node(site)
    path, limit = site.value(MONITORING_PATH), number_of(site.value(RETENTION_GB))
    if site.value(MONITORING) is False or node not in machines or not path or not limit:
        return
    disks = machines[node]["disks_gb"]
    places = [place for place in disks if f"{path}/".startswith(f"{place.rstrip('/')}/")]
    place = max(places, key=len, default="")
    room = disks.get(place, 0) * _DISK_SHARE
    if place and limit * 1.024**3 > room:
        what = (
            f"the disk of {node} at {place} has {disks[place]:.0f} GB, of which "
            f"{room:.0f} may be in use before the kubelet deletes images"
        )
        yield site.problem(RETENTION_GB, what, f"lower it, or set {MONITORING_PATH} to a larger disk of that machine")
