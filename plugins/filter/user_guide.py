"""Filter jhok.lab.user_guide."""

from __future__ import annotations

DOCUMENTATION = r"""
name: user_guide
short_description: A site's user guide as a ConfigMap
version_added: "0.1.0"
description:
  - Fills the guide's Markdown sources with the site's addresses, environments, sizes and time limits, and makes HTML of
    them, which the hub shows at C(/hub/guide/).
positional: _input, directory
options:
  _input:
    description: The variables of role C(jhok.lab.jupyterhub) that shape objects, without the prefix C(jupyterhub_).
    type: dict
    required: true
  directory:
    description: Directory with C(guide.en.md), C(guide.zh.md) and the pictures in C(images).
    type: path
    required: true
"""

EXAMPLES = r"""
config_map: "{{ __jupyterhub_settings | jhok.lab.user_guide(role_path ~ '/../../docs/user-guide') }}"
"""

RETURN = r"""
_value:
  description: ConfigMap C(hub-guide).
  type: dict
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.jhok.lab.plugins.plugin_utils.guide import LANGUAGES, guide_config_map


def user_guide(settings: Mapping[str, Any], directory: str) -> dict[str, Any]:
    """Return the ConfigMap of the guide whose sources are in `directory`."""
    root = Path(directory)
    sources = {language: (root / f"guide.{language}.md").read_text(encoding="utf-8") for language in LANGUAGES}
    images = {path.name: path.read_bytes() for path in sorted((root / "images").glob("*.*"))}
    try:
        return guide_config_map(settings, sources, images)
    except ValueError as error:
        raise AnsibleFilterError(f"user_guide: {error}") from error


class FilterModule:
    """The filter."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter by name."""
        return {"user_guide": user_guide}
