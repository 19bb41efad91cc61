"""Filters on the catalogue of images; each is documented in the file of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.jhok.lab.plugins.module_utils import images


def _catalogue_images(
    catalogue: Sequence[Mapping[str, Any]],
    known: Sequence[Mapping[str, Any]],
    registries: Mapping[str, str] | None = None,
) -> list[dict[str, str]]:
    try:
        return images.catalogue_images(catalogue, {image["name"]: image["key"] for image in known}, registries)
    except images.ImageError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Filters of the collection that concern its images."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name → function."""
        return {"catalogue_images": _catalogue_images}
