"""The bundle: form of its manifest, bookkeeping of its OCI layout, forms of what it is made from.

Pure functions only: nothing here reads a file, the clock or the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, TypedDict, TypeVar

FORMAT = 1
SECTIONS = ("kubernetes", "site")
MANIFEST = "manifest.json"
LAYOUT_DIR = "images"
#: Stands for a digest that is not known before the image is made (check mode).
UNKNOWN_DIGEST = "sha256:" + "0" * 64

KUBEADM_DEFAULT_REGISTRY = "registry.k8s.io"
#: What an image's archive has at its top, and what skopeo calls that form. Docker's own archives have both files.
ARCHIVES = {"manifest.json": "docker-archive", "index.json": "oci-archive"}


class BundleError(Exception):
    """What is wrong with a bundle, and what to do about it."""


class FileEntry(TypedDict):
    """One file of the bundle; ``path`` is relative to the bundle, ``size`` is in bytes."""

    name: str
    path: str
    version: str
    sha256: str
    size: int
    mode: str
    origin: str
    section: str


class ImageEntry(TypedDict):
    """One image of the bundle; ``size`` is its manifest's, in bytes."""

    name: str
    tag: str
    digest: str
    size: int
    layout_ref: str
    origin: str
    section: str


class Manifest(TypedDict):
    """The whole of ``manifest.json``."""

    format: int
    kubernetes_version: str
    source: str
    files: list[FileEntry]
    images: list[ImageEntry]


_Entry = TypeVar("_Entry", FileEntry, ImageEntry)


def empty_manifest() -> Manifest:
    """Return the manifest of a bundle that holds nothing yet."""
    return {"format": FORMAT, "kubernetes_version": "", "source": "", "files": [], "images": []}


def dump(value: object) -> str:
    """Return the JSON text of a manifest or layout file: sorted, indented, one newline at its end."""
    return json.dumps(value, indent=1, sort_keys=True) + "\n"


def load_manifest(text: str, where: str) -> Manifest:
    """Return the manifest in ``text``; ``where`` names the file in errors.

    Raises BundleError when it is no manifest of the format that this collection knows.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BundleError(
            f"{where} is not JSON ({error}). Delete the file to have the bundle assembled again."
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise BundleError(
            f"{where} is not a bundle manifest of format {FORMAT}. It was made by another version of jhok.lab: "
            "assemble the bundle again with this one."
        )
    manifest = empty_manifest()
    for key in manifest:
        if not isinstance(found.get(key), type(manifest[key])):  # type: ignore[literal-required]
            raise BundleError(f"{where} lacks {key!r} or has it in another type. Assemble the bundle again.")
        manifest[key] = found[key]  # type: ignore[literal-required]
    return manifest


def check_path(path: str) -> None:
    """Raise BundleError when ``path`` is not a plain relative path of a file beside the bundle's own ones."""
    pure = PurePosixPath(path)
    own = (LAYOUT_DIR, MANIFEST)
    if str(pure) != path or path[0] in "/." or ".." in pure.parts or pure.parts[0] in own:
        raise BundleError(f"path {path!r}: give a relative path like bin/kubeadm, outside {LAYOUT_DIR}/.")


def image_key(image: Mapping[str, Any]) -> str:
    """Return ``name:tag``, by which an image is known in the layout and the registry."""
    return f"{image['name']}:{image['tag']}"


def file_entry(wanted: Mapping[str, Any], section: str, sha256: str, size: int) -> FileEntry:
    """Return the manifest's entry of a file that is ``wanted`` in the module's form; ``size`` in bytes."""
    return {
        "name": wanted["name"],
        "path": wanted["path"],
        "version": wanted["version"],
        "sha256": sha256,
        "size": size,
        "mode": wanted["mode"],
        "origin": wanted["origin"],
        "section": section,
    }


def image_entry(wanted: Mapping[str, Any], section: str, digest: str, size: int) -> ImageEntry:
    """Return the manifest's entry of an image that is ``wanted`` in the module's form; ``size`` in bytes."""
    return {
        "name": wanted["name"],
        "tag": wanted["tag"],
        "digest": digest,
        "size": size,
        "layout_ref": image_key(wanted),
        "origin": wanted["origin"],
        "section": section,
    }


def merge(
    manifest: Manifest,
    section: str,
    files: Iterable[FileEntry],
    images: Iterable[ImageEntry],
    source: str | None = None,
    kubernetes_version: str | None = None,
) -> Manifest:
    """Return ``manifest`` with the entries of ``section`` replaced by ``files`` and ``images``.

    ``source`` and ``kubernetes_version`` are set when given. Raises BundleError when two entries claim one path or
    one image name and tag.
    """
    merged: Manifest = {
        "format": FORMAT,
        "kubernetes_version": manifest["kubernetes_version"] if kubernetes_version is None else kubernetes_version,
        "source": manifest["source"] if source is None else source,
        "files": sorted([*_others(manifest["files"], section), *files], key=lambda entry: entry["path"]),
        "images": sorted([*_others(manifest["images"], section), *images], key=image_key),
    }
    _refuse_twice(f"path {entry['path']}" for entry in merged["files"])
    _refuse_twice(f"image {image_key(entry)}" for entry in merged["images"])
    return merged


