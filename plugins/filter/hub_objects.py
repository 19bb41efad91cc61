"""Filters jhok.lab.hub_objects, hub_secrets and hub_secret_entries."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hub_objects
short_description: Kubernetes objects of role jupyterhub, but its Secret
version_added: "0.1.0"
description: Account, configuration, Deployments, Services and policies of the hub and its proxy.
positional: _input, directory, secrets
options:
  _input:
    description: The variables of role C(jhok.lab.jupyterhub) that shape objects, without the prefix C(jupyterhub_).
    type: dict
    required: true
  directory:
    description: Folder of the files that the hub reads, on the control machine.
    type: path
    required: true
  secrets:
    description: The values that M(jhok.lab.secret_store) returned. Only a digest of them gets into the objects.
    type: dict
    required: true
"""

EXAMPLES = r"""
entries: "{{ jupyterhub_users | jhok.lab.hub_secret_entries(jupyterhub_admins, jupyterhub_auth) }}"
objects: "{{ __jupyterhub_settings | jhok.lab.hub_objects(role_path ~ '/files/hub', result.secrets) }}"
secrets: "{{ __jupyterhub_settings | jhok.lab.hub_secrets(result.secrets) }}"
"""

RETURN = r"""
_value:
  description: Plain Kubernetes objects (hub_secret_entries gives entries for M(jhok.lab.secret_store)).
  type: list
  elements: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.hub import (
    HubSettings,
    hub_files,
    hub_objects,
    hub_secret_entries,
    hub_secrets,
)


def objects(settings: HubSettings, directory: str, secrets: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the objects of a hub that reads the files in `directory`."""
    return hub_objects(settings, hub_files(directory), secrets)


class FilterModule:
    """Thin wrappers."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"hub_objects": objects, "hub_secrets": hub_secrets, "hub_secret_entries": hub_secret_entries}
