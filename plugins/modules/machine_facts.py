#!/usr/bin/python
"""Module `jhok.lab.machine_facts`: what preflight asks of a machine, read from /proc and /etc."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_facts
short_description: Tells what preflight needs to know of a machine
version_added: 0.1.0
description:
  - Reads files under C(/proc), C(/sys), C(/etc) and C(/var/lib/dpkg), lists the firewall's chains and asks a node's
    kubelet for its version; changes nothing, in check mode or not.
  - Without root the owners of ports and the product's UUID are unknown and returned empty.
options:
  asked_at:
    description: The control machine's clock, in seconds since 1970, when it asked.
    type: float
    required: true
author: The jhok.lab authors
"""

EXAMPLES = r"""
- name: Look at the machine
  jhok.lab.machine_facts:
    asked_at: "{{ now().timestamp() }}"
  register: __preflight_machine
"""

RETURN = r"""
machine:
  description: The facts.
  returned: success
  type: dict
  contains:
    os_id: {description: "C(ID) of C(/etc/os-release).", type: str}
    os_version: {description: "C(VERSION_ID) of C(/etc/os-release).", type: str}
    architecture: {description: "The hardware's name as C(uname -m) has it.", type: str}
    memory_mb: {description: Memory in units of 1024 x 1024 bytes., type: int}
    cpus: {description: CPUs that this machine's processes may use., type: int}
    free_gb: {description: "Free space of C(/) and C(/var) in units of 10^9 bytes.", type: dict}
    disks_gb:
      description: "Size of each file system on a disk of this machine by where it is mounted, in units of 10^9 bytes."
      type: dict
    swap: {description: Swap devices and files in use., type: list, elements: str}
    clock_offset: {description: "Seconds that the machine's clock is ahead of O(asked_at).", type: float}
    addresses: {description: IPv4 addresses of all interfaces except loopback., type: list, elements: str}
    hostname: {description: The kernel's host name., type: str}
    machine_id: {description: "C(/etc/machine-id).", type: str}
    product_uuid: {description: UUID of the (virtual) hardware; empty in a container., type: str}
    cluster:
      description: >-
        Of a node of a Kubernetes cluster, the SHA-256 of the cluster's CA as C(/etc/kubernetes/kubelet.conf) has it;
        otherwise empty.
      type: str
    firewalls:
      description: >-
        What keeps packets from this machine's pods: C(ufw), C(firewalld), and chains that drop what is forwarded, as
        far as C(nft) or C(iptables-legacy) is installed and tells.
      type: list
      elements: str
    control_plane:
      description: >-
        Version of the API server, for example C(v1.37.2), as its manifest in C(/etc/kubernetes/manifests) has it; empty
        where there is none, or where role kubernetes was cut short while it made the control plane.
      type: str
    foreign: {description: Whether there is a control plane that role kubernetes did not make., type: bool}
    kubelet:
      description: >-
        Of a node of a Kubernetes cluster, the version of C(/usr/local/bin/kubelet); otherwise empty.
      type: str
    cgroup: {description: "Version of the kernel's control groups that the machine uses, 1 or 2.", type: int}
    docker:
      description: >-
        Which of the packages C(containerd.io), C(docker-ce) and C(docker.io) are installed; C(dockerd) where it runs.
      type: list
      elements: str
    kernel_release: {description: Release of the running kernel., type: str}
    kernel: {description: Which of overlay and br_netfilter the kernel has or can load., type: list, elements: str}
    ports: {description: "Owner (a process' name, may be empty) of each TCP port that is listened on.", type: dict}
"""

import hashlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

