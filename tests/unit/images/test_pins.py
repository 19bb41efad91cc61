"""Images that share a Python pin the same version of a package."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

IMAGES = Path(__file__).parents[3] / "images"
SHARED = [("singleuser/server.txt", "hub/requirements.txt"), ("scipy/python.txt", "singleuser/python.txt")]


def pins(path: str) -> dict[str, str]:
    """Return the versions that a file of requirements pins."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (IMAGES / path).read_text(), re.MULTILINE))


@pytest.mark.parametrize(("upper", "lower"), SHARED)
def test_what_is_installed_on_top_agrees_with_what_is_there(upper: str, lower: str) -> None:
    above, below = pins(upper), pins(lower)
    shared = above.keys() & below.keys()
    assert shared
    assert {name: above[name] for name in shared} == {name: below[name] for name in shared}


@pytest.mark.parametrize("path", sorted(IMAGES.glob("*/package-lock.json")), ids=lambda path: path.parent.name)
def test_npm_packages_are_pinned_by_hash_and_name_no_registry(path: Path) -> None:
    packages = {name: entry for name, entry in json.loads(path.read_text())["packages"].items() if name}
    assert packages
    assert [name for name, entry in packages.items() if "integrity" not in entry] == []
    assert [name for name, entry in packages.items() if "resolved" in entry] == []
