#!/usr/bin/python
"""Assemble the directory of files and images that the site is installed from."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle
short_description: Assemble the directory that a site is installed from
description:
  - Keeps one section of a bundle as described - files out of images, local files and downloads, and images in one OCI
    layout - and writes C(manifest.json). What left the section is removed.
  - What is there already is neither copied nor hashed nor asked for again. An interrupted run is continued by the next.
  - Runs on the control machine. Needs C(skopeo) for images, C(podman) for what comes out of local images.
options:
  path:
    description: Directory of the bundle; made when missing.
    type: path
    required: true
  state:
    description:
      - V(present) makes the section as described.
      - V(verified) changes nothing - it checks every file and image of a bundle that was carried here against the
        checksums of its manifest, and fails when one does not fit.
    type: str
    choices: [present, verified]
    default: present
  section:
    description: Which entries this task owns. Needed for O(state=present).
    type: str
    choices: [kubernetes, site]
  source:
    description: Where the Kubernetes parts come from, as the manifest says it. Needed for O(section=kubernetes).
    type: str
  kubernetes_version:
    description: Version of Kubernetes, like V(v1.37.2). Needed for O(section=kubernetes).
    type: str
  files:
    description: The files of the section.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the program.
        type: str
        required: true
      path:
        description: Path inside the bundle.
        type: str
        required: true
      version:
        description: Version of the program.
        type: str
        required: true
      mode:
        description: File mode, octal.
        type: str
        default: "0755"
      origin:
        description: Where it comes from, for people.
        type: str
        required: true
      image:
        description: Local podman image to copy the file from; needs O(files[].image_path).
        type: str
      image_path:
        description: Absolute path of the file in O(files[].image).
        type: str
      src:
        description: Path of the file on this machine.
        type: path
      url:
        description: URL to download from.
        type: str
      sha256:
        description: SHA-256 sum of what O(files[].url) gives. When left out, O(files[].sha256_url) is asked for it.
        type: str
      sha256_url:
        description: >-
          URL of the published sum, alone or as a line of C(sha256sum) with the file's name. When left out,
          C(<url>.sha256).
        type: str
      archive_member:
        description: Take this file out of the downloaded tar archive.
        type: str
      setting:
        description: Setting that O(files[].url) comes from, named when the download fails.
        type: str
  images:
    description: The images of the section.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name in the site's registry, without host.
        type: str
        required: true
      tag:
        description: Tag in the site's registry.
        type: str
        required: true
      from:
        description:
          - C(localhost/...) for an image in podman's store, or C(docker://host/name@sha256:...) or
            C(docker://host/name:tag) for one in a registry.
          - A C(docker://) reference is copied once; name another tag or digest to have another image.
          - C(archive:/path) for a file with one image, as C(podman save) or C(docker save) writes it.
        type: str
        required: true
      sha256:
        description: SHA-256 sum of the file that C(archive:) names. When left out, it is not checked.
        type: str
      origin:
        description: Where it comes from, for people.
        type: str
        required: true
      setting:
        description: Setting that O(images[].from) comes from, named when the copy fails.
        type: str
  kubeadm_registry:
    description:
      - Registry that stands for registry.k8s.io, like V(registry.k8s.io) or V(mirror.example.org/k8s). The bundle's own
        C(bin/kubeadm) is asked which images it needs, and these are copied from there, besides O(images).
    type: str
  tls_verify:
    description: Whether C(docker://) sources must have a valid certificate. V(false) also allows plain HTTP.
    type: bool
    default: true
  auth_file:
    description: Credentials for C(docker://) sources, in the form of C(podman login --authfile).
    type: path
  ca_file:
    description: CA certificates to trust for downloads, PEM. Default - those of the machine.
    type: path
attributes:
  check_mode:
    support: full
    description: Digests and sums that are not known before a copy are zeros then.
  diff_mode:
    support: full
author: jhok.lab
"""

EXAMPLES = r"""
- name: Put a built program and the hub's image into the bundle
  jhok.lab.bundle:
    path: ~/.cache/jhok-lab/bundle/modules
    section: site
    files:
      - name: helper
        path: bin/helper
        version: "1.0"
        origin: images/helper
        image: localhost/jhok/helper:latest
        image_path: /out/helper
    images:
      - name: jhok/hub
        tag: "1.0"
        from: localhost/jhok/hub:latest
        origin: images/hub

- name: Check a bundle that was carried here
  jhok.lab.bundle:
    path: /srv/bundle
    state: verified
"""

