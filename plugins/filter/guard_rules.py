"""Filter jhok.lab.guard_rules; documented in the .yml file beside this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.jhok.lab.plugins.plugin_utils import guard


def guard_rules(
    ports: Iterable[int], machines: Iterable[str], pods: str, pod_ports: Iterable[int], allowed: Iterable[str]
) -> str:
    """Return a node's rules against pods."""
    try:
        return guard.guard_rules(ports, machines, pods, pod_ports, allowed)
    except ValueError as error:
        raise AnsibleFilterError(f"guard_rules: {error}") from error


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"guard_rules": guard_rules}
