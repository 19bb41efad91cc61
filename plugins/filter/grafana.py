"""Filters on Grafana; each is documented in the file of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.jhok.lab.plugins.plugin_utils import grafana_provisioning


def _grafana_images(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    try:
        return grafana_provisioning.grafana_images(settings)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of the collection that concern Grafana."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name → function."""
        return {"grafana_images": _grafana_images}
