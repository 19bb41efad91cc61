"""hub_pages.py and templates that need no hub."""

from __future__ import annotations

import importlib.util
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

FILES = Path(__file__).parents[2] / "roles/jupyterhub/files/hub"
TEMPLATES = Environment(loader=FileSystemLoader(FILES / "templates"), autoescape=True, undefined=StrictUndefined)
SETTINGS: dict[str, Any] = {
    "environments": [
        {"name": "base", "title": "Python"},
        {"name": "short", "title": "Short", "idle_timeout": 3600, "max_age": 0},
    ],
    "sizes": [{"name": "small", "title": "Small"}],
    "gpus": [],
    "idle_timeout": 604800,
    "max_age": 86400,
}


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hub_pages", FILES / "hub_pages.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def user(options: dict[str, Any] | None, **record: datetime | None) -> SimpleNamespace:
    orm = SimpleNamespace(**record) if record else None
    return SimpleNamespace(spawner=SimpleNamespace(orm_spawner=orm, user_options=options))


STARTED, USED = datetime(2026, 11, 24, 8), datetime(2026, 11, 24, 9, 30)


@pytest.mark.parametrize(
    ("options", "idle_stop", "age_stop"),
    [
        ({"environment": "base"}, "2026-12-01T09:30:00Z", "2026-11-25T08:00:00Z"),
        ({"environment": "short"}, "2026-11-24T10:30:00Z", ""),
        ({"environment": "gone"}, "2026-12-01T09:30:00Z", "2026-11-25T08:00:00Z"),
        ({}, "2026-12-01T09:30:00Z", "2026-11-25T08:00:00Z"),
    ],
)
def test_the_environments_limits_come_before_the_sites(
    pages: ModuleType, options: dict[str, Any], idle_stop: str, age_stop: str
) -> None:
    found = pages.describe_server(SETTINGS, user(options, started=STARTED, last_activity=USED))
    assert (found["started"], found["idle_stop"], found["age_stop"]) == ("2026-11-24T08:00:00Z", idle_stop, age_stop)


def test_a_server_that_nobody_has_opened_counts_from_its_start(pages: ModuleType) -> None:
    found = pages.describe_server(SETTINGS, user({}, started=STARTED, last_activity=None))
    assert found["idle_stop"] == "2026-12-01T08:00:00Z"


def test_what_is_not_known_is_left_empty(pages: ModuleType) -> None:
    for somebody in (user(None), user({"gpu_count": 0}, started=None, last_activity=None)):
        assert set(pages.describe_server(SETTINGS, somebody).values()) == {""}


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ("github", "You sign in with your account at GitHub"),
        ("native", 'href="/hub/signup"'),
        ("password", "the password that you were given"),
    ],
)
def test_the_sign_in_page_says_what_to_do(auth: str, said: str) -> None:
    site = {"name": "Physics", "contact": "", "auth": auth}
    text = TEMPLATES.get_template("sign_in_help.html").render(site=site, base_url="/hub/", login_service="GitHub")
    assert said in text
    assert "Ask an administrator." in text


def test_without_gpus_there_is_no_question_about_them() -> None:
    size = {"cpu_guarantee": 0, "cpu_limit": 2, "memory_guarantee": "2G", "memory_limit": "2G"}
    text = TEMPLATES.get_template("options_form.html").render(
        environments=[{"name": "base", "title": "", "description": ""}],
        sizes=[{"name": "small", "title": "Small"} | size],
        gpus=[],
        chosen={"environment": "base", "size": "small", "gpu_count": 0, "gpu_type": ""},
    )
    assert "gpu" not in text.lower()
    assert "<strong>base</strong>" in text
    assert "up to 2 cores\n" in text
    assert "reserved" not in text
