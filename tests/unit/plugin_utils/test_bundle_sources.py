"""What a bundle holds from each source, against golden files."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.jhok.lab.plugins.filter.bundle import FilterModule
from ansible_collections.jhok.lab.plugins.plugin_utils import bundle_sources
from ansible_collections.jhok.lab.plugins.plugin_utils.versions import RELEASES

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle"
ROOT = Path(__file__).parents[3]
FILTERS = FilterModule().filters()


def golden(name: str) -> object:
    return yaml.safe_load((GOLDEN / name).read_text())


def references(minor: str) -> dict[str, str]:
    builds = bundle_sources.module_builds(RELEASES[minor], "images")
    return {build["name"]: f"localhost/jhok/{build['name']}:k" for build in builds}


def test_modules_golden() -> None:
    release = RELEASES["1.37"]
    assert golden("modules.yml") == {
        "builds": bundle_sources.module_builds(release, "images"),
        "files": bundle_sources.module_files(release, references("1.37")),
        "images": bundle_sources.module_images(release, references("1.37")),
    }


def test_upstream_golden() -> None:
    release = RELEASES["1.36"]
    assert golden("upstream_files.yml") == bundle_sources.upstream_files(
        release, "https://dl.k8s.io/release/", "https://github.com/"
    )


@pytest.mark.parametrize("minor", RELEASES)
def test_both_sources_hold_the_same_programs(minor: str) -> None:
    release = RELEASES[minor]
    built = bundle_sources.module_files(release, references(minor))
    fetched = bundle_sources.upstream_files(release, "https://m/k8s", "https://m/gh")
    programs = {(file["path"], file["version"]) for file in built if not file["path"].startswith("parts/")}
    assert programs == {(file["path"], file["version"]) for file in fetched}


def test_every_stage_is_in_its_containerfile() -> None:
    for family in bundle_sources.FAMILIES:
        text = (ROOT / "images" / family.name / "Containerfile").read_text()
        for stage in (bundle_sources.PROGRAMS, *family.images):
            assert f" AS {stage}\n" in text, (family.name, stage)


def test_two_releases_share_what_does_not_depend_on_kubernetes() -> None:
    names = [{build["name"] for build in bundle_sources.module_builds(RELEASES[minor], "images")} for minor in RELEASES]
    assert set.intersection(*names) == {f"{name}/programs" for name in ("crictl", "containerd", "runc", "cni-plugins")}


def test_an_unknown_version_names_the_variable() -> None:
    with pytest.raises(AnsibleFilterError, match=r"bundle_kubernetes_version: '1\.20'"):
        FILTERS["kubernetes_version"]("1.20")
    assert FILTERS["kubernetes_version"]("1.37") == FILTERS["kubernetes_version"]("") == "v1.37.2"
