"""The user guide of a site."""

from __future__ import annotations

import base64
import re
from html import unescape
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nodes
import pytest
from ansible_collections.jhok.lab.plugins.filter.user_guide import user_guide
from ansible_collections.jhok.lab.plugins.plugin_utils.guide import (
    LANGUAGES,
    MAX_BYTES,
    commands,
    cores,
    duration,
    guide_config_map,
    guide_html,
    guide_markdown,
    memory,
)

ROOT = Path(__file__).parents[3] / "docs" / "user-guide"
SOURCES = {language: (ROOT / f"guide.{language}.md").read_text() for language in LANGUAGES}
PICTURES = ["control-panel", "home", "jupyterlab", "options", "sign-in", "terminal", "upload", "vscode"]
EVIL = '<script>alert(1)</script> [x](javascript:alert(1)) | **b** `c`\n# d & "e"'
SITE: dict[str, Any] = {
    "namespace": "jupyterhub",
    "site_name": "Physics",
    "contact": "",
    "url": "http://172.16.0.100:30080",
    "auth": "password",
    "dashboards_url": "",
    "dashboards_viewers": "users",
    "environments": [
        {"name": "base", "title": "Python", "description": "Python and a terminal", "default": True},
        {"name": "scipy", "title": "Science", "description": "numpy, pandas", "idle_timeout": 3600, "max_age": 86400},
    ],
    "sizes": [
        {"name": "small", "title": "Small", "memory_limit": "512M", "cpu_limit": 1.5},
        {"name": "large", "title": "Large", "memory_limit": "4G", "cpu_limit": 0},
    ],
    "gpus": [],
    "idle_timeout": 604800,
    "max_age": 0,
    "stop_warning": 1800,
    "user_allowed_cidrs": [],
}
FULL = SITE | {
    "auth": "github",
    "contact": "Ann",
    "dashboards_url": "http://172.16.0.100:30759/",
    "gpus": [{"name": "a100", "title": "A100", "max": 2}],
    "max_age": 5400,
    "user_allowed_cidrs": ["10.1.2.0/24", "10.9.9.9/32"],
}
LEAST = SITE | {
    "environments": [{"name": "base"}],
    "sizes": [{"name": "small", "memory_limit": "1G"}],
    "gpus": [{"name": "t4"}],
}
EVERY_SITE = [SITE, LEAST, FULL, SITE | {"auth": "native"}, SITE | {"idle_timeout": 0}]


