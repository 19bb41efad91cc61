"""Role images with an image that the site gives: copied from a real registry, from archives, built of a Debian package.

Needs ansible-playbook, docker-registry, skopeo and, as root, podman; the Debian package needs a Debian mirror too. The
image stands for Grafana's, which no test can have, and comes to the site by the same settings.
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.jhok.lab.plugins.module_utils import images
from ansible_collections.jhok.lab.plugins.modules import registry_push
from oci import make_layout, registry_of, skopeo

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NAME, TAG = "grafana/grafana", "12.1.0"
STORED = "localhost/jhoktest-grafana:12.1.0"
LIMITS = ("--ulimit=nofile=16384:16384", "--ulimit=nproc=32768:32768")  # lower than a machine may have set
FILES = ("grafana", "plugins", "hello")  # a layer each

Play = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Return a function that runs role images alone on this machine, with nothing else to build."""
    (tmp_path / "group_vars").symlink_to(ROOT / "playbooks" / "group_vars")
    playbook = tmp_path / "play.yml"
    tasks = [{"ansible.builtin.include_role": {"name": "jhok.lab.images"}}]

    def run(*arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
        given = {
            "ansible_python_interpreter": sys.executable,
            "bundle_dir": str(tmp_path / "bundle"),
            "images_catalogue": [],
            **variables,
        }
        playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": given, "tasks": tasks}]))
        return subprocess.run(
            [
                str(Path(sys.executable).with_name("ansible-playbook")),
                "-i",
                "localhost,",
                "-c",
                "local",
                str(playbook),
                *arguments,
            ],
            cwd=ROOT,
            env=os.environ | {"no_proxy": "127.0.0.1", "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def layers(tmp_path: Path) -> list[str]:
    """Make the image and return its layers' diff IDs."""
    return make_layout(tmp_path / "upstream", [NAME], FILES)


@pytest.fixture
def stored(tmp_path: Path, layers: list[str]) -> Iterator[list[str]]:
    """Put the image into podman's store, where `podman save` finds it."""
    skopeo("copy", "-q", f"oci:{tmp_path}/upstream:{NAME}", f"containers-storage:{STORED}")
    yield layers
    subprocess.run(["podman", "image", "rm", STORED], check=True, capture_output=True)


def entry(bundle: Path) -> dict[str, Any]:
    """Return the one image of the bundle's manifest."""
    (image,) = json.loads((bundle / "manifest.json").read_text())["images"]
    assert (image["name"], image["section"]) == ("jhok/grafana", "site")
    return dict(image)


def config(source: str, *options: str) -> dict[str, Any]:
    """Return the configuration of an image."""
    return dict(json.loads(skopeo("inspect", "--config", *options, source)))


def refused(run: subprocess.CompletedProcess[str], *words: str) -> None:
    said = " ".join((run.stdout + run.stderr).split())
    assert run.returncode != 0, said
    for word in words:
        assert word in said


def changed_nothing(run: subprocess.CompletedProcess[str]) -> bool:
    assert run.returncode == 0, run.stdout + run.stderr
    return "changed=0 " in run.stdout


def test_from_a_registry(tmp_path: Path, play: Play, layers: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    with registry_of(tmp_path) as registry:
        upstream = f"docker://{registry}/mirror/{NAME}:{TAG}"
        skopeo("copy", "-q", "--dest-tls-verify=false", "--format=v2s2", f"oci:{tmp_path}/upstream:{NAME}", upstream)
        digest = json.loads(skopeo("inspect", "--tls-verify=false", upstream))["Digest"]
        image = f"registry.example.org/{NAME}:{TAG}@{digest}"
        settings = {
            "monitoring_grafana_image": image,
            "images_registries": {"registry.example.org": f"{registry}/mirror"},
            "images_registries_tls_verify": False,
        }

        # A check run fetches nothing.
        assert not changed_nothing(play("--check", **settings))
        assert not bundle.exists()

        # What names no certain image, or one that is not there, is told with the variable to look at.
        given = play(**(settings | {"monitoring_grafana_image": f"registry.example.org/{NAME}:{TAG}"}))
        refused(given, f"monitoring_grafana_image: 'registry.example.org/{NAME}:{TAG}' names no image for good")
        absent = "sha256:" + "0" * 64
        given = play(**(settings | {"monitoring_grafana_image": f"registry.example.org/{NAME}:{TAG}@{absent}"}))
        refused(given, "(monitoring_grafana_image)", f"/mirror/{NAME}@{absent}", "manifest unknown")
        assert not (bundle / "manifest.json").exists()

        assert not changed_nothing(play(**settings))
        made = entry(bundle)
        assert (made["tag"], made["origin"]) == (TAG, image)
        copied = config(f"oci:{bundle}/images:{made['layout_ref']}")
        assert (copied["config"]["Labels"], copied["rootfs"]["diff_ids"]) == ({"name": NAME}, layers)

        # It goes to the site's registry under its digest.
        push = {"url": f"http://{registry}", "layout": str(bundle / "images"), "images": [made]}
        with patch_module_args(push), pytest.raises(SystemExit):
            registry_push.main()
        assert json.loads(capsys.readouterr().out)["pushed"] == [f"jhok/grafana:{TAG}"]
        pushed = config(f"docker://{registry}/jhok/grafana@{made['digest']}", "--tls-verify=false")
        assert pushed == copied

    # The registry is gone: what is in the bundle is not asked for again, and what is not cannot be had.
    assert changed_nothing(play(**settings))
    other = settings | {"bundle_dir": str(tmp_path / "other")}
    refused(play(**other), "(monitoring_grafana_image)", registry, "connection refused")

    # Another choice takes it out of the bundle.
    assert not changed_nothing(play(monitoring_ui="perses", **settings))
    assert json.loads((bundle / "manifest.json").read_text())["images"] == []
    assert list((bundle / "images/blobs/sha256").iterdir()) == []


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("writer", ["podman", "skopeo", "gzip", "lzma"])
def test_from_an_archive(tmp_path: Path, play: Play, stored: list[str], writer: str, form: str) -> None:
    archive = tmp_path / "grafana 12: image.tar"
    plain = tmp_path / "grafana.tar"
    if writer == "podman":
        subprocess.run(["podman", "save", "-q", "--format", form, "-o", plain, STORED], check=True)
    else:
        skopeo("copy", "-q", f"oci:{tmp_path}/upstream:{NAME}", f"{form}:{plain}")
    pack = {"gzip": gzip.compress, "lzma": lzma.compress}.get(writer, bytes)
    archive.write_bytes(pack(plain.read_bytes()))
    settings = {"monitoring_grafana_archive": str(archive)}
    assert not changed_nothing(play(**settings))
    made = entry(tmp_path / "bundle")
    assert (made["tag"], made["origin"]) == ("latest", f"archive {archive.name}")
    copied = config(f"oci:{tmp_path}/bundle/images:{made['layout_ref']}")
    assert (copied["config"]["Labels"], copied["rootfs"]["diff_ids"]) == ({"name": NAME}, stored)
    assert changed_nothing(play(**settings))


@pytest.mark.usefixtures("layers")
def test_archives_that_are_not_what_they_should_be(tmp_path: Path, play: Play) -> None:
    archive = tmp_path / "grafana.tar"
    settings = {"monitoring_grafana_archive": str(archive)}
    # Told before anything is built.
    run = play(**settings)
    refused(run, f"monitoring_grafana_archive: {archive}: No such file or directory.")
    assert "Put the site's images into the bundle" not in run.stdout
    refused(play("--check", **settings), f"monitoring_grafana_archive: {archive}: No such file or directory.")
    archive.write_text("<html>404")
    refused(play(**settings), f"{archive} (monitoring_grafana_archive) is no archive of an image.")
    with gzip.open(archive, "w") as stream:
        stream.write(b"not a tar" * 1000)
    archive.write_bytes(archive.read_bytes()[:-9])
    refused(play(**settings), "is no archive of an image. Write it with podman save or docker save.")
    make_layout(tmp_path / "two", ["one", "two"])
    shutil.make_archive(str(archive.with_suffix("")), "tar", tmp_path / "two")
    refused(play(**settings), f"{archive} (monitoring_grafana_archive) holds 2 images.")
    archive.unlink()
    skopeo("copy", "-q", f"oci:{tmp_path}/upstream:{NAME}", f"docker-archive:{archive}:{NAME}:{TAG}")
    refused(play(monitoring_grafana_archive_sha256="0" * 64, **settings), "SHA-256 sum", "it was altered or is another")
    assert not (tmp_path / "bundle/manifest.json").exists()
    found = subprocess.check_output(["sha256sum", archive], text=True).split()[0]
    assert not changed_nothing(play(monitoring_grafana_archive_sha256=found.upper(), **settings))

    # Another file of the same name is another image.
    assert not changed_nothing(play(**settings))
    assert changed_nothing(play(**settings))
    before = entry(tmp_path / "bundle")["digest"]
    make_layout(tmp_path / "next", [NAME], ["other"])
    archive.unlink()
    skopeo("copy", "-q", f"oci:{tmp_path}/next:{NAME}", f"docker-archive:{archive}:{NAME}:{TAG}")
    assert not changed_nothing(play(**settings))
    assert entry(tmp_path / "bundle")["digest"] != before


@pytest.fixture
def grafana_images() -> Iterator[None]:
    """Remove the images that a test built under Grafana's name, and leave those of before, as they were called."""
    listing = ["podman", "image", "ls", "--no-trunc", "--format", "{{.Id}} {{.Repository}}:{{.Tag}}"]
    name = "localhost/jhok/grafana"

    def listed() -> dict[str, str]:
        lines = subprocess.check_output([*listing, name], text=True).split("\n")
        return {tag: image for image, _, tag in (line.partition(" ") for line in lines) if tag}

    before = listed()
    yield
    for tag in listed().keys() - before.keys():
        subprocess.run(["podman", "image", "rm", tag], check=True, capture_output=True)
    if f"{name}:latest" in before:
        subprocess.run(["podman", "tag", before[f"{name}:latest"], f"{name}:latest"], check=True)


def make_package(directory: Path, package: str, version: str) -> Path:
    """Build a Debian package with a stand-in for Grafana's server that says its version, user and arguments."""
    tree = directory / f"{package}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    fields = {"Package": package, "Version": version, "Architecture": "amd64", "Depends": "adduser, netbase"}
    fields |= {"Maintainer": "Nobody <nobody@example.org>", "Description": "stand-in"}
    (tree / "DEBIAN/control").write_text("".join(f"{key}: {value}\n" for key, value in fields.items()))
    program = tree / "usr/sbin/grafana-server"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\necho "{version} $(id -u):$(id -g) $*"\n')
    program.chmod(0o755)
    target = directory / f"{package}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, target], check=True, capture_output=True)
    return target


@pytest.mark.usefixtures("grafana_images")
def test_from_a_debian_package(tmp_path: Path, play: Play) -> None:
    package = make_package(tmp_path, "grafana", "12.1.0")
    settings = {"monitoring_grafana_deb": str(package)}
    refused(play(monitoring_grafana_deb=f"{package}.gone"), f"monitoring_grafana_deb: {package}.gone: No such file")
    other = make_package(tmp_path, "netdata", "1.0")
    refused(play(monitoring_grafana_deb=str(other)), "grafana_deb is package netdata, not grafana")
    other.write_text("<html>404")
    refused(play(monitoring_grafana_deb=str(other)), "grafana_deb is no Debian package")
    assert not (tmp_path / "bundle").exists()

    assert not changed_nothing(play(**settings))
    made = entry(tmp_path / "bundle")
    assert made["origin"] == "images/grafana"

    def says() -> str:
        image = f"localhost/jhok/grafana:{entry(tmp_path / 'bundle')['tag']}"
        podman = images.podman_command(Path("/sys/fs/cgroup/cgroup.controllers").exists(), bool(shutil.which("runc")))
        given = ["run", "--rm", "--read-only", "--network=none", *LIMITS, image, "cfg:default.log.mode=console"]
        return subprocess.check_output([*podman, *given], text=True).strip()

    options = "--homepath=/usr/share/grafana --config=/etc/grafana/grafana.ini --packaging=docker"
    assert says() == f"12.1.0 472:472 {options} cfg:default.log.mode=console"
    copied = config(f"oci:{tmp_path}/bundle/images:{made['layout_ref']}")
    assert copied["config"]["User"] == "472:472"
    assert changed_nothing(play(**settings))

    # Another package under the same name is built again, not taken from what podman remembers.
    make_package(tmp_path, "grafana", "12.2.0").replace(package)
    assert not changed_nothing(play(**settings))
    assert says().startswith("12.2.0 ")