_LISTEN = "0A"  # state of a listening socket in /proc/net/tcp
_DOCKER = ("containerd.io", "docker-ce", "docker.io")  # Docker's own packages, and Debian's of Docker
_KUBERNETES = Path("/etc/kubernetes")
_KUBELET = "/usr/local/bin/kubelet"  # where role node installs it


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def os_release(text: str) -> dict[str, str]:
    """Return the keys of an os-release file."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, value in pairs}


def listening(text: str) -> Iterator[tuple[int, str]]:
    """Yield (port, inode) of the listening sockets in the text of a /proc/net/tcp file."""
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            yield int(fields[1].rsplit(":", 1)[1], 16), fields[9]


def installed(status: str, names: Iterable[str]) -> list[str]:
    """Return which of the packages are installed, from the text of dpkg's status file."""
    wanted, found, name = set(names), set(), ""
    for line in status.splitlines():
        key, _, value = line.partition(": ")
        if key == "Package":
            name = value
        elif key == "Status" and value.endswith(" installed") and name in wanted:
            found.add(name)
    return sorted(found)


def cluster_of(kubeconfig: str) -> str:
    """Return what tells a node's cluster from others, from the text of its kubelet's kubeconfig."""
    found = re.search(r"^\s*certificate-authority(?:-data)?:\s*(\S+)", kubeconfig, re.MULTILINE)
    return hashlib.sha256((found[1] if found else kubeconfig).encode()).hexdigest() if kubeconfig else ""


def dropping(listed: str) -> list[str]:
    """Return the chains that drop what is forwarded, from the output of `nft --json list chains`."""
    try:
        entries = json.loads(listed)["nftables"]
    except (ValueError, KeyError):
        return []
    chains = [entry["chain"] for entry in entries if "chain" in entry]
    found = [c for c in chains if c.get("hook") == "forward" and c.get("policy") == "drop"]
    return [f"{c['family']} {c['table']} {c['name']}" for c in found]


def control_plane(directory: Path) -> str:
    """Return the API server's version by its manifest below `directory`; empty without one."""
    # Role kubernetes takes down what was cut short and begins again, with any version.
    if (directory / "jhok-init-started").exists() and not (directory / "jhok-init-done").exists():
        return ""
    manifest = _read(str(directory / "manifests" / "kube-apiserver.yaml"))
    found = re.search(r"^[\s-]*image:\s*\S*kube-apiserver:(v\d[^\s\"'@]*)", manifest, re.MULTILINE)
    return found[1] if found else ""


def is_foreign(directory: Path) -> bool:
    """Return whether `directory` is that of a control plane without the marks that role kubernetes leaves."""
    marks = ("jhok-init-started", "jhok-init-done")
    return (directory / "admin.conf").exists() and not any((directory / mark).exists() for mark in marks)


def kubelet_version(directory: Path, program: str) -> str:
    """Return the version of the kubelet that is installed on a machine which has joined a cluster."""
    told = _output(program, "--version") if (directory / "kubelet.conf").exists() else ""
    found = re.search(r"^Kubernetes (v\S+)", told)
    return found[1] if found else ""


def _docker() -> list[str]:
    running = any(_read(str(path)) == "dockerd" for path in Path("/proc").glob("[0-9]*/comm"))
    return [*installed(_read("/var/lib/dpkg/status"), _DOCKER), *(["dockerd"] if running else [])]


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _firewalls() -> list[str]:
    found = []
    if re.search(r"^ENABLED=yes", _read("/etc/ufw/ufw.conf"), re.MULTILINE):
        found.append("ufw")
    if any(_read(str(path)) == "firewalld" for path in Path("/proc").glob("[0-9]*/comm")):
        found.append("firewalld")
    found += dropping(_output("/usr/sbin/nft", "--json", "list", "chains"))
    # Asking the older iptables would load its modules where they are not in use.
    if "filter" in _read("/proc/net/ip_tables_names").split():
        rules = _output("/usr/sbin/iptables-legacy", "--list-rules", "FORWARD")
        found += ["iptables-legacy FORWARD"] if "-P FORWARD DROP" in rules else []
    return found


