"""Dashboards in Grafana's form, for releases 10 and later. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import count
from string import ascii_uppercase
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import (
    Dashboard,
    Panel,
    Query,
    Variable,
    placed,
    site_dashboards,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.perses import COLOURS

Object = dict[str, Any]

SCHEMA = 39  # of Grafana 10.4's dashboards; later releases bring it up to their own
TAG = "jhok"  # the dashboards link to each other by it
_SOURCE = {"type": "prometheus", "uid": "prometheus"}
_TYPES = {"timeseries": "timeseries", "stat": "stat", "gauge": "gauge", "bar": "bargauge", "table": "table"}
_UNITS = {
    "number": "short",
    "cores": "short",
    "ratio": "percentunit",
    "percent": "percent",
    "bytes": "decbytes",
    "bytes/s": "Bps",
    "seconds": "s",
    "requests/s": "reqps",
    "operations/s": "ops",
    "celsius": "celsius",
    "watts": "watt",
}
_LAST = {"values": False, "calcs": ["lastNotNull"], "fields": ""}


def grafana_files(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the dashboards' files by name, `<uid>.json`.

    `settings` is as for `site_dashboards`, which also raises ValueError.
    """
    return {
        f"{each.uid}.json": json.dumps(grafana_dashboard(each), indent=1, ensure_ascii=False) + "\n"
        for each in site_dashboards(settings)
    }


def grafana_dashboard(dashboard: Dashboard) -> Object:
    """Return Grafana's form of a dashboard."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": [TAG],
        "timezone": "browser",
        "editable": False,
        "graphTooltip": 1,  # one crosshair in all panels
        "time": {"from": f"now-{dashboard.duration}", "to": "now"},
        "refresh": dashboard.refresh,
        "schemaVersion": SCHEMA,
        "version": 1,
        "panels": list(_panels(dashboard)),
        "templating": {"list": [_variable(variable) for variable in dashboard.variables]},
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "",
                "icon": "external link",
                "tooltip": "",
                "url": "",
                "tags": [TAG],
                "asDropdown": False,
                "targetBlank": False,
                "includeVars": False,
                "keepTime": True,
            }
        ],
    }


def _variable(variable: Variable) -> Object:
    values = f"label_values({variable.metric}, {variable.name})"
    return {
        "type": "query",
        "name": variable.name,
        "label": variable.title,
        "hide": 0,
        "skipUrlSync": False,
        "query": {"query": values, "refId": variable.name},
        "datasource": _SOURCE,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "multi": True,
        "includeAll": True,
        "allValue": ".*",  # also what has no value yet
        "refresh": 2,  # with the time range
        "sort": 1,
        "regex": "",
    }


def _panels(dashboard: Dashboard) -> Iterator[Object]:
    """Yield the panels in their places, each row's after its heading."""
    numbers = count(1)
    top = 0
    for row in dashboard.rows:
        yield {
            "id": next(numbers),
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": 24, "x": 0, "y": top},
            "panels": [],
        }
        top += 1
        places = placed(row)
        for panel, x, y in places:
            place = {"h": panel.height, "w": panel.width, "x": x, "y": top + y}
            yield {"id": next(numbers), "gridPos": place, **_panel(panel)}
        top += max(y + panel.height for panel, _, y in places)


def _panel(panel: Panel) -> Object:
    fields, options = {
        "timeseries": _timeseries,
        "stat": _stat,
        "gauge": _gauge,
        "bar": _bar,
        "table": _table,
    }[panel.kind](panel)
    defaults: Object = {
        "unit": _UNITS[panel.unit],
        "thresholds": {
            "mode": "absolute",
            "steps": [
                {"value": None, "color": COLOURS[panel.level]},
                *({"value": each.value, "color": COLOURS[each.level]} for each in panel.thresholds),
            ],
        },
        "mappings": [
            {
                "type": "value",
                "options": {f"{word.value:g}": {"text": word.text, "color": COLOURS[word.level], "index": index}},
            }
            for index, word in enumerate(panel.words)
        ],
        **fields,
    }
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    transformations, overrides = _columns(panel) if panel.kind == "table" else ([], [])
    return {
        "type": _TYPES[panel.kind],
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "targets": [
            _target(panel, query, letter) for query, letter in zip(panel.queries, ascii_uppercase, strict=False)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": options,
        "transformations": transformations,
    }


def _target(panel: Panel, query: Query, letter: str) -> Object:
    """Return a query: of the last values only, where no others are drawn."""
    instant = panel.kind in ("bar", "table")
    return {
        "refId": letter,
        "datasource": _SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "format": "table" if panel.kind == "table" else "time_series",
        "instant": instant,
        "range": not instant,
    }


def _timeseries(panel: Panel) -> tuple[Object, Object]:
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 40 if panel.stack else 10,
        "showPoints": "never",
        "spanNulls": False,
        "axisLabel": "cores" if panel.unit == "cores" else "",
        "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if panel.thresholds else "off"},
    }
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return {"min": 0, "color": {"mode": "palette-classic"}, "custom": custom}, options


def _stat(panel: Panel) -> tuple[Object, Object]:
    return {"color": {"mode": "thresholds"}}, {
        "reduceOptions": _LAST,
        "graphMode": "none" if panel.words else "area",
        "colorMode": "value",
        "justifyMode": "auto",
        "textMode": "auto",
        "orientation": "auto",
    }


def _gauge(_unused: Panel) -> tuple[Object, Object]:
    return {"min": 0, "color": {"mode": "thresholds"}}, {
        "reduceOptions": _LAST,
        "showThresholdLabels": False,
        "showThresholdMarkers": True,
        "orientation": "auto",
    }


def _bar(_unused: Panel) -> tuple[Object, Object]:
    return {"min": 0, "color": {"mode": "thresholds"}}, {
        "reduceOptions": _LAST,
        "displayMode": "basic",
        "orientation": "horizontal",
        "showUnfilled": True,
        "valueMode": "color",
    }


def _table(panel: Panel) -> tuple[Object, Object]:
    return {"color": {"mode": "thresholds"}, "custom": {"align": "auto", "inspect": False}}, {
        "showHeader": True,
        "cellHeight": "sm",
        "sortBy": [{"displayName": _heading(panel, panel.queries[0]), "desc": not panel.ascending}],
    }


def _heading(panel: Panel, query: Query) -> str:
    return query.legend or panel.title


def _columns(panel: Panel) -> tuple[list[Object], list[Object]]:
    """Return the transformations that make several queries one table with headings, and the columns' units."""
    several = len(panel.queries) > 1
    fields = [f"Value #{letter}" if several else "Value" for letter in ascii_uppercase[: len(panel.queries)]]
    headings = {
        **dict(panel.columns),
        **dict(zip(fields, (_heading(panel, query) for query in panel.queries), strict=True)),
    }
    organize = {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True},
            "indexByName": {name: index for index, name in enumerate(headings)},
            "renameByName": headings,
        },
    }
    overrides = [
        {
            "matcher": {"id": "byName", "options": _heading(panel, query)},
            "properties": [{"id": "unit", "value": _UNITS[query.unit]}],
        }
        for query in panel.queries
        if query.unit
    ]
    if panel.thresholds:
        colour = {"id": "custom.cellOptions", "value": {"type": "color-text"}}
        overrides += [
            {"matcher": {"id": "byName", "options": _heading(panel, query)}, "properties": [colour]}
            for query in panel.queries
        ]
    return ([{"id": "merge", "options": {}}] if several else []) + [organize], overrides
