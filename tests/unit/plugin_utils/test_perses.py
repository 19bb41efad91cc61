"""Dashboards in Perses' form."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import (
    CRITICAL,
    KINDS,
    OK,
    UNITS,
    WARNING,
    Dashboard,
    Panel,
    Query,
    Row,
    Threshold,
    Word,
    site_dashboards,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.perses import COLOURS, perses_dashboard, perses_files

GOLDEN = Path(__file__).parents[1] / "golden" / "dashboards" / "perses-users.json"
SETTINGS: dict[str, Any] = {
    "dashboards": ["overview", "hub", "users", "nodes", "homes", "traffic", "gpu"],
    "panels": [],
    "gpus": True,
    "nfs_kernel": True,
    "nfs_address": "172.16.0.100",
    "manage_kubernetes": True,
    "traffic_budget_gb": 5,
    "scrape_interval": 30,
}
# Of the packages that image `dashboards` has: panels, and the units of @perses-dev/core 0.52.
PANELS = {"TimeSeriesChart", "StatChart", "GaugeChart", "BarChart", "Table"}
PERSES_UNITS = {
    "decimal", "percent", "percent-decimal", "bytes", "bytes/sec", "seconds", "requests/sec", "ops/sec",
}  # fmt: skip


def _spec(panel: Panel) -> dict[str, Any]:
    drawn = perses_dashboard(Dashboard("uid", "Title", "Text.", (Row("Row", (panel,)),)))
    plugin: dict[str, Any] = drawn["spec"]["panels"]["panel0"]["spec"]["plugin"]
    return plugin


def test_users_are_golden() -> None:
    text = perses_files(SETTINGS)["users.json"]
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "see the difference; UPDATE_GOLDEN=1 writes the file anew"


def test_files_are_the_index_and_a_page_each() -> None:
    files = perses_files(SETTINGS)
    assert set(files) == {"index.json", *(f"{uid}.json" for uid in SETTINGS["dashboards"])}
    index = json.loads(files["index.json"])
    assert index == [
        {"uid": each.uid, "title": each.title, "description": each.description} for each in site_dashboards(SETTINGS)
    ]
    for uid in SETTINGS["dashboards"]:
        assert json.loads(files[f"{uid}.json"])["metadata"] == {"name": uid, "project": "jhok", "version": 0}


def test_every_panel_has_one_place() -> None:
    for dashboard in site_dashboards(SETTINGS):
        spec = perses_dashboard(dashboard)["spec"]
        places = [item["content"]["$ref"] for layout in spec["layouts"] for item in layout["spec"]["items"]]
        assert places == [f"#/spec/panels/{name}" for name in spec["panels"]]
        assert all(panel["spec"]["plugin"]["kind"] in PANELS for panel in spec["panels"].values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", UNITS)
def test_every_kind_is_drawn_in_every_unit(kind: str, unit: str) -> None:
    drawn = _spec(Panel("Title", (Query("up"),), unit, kind))
    assert drawn["kind"] in PANELS
    formats = [drawn["spec"].get("yAxis", drawn["spec"]).get("format")]
    formats += [column.get("format") for column in drawn["spec"].get("columnSettings", [])]
    assert {each["unit"] for each in formats if each} <= PERSES_UNITS
    assert any(formats)


def test_thresholds_and_words_have_colours() -> None:
    levels = (Threshold(1, WARNING), Threshold(2, OK))
    stat = _spec(Panel("Title", (Query("up"),), kind="stat", level=CRITICAL, thresholds=levels))["spec"]
    assert stat["thresholds"] == {
        "mode": "absolute",
        "defaultColor": COLOURS[CRITICAL],
        "steps": [{"value": 1, "color": COLOURS[WARNING]}, {"value": 2, "color": COLOURS[OK]}],
    }
    state = _spec(Panel("Title", (Query("up"),), kind="stat", words=(Word(0, "down", CRITICAL),)))["spec"]
    assert state["mappings"] == [
        {"kind": "Value", "spec": {"value": "0", "result": {"value": "down", "color": COLOURS[CRITICAL]}}}
    ]


def test_a_table_of_one_query_has_its_title_for_a_heading() -> None:
    table = _spec(Panel("Printers", (Query("printer_up"),), kind="table"))["spec"]
    assert [column["name"] for column in table["columnSettings"]] == ["timestamp", "value"]
    assert table["columnSettings"][1]["header"] == "Printers"
    assert table["transforms"] == []


def test_a_table_is_sorted_and_coloured_as_its_panel_says() -> None:
    levels = (Threshold(7, WARNING), Threshold(30, OK))
    panel = Panel("Ink", (Query("a", "A"), Query("b", "B")), kind="table", level=CRITICAL, thresholds=levels)
    table = _spec(panel)["spec"]
    assert [column.get("sort") for column in table["columnSettings"]] == [None, "desc", None]
    assert _spec(dataclasses.replace(panel, ascending=True))["spec"]["columnSettings"][1]["sort"] == "asc"
    assert table["cellSettings"] == [
        {"condition": {"kind": "Range", "spec": {"min": 30}}, "textColor": COLOURS[OK]},
        {"condition": {"kind": "Range", "spec": {"min": 7}}, "textColor": COLOURS[WARNING]},
        {"condition": {"kind": "Range", "spec": {"max": 7}}, "textColor": COLOURS[CRITICAL]},
    ]
    assert "cellSettings" not in _spec(dataclasses.replace(panel, thresholds=()))["spec"]
