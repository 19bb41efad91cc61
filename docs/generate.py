#!/usr/bin/env python3
"""Writes docs/admin/variables.md and the roles' README.md from the roles' argument specifications.

Run it from anywhere (`make docs`); what it writes depends on the argument specifications alone. With `--check` it
writes nothing and fails when a file is not what it would write.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Made by docs/generate.py from meta/argument_specs.yml; do not edit. -->"
# In the order of site.yml; roles that are not named follow by name.
ORDER = (
    "preflight",
    "bundle",
    "images",
    "nfs_server",
    "node",
    "registry",
    "kubernetes",
    "storage",
    "jupyterhub",
    "monitoring",
    "backup",
)


def generate(root: Path) -> dict[Path, str]:
    """Return the text of every generated file by its path."""
    paths = {path.parts[-3]: path for path in root.glob("roles/*/meta/argument_specs.yml")}
    roles = sorted(paths, key=lambda role: (ORDER.index(role) if role in ORDER else len(ORDER), role))
    specs = {role: yaml.safe_load(paths[role].read_text())["argument_specs"] for role in roles}
    files = {root / "roles" / role / "README.md": readme(role, specs[role]) for role in roles}
    files[root / "docs" / "admin" / "variables.md"] = variables(specs)
    return files


def readme(role: str, spec: Mapping[str, Any]) -> str:
    """Return a role's README."""
    lines = [NOTE, "", f"# jhok.lab.{role}", "", *_entry(spec["main"]), *_table(spec["main"])]
    for name in sorted(set(spec) - {"main"}):
        lines += ["", f"## `tasks_from: {name}`", "", *_entry(spec[name]), *_table(spec[name])]
    return "\n".join(lines) + "\n"


def variables(specs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the reference of all variables."""
    lines = [
        NOTE,
        "",
        "# Variables",
        "",
        "Every variable of every role. [inventory.md](inventory.md) says which ones a site usually sets. A default",
        "in braces is worked out on the site. `preflight` refuses a variable that is not here.",
    ]
    for role, spec in specs.items():
        main = spec["main"]
        options = {n: o for entry in spec.values() for n, o in (entry.get("options") or {}).items()}
        heading = f"## {role}: {_text(main['short_description'])}"
        lines += ["", heading, *_table({"options": options})]
    return "\n".join(lines) + "\n"


def _entry(entry: Mapping[str, Any]) -> Iterator[str]:
    yield f"{_text(entry['short_description'])}."
    description = entry.get("description") or []
    for paragraph in [description] if isinstance(description, str) else description:
        yield ""
        yield _text(paragraph)


def _table(entry: Mapping[str, Any]) -> Iterator[str]:
    options = entry.get("options") or {}
    if options:
        yield from ("", "| variable | type | default | meaning |", "|---|---|---|---|")
        yield from _rows(options)


def _rows(options: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, option in options.items():
        kind = option.get("type", "str")
        if "elements" in option:
            kind += f" of {option['elements']}"
        default = "**required**" if option.get("required") else ""
        if option.get("default") is not None:
            default = f"`{_value(option['default'])}`"
        description = option.get("description") or ""
        meaning = " ".join(map(_text, [description] if isinstance(description, str) else description))
        if option.get("choices"):
            meaning += " One of " + ", ".join(f"`{c}`" for c in option["choices"]) + "."
        yield "| " + " | ".join(_cell(c) for c in (f"`{prefix}{name}`", kind, default, meaning)) + " |"
        inner = "[]." if option.get("type") == "list" else "."
        yield from _rows(option.get("options") or {}, f"{prefix}{name}{inner}")


def _value(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _text(text: str) -> str:
    """Return Ansible's mark-up (`C(…)`, `O(…)`, `V(…)`, `M(…)`) as Markdown in one line."""
    text = re.sub(r"\b[COVEM]\(([^)]*)\)", r"`\1`", text)
    return re.sub(r"\s+", " ", text).strip()


def main() -> int:
    """Write the files, or check them; return the exit status."""
    stale = {p: t for p, t in generate(ROOT).items() if not p.is_file() or p.read_text() != t}
    for path, text in stale.items():
        if "--check" not in sys.argv[1:]:
            path.write_text(text)
        print(path.relative_to(ROOT))
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
