"""Filters that make configuration files of kubeadm and the kubelet; each is documented in the file of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.jhok.lab.plugins.plugin_utils import kubeadm


def kubeadm_config(settings: Mapping[str, Any], action: str = "init") -> str:
    """Return kubeadm's configuration file for ``init`` or ``join`` as text."""
    builders = {"init": kubeadm.init_documents, "join": kubeadm.join_documents}
    if action not in builders:
        raise AnsibleFilterError(f"kubeadm_config: action {action} is unknown; use init or join")
    try:
        documents = builders[action](settings)
    except ValueError as error:
        raise AnsibleFilterError(f"kubeadm_config: {error}") from error
    return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True)


def kubelet_config(extra: Mapping[str, Any], cgroup_v1: bool = False) -> str:
    """Return a drop-in file of the kubelet's configuration as text."""
    try:
        document = kubeadm.kubelet_document(extra, cgroup_v1=cgroup_v1)
    except ValueError as error:
        raise AnsibleFilterError(f"kubelet_config: {error}") from error
    return yaml.safe_dump(document, sort_keys=False, explicit_start=True)


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"kubeadm_config": kubeadm_config, "kubelet_config": kubelet_config}
