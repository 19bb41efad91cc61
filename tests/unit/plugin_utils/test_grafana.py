"""Dashboards in Grafana's form, against Grafana's own types."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, get_args

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import (
    KINDS,
    UNITS,
    Dashboard,
    Panel,
    Query,
    Row,
    Threshold,
    Variable,
    Word,
    site_dashboards,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.grafana import grafana_dashboard, grafana_files
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as schema
from grafana_foundation_sdk.models import units

GOLDEN = Path(__file__).parents[1] / "golden" / "dashboards" / "grafana-users.json"
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
register_default_plugins()


def _round_trip(ours: dict[str, Any]) -> dict[str, Any]:
    """Read a dashboard into Grafana's types and write it again; what the types do not know gets lost."""
    theirs: dict[str, Any] = json.loads(JSONEncoder().encode(schema.Dashboard.from_json(ours)))
    return theirs


def _lost(ours: object, theirs: object, where: str = "") -> list[str]:
    """Return what of ours is not in theirs, which may have more."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            place
            for key, value in ours.items()
            for place in (_lost(value, theirs[key], f"{where}.{key}") if key in theirs else [f"{where}.{key}"])
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            place
            for index, pair in enumerate(zip(ours, theirs, strict=True))
            for place in _lost(*pair, f"{where}[{index}]")
        ]
    return [] if ours == theirs else [f"{where}: {ours!r} became {theirs!r}"]


def _drawn(panel: Panel) -> dict[str, Any]:
    return grafana_dashboard(
        Dashboard("uid", "Title", "Text.", (Row("Row", (panel,)),), (Variable("node", "N", "up"),))
    )


def test_users_are_golden() -> None:
    text = grafana_files(SETTINGS)["users.json"]
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "see the difference; UPDATE_GOLDEN=1 writes the file anew"


def test_there_is_a_file_for_each_page() -> None:
    assert set(grafana_files(SETTINGS)) == {f"{uid}.json" for uid in SETTINGS["dashboards"]}


@pytest.mark.parametrize("uid", SETTINGS["dashboards"])
def test_grafanas_types_know_all_of_it(uid: str) -> None:
    ours = json.loads(grafana_files(SETTINGS)[f"{uid}.json"])
    assert not _lost(ours, _round_trip(ours))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", UNITS)
def test_grafana_knows_every_kind_and_unit(kind: str, unit: str) -> None:
    panel = Panel(
        "Title",
        (Query("up", "{{node}}", unit), Query("down")),
        unit,
        kind,
        thresholds=(Threshold(1, "warning"),),
        words=(Word(0, "down", "critical"),),
        columns=(("node", "Machine"),),
        stack=True,
        maximum=1,
    )
    ours = _drawn(panel)
    assert not _lost(ours, _round_trip(ours))
    known = {get_args(hint)[0] for name, hint in units.__annotations__.items() if name[0].isupper()}
    assert ours["panels"][1]["fieldConfig"]["defaults"]["unit"] in known


def test_a_mistake_gets_lost_in_grafanas_types() -> None:
    ours = _drawn(Panel("Title", (Query("up"),)))
    ours["panels"][1]["options"]["legends"] = ours["panels"][1]["options"].pop("legend")
    assert _lost(ours, _round_trip(ours)) == [".panels[1].options.legends"]


def test_numbers_and_places_are_unique() -> None:
    for dashboard in site_dashboards(SETTINGS):
        panels = grafana_dashboard(dashboard)["panels"]
        numbers = [panel["id"] for panel in panels]
        assert numbers == list(range(1, len(panels) + 1))
        taken: set[tuple[int, int]] = set()
        for panel in panels:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells


def test_the_dashboards_link_to_each_other() -> None:
    ours = grafana_dashboard(site_dashboards(SETTINGS)[0])
    assert ours["uid"] == "overview"
    assert ours["links"][0]["tags"] == ours["tags"] == ["jhok"]
    assert "orgId" not in json.dumps(ours)


def test_a_table_is_sorted_and_coloured_as_its_panel_says() -> None:
    panel = Panel("Ink", (Query("a", "A"), Query("b", "B")), kind="table", thresholds=(Threshold(7, "warning"),))
    table = _drawn(panel)["panels"][1]
    assert table["options"]["sortBy"] == [{"displayName": "A", "desc": True}]
    coloured = [each["matcher"]["options"] for each in table["fieldConfig"]["overrides"]]
    assert coloured == ["A", "B"], "figures, not names"
    properties = table["fieldConfig"]["overrides"][0]["properties"]
    assert properties == [{"id": "custom.cellOptions", "value": {"type": "color-text"}}]
    turned = _drawn(dataclasses.replace(panel, ascending=True, thresholds=()))["panels"][1]
    assert turned["options"]["sortBy"] == [{"displayName": "A", "desc": False}]
    assert turned["fieldConfig"]["overrides"] == []
