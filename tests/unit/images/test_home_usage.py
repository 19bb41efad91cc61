"""images/singleuser's home-usage: what a terminal says of the home when it begins."""

from __future__ import annotations

import importlib.util
import json
import os
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SCRIPT = Path(__file__).parents[3] / "images" / "singleuser" / "root" / "usr" / "local" / "bin" / "home-usage"
GB, MB = 1024**3, 1024**2


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("JHOK_HOME_USAGE", str(tmp_path / "home.json"))
    monkeypatch.setenv("HOME", str(tmp_path))
    loader = SourceFileLoader("home_usage", str(SCRIPT))
    spec = importlib.util.spec_from_loader("home_usage", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"used": 3 * GB, "limit": 20 * GB, "shared": None}, "Your home has 3.0 of 20.0 GB in use."),
        (
            {"used": 19 * GB, "limit": 20 * GB, "shared": None},
            "Your home has 19.0 of 20.0 GB in use. That is nearly all.",
        ),
        (
            {"used": 3 * GB, "limit": 20 * GB, "shared": "students"},
            "The home of group students has 3.0 of 20.0 GB in use.",
        ),
        ({"used": 3 * GB, "limit": None, "shared": None}, ""),
    ],
)
def test_what_the_server_says_is_told(script: ModuleType, tmp_path: Path, facts: dict[str, object], said: str) -> None:
    (tmp_path / "home.json").write_text(json.dumps(facts))
    assert script.main() == said


@pytest.mark.parametrize(
    ("used", "level"),
    [
        (17.9 * GB, ""),
        (18 * GB, "nearly"),
        (20 * GB - 2 * MB, "nearly"),
        (20 * GB - 4096, "full"),  # the kernel gives out whole blocks only
        (21 * GB, "full"),  # where sizes are only measured
    ],
)
def test_how_full_it_is(script: ModuleType, tmp_path: Path, used: float, level: str) -> None:
    (tmp_path / "home.json").write_text(json.dumps({"used": int(used), "limit": 20 * GB, "shared": "students"}))
    found = script.usage()
    assert (found.limit, found.level, found.shared) == ("20.0", level, "students")


def test_whose_quota_is_used_up_learns_what_to_do(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "home.json").write_text(json.dumps({"used": 20 * GB, "limit": 20 * GB, "shared": None}))
    said = script.main()
    assert said.startswith("Your home has 20.0 of 20.0 GB in use. Nothing more can be saved")
    assert "du -xh" in said


@pytest.mark.parametrize("text", ["", "{", "[]", '{"used": "much"}', "{}", '{"used": 1, "limit": null}'])
def test_without_quotas_nothing_is_said(script: ModuleType, tmp_path: Path, text: str) -> None:
    if text:
        (tmp_path / "home.json").write_text(text)
    assert script.usage() is None
    assert script.main() == ""


def test_a_full_disk_is_told_all_the_same(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: SimpleNamespace(f_bavail=0))
    assert script.main().startswith("The disk of your home is full.")
