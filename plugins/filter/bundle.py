"""Filters on bundles; each is documented in the file of its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.jhok.lab.plugins.module_utils import bundle


def _image_refs(manifest: object, registry: str) -> dict[str, str]:
    if not isinstance(manifest, dict):
        raise AnsibleFilterError(f"image_refs: wants the content of manifest.json, not {type(manifest).__name__}")
    return bundle.image_refs(manifest, registry)


class FilterModule:
    """Filters of the collection that concern the bundle."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name → function."""
        return {
            "debian_files": bundle.debian_files,
            "debian_images": bundle.debian_images,
            "image_refs": _image_refs,
            "upstream_files": bundle.upstream_files,
        }
