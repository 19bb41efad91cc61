"""The bundle: form of its manifest, bookkeeping of its OCI layout, names of upstream's artifacts.

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
CNI_PLUGINS = ("bandwidth", "bridge", "firewall", "host-local", "loopback", "portmap", "tuning")

DEBIAN_VERSION = "v1.20.2"
DEBIAN_CNI_VERSION = "v1.1.1"
_DEBIAN_SOURCE = "Debian bookworm's source package kubernetes 1.20.2, built in images/kubernetes"
#: Stage of images/kubernetes → the tag that kubeadm 1.20.2 asks for, and what the image really is.
DEBIAN_IMAGES = {
    "kube-apiserver": (DEBIAN_VERSION, _DEBIAN_SOURCE),
    "kube-controller-manager": (DEBIAN_VERSION, _DEBIAN_SOURCE),
    "kube-scheduler": (DEBIAN_VERSION, _DEBIAN_SOURCE),
    "kube-proxy": (DEBIAN_VERSION, _DEBIAN_SOURCE),
    "pause": ("3.2", _DEBIAN_SOURCE),
    "etcd": ("3.4.13-0", "Debian bookworm's package etcd-server 3.4.23, under the tag that kubeadm asks for"),
    "coredns": ("1.7.0", "images/kubernetes/cluster_dns.py: a DNS server in CoreDNS' place, under CoreDNS' tag"),
}

#: Published SHA-256 sums of the default versions, by the end of their URL. What is not listed is checked against
#: the sum that is published beside the file.
PINNED_SHA256 = {
    "v1.34.4/bin/linux/amd64/kubeadm": "b967f1fa0e36621c402d38bb560eb4a943954d5cf5a00e5150842f6f5da73455",
    "v1.34.4/bin/linux/amd64/kubelet": "03b8fea715a7ef82eeaf518dee34c72670c57cc7bc40dc1320c04fbf4f15172f",
    "v1.34.4/bin/linux/amd64/kubectl": "d50c359d95e0841eaad08ddc27c7be37cba8fdccfba5c8e2ded65e121ff112db",
    "v1.34.0/crictl-v1.34.0-linux-amd64.tar.gz": "a8ff2a3edb37a98daf3aba7c3b284fe0aa5bff24166d896ab9ef64c8913c9f51",
    "v1.8.0/cni-plugins-linux-amd64-v1.8.0.tgz": "ab3bda535f9d90766cccc90d3dddb5482003dd744d7f22bcf98186bf8eea8be6",
}


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


def debian_files(build_image: str) -> list[dict[str, str]]:
    """Return the files of Debian's Kubernetes as ``files`` of module ``jhok.lab.bundle``.

    ``build_image`` is the local image made from stage ``build`` of images/kubernetes.
    """
    origins = {
        f"bin/{name}": (DEBIAN_VERSION, _DEBIAN_SOURCE, f"/out/{name}") for name in ("kubeadm", "kubectl", "kubelet")
    }
    origins["bin/crictl"] = (DEBIAN_VERSION, "images/kubernetes/crictl: the commands that kubeadm calls", "/out/crictl")
    package = "Debian bookworm's package containernetworking-plugins"
    origins |= {f"cni/{name}": (DEBIAN_CNI_VERSION, package, f"/out/cni/{name}") for name in CNI_PLUGINS}
    return [
        {
            "name": path.partition("/")[2],
            "path": path,
            "version": version,
            "origin": origin,
            "image": build_image,
            "image_path": image_path,
        }
        for path, (version, origin, image_path) in origins.items()
    ]


def debian_images(references: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the images that kubeadm 1.20.2 asks for as ``images`` of module ``jhok.lab.bundle``.

    ``references`` maps each stage of images/kubernetes to the local image made from it.
    """
    return [
        {"name": f"kubernetes/{stage}", "tag": tag, "from": references[stage], "origin": origin}
        for stage, (tag, origin) in DEBIAN_IMAGES.items()
    ]


def upstream_files(
    kubernetes_version: str, crictl_version: str, cni_version: str, files_mirror: str, github_mirror: str
) -> list[dict[str, str]]:
    """Return the files of a Kubernetes release as ``files`` of module ``jhok.lab.bundle``.

    Versions are as upstream writes them (``v1.34.4``). ``files_mirror`` stands for https://dl.k8s.io/release,
    ``github_mirror`` for https://github.com.
    """
    crictl = f"{crictl_version}/crictl-{crictl_version}-linux-amd64.tar.gz"
    cni = f"{cni_version}/cni-plugins-linux-amd64-{cni_version}.tgz"
    kubernetes, github = files_mirror.rstrip("/"), github_mirror.rstrip("/")
    crictl_url = f"{github}/kubernetes-sigs/cri-tools/releases/download/{crictl}"
    cni_url = f"{github}/containernetworking/plugins/releases/download/{cni}"
    downloads = [
        *(
            (f"bin/{name}", kubernetes_version, f"{kubernetes}/{kubernetes_version}/bin/linux/amd64/{name}", "")
            for name in ("kubeadm", "kubectl", "kubelet")
        ),
        ("bin/crictl", crictl_version, crictl_url, "crictl"),
        *((f"cni/{name}", cni_version, cni_url, name) for name in CNI_PLUGINS),
    ]
    return [
        {
            "name": path.partition("/")[2],
            "path": path,
            "version": version,
            "origin": url,
            "url": url,
            **_pinned(url),
            **({"archive_member": member} if member else {}),
            "setting": "bundle_upstream_github_mirror" if member else "bundle_upstream_files_mirror",
        }
        for path, version, url, member in downloads
    ]


def _pinned(url: str) -> dict[str, str]:
    found = next((sha256 for tail, sha256 in PINNED_SHA256.items() if url.endswith(f"/{tail}")), None)
    return {"sha256": found} if found else {}


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


def published_sha256(text: str, url: str) -> str:
    """Return the sum in a ``.sha256`` file: the bare sum, or sha256sum's ``<sum>  <file>``.

    Raises BundleError when ``text`` (fetched from ``url``) does not begin with one.
    """
    found = text.split()[0].lower() if text.split() else ""
    if len(found) != 64 or not set(found) <= set("0123456789abcdef"):
        raise BundleError(f"{url} does not hold a SHA-256 sum. Does the mirror answer with an error page?")
    return found
