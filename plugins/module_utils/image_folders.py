"""What the images' folders hold, and which images this machine's podman has."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.jhok.lab.plugins.module_utils import images


def output_of(command: Sequence[str]) -> str:
    """Return what `command` prints, or "" when it is not installed or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


def read_text(path: Path | str) -> str:
    """Return the text of the file at `path`, or "" when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def read_folder(folder: Path) -> dict[str, images.Entry]:
    """Return the files below `folder` by relative path; Python's byte code is left out."""
    entries: dict[str, images.Entry] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if "__pycache__" in name:
            continue
        if path.is_symlink():
            entries[name] = images.Entry("link", os.fsencode(path.readlink()))
        elif path.is_file():
            executable = bool(path.stat().st_mode & 0o100)
            entries[name] = images.Entry("executable" if executable else "file", path.read_bytes())
    return entries


def parent_folder(folder: Path, parent: str, base: Path | None) -> Path:
    """Return the folder of image `parent` that `folder` is built from: its neighbour, or else the one below `base`."""
    neighbour = folder.parent / parent
    return neighbour if base is None or neighbour.is_dir() else base / parent


def containerfile(folder: Path, base: Path | None = None) -> str:
    """Return the Containerfile of `folder`, or "" when it has a rootfs.yml. `base`: see parent_folder."""
    has = [name for name in ("rootfs.yml", "Containerfile") if (folder / name).is_file()]
    if len(has) != 1:
        raise images.ImageError(f"{folder}: must hold either rootfs.yml or Containerfile; it holds {has or 'none'}")
    if has == ["rootfs.yml"]:
        return ""
    text = read_text(folder / "Containerfile")
    for parent in images.parents(text):
        found = parent_folder(folder, parent, base)
        if not found.is_dir() or found == folder:
            raise images.ImageError(
                f"{folder}/Containerfile: names {images.REPOSITORY}/{parent}, which has no folder of its own at {found}"
            )
    return text


def parent_keys(folder: Path, epoch: str, base: Path | None = None) -> dict[str, str]:
    """Return the key of each of our own images that `folder` is built from."""
    return {
        parent: content_key(parent_folder(folder, parent, base), epoch, base=base)
        for parent in images.parents(containerfile(folder, base))
    }


def input_sums(inputs: Mapping[str, str], setting: str = "") -> dict[str, str]:
    """Return the SHA-256 sum of each file that a build is given, by its name; both are a build argument.

    inputs: paths by name. setting: the variable that they come from, named in errors. Raises ImageError for a name that
    a Containerfile cannot have and for a file that cannot be read.
    """
    sums = {}
    for name, path in inputs.items():
        where = setting or f"inputs.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise images.ImageError(f"inputs: {name!r} is not a name; use lower-case letters, digits and _")
        if ":" in path:
            raise images.ImageError(f"{where}: {path}: podman takes no path with a colon. Give the file another name.")
        try:
            with Path(path).open("rb") as stream:
                sums[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise images.ImageError(
                f"{where}: {path}: {error.strerror}. Give a file on the control machine."
            ) from error
    return sums


def content_key(
    folder: Path,
    epoch: str,
    target: str = "",
    build_args: Mapping[str, str] | None = None,
    base: Path | None = None,
) -> str:
    """Return the key of the image that `folder` gives."""
    keys = parent_keys(folder, epoch, base)
    return images.content_key(read_folder(folder), target, epoch, build_args or {}, keys)


def find(reference: str) -> tuple[str, list[str]]:
    """Return id and all references of the image `reference`; ("", []) when there is none (or no podman)."""
    return present().get(reference, ("", []))


def present() -> dict[str, tuple[str, list[str]]]:
    """Return id and all references of each image of ours, by each of its references; empty without podman."""
    listed = json.loads(output_of(["podman", "image", "ls", "--no-trunc", "--format", "json"]) or "[]")
    found = {}
    for image in listed:
        names = [name for name in image.get("Names") or [] if name.startswith(f"{images.REPOSITORY}/")]
        found.update({name: (image["Id"].removeprefix("sha256:"), names) for name in names})
    return found
