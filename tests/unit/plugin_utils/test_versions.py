"""The table of versions, and that the images' go.mod files say the same."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils.bundle_sources import FAMILIES, Family, version_of
from ansible_collections.jhok.lab.plugins.plugin_utils.versions import NEWEST, RELEASES, Release, release_of

ROOT = Path(__file__).parents[3]
CASES = [(minor, family) for minor in RELEASES for family in FAMILIES]


@pytest.mark.parametrize(("minor", "family"), CASES, ids=lambda value: getattr(value, "name", value))
def test_go_mod_has_the_version_of_the_table(minor: str, family: Family) -> None:
    folder = ROOT / "images" / family.name / (minor if family.per_minor else "")
    required = re.search(rf"^\t?(?:require )?{re.escape(family.module)} (\S+)", (folder / "go.mod").read_text(), re.M)
    assert required, f"{folder}/go.mod does not require {family.module}"
    assert required[1] == f"v{version_of(RELEASES[minor], family)}"


@pytest.mark.parametrize("name", ["kubernetes", "etcd", "coredns"])
def test_each_minor_has_a_folder_and_no_other_is_there(name: str) -> None:
    folders = {path.parent.name for path in (ROOT / "images" / name).glob("*/go.mod")}
    assert folders == set(RELEASES)


def test_every_go_mod_has_its_sums() -> None:
    files = list((ROOT / "images").glob("**/go.mod"))
    assert files
    for file in files:
        sums = file.with_name("go.sum").read_text().splitlines()
        assert all(re.fullmatch(r"\S+ v\S+ h1:[A-Za-z0-9+/]{43}=", line) for line in sums), file


def test_parts_of_kubernetes_are_of_its_own_version() -> None:
    for minor, release in RELEASES.items():
        text = (ROOT / "images/kubernetes" / minor / "go.mod").read_text()
        staged = re.findall(r"^\t(k8s\.io/\S+) => (\S+) (\S+)$", text, re.M)
        assert len(staged) > 25
        wanted = f"v0{release.kubernetes.removeprefix('1')}"
        assert [part for part in staged if part[0] != part[1] or part[2] != wanted] == []


def test_defaults_of_the_role_name_the_newest() -> None:
    defaults = yaml.safe_load((ROOT / "roles/bundle/defaults/main.yml").read_text())
    assert defaults["bundle_kubernetes_version"] == NEWEST


@pytest.mark.parametrize("given", ["1.36", "v1.36.3", "1.36.3"])
def test_a_release_has_several_spellings(given: str) -> None:
    assert release_of(given) is RELEASES["1.36"]


@pytest.mark.parametrize("given", ["1.20", "v1.36.2", "1", "", "latest", "1.37.2.1"])
def test_what_is_not_in_the_table_is_refused_with_what_is(given: str) -> None:
    with pytest.raises(ValueError, match=rf"{re.escape(repr(given))}.*1\.37 \(v1\.37\.2\) or 1\.36 \(v1\.36\.3\)"):
        release_of(given)


def test_rows_are_whole() -> None:
    for release in RELEASES.values():
        for name in {field.name for field in fields(Release)} - {"end_of_life", "sha256"}:
            assert re.fullmatch(r"\d+\.\d+\.\d+", getattr(release, name)), name
