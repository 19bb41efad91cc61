"""Filters jhok.lab.hub_objects, hub_secrets and hub_secret_entries."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hub_objects
short_description: Kubernetes objects of role jupyterhub, but its Secret
version_added: "0.1.0"
description: Account, configuration, Deployments, Services and policies of the hub and its proxy. A pure function.
positional: _input, config, secrets
options:
  _input:
    description: The variables of role C(jhok.lab.jupyterhub) that shape objects, without the prefix C(jupyterhub_).
    type: dict
    required: true
  config:
    description: The text of jupyterhub_config.py.
    type: str
    required: true
  secrets:
    description: The values that M(jhok.lab.secret_store) returned. Only a digest of them gets into the objects.
    type: dict
    required: true
"""

EXAMPLES = r"""
entries: "{{ jupyterhub_users | jhok.lab.hub_secret_entries(jupyterhub_admins) }}"
objects: "{{ __jupyterhub_settings | jhok.lab.hub_objects(config, result.secrets) }}"
secrets: "{{ __jupyterhub_settings | jhok.lab.hub_secrets(result.secrets) }}"
"""

RETURN = r"""
_value:
  description: Plain Kubernetes objects (hub_secret_entries gives entries for M(jhok.lab.secret_store)).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.hub import hub_objects, hub_secret_entries, hub_secrets


class FilterModule:
    """Thin wrappers."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"hub_objects": hub_objects, "hub_secrets": hub_secrets, "hub_secret_entries": hub_secret_entries}