def _owners(inodes: set[str]) -> dict[str, str]:
    """Return the name of the process that holds each socket, as far as this user may see."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            for descriptor in (process / "fd").iterdir():
                inode = wanted.get(str(descriptor.readlink()))
                if inode:
                    found.setdefault(inode, _read(f"{process}/comm"))
        except OSError:  # the process has ended, or belongs to somebody else
            continue
    return found


def _ports() -> dict[str, str]:
    sockets = [pair for name in ("tcp", "tcp6") for pair in listening(_read(f"/proc/net/{name}"))]
    owners = _owners({inode for _port, inode in sockets})
    return {str(port): owners.get(inode, "") for port, inode in sockets}


def _addresses() -> list[str]:
    """Return the IPv4 addresses of this machine: its local routes, read as the kernel lists them."""
    found = []
    lines = _read("/proc/net/fib_trie").splitlines()
    for number, line in enumerate(lines):
        if "/32 host LOCAL" in line:
            address = lines[number - 1].split()[-1]
            if not address.startswith("127.") and address not in found:
                found.append(address)
    return found


def _kernel_modules(release: str) -> list[str]:
    """Return which of the two features pods need the kernel has, built in, loaded or as a file."""
    listed = "".join(_read(f"/lib/modules/{release}/modules.{name}") for name in ("builtin", "dep"))
    have = []
    if "\toverlay\n" in _read("/proc/filesystems") + "\n" or "/overlay.ko" in listed:
        have.append("overlay")
    if Path("/proc/sys/net/bridge").is_dir() or "/br_netfilter.ko" in listed:
        have.append("br_netfilter")
    return have


def _free_gb(path: str) -> float:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize / 1e9


def disks(mounts: str) -> Iterator[str]:
    """Yield where file systems on disks of this machine are mounted, from the text of /proc/self/mounts.

    Others may be on a server that does not answer, and would be waited for.
    """
    for line in mounts.splitlines():
        device, place, kind = line.split()[:3]
        if place == "/" or device.startswith("/dev/") or kind == "zfs":
            yield re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place)


def _size_gb(path: str) -> float:
    try:
        status = os.statvfs(path)
    except OSError:
        return 0
    return status.f_blocks * status.f_frsize / 1e9


def main() -> None:
    """Run the module."""
    spec = {"asked_at": {"type": "float", "required": True}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    offset = time.time() - module.params["asked_at"]
    system = os_release(_read("/etc/os-release"))
    memory = next((line.split()[1] for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal")), "0")
    release = os.uname().release
    module.exit_json(
        changed=False,
        machine={
            "os_id": system.get("ID", ""),
            "os_version": system.get("VERSION_ID", ""),
            "architecture": os.uname().machine,
            "memory_mb": int(memory) // 1024,
            "cpus": len(os.sched_getaffinity(0)),
            "free_gb": {path: round(_free_gb(path), 2) for path in ("/", "/var")},
            "disks_gb": {path: round(_size_gb(path), 2) for path in disks(_read("/proc/self/mounts"))},
            "swap": [line.split()[0] for line in _read("/proc/swaps").splitlines()[1:]],
            "clock_offset": round(offset, 1),
            "addresses": _addresses(),
            "hostname": socket.gethostname(),
            "machine_id": _read("/etc/machine-id"),
            # A container sees its host's.
            "product_uuid": "" if Path("/run/systemd/container").exists() else _read("/sys/class/dmi/id/product_uuid"),
            "cluster": cluster_of(_read("/etc/kubernetes/kubelet.conf")),
            "control_plane": control_plane(_KUBERNETES),
            "foreign": is_foreign(_KUBERNETES),
            "kubelet": kubelet_version(_KUBERNETES, _KUBELET),
            "cgroup": 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1,
            "firewalls": _firewalls(),
            "docker": _docker(),
            "kernel_release": release,
            "kernel": _kernel_modules(release),
            "ports": _ports(),
        },
    )


if __name__ == "__main__":
    main()
