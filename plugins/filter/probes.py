"""Filters that turn probes' lines into the report of playbooks/verify.yml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.jhok.lab.plugins.module_utils.probes import missing, table


def probe_table(probes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the report as lines of text."""
    return table(probes)


def probe_missing(
    expected: Mapping[str, Sequence[str]], answers: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return failed lines for what is expected of hosts and was not answered at all.

    expected: host → areas. answers: host → its variables, `hostvars`; `verify_probes` in them holds its lines.
    """
    return [
        line
        for host, checks in expected.items()
        for line in missing(answers[host].get("verify_probes", []) if host in answers else [], checks, host)
    ]


class FilterModule:
    """The filters, for Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name → function."""
        return {"probe_table": probe_table, "probe_missing": probe_missing}