def _others(entries: Iterable[_Entry], section: str) -> list[_Entry]:
    return [entry for entry in entries if entry["section"] != section]


def _refuse_twice(claims: Iterable[str]) -> None:
    seen: set[str] = set()
    for claim in claims:
        if claim in seen:
            raise BundleError(f"The bundle would hold {claim} twice. Give one of the two another name.")
        seen.add(claim)


def layout_index(manifest: Manifest) -> dict[str, Any]:
    """Return ``index.json`` of the OCI layout that holds just the images of ``manifest``."""
    return {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": image["digest"],
                "size": image["size"],
                "annotations": {"org.opencontainers.image.ref.name": image["layout_ref"]},
            }
            for image in manifest["images"]
        ],
    }


def find_in_index(index: Mapping[str, Any], ref: str) -> tuple[str, int]:
    """Return digest and size in bytes of the image that an OCI layout's index calls ``ref``.

    Raises BundleError when the index has no such image.
    """
    for descriptor in index.get("manifests", []):
        if descriptor.get("annotations", {}).get("org.opencontainers.image.ref.name") == ref:
            return descriptor["digest"], descriptor["size"]
    raise BundleError(f"The OCI layout has no image {ref}.")


def blob_path(digest: str) -> str:
    """Return the path of a blob inside the bundle."""
    return f"{LAYOUT_DIR}/blobs/{digest.replace(':', '/')}"


def image_blobs(oci_manifest: Mapping[str, Any]) -> dict[str, int]:
    """Return digest and size in bytes of an image's configuration and layers."""
    return {blob["digest"]: blob["size"] for blob in [oci_manifest["config"], *oci_manifest["layers"]]}


def image_refs(manifest: Mapping[str, Any], registry: str) -> dict[str, str]:
    """Return image name → reference by digest in ``registry`` (``host:port``) for all images of ``manifest``.

    A manifest without images (a bundle that is not assembled yet) gives an empty map.
    """
    return {image["name"]: f"{registry}/{image['name']}@{image['digest']}" for image in manifest.get("images", [])}


def kubeadm_images(listing: str, registry: str) -> list[dict[str, str]]:
    """Return what ``kubeadm config images list`` printed as ``images`` of module ``jhok.lab.bundle``.

    ``registry`` stands for registry.k8s.io. Raises BundleError when the listing is not what kubeadm prints.
    """
    images = []
    for line in listing.split():
        prefix, _, rest = line.partition("/")
        path, _, tag = rest.rpartition(":")
        if prefix != KUBEADM_DEFAULT_REGISTRY or not path:
            raise BundleError(
                f"kubeadm config images list printed {line!r}, which is no image of {KUBEADM_DEFAULT_REGISTRY}."
            )
        source = f"docker://{registry.rstrip('/')}/{path}:{tag}"
        # kubeadm drops coredns/ from coredns/coredns as soon as another repository than its own is configured.
        name, setting = f"kubernetes/{path.rpartition('/')[2]}", "bundle_upstream_images_mirror"
        images.append({"name": name, "tag": tag, "from": source, "origin": line, "setting": setting})
    if not images:
        raise BundleError("kubeadm config images list printed no image.")
    return images


def archive_form(found: Mapping[str, Any], where: str) -> str:
    """Return what skopeo calls the form of an image's archive.

    ``found`` maps those names of ARCHIVES that the archive has to their parsed content, ``where`` names it in errors.
    Raises BundleError when it is no archive of an image, or of several.
    """
    for name, form in ARCHIVES.items():
        if name in found:
            listed = found[name] if name == "manifest.json" else dict(found[name]).get("manifests")
            if isinstance(listed, list) and len(listed) == 1:
                return form
            count = len(listed) if isinstance(listed, list) else 0
            raise BundleError(f"{where} holds {count} images. Save the one image that is meant, and nothing else.")
    raise BundleError(f"{where} is no archive of an image. Write it with podman save or docker save.")


def published_sha256(text: str, url: str, name: str) -> str:
    """Return the published sum of file ``name``: the bare sum, or what sha256sum writes, ``<sum>  <file>`` per file.

    Raises BundleError when ``text`` (fetched from ``url``) holds no sum of that file.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    named = [words for words in lines if len(words) > 1 and words[-1].lstrip("*").rpartition("/")[2] == name]
    found = (named or lines[:1] or [[""]])[0][0].lower() if named or len(lines) < 2 else ""
    if len(found) != 64 or not set(found) <= set("0123456789abcdef"):
        raise BundleError(f"{url} does not hold a SHA-256 sum of {name}. Does the mirror answer with an error page?")
    return found
