"""The generated documents are what the argument specifications say."""

from __future__ import annotations

import runpy
from pathlib import Path

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
