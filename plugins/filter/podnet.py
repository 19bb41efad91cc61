"""Filters jhok.lab.cni_conflist and jhok.lab.pod_routes; documented in the .yml files beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.jhok.lab.plugins.plugin_utils import podnet


def cni_conflist(pod_cidr: str) -> dict[str, Any]:
    """Return the CNI configuration of a node with this podCIDR."""
    try:
        return podnet.cni_conflist(pod_cidr)
    except ValueError as error:
        raise AnsibleFilterError(f"cni_conflist: {error}") from error


def pod_routes(nodes: Sequence[Mapping[str, str]], node_name: str, cluster_cidr: str) -> dict[str, Any]:
    """Return a node's routes to the other nodes' pods and its masquerade rules."""
    try:
        return podnet.pod_routes(nodes, node_name, cluster_cidr)
    except ValueError as error:
        raise AnsibleFilterError(f"pod_routes: {error}") from error


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"cni_conflist": cni_conflist, "pod_routes": pod_routes}