RETURN = r"""
manifest:
  description: Content of C(manifest.json).
  returned: always
  type: dict
images:
  description: Image name to digest, all sections.
  returned: always
  type: dict
  sample: {"jhok/hub": "sha256:0d5f..."}
changes:
  description: What was made (by path or by name and tag) and what was removed.
  returned: always
  type: list
  elements: str
  sample: [bin/kubeadm, "kubernetes/pause:3.10.2", removed bin/old]
"""

import contextlib
import fcntl
import gzip
import hashlib
import http.client
import json
import lzma
import os
import shutil
import tarfile
import time
import urllib.error
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.jhok.lab.plugins.module_utils import bundle as spec

CHUNK = 1 << 20
TRIES = 3
#: Beside the manifest: where each entry came from, so that the next run can tell that nothing changed.
STATE = "sources.json"
PARTIAL = ".partial"
COMPRESSED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\0": lzma.open}
SKOPEO = ["skopeo", "--insecure-policy"]  # images are checked by digest; a machine may lack policy.json


def file_sha256(path: Path) -> str:
    """Return the SHA-256 sum of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that an interrupted run leaves the old file or the new one."""
    partial = path.with_name(path.name + ".new")
    partial.write_text(text)
    partial.replace(path)


class Bundle:
    """One run of the module on one bundle directory."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.root = Path(module.params["path"])
        self.section: str = module.params["section"]
        self.check: bool = module.check_mode
        self.changes: list[str] = []
        self._local_ids: dict[str, str] | None = None
        self._archives: dict[str, Path] = {}

    def load(self) -> None:
        """Read what the bundle holds."""
        self.old_text = self._read(spec.MANIFEST)
        self.old = spec.empty_manifest()
        if self.old_text:
            self.old = spec.load_manifest(self.old_text, str(self.root / spec.MANIFEST))
        try:
            self.state: dict[str, Any] = json.loads(self._read(STATE))
        except ValueError:  # missing or damaged: everything is copied again
            self.state = {}

    def _read(self, name: str) -> str:
        try:
            return (self.root / name).read_text()
        except FileNotFoundError:
            return ""

    def _run(self, command: list[str], what: str, **options: object) -> str:
        """Return what ``command`` printed; raise BundleError with its last words when it fails."""
        if shutil.which(command[0]) is None:
            raise spec.BundleError(f"{what}: program {command[0]} is missing on the control machine. Install it.")
        code, out, err = self.module.run_command(command, **options)
        if code != 0:
            raise spec.BundleError(f"{what}: {(err or out).strip()[-2000:]} (command: {' '.join(command)})")
        return str(out)

    # -- what is wanted ------------------------------------------------------------------------------------------

    def local_id(self, reference: str) -> str | None:
        """Return the ID of a local podman image, None when a check-mode run has not built it."""
        if self._local_ids is None and self.check and shutil.which("podman") is None:
            self._local_ids = {}
        if self._local_ids is None:
            listing = self._run(["podman", "images", "--no-trunc", "--format", "json"], "list podman's images")
            self._local_ids = {name: image["Id"] for image in json.loads(listing) for name in image.get("Names") or []}
        full = reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"
        found = self._local_ids.get(full)
        if found is None and not self.check:
            raise spec.BundleError(f"Image {full} is not in podman's store on the control machine. Build it first.")
        return found

    def file_identity(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Return what tells one origin of a file from another."""
        if wanted["image"]:
            return {"image": self.local_id(wanted["image"]), "image_path": wanted["image_path"]}
        if wanted["src"]:
            try:
                stat = Path(wanted["src"]).stat()
            except OSError as error:
                raise spec.BundleError(f"src of {wanted['path']}: {error}") from error
            return {"src": wanted["src"], "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        return {key: wanted[key] for key in ("url", "sha256", "archive_member")}

    # -- files ---------------------------------------------------------------------------------------------------

    def make_file(self, wanted: dict[str, Any]) -> spec.FileEntry:
        """Return the entry of a file that is as wanted, fetched when it was not."""
        spec.check_path(wanted["path"])
        identity = self.file_identity(wanted)
        known = self.state.setdefault("files", {}).get(wanted["path"])
        target = self.root / wanted["path"]
        if known and known["identity"] == identity and target.is_file() and target.stat().st_size == known["size"]:
            if not self.check:
                target.chmod(int(wanted["mode"], 8))
            return spec.file_entry(wanted, self.section, known["sha256"], known["size"])
        self.changes.append(wanted["path"])
        if self.check:
            return spec.file_entry(wanted, self.section, "0" * 64, 0)
        partial = self.root / PARTIAL / "file"
        if wanted["image"]:
            self.copy_out(wanted["image"], wanted["image_path"], partial)
        elif wanted["src"]:
            shutil.copyfile(wanted["src"], partial)
        else:
            self.download(wanted, partial)
        partial.chmod(int(wanted["mode"], 8))
        result: dict[str, Any] = {"identity": identity, "sha256": file_sha256(partial), "size": partial.stat().st_size}
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.replace(target)
        self.state["files"][wanted["path"]] = result
        self.save_state()
        return spec.file_entry(wanted, self.section, result["sha256"], result["size"])

    def copy_out(self, image: str, path: str, target: Path) -> None:
        """Copy a file out of a local podman image."""
        # A fixed name, so that the container of an interrupted run is replaced and not left behind.
        name = "jhok-bundle-" + hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
        what = f"copy {path} out of {image}"
        self._run(
            ["podman", "create", "--quiet", "--replace", "--name", name, "--network", "none", image, "none"], what
        )
        try:
            self._run(["podman", "cp", f"{name}:{path}", str(target)], what)
        finally:
            self._run(["podman", "rm", "--force", name], what)

    def download(self, wanted: dict[str, Any], target: Path) -> None:
        """Download a file or a member of an archive, checked against its sum."""
        url, setting = wanted["url"], wanted["setting"] or "files"
        archive = self._archives.get(url)
        if archive is None:
            expected = wanted["sha256"]
            if not expected:
                published, sums = self.root / PARTIAL / "sha256", wanted["sha256_url"] or f"{url}.sha256"
                self.fetch(sums, setting, published)
                name = url.rpartition("/")[2]
                expected = spec.published_sha256(published.read_text(errors="replace"), sums, name)
            archive = target.with_name(f"download-{len(self._archives)}")
            found = self.fetch(url, setting, archive)
            if found != expected.lower():
                raise spec.BundleError(
                    f"{url} has SHA-256 sum {found}, expected {expected}: it was altered or is another file. "
                    f"Check the mirror ({setting})."
                )
        if not wanted["archive_member"]:
            archive.replace(target)
            return
        self._archives[url] = archive
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name.removeprefix("./") == wanted["archive_member"]:
                    with target.open("wb") as out:
                        shutil.copyfileobj(tar.extractfile(member), out, CHUNK)  # type: ignore[arg-type]
                    return
        raise spec.BundleError(f"{url} holds no file {wanted['archive_member']}.")

    def fetch(self, url: str, setting: str, target: Path) -> str:
        """Download ``url`` to ``target`` and return its SHA-256 sum; tries again when the connection breaks."""
        for attempt in range(1, TRIES + 1):
            try:
                return self._fetch_once(url, target)
            except urllib.error.HTTPError as error:
                if error.code < 500 or attempt == TRIES:
                    raise spec.BundleError(
                        f"{url} answered {error.code} {error.reason}. Check the version and the mirror ({setting})."
                    ) from error
            except (OSError, http.client.HTTPException) as error:
                if attempt == TRIES:
                    raise spec.BundleError(f"{url}: {error}. Check the mirror ({setting}).") from error
            time.sleep(attempt)
        raise AssertionError("unreachable")

    def _fetch_once(self, url: str, target: Path) -> str:
        digest, size = hashlib.sha256(), 0
        with open_url(url, timeout=30, ca_path=self.module.params["ca_file"]) as answer, target.open("wb") as out:
            while chunk := answer.read(CHUNK):
                digest.update(chunk)
                size += out.write(chunk)
            length = answer.headers.get("Content-Length")
        if length is not None and size != int(length):
            raise http.client.IncompleteRead(b"", int(length) - size)
        return digest.hexdigest()

    # -- images --------------------------------------------------------------------------------------------------

    def make_image(self, wanted: dict[str, Any]) -> spec.ImageEntry:
        """Return the entry of an image that is as wanted, copied into the layout when it was not."""
        key, source = spec.image_key(wanted), wanted["from"]
        archive = Path(source.removeprefix("archive:")) if source.startswith("archive:") else None
        remote = source.startswith("docker://")
        if archive:
            identity = self.archive_identity(archive, wanted)
        else:
            identity = {"from": source} if remote else {"image": self.local_id(source)}
        known = self.state.setdefault("images", {}).get(key)
        if known and known["identity"] == identity and self.has_image(known["digest"]):
            return spec.image_entry(wanted, self.section, known["digest"], known["size"])
        self.changes.append(key)
        if self.check:
            return spec.image_entry(wanted, self.section, spec.UNKNOWN_DIGEST, 0)
        command = [*SKOPEO, "copy", "--quiet", "--format", "oci", "--dest-compress-format", "zstd"]
        if remote:
            command += [
                "--retry-times",
                str(TRIES),
                f"--src-tls-verify={str(self.module.params['tls_verify']).lower()}",
            ]
            if self.module.params["auth_file"]:
                command += ["--src-authfile", self.module.params["auth_file"]]
        if archive:
            source = self.archive_source(archive, wanted)
        elif not remote:
            source = f"containers-storage:{source}"
        command += [source, f"oci:{spec.LAYOUT_DIR}:{key}"]
        environment = {"SSL_CERT_FILE": self.module.params["ca_file"]} if self.module.params["ca_file"] else {}
        what = f"copy image {wanted['from']}" + (f" ({wanted['setting']})" if wanted.get("setting") else "")
        self._run(command, what, cwd=str(self.root), environ_update=environment)
        digest, size = spec.find_in_index(json.loads(self._read(f"{spec.LAYOUT_DIR}/index.json")), key)
        self.state["images"][key] = {"identity": identity, "digest": digest, "size": size}
        self.save_state()
        return spec.image_entry(wanted, self.section, digest, size)

    def archive_identity(self, path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
        """Return what tells one archive from another without reading it."""
        try:
            stat = path.stat()
        except OSError as error:
            where = wanted.get("setting") or f"image {wanted['name']}"
            raise spec.BundleError(f"{where}: {path}: {error.strerror}. Give a file on the control machine.") from error
        return {
            "archive": str(path),
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "sha256": wanted.get("sha256"),
        }

    def archive_source(self, path: Path, wanted: dict[str, Any]) -> str:
        """Return an archive as skopeo names it, once it has the wanted sum and holds one image."""
        where = f"{path} ({wanted['setting']})" if wanted.get("setting") else str(path)
        if wanted.get("sha256"):
            found = file_sha256(path)
            if found != wanted["sha256"].lower():
                raise spec.BundleError(
                    f"{where} has SHA-256 sum {found}, expected {wanted['sha256']}: it was altered or is another file."
                )
        plain = self.root / PARTIAL / "archive"  # a name that skopeo does not split, and never compressed
        content = {}
        try:
            self.decompress(path, plain)
            with tarfile.open(plain, "r:") as tar:
                for member in tar:
                    name = member.name.removeprefix("./")
                    if name in spec.ARCHIVES and member.isfile():
                        content[name] = json.load(tar.extractfile(member))  # type: ignore[arg-type]
        except (tarfile.TarError, gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError, ValueError):
            content = {}
        return f"{spec.archive_form(content, where)}:{plain.relative_to(self.root)}"

    def decompress(self, path: Path, target: Path) -> None:
        """Make `target` the tar archive that `path` is or holds."""
        target.unlink(missing_ok=True)
        with path.open("rb") as stream:
            start = stream.read(6)
        opener = next((opener for magic, opener in COMPRESSED.items() if start.startswith(magic)), None)
        if opener is None:
            target.symlink_to(path.resolve())
            return
        with opener(path) as packed, target.open("wb") as out:
            shutil.copyfileobj(packed, out, CHUNK)

    def image_blobs(self, digest: str) -> dict[str, int]:
        """Return digest and size of all blobs of an image, its manifest included; KeyError or OSError when damaged."""
        text = (self.root / spec.blob_path(digest)).read_bytes()
        return {digest: len(text), **spec.image_blobs(json.loads(text))}

    def has_image(self, digest: str) -> bool:
        """Whether all blobs of an image are there in their full size."""
        try:
            blobs = self.image_blobs(digest)
            return all((self.root / spec.blob_path(blob)).stat().st_size == size for blob, size in blobs.items())
        except (OSError, ValueError, KeyError):
            return False

    def kubeadm_images(self, files: list[spec.FileEntry]) -> list[dict[str, Any]]:
        """Return the images that the bundle's kubeadm needs, as ``images``."""
        version, registry = self.module.params["kubernetes_version"], self.module.params["kubeadm_registry"]
        program = next((entry for entry in files if entry["path"] == "bin/kubeadm"), None)
        if program is None:
            raise spec.BundleError("kubeadm_registry needs bin/kubeadm among files.")
        if self.check and program["path"] in self.changes:
            return []  # not there to be asked
        identity = [program["sha256"], version]
        known = self.state.get("kubeadm", {})
        if known.get("identity") != identity:
            command = [str(self.root / program["path"]), "config", "images", "list", "--kubernetes-version", version]
            command += ["--image-repository", spec.KUBEADM_DEFAULT_REGISTRY]
            known = {"identity": identity, "listing": self._run(command, "ask kubeadm for its images")}
            self.state["kubeadm"] = known
        return spec.kubeadm_images(known["listing"], registry)

    # -- the whole -----------------------------------------------------------------------------------------------

    def save_state(self) -> None:
        """Keep what is done, so that an interrupted run is continued."""
        write_atomically(self.root / STATE, spec.dump(self.state))

    @contextlib.contextmanager
    def workspace(self) -> Iterator[None]:
        """Hold the bundle for this run alone, with an empty directory for what is not whole yet."""
        if self.check:
            self.load()
            yield
            return
        partial = self.root / PARTIAL
        self.root.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # an interrupted play may have left its module at work
            self.load()
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            os.close(lock)

    def assemble(self) -> spec.Manifest:
        """Make the section as wanted and return the new manifest."""
        params = self.module.params
        if not self.check and not self._index_is_whole():
            write_atomically(self.layout("oci-layout"), spec.dump({"imageLayoutVersion": "1.0.0"}))
            write_atomically(self.layout("index.json"), spec.dump(spec.layout_index(self.old)))
        files = [self.make_file(wanted) for wanted in params["files"]]
        images = list(params["images"])
        if params["kubeadm_registry"]:
            images += self.kubeadm_images(files)
        new = spec.merge(
            self.old,
            self.section,
            files,
            [self.make_image(wanted) for wanted in images],
            params["source"],
            params["kubernetes_version"],
        )
        self.prune(new)
        if not self.check:
            self.write(new)
        return new

    def layout(self, name: str) -> Path:
        """Return the path of a file of the OCI layout, its directory made."""
        directory = self.root / spec.LAYOUT_DIR
        directory.mkdir(parents=True, exist_ok=True)
        return directory / name

    def _index_is_whole(self) -> bool:
        try:
            return "manifests" in json.loads(self._read(f"{spec.LAYOUT_DIR}/index.json"))
        except ValueError:
            return False

    def prune(self, new: spec.Manifest) -> None:
        """Remove what no entry names any more: this section's files, blobs, and their records."""
        kept = {entry["path"] for entry in new["files"]}
        tags = {spec.image_key(entry) for entry in new["images"]}
        had = {entry["path"] for entry in self.old["files"]} | set(self.state.get("files", {}))
        gone = sorted(path for path in had - kept if (self.root / path).exists())
        blobs: set[str] = set()
        if not self.check:
            for entry in new["images"]:
                blobs |= set(self.image_blobs(entry["digest"]))
        directory = self.root / spec.LAYOUT_DIR / "blobs" / "sha256"
        stray = [blob for blob in directory.glob("*") if f"sha256:{blob.name}" not in blobs] if not self.check else []
        left = {spec.image_key(entry) for entry in self.old["images"]} - tags
        self.changes += [f"removed {name}" for name in [*gone, *sorted(left)]]
        if self.check:
            return
        for path in [*(self.root / path for path in gone), *stray]:
            path.unlink()
        self.state["files"] = {key: value for key, value in self.state.get("files", {}).items() if key in kept}
        self.state["images"] = {key: value for key, value in self.state.get("images", {}).items() if key in tags}

    def write(self, new: spec.Manifest) -> None:
        """Write what describes the bundle, where it differs; the manifest last."""
        texts = {
            self.layout("index.json"): spec.dump(spec.layout_index(new)),
            self.root / STATE: spec.dump(self.state),
            self.root / spec.MANIFEST: spec.dump(new),
        }
        for path, text in texts.items():
            if not path.exists() or path.read_text() != text:
                write_atomically(path, text)

    def verify(self) -> spec.Manifest:
        """Hash everything that the manifest names; raise BundleError with all that does not fit."""
        self.load()
        if not self.old_text:
            raise spec.BundleError(f"{self.root} holds no {spec.MANIFEST}: it is no bundle. Check the path.")
        wanted = {entry["path"]: entry["sha256"] for entry in self.old["files"]}
        faults = []
        for image in self.old["images"]:
            try:
                blobs = self.image_blobs(image["digest"])
            except (OSError, ValueError, KeyError):
                faults.append(f"image {spec.image_key(image)}: manifest missing or damaged")
                continue
            wanted |= {spec.blob_path(digest): digest.removeprefix("sha256:") for digest in blobs}
        for path, expected in sorted(wanted.items()):
            try:
                if file_sha256(self.root / path) != expected:
                    faults.append(f"{path}: SHA-256 sum differs")
            except OSError as error:
                faults.append(f"{path}: {error.strerror}")
        if json.loads(self._read(f"{spec.LAYOUT_DIR}/index.json") or "{}") != spec.layout_index(self.old):
            faults.append(f"{spec.LAYOUT_DIR}/index.json: missing or not what the manifest says")
        if faults:
            raise spec.BundleError(f"Bundle {self.root} is damaged; copy it again. " + "; ".join(faults))
        return self.old


def main() -> None:
    """Run the module."""
    string: dict[str, Any] = {"type": "str"}
    needed: dict[str, Any] = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "verified"], "default": "present"},
            "section": {"type": "str", "choices": list(spec.SECTIONS)},
            "source": string,
            "kubernetes_version": string,
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **dict.fromkeys(("name", "path", "version", "origin"), needed),
                    "mode": {"type": "str", "default": "0755"},
                    "src": {"type": "path"},
                    **dict.fromkeys(
                        ("image", "image_path", "url", "sha256", "sha256_url", "archive_member", "setting"), string
                    ),
                },
                "required_one_of": [("image", "src", "url")],
                "mutually_exclusive": [("image", "src", "url")],
                "required_together": [("image", "image_path")],
            },
            "images": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **dict.fromkeys(("name", "tag", "from", "origin"), needed),
                    **dict.fromkeys(("sha256", "setting"), string),
                },
            },
            "kubeadm_registry": string,
            "tls_verify": {"type": "bool", "default": True},
            "auth_file": {"type": "path"},
            "ca_file": {"type": "path"},
        },
        required_if=[("state", "present", ("section",)), ("section", "kubernetes", ("source", "kubernetes_version"))],
        supports_check_mode=True,
    )
    try:
        bundle = Bundle(module)
        if module.params["state"] == "verified":
            manifest = bundle.verify()
        else:
            with bundle.workspace():
                manifest = bundle.assemble()
    except (spec.BundleError, OSError) as error:
        module.fail_json(msg=str(error))
    new_text = spec.dump(manifest)
    module.exit_json(
        changed=bool(bundle.changes) or new_text != spec.dump(bundle.old),
        manifest=manifest,
        images={image["name"]: image["digest"] for image in manifest["images"]},
        changes=bundle.changes,
        diff={
            "before": bundle.old_text,
            "after": new_text,
            "before_header": "manifest.json",
            "after_header": "manifest.json",
        },
    )


if __name__ == "__main__":
    main()
