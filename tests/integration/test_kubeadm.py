"""What the bundle's own kubeadm says of the configuration files and of the table of versions."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.bundle_sources import FAMILIES, image_tag
from ansible_collections.jhok.lab.plugins.plugin_utils.versions import NEWEST, RELEASES

pytestmark = pytest.mark.integration

GOLDEN = Path(__file__).parents[1] / "unit" / "golden" / "kubeadm"


@pytest.fixture(scope="module")
def kubeadm(built: Callable[[str, str], str]) -> str:
    return built(f"kubernetes-{NEWEST}/programs", "kubeadm")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_kubeadm_takes_the_golden_files(kubeadm: str, path: Path) -> None:
    done = subprocess.run([kubeadm, "config", "validate", "--config", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "ok"), done.stderr


def test_kubeadm_refuses_a_field_that_it_does_not_know(kubeadm: str, tmp_path: Path) -> None:
    text = (GOLDEN / "join-cgroup-v2.yaml").read_text()
    (tmp_path / "wrong.yaml").write_text(text.replace("criSocket:", "criSockett:"))
    done = subprocess.run([kubeadm, "config", "validate", "--config", tmp_path / "wrong.yaml"], capture_output=True)
    assert done.returncode != 0
    assert b"criSockett" in done.stderr


@pytest.mark.parametrize("minor", RELEASES)
def test_the_table_has_the_images_that_kubeadm_asks_for(built: Callable[[str, str], str], minor: str) -> None:
    image = f"kubernetes-{minor}/programs"
    if minor != NEWEST and subprocess.run(["podman", "image", "exists", f"localhost/jhok/{image}:latest"]).returncode:
        pytest.skip(f"{image} is not built; bundle_kubernetes_version decides which is")
    release, kubeadm = RELEASES[minor], built(image, "kubeadm")
    assert subprocess.check_output([kubeadm, "version", "-o", "short"], text=True).strip() == f"v{release.kubernetes}"
    command = [kubeadm, "config", "images", "list", "--kubernetes-version", f"v{release.kubernetes}"]
    command += ["--image-repository", "site/kubernetes"]
    asked = set(subprocess.check_output(command, text=True).split())
    tags = {stage: image_tag(release, family, stage) for family in FAMILIES for stage in family.images}
    assert asked == {f"site/kubernetes/{stage}:{tag}" for stage, tag in tags.items()}
