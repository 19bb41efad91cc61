"""The rules by which a cluster that is there already is judged: ours against the bundle, another by its age. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.preflight import (
    BUNDLE_SOURCE,
    BUNDLE_VERSION,
    KUBECONFIG,
    MANAGE,
    Problem,
    Site,
    version_problem,
    wanted_version,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.versions import NEWEST, OLDEST_EXISTING, RELEASES


def judge_versions(site: Site, machines: Mapping[str, Mapping[str, Any]]) -> list[Problem]:
    """Return what speaks against installing the bundle's version of Kubernetes on machines that may run one already.

    Args:
        site: the inventory.
        machines: per host, `control_plane`, `foreign` and `kubelet` of what module `jhok.lab.machine_facts` returned.

    """
    if site.value(MANAGE) is False:
        return []
    return list(_version_problems(site, machines, wanted_version(site)))


def judge_existing(site: Site, version: str, failure: str = "") -> list[Problem]:
    """Return what speaks against an existing cluster (`kubernetes_manage: false`).

    Args:
        site: the inventory.
        version: what its API server calls its version.
        failure: why there is no version, in one or more sentences.

    """
    if failure:
        what = f"its version cannot be asked: {failure.rstrip('.')}"
        do = (
            "correct the path or the file, until the control machine gets an answer to "
            f"kubectl --kubeconfig {site.value(KUBECONFIG)} version"
        )
        return [site.problem(KUBECONFIG, what, do)]
    if numbers(version)[:2] >= OLDEST_EXISTING:
        return []
    oldest = ".".join(map(str, OLDEST_EXISTING))
    what = f"the cluster runs {version}, and this collection is made for and tested with {oldest} and newer only"
    do = f"upgrade the cluster by its own means, or set {MANAGE}: true for a new one on other machines"
    return [site.problem(KUBECONFIG, what, do)]


def _version_problems(site: Site, machines: Mapping[str, Mapping[str, Any]], wanted: str) -> Iterator[Problem]:
    master = next(iter(site.groups.get("kube_control_plane", [])), "")
    control = machines.get(master)
    if control and control["foreign"]:
        what = "the machine has a control plane that this collection did not make"
        do = (
            f"to use that cluster set {MANAGE}: false (docs/admin/inventory.md); to give it up run kubeadm reset on "
            "the machine; or choose another machine"
        )
        yield Problem(master, "control plane", "/etc/kubernetes/admin.conf", what, do)
        return
    running = str(control["control_plane"]) if control else ""
    if running and wanted and running != wanted:
        # Kubelets are no news then: this run would have brought all of them to the wrong version.
        yield _other_version(site, master, running, wanted)
        return
    for host in sorted(machines):
        kubelet = str(machines[host]["kubelet"])
        if not kubelet or not wanted or kubelet == wanted:
            continue
        if not control:
            what = (
                f"the bundle has {wanted}, and the control plane ({master}) was not asked for its version: "
                "a kubelet must not be newer than its API server"
            )
            yield Problem(host, "kubelet", kubelet, what, f"run site.yml for {master}, too (without --limit)")
        elif running:
            newer = numbers(kubelet) > numbers(running)
            what = (
                f"it is newer than its API server ({running}), which Kubernetes does not support"
                if newer
                else f"it is older than the cluster ({running})"
            )
            do = f"nothing: site.yml installs {wanted}"
            yield Problem(host, "kubelet", kubelet, what, do, warning=True)


def _other_version(site: Site, master: str, running: str, wanted: str) -> Problem:
    """Return the refusal of a bundle that has another version than the cluster, with the way that leads on."""
    minor = ".".join(map(str, numbers(running)[:2]))
    release = RELEASES.get(minor)
    later = ", or wait for playbooks/upgrade.yml of a later version of this collection"
    why = "site.yml does not upgrade a cluster: its kubelets would be newer than its API server"
    if numbers(running) > numbers(wanted):
        later, why = "", "no cluster goes back to an older version"
    if site.value(BUNDLE_SOURCE) == "directory" and release:
        do = f"carry a bundle of {running} here{later}"
    elif release and running == f"v{release.kubernetes}":
        do = f'set {BUNDLE_VERSION}: "{minor}"{later}'
    elif release or numbers(minor) > numbers(NEWEST):
        do = f"run site.yml from the version of this collection that made the cluster{later}"
    else:
        do = (
            "such a cluster has to be made anew; homes, the hub's database and its secrets stay on their disks: make a "
            "backup (playbooks/backup.yml), run kubeadm reset --force && rm -f /etc/kubernetes/jhok-init-* on each "
            "node and reboot it, then run site.yml"
        )
    return version_problem(site, wanted, f"the cluster of {master} runs {running}, and {why}", do)


def numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers that can be compared: (1, 37, 2) of `v1.37.2`."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
