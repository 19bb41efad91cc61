"""The configuration of the page's web server; tests/integration has nginx itself read it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.monitoring_web import sign_in_settings, web_files

SETTINGS: dict[str, Any] = {
    "ui": "perses",
    "access": "hub",
    "site_name": "物理 <lab>",
    "url": "http://172.16.0.100:30759",
    "hub_url": "http://172.16.0.100:30080",
    "hub_namespace": "hub-two",
    "scrape_interval": 20,
}
VARIANTS = [("perses", "hub"), ("perses", "password"), ("perses", "open"), ("grafana", "hub"), ("grafana", "open")]


def nginx(ui: str, access: str) -> str:
    return web_files(SETTINGS | {"ui": ui, "access": access})["nginx.conf"]


@pytest.mark.parametrize(("ui", "access"), VARIANTS)
def test_each_variant_has_what_it_needs_and_no_more(ui: str, access: str) -> None:
    text = nginx(ui, access)
    asks_sign_in = ui == "perses" and access != "open"
    assert ("auth_request /internal/auth;" in text) == asks_sign_in
    assert set(re.findall(r"@\w+", text)) == set(re.findall(r"location (@\w+)", text)), "error pages that are there"
    upstreams = set(re.findall(r"proxy_pass http://127\.0\.0\.1:(\d+)", text))
    expected = {"grafana": {"9794"}, "perses": {"9790", "9792"} if asks_sign_in else {"9790"}}
    assert upstreams == expected[ui]
    assert re.findall(r"^ *listen (.*);", text, re.MULTILINE) == ["9759"]
    assert text.count("{") == text.count("}")


def test_prometheus_gets_no_path_that_a_visitor_wrote() -> None:
    [location] = re.findall(r'location ~ "(.*)"', nginx("perses", "hub"))
    assert "http://127.0.0.1:9790/api/v1/$1$is_args$args;" in nginx("perses", "hub")
    known = re.compile(location)
    for path in ("query", "label/user/values", "status/buildinfo"):
        assert known.search(f"/prometheus/api/v1/{path}")
    for path in ("status/config", "admin/tsdb/snapshot", "query/x", "label/../status/config/values", "label//values"):
        assert not known.search(f"/prometheus/api/v1/{path}")


def test_no_variant_names_a_server_elsewhere() -> None:
    for ui, access in VARIANTS:
        assert set(re.findall(r"https?://([^:/\s]+)", nginx(ui, access))) <= {"127.0.0.1"}


def test_settings_of_the_app() -> None:
    text = web_files(SETTINGS)["settings.json"]
    expected = {key: SETTINGS[key] for key in ("site_name", "url", "hub_url", "access", "scrape_interval")}
    assert json.loads(text) == expected
    assert "物理" in text


def test_settings_of_the_sign_in() -> None:
    assert sign_in_settings(SETTINGS) == {
        "port": 9792,
        "url": "http://172.16.0.100:30759",
        "hub_url": "http://172.16.0.100:30080",
        "hub_api_url": "http://hub.hub-two.svc:8081/hub/api",
        "access": "hub",
        "site_name": "物理 <lab>",
    }
