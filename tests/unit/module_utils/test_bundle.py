"""The bundle's manifest, layout and artifact names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.module_utils import bundle

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle"
KUBEADM = """\
registry.k8s.io/kube-apiserver:v1.37.2
registry.k8s.io/kube-controller-manager:v1.37.2
registry.k8s.io/kube-scheduler:v1.37.2
registry.k8s.io/kube-proxy:v1.37.2
registry.k8s.io/coredns/coredns:v1.14.6
registry.k8s.io/pause:3.10.2
registry.k8s.io/etcd:3.7.0-0
"""


def file_entry(path: str, section: str = "kubernetes") -> bundle.FileEntry:
    wanted = {"name": Path(path).name, "path": path, "version": "1", "mode": "0755", "origin": "here"}
    return bundle.file_entry(wanted, section, "a" * 64, 3)


def image_entry(name: str, tag: str = "1", section: str = "kubernetes") -> bundle.ImageEntry:
    return bundle.image_entry({"name": name, "tag": tag, "origin": "here"}, section, "sha256:" + "b" * 64, 7)


def filled() -> bundle.Manifest:
    kubernetes = bundle.merge(
        bundle.empty_manifest(),
        "kubernetes",
        [file_entry("bin/kubelet")],
        [image_entry("kubernetes/etcd")],
        "modules",
        "v1",
    )
    return bundle.merge(kubernetes, "site", [], [image_entry("jhok/hub", section="site")])


def golden(name: str, value: object) -> None:
    assert yaml.safe_load((GOLDEN / name).read_text()) == value


def test_manifest_is_sorted_and_survives_a_round_trip() -> None:
    text = bundle.dump(filled())
    assert bundle.load_manifest(text, "manifest.json") == filled()
    assert text == bundle.dump(json.loads(text))
    assert [image["name"] for image in filled()["images"]] == ["jhok/hub", "kubernetes/etcd"]


def test_manifest_golden() -> None:
    golden("manifest.yml", filled())
    golden("index.yml", bundle.layout_index(filled()))


def test_merge_replaces_its_section_alone() -> None:
    merged = bundle.merge(filled(), "site", [file_entry("bin/new", "site")], [])
    assert [entry["path"] for entry in merged["files"]] == ["bin/kubelet", "bin/new"]
    assert [image["name"] for image in merged["images"]] == ["kubernetes/etcd"]
    assert (merged["source"], merged["kubernetes_version"]) == ("modules", "v1")


@pytest.mark.parametrize(
    ("files", "images", "named"),
    [
        ([file_entry("bin/kubelet", "site")], [], "path bin/kubelet"),
        ([], [image_entry("kubernetes/etcd", section="site")], "image kubernetes/etcd:1"),
    ],
)
def test_merge_refuses_what_another_section_has(
    files: list[bundle.FileEntry], images: list[bundle.ImageEntry], named: str
) -> None:
    with pytest.raises(bundle.BundleError, match=named):
        bundle.merge(filled(), "site", files, images)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[]", "format 1"),
        ('{"format": 2}', "format 1"),
        ('{"format": 1}', "lacks 'kubernetes_version'"),
    ],
)
def test_load_refuses_what_is_no_manifest(text: str, why: str) -> None:
    with pytest.raises(bundle.BundleError, match=why):
        bundle.load_manifest(text, "manifest.json")


@pytest.mark.parametrize(
    "path", ["/bin/x", "../x", "bin/../../x", "images/x", "manifest.json", ".partial/x", "bin//x", "."]
)
def test_path_must_stay_in_the_bundle(path: str) -> None:
    with pytest.raises(bundle.BundleError, match="relative path"):
        bundle.check_path(path)


def test_plain_path_is_taken() -> None:
    bundle.check_path("cni/host-local")


def test_find_in_index() -> None:
    index = bundle.layout_index(filled())
    assert bundle.find_in_index(index, "jhok/hub:1") == ("sha256:" + "b" * 64, 7)
    with pytest.raises(bundle.BundleError, match="jhok/hub:2"):
        bundle.find_in_index(index, "jhok/hub:2")


def test_image_refs() -> None:
    refs = bundle.image_refs(filled(), "172.16.0.100:5000")
    assert refs["jhok/hub"] == "172.16.0.100:5000/jhok/hub@sha256:" + "b" * 64
    assert bundle.image_refs({}, "172.16.0.100:5000") == {}


def test_kubeadm_images_golden() -> None:
    golden("kubeadm_images.yml", bundle.kubeadm_images(KUBEADM, "mirror.example.org:5000/k8s/"))


@pytest.mark.parametrize("listing", ["", "W1122 falling back", "k8s.gcr.io/pause:3.2"])
def test_kubeadm_images_refuses_what_kubeadm_does_not_print(listing: str) -> None:
    with pytest.raises(bundle.BundleError, match="kubeadm config images list printed"):
        bundle.kubeadm_images(listing, "registry.k8s.io")


@pytest.mark.parametrize(
    "text",
    [
        "A" * 64,
        f"{'a' * 64}  cni-plugins.tgz\n",
        f"{'a' * 64}\n",
        f"{'b' * 64}  other.tgz\n{'a' * 64} *cni-plugins.tgz\n",
        f"{'b' * 64}  other.tgz\n{'a' * 64}  ./out/cni-plugins.tgz\n",
    ],
)
def test_published_sha256(text: str) -> None:
    assert bundle.published_sha256(text, "http://m/sums", "cni-plugins.tgz") == "a" * 64


@pytest.mark.parametrize(
    "text", ["", "<html>not found</html>", "a" * 63, "g" * 64, f"{'b' * 64}  other.tgz\n{'a' * 64}  another.tgz\n"]
)
def test_published_sha256_refuses_anything_else(text: str) -> None:
    with pytest.raises(bundle.BundleError, match=r"http://m/sums .* sum of cni-plugins\.tgz"):
        bundle.published_sha256(text, "http://m/sums", "cni-plugins.tgz")


def test_image_blobs() -> None:
    oci: dict[str, Any] = {"config": {"digest": "sha256:c", "size": 1}, "layers": [{"digest": "sha256:l", "size": 2}]}
    assert bundle.image_blobs(oci) == {"sha256:c": 1, "sha256:l": 2}
    assert bundle.blob_path("sha256:c") == "images/blobs/sha256/c"


IMAGE = {"Config": "c.json", "RepoTags": ["r:1"], "Layers": []}


@pytest.mark.parametrize(
    ("found", "form"),
    [
        ({"manifest.json": [IMAGE]}, "docker-archive"),
        ({"index.json": {"manifests": [{}]}}, "oci-archive"),
        ({"index.json": {"manifests": [{}, {}]}, "manifest.json": [IMAGE]}, "docker-archive"),
    ],
)
def test_form_of_an_archive(found: dict[str, object], form: str) -> None:
    assert bundle.archive_form(found, "a.tar") == form


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ({}, "a.tar is no archive of an image. Write it with podman save"),
        ({"manifest.json": [IMAGE, IMAGE]}, "a.tar holds 2 images. Save the one"),
        ({"manifest.json": {"format": 1}}, "a.tar holds 0 images."),
        ({"index.json": {"manifests": []}}, "a.tar holds 0 images."),
        ({"index.json": {"schemaVersion": 2}}, "a.tar holds 0 images."),
    ],
)
def test_archives_without_one_image_are_refused(found: dict[str, object], says: str) -> None:
    with pytest.raises(bundle.BundleError, match=f"^{says}"):
        bundle.archive_form(found, "a.tar")
