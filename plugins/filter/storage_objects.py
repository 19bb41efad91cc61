"""Filter jhok.lab.storage_objects."""

from __future__ import annotations

DOCUMENTATION = r"""
name: storage_objects
short_description: Kubernetes objects of role storage
version_added: "0.1.0"
description: The namespace, and volume and claim of the homes and of the hub's database. A pure function.
positional: _input
options:
  _input:
    description: The public variables of role C(jhok.lab.storage), without the prefix C(storage_).
    type: dict
    required: true
"""

EXAMPLES = r"""
objects: "{{ __storage_settings | jhok.lab.storage_objects }}"
"""

RETURN = r"""
_value:
  description: Plain Kubernetes objects.
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.storage import storage_objects


class FilterModule:
    """Thin wrapper."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"storage_objects": storage_objects}
