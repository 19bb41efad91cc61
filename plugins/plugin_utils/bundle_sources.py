"""What a bundle holds for a release of Kubernetes, from each of its sources. Pure.

Source ``modules`` builds every program from its Go module, in a folder of ``images/`` per family of programs. Source
``upstream`` downloads the projects' own files. The versions of both come from :mod:`versions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.versions import Release

CNI_PLUGINS = ("bandwidth", "bridge", "firewall", "host-local", "loopback", "portmap", "tuning")
"""The CNI plugins of a node: its pod network's, and those that device vendors' set-ups name."""

PROGRAMS = "programs"
"""The stage of each folder that holds the programs (``/out/bin``) and the list of their parts (``/out/parts.json``)."""


@dataclass(frozen=True)
class Family:
    """Programs that are built from one Go module.

    Attributes:
        name: the folder below ``images/``, and the field of Release that says the version.
        module: path of the Go module.
        programs: the programs that go into the bundle, by their paths there.
        images: the images that kubeadm asks for, each a stage of the folder, with what its tag has after the version.
        per_minor: whether the folder has a folder per minor release of Kubernetes.
        note: what to tell a person who waits for it.

    """

    name: str
    module: str
    programs: tuple[str, ...]
    images: Mapping[str, str] = field(default_factory=dict)
    per_minor: bool = False
    note: str = ""

    @property
    def version_field(self) -> str:
        """Return the field of Release that says this family's version."""
        return self.name.replace("-", "_")

    def image_name(self, release: Release, stage: str) -> str:
        """Return the name below ``localhost/jhok/`` of what a stage gives for a release."""
        return f"{self.name}-{release.minor}/{stage}" if self.per_minor else f"{self.name}/{stage}"


FAMILIES = (
    Family(
        name="kubernetes",
        module="k8s.io/kubernetes",
        programs=("bin/kubeadm", "bin/kubectl", "bin/kubelet"),
        images=dict.fromkeys(
            ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "pause"), ""
        ),
        per_minor=True,
        note="about 6 min when nothing is cached",
    ),
    Family(
        name="etcd",
        module="go.etcd.io/etcd/server/v3",
        programs=("bin/etcdctl", "bin/etcdutl"),
        images={"etcd": "-0"},
        per_minor=True,
        note="about 30 s when nothing is cached",
    ),
    Family(
        name="coredns",
        module="github.com/coredns/coredns",
        programs=(),
        images={"coredns": ""},
        per_minor=True,
        note="about 30 s when nothing is cached",
    ),
    Family(
        name="crictl",
        module="sigs.k8s.io/cri-tools",
        programs=("bin/crictl",),
        note="about 30 s when nothing is cached",
    ),
    Family(
        name="containerd",
        module="github.com/containerd/containerd/v2",
        programs=("bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr"),
        note="about 40 s when nothing is cached",
    ),
    Family(
        name="runc",
        module="github.com/opencontainers/runc",
        programs=("bin/runc",),
        note="about 10 s when nothing is cached",
    ),
    Family(
        name="cni-plugins",
        module="github.com/containernetworking/plugins",
        programs=tuple(f"cni/{name}" for name in CNI_PLUGINS),
        note="about 10 s when nothing is cached",
    ),
)


def version_of(release: Release, family: Family, stage: str = "") -> str:
    """Return the version of a family's programs, or of one of its stages, in a release; without a leading ``v``."""
    return str(getattr(release, "pause" if stage == "pause" else family.version_field))


def module_builds(release: Release, folder: str) -> list[dict[str, Any]]:
    """Return what has to be built for a release, as modules ``image_info`` and ``image_build`` take it.

    Args:
        release: the release of Kubernetes.
        folder: the directory of the images' folders.

    """
    return [
        {
            "name": family.image_name(release, stage),
            "folder": f"{folder}/{family.name}",
            "target": stage,
            "build_args": {"minor": release.minor} if family.per_minor else {},
            "note": family.note if stage == PROGRAMS else "a few seconds",
        }
        for family in FAMILIES
        for stage in (PROGRAMS, *family.images)
    ]


