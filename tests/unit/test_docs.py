"""The generated documents are what the argument specifications say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils.versions import NEWEST, OLDEST_EXISTING, RELEASES

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = runpy.run_path(str(ROOT / "docs" / "generate.py"))


def test_committed_documents_are_up_to_date() -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in GENERATOR["generate"](ROOT).items()
        if not path.is_file() or path.read_text() != text
    ]
    assert not stale, "run `make docs` and commit"


def test_every_variable_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "admin" / "variables.md").read_text()
    for name in ("jupyterhub_node_port", "site_lab_network", "images_catalogue[].name", "preflight_disk_gb"):
        assert f"| `{name}` |" in text


def supported() -> list[str]:
    """Return the rows that docs/admin/versions.md has to have."""
    return [
        f'| `"{minor}"`{" (default)" if minor == NEWEST else ""} | {release.kubernetes} | {release.end_of_life}'
        f" | {release.etcd} | {release.coredns} | {release.pause} | {release.crictl} | {release.containerd}"
        f" | {release.runc} | {release.cni_plugins} |"
        for minor, release in RELEASES.items()
    ]


def test_the_page_of_versions_has_the_rows_of_the_table() -> None:
    page = (ROOT / "docs/admin/versions.md").read_text()
    shown = [line for line in page.splitlines() if line.startswith('| `"')]
    assert shown == supported(), "write into docs/admin/versions.md:\n" + "\n".join(supported())
    assert (
        "existing cluster (`kubernetes_manage: false`) runs Kubernetes {}.{} or newer".format(*OLDEST_EXISTING) in page
    )


@pytest.mark.parametrize("path", ["docs/admin/versions.md", "inventory/example/group_vars/all.yml"])
def test_a_release_that_a_document_gives_as_an_example_is_supported(path: str) -> None:
    given = [line for line in (ROOT / path).read_text().splitlines() if "bundle_kubernetes_version:" in line]
    assert given
    for line in given:
        assert yaml.safe_load(line.lstrip("# "))["bundle_kubernetes_version"] in RELEASES


def test_markup_and_options_become_markdown(tmp_path: Path) -> None:
    spec = tmp_path / "roles" / "thing" / "meta" / "argument_specs.yml"
    spec.parent.mkdir(parents=True)
    spec.write_text(
        "argument_specs:\n"
        "  main:\n"
        "    short_description: Makes a thing\n"
        "    description: With C(care).\n"
        "    options:\n"
        "      thing_kinds: {type: list, elements: dict, required: true, description: Of O(things)., options: {\n"
        "        name: {description: a|b, choices: [x, y]}}}\n"
        "      thing_size: {type: int, default: 3, description: [One., Two.]}\n"
    )
    readme = GENERATOR["generate"](tmp_path)[tmp_path / "roles" / "thing" / "README.md"]
    assert readme.splitlines()[2:] == [
        "# jhok.lab.thing",
        "",
        "Makes a thing.",
        "",
        "With `care`.",
        "",
        "| variable | type | default | meaning |",
        "|---|---|---|---|",
        "| `thing_kinds` | list of dict | **required** | Of `things`. |",
        "| `thing_kinds[].name` | str |  | a\\|b One of `x`, `y`. |",
        "| `thing_size` | int | `3` | One. Two. |",
    ]
