"""Filters on bundles; each is documented in the file of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.jhok.lab.plugins.module_utils import bundle
from ansible_collections.jhok.lab.plugins.plugin_utils import bundle_sources, versions


def _image_refs(manifest: object, registry: str) -> dict[str, str]:
    if not isinstance(manifest, dict):
        raise AnsibleFilterError(f"image_refs: wants the content of manifest.json, not {type(manifest).__name__}")
    return bundle.image_refs(manifest, registry)


def _release(version: str) -> versions.Release:
    try:
        return versions.release_of(version)
    except ValueError as error:
        raise AnsibleFilterError(f"bundle_kubernetes_version: {error}") from error


def _kubernetes_version(version: str) -> str:
    return f"v{_release(version or versions.NEWEST).kubernetes}"


def _module_builds(version: str, folder: str) -> list[dict[str, Any]]:
    return bundle_sources.module_builds(_release(version), folder)


def _module_parts(version: str, references: Mapping[str, str]) -> dict[str, list[dict[str, str]]]:
    release = _release(version)
    return {
        "files": bundle_sources.module_files(release, references),
        "images": bundle_sources.module_images(release, references),
    }


def _upstream_files(version: str, files_mirror: str, github_mirror: str) -> list[dict[str, str]]:
    return bundle_sources.upstream_files(_release(version), files_mirror, github_mirror)


class FilterModule:
    """Filters of the collection that concern the bundle."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name → function."""
        return {
            "image_refs": _image_refs,
            "kubernetes_version": _kubernetes_version,
            "module_builds": _module_builds,
            "module_parts": _module_parts,
            "upstream_files": _upstream_files,
        }