def module_files(release: Release, references: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the files of source ``modules`` as ``files`` of module ``jhok.lab.bundle``.

    Args:
        release: the release of Kubernetes.
        references: local image of each name of :func:`module_builds`.

    """
    files = []
    for family in FAMILIES:
        image, version = references[family.image_name(release, PROGRAMS)], version_of(release, family)
        parts = f"parts/{family.name}.json"
        origin = f"Go module {family.module} v{version}, built in images/{family.name}; {parts} lists its parts"
        for path in family.programs:
            name = path.rpartition("/")[2]
            files.append(_file(path, version, origin, image=image, image_path=f"/out/bin/{name}"))
        origin = f"Modules of the programs that images/{family.name} builds, with their sums"
        files.append(_file(parts, version, origin, image=image, image_path="/out/parts.json", mode="0644"))
    return files


def module_images(release: Release, references: Mapping[str, str]) -> list[dict[str, str]]:
    """Return the images of source ``modules`` as ``images`` of module ``jhok.lab.bundle``; arguments: module_files."""
    return [
        {
            "name": f"kubernetes/{stage}",
            "tag": image_tag(release, family, stage),
            "from": references[family.image_name(release, stage)],
            "origin": f"Go module {family.module} v{version_of(release, family)}, built in images/{family.name}",
        }
        for family in FAMILIES
        for stage in family.images
    ]


def image_tag(release: Release, family: Family, stage: str) -> str:
    """Return the tag under which kubeadm asks for an image."""
    prefix = "" if stage in ("etcd", "pause") else "v"
    return f"{prefix}{version_of(release, family, stage)}{family.images[stage]}"


def upstream_files(release: Release, files_mirror: str, github_mirror: str) -> list[dict[str, str]]:
    """Return the files of source ``upstream`` as ``files`` of module ``jhok.lab.bundle``.

    Args:
        release: the release of Kubernetes.
        files_mirror: stands for https://dl.k8s.io/release.
        github_mirror: stands for https://github.com.

    """
    kubernetes = f"{files_mirror.rstrip('/')}/v{release.kubernetes}/bin/linux/amd64"
    files = [
        _download(
            release, f"bin/{name}", release.kubernetes, f"{kubernetes}/{name}", setting="bundle_upstream_files_mirror"
        )
        for name in ("kubeadm", "kubectl", "kubelet")
    ]
    for project, version, archive, members, sums in _archives(release):
        base = f"{github_mirror.rstrip('/')}/{project}/releases/download/v{version}"
        more = {"setting": "bundle_upstream_github_mirror"} | ({"sha256_url": f"{base}/{sums}"} if sums else {})
        for path, member in members.items():
            inside = {"archive_member": member} if member else {}
            files.append(_download(release, path, version, f"{base}/{archive}", **inside, **more))
    return files


def _archives(release: Release) -> Iterator[tuple[str, str, str, dict[str, str], str]]:
    """Give project, version, file, members by path in the bundle, and file of sums (default ``<file>.sha256``)."""
    etcd = f"etcd-v{release.etcd}-linux-amd64"
    tools = {f"bin/{name}": f"{etcd}/{name}" for name in ("etcdctl", "etcdutl")}
    yield "etcd-io/etcd", release.etcd, f"{etcd}.tar.gz", tools, "SHA256SUMS"
    crictl = f"crictl-v{release.crictl}-linux-amd64.tar.gz"
    yield "kubernetes-sigs/cri-tools", release.crictl, crictl, {"bin/crictl": "crictl"}, ""
    # The static build runs on every supported Debian and Ubuntu, whichever C library that has.
    containerd = f"containerd-static-{release.containerd}-linux-amd64.tar.gz"
    programs = {path: path for path in ("bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr")}
    yield "containerd/containerd", release.containerd, containerd, programs, f"{containerd}.sha256sum"
    yield "opencontainers/runc", release.runc, "runc.amd64", {"bin/runc": ""}, "runc.sha256sum"
    plugins = f"cni-plugins-linux-amd64-v{release.cni_plugins}.tgz"
    yield (
        "containernetworking/plugins",
        release.cni_plugins,
        plugins,
        {f"cni/{name}": name for name in CNI_PLUGINS},
        "",
    )


def _download(release: Release, path: str, version: str, url: str, **more: str) -> dict[str, str]:
    return _file(path, version, url, url=url, **_pinned(release, url), **more)


def _file(path: str, version: str, origin: str, **source: str) -> dict[str, str]:
    return {"name": path.partition("/")[2], "path": path, "version": f"v{version}", "origin": origin, **source}


def _pinned(release: Release, url: str) -> dict[str, str]:
    found = next((sha256 for tail, sha256 in release.sha256.items() if url.endswith(f"/{tail}")), None)
    return {"sha256": found} if found else {}