def visible(html: str) -> str:
    """Return what a person reads."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_guide_names_what_the_site_has(language: str) -> None:
    text = visible(guide_html(SOURCES[language], language, FULL))
    for value in (
        "Physics",
        "Ann",
        "Science",
        "numpy, pandas",
        "Small",
        "512 MB",
        "4 GB",
        "1.5",
        "A100",
        "10.9.9.9/32",
    ):
        assert value in text
    assert {"en": "7 days", "zh": "7 天"}[language] in text
    assert {"en": "1 hour 30 minutes after its start", "zh": "启动 1 小时 30 分钟之后"}[language] in text
    assert {"en": "30 minutes before a server reaches", "zh": "到期之前 30 分钟"}[language] in text
    html = guide_html(SOURCES[language], language, FULL)
    assert 'href="http://172.16.0.100:30080/hub/home"' in html
    assert html.count('href="http://172.16.0.100:30759/"') == 2


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("site", EVERY_SITE, ids=["bare", "least", "full", "native", "no limit"])
def test_nothing_of_the_source_is_left_over(language: str, site: dict[str, Any]) -> None:
    html = guide_html(SOURCES[language], language, site)
    text = visible(re.sub(r"<(pre|code)\b.*?</\1>", "", html, flags=re.DOTALL))
    for rest in ("{{", "{%", "**", "](", "```", "| ", "\\", "None", "Undefined"):
        assert rest not in text, text[max(0, text.find(rest) - 60) :][:120]
    targets = re.findall(r'href="#([^"]+)"', html)
    assert len(targets) > 8
    ids = re.findall(r'id="([^"]+)"', html)
    assert len(set(ids)) == len(ids)
    assert {
        re.sub(r"(?:%[0-9A-F]{2})+", lambda m: bytes.fromhex(m[0].replace("%", "")).decode(), t) for t in targets
    } <= set(ids)


def test_both_languages_say_the_same() -> None:
    for site in EVERY_SITE:
        english, chinese = (guide_markdown(SOURCES[language], language, site) for language in LANGUAGES)
        assert commands(english) == commands(chinese)
        for pattern in (r"^#+ ", r"^```.*$", r"^\|", r"^!\[.*\]\((.*)\)$", r"^- "):
            assert re.findall(pattern, english, re.MULTILINE) == re.findall(pattern, chinese, re.MULTILINE), pattern


def test_both_languages_ask_for_the_same_variables() -> None:
    names = {}
    for language, source in SOURCES.items():
        tree = jinja2.Environment().parse(source)
        names[language] = {node.attr for node in tree.find_all(jinja2.nodes.Getattr)}
        names[language] |= {node.name for node in tree.find_all((jinja2.nodes.Name, jinja2.nodes.Filter))}
    assert names["en"] == names["zh"]


def test_a_typing_error_in_the_source_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="side_name"):
        guide_markdown("{{ site.side_name }}", "en", SITE)


@pytest.mark.parametrize("key", ["site_name", "contact", "dashboards_url"])
def test_values_stay_plain_text(key: str) -> None:
    html = guide_html(SOURCES["en"], "en", FULL | {key: EVIL})
    assert not re.findall(r"<script|<b>|<strong>b|href=\"javascript|<h1>d", html)
    if key != "dashboards_url":
        assert '<script>alert(1)</script> [x](javascript:alert(1)) | **b** `c` # d & "e"' in visible(html)


def test_values_stay_in_their_cell() -> None:
    site = SITE | {"environments": [{"name": "e", "title": EVIL, "description": EVIL}]}
    html = guide_html("| a | b |\n|---|---|\n| {{ site.environments[0].title }} | x |\n", "en", site)
    assert html.count("<td>") == 2
    assert "<script" not in html


def test_runnable_commands_need_no_person_and_no_internet() -> None:
    blocks = commands(SOURCES["en"])
    text = "".join(blocks)
    assert len(blocks) >= 8
    for command in (
        "unzip -q",
        "git config",
        "touch test.txt",
        "ls -l ~/test.txt",
        "tmux -V",
        "curl --version",
        "pip list",
    ):
        assert command in text
    for refused in ("https://", "pip install", "tmux new", "sudo"):
        assert refused not in text


def test_pictures_that_are_missing_are_left_out() -> None:
    assert "<img" not in guide_html(SOURCES["en"], "en", SITE)
    html = guide_html(SOURCES["zh"], "zh", SITE, ["sign-in.webp", "unused.png"])
    assert re.findall(r'<img src="([^"]+)"', html) == ["images/sign-in.webp"]


def test_the_pictures_of_the_guide_are_known() -> None:
    html = guide_html(SOURCES["en"], "en", SITE, [f"{name}.png" for name in PICTURES])
    assert sorted(re.findall(r'<img src="images/([^"]+)\.png"', html)) == PICTURES


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (604800, "7 days", "7 天"),
        (86400, "1 day", "1 天"),
        (5400, "1 hour 30 minutes", "1 小时 30 分钟"),
        (90061, "1 day 1 hour", "1 天 1 小时"),
        (20, "20 seconds", "20 秒"),
    ],
)
def test_times_in_words(seconds: int, english: str, chinese: str) -> None:
    assert (duration(seconds, "en"), duration(seconds, "zh")) == (english, chinese)


def test_cores_in_words() -> None:
    assert [cores(number, "en") for number in (1, 1.0, 0.5, 12)] == ["1 core", "1 core", "0.5 cores", "12 cores"]
    assert cores(1.5, "zh") == "1.5 核"


def test_memory_in_words() -> None:
    assert [memory(amount) for amount in ("512M", "1.5G")] == ["512 MB", "1.5 GB"]


def test_the_config_map() -> None:
    made = guide_config_map(SITE, SOURCES, {"home.png": b"\x89PNG"})
    assert sorted(made["data"]) == ["guide.en.html", "guide.zh.html"]
    assert made["binaryData"] == {"home.png": base64.b64encode(b"\x89PNG").decode()}
    assert made["metadata"]["namespace"] == "jupyterhub"
    with pytest.raises(ValueError, match="compress its pictures"):
        guide_config_map(SITE, SOURCES, {"home.png": b"x" * MAX_BYTES})


def test_the_filter_reads_the_sources() -> None:
    made = user_guide(SITE, str(ROOT))
    assert "Physics" in made["data"]["guide.zh.html"]
    assert {Path(name).stem for name in made["binaryData"]} <= set(PICTURES)
