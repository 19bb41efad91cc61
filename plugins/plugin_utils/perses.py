"""Dashboards in Perses' form, as its React components of version 0.52 read it. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import (
    CRITICAL,
    OK,
    WARNING,
    Dashboard,
    Panel,
    Query,
    Row,
    Variable,
    placed,
    site_dashboards,
)

Object = dict[str, Any]

PROJECT = "jhok"  # Perses files dashboards under one
COLOURS = {OK: "#2f9e5b", WARNING: "#e8950c", CRITICAL: "#d64550"}  # readable on white and on black
_PLUGINS = {
    "timeseries": "TimeSeriesChart",
    "stat": "StatChart",
    "gauge": "GaugeChart",
    "bar": "BarChart",
    "table": "Table",
}
_UNITS = {
    "number": "decimal",
    "cores": "decimal",
    "ratio": "percent-decimal",
    "percent": "percent",
    "bytes": "bytes",
    "bytes/s": "bytes/sec",
    "seconds": "seconds",
    "requests/s": "requests/sec",
    "operations/s": "ops/sec",
    "celsius": "decimal",
    "watts": "decimal",
}
_AXES = {"cores": "cores", "celsius": "°C", "watts": "W"}  # units that Perses cannot write beside a figure
# The last figure that there is: of a series that has just begun, the very last may be missing.
_LAST = "last-number"


def perses_files(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the dashboards' files by name: `<uid>.json`, and `index.json` with `uid`, `title`, `description` of each.

    `settings` is as for `site_dashboards`, which also raises ValueError. The index' first dashboard is home.
    """
    dashboards = site_dashboards(settings)
    index = [{"uid": each.uid, "title": each.title, "description": each.description} for each in dashboards]
    return {
        "index.json": _json(index),
        **{f"{each.uid}.json": _json(perses_dashboard(each)) for each in dashboards},
    }


def perses_dashboard(dashboard: Dashboard) -> Object:
    """Return Perses' resource of a dashboard; it asks the default data source."""
    panels = [panel for row in dashboard.rows for panel in row.panels]
    names = iter(f"panel{number}" for number in range(len(panels)))
    return {
        "kind": "Dashboard",
        "metadata": {"name": dashboard.uid, "project": PROJECT, "version": 0},
        "spec": {
            "display": {"name": dashboard.title, "description": dashboard.description},
            "duration": dashboard.duration,
            "refreshInterval": dashboard.refresh,
            "variables": [_variable(variable) for variable in dashboard.variables],
            "panels": {f"panel{number}": _panel(panel) for number, panel in enumerate(panels)},
            "layouts": [_layout(row, names) for row in dashboard.rows],
        },
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _variable(variable: Variable) -> Object:
    return {
        "kind": "ListVariable",
        "spec": {
            "name": variable.name,
            "display": {"name": variable.title},
            "allowMultiple": True,
            "allowAllValue": True,
            "customAllValue": ".*",  # also what has no value yet
            "defaultValue": "$__all",
            "sort": "alphabetical-asc",
            "plugin": {
                "kind": "PrometheusLabelValuesVariable",
                "spec": {"labelName": variable.name, "matchers": [variable.metric]},
            },
        },
    }


def _layout(row: Row, names: Iterator[str]) -> Object:
    """Return a row's grid. `names` yields those of the panels."""
    items = [
        {
            "x": x,
            "y": y,
            "width": panel.width,
            "height": panel.height,
            "content": {"$ref": f"#/spec/panels/{next(names)}"},
        }
        for panel, x, y in placed(row)
    ]
    return {"kind": "Grid", "spec": {"display": {"title": row.title, "collapse": {"open": True}}, "items": items}}


def _panel(panel: Panel) -> Object:
    spec = {
        "timeseries": _timeseries,
        "stat": _stat,
        "gauge": _gauge,
        "bar": _bar,
        "table": _table,
    }[panel.kind](panel)
    return {
        "kind": "Panel",
        "spec": {
            "display": {"name": panel.title, "description": panel.description},
            "plugin": {"kind": _PLUGINS[panel.kind], "spec": spec},
            "queries": [_query(query) for query in panel.queries],
        },
    }


def _query(query: Query) -> Object:
    plugin = {"query": query.expr, **({"seriesNameFormat": query.legend} if query.legend else {})}
    return {
        "kind": "TimeSeriesQuery",
        "spec": {"plugin": {"kind": "PrometheusTimeSeriesQuery", "spec": plugin}},
    }


def _format(unit: str) -> Object:
    return {"unit": _UNITS[unit]}


def _thresholds(panel: Panel) -> Object:
    return {
        "mode": "absolute",
        "defaultColor": COLOURS[panel.level],
        "steps": [{"value": each.value, "color": COLOURS[each.level]} for each in panel.thresholds],
    }


def _timeseries(panel: Panel) -> Object:
    axis: Object = {"show": True, "format": _format(panel.unit), "min": 0}
    if panel.unit in _AXES:
        axis["label"] = _AXES[panel.unit]
    if panel.maximum is not None:
        axis["max"] = panel.maximum
    # Beside the chart there is room for more names than below it.
    position = "right" if any("{{" in query.legend for query in panel.queries) else "bottom"
    spec: Object = {
        "legend": {"position": position, "mode": "table", "size": "small", "values": [_LAST, "max"]},
        "yAxis": axis,
        "visual": {
            "display": "line",
            "lineWidth": 1.5,
            "areaOpacity": 0.4 if panel.stack else 0.1,
            "palette": {"mode": "auto"},  # a name has one colour on every chart
            **({"stack": "all"} if panel.stack else {}),
        },
    }
    if panel.thresholds:
        spec["thresholds"] = _thresholds(panel)
    return spec


def _stat(panel: Panel) -> Object:
    spec: Object = {"calculation": _LAST, "format": _format(panel.unit), "thresholds": _thresholds(panel)}
    if panel.words:
        spec["mappings"] = [
            {
                "kind": "Value",
                "spec": {"value": f"{word.value:g}", "result": {"value": word.text, "color": COLOURS[word.level]}},
            }
            for word in panel.words
        ]
    return spec


def _gauge(panel: Panel) -> Object:
    return {
        "calculation": _LAST,
        "format": _format(panel.unit),
        "thresholds": _thresholds(panel),
        **({} if panel.maximum is None else {"max": panel.maximum}),
    }


def _bar(panel: Panel) -> Object:
    return {"calculation": _LAST, "format": _format(panel.unit), "sort": "desc", "mode": "value"}


def _table(panel: Panel) -> Object:
    """Return a table with a row per set of labels; several queries' figures stand side by side."""
    several = len(panel.queries) > 1
    settings: list[Object] = [{"name": "timestamp", "hide": True}]
    settings += [{"name": label, "header": heading, "enableSorting": True} for label, heading in panel.columns]
    for number, query in enumerate(panel.queries, start=1):
        settings.append(
            {
                "name": f"value #{number}" if several else "value",
                "header": query.legend or panel.title,
                "format": _format(query.unit or panel.unit),
                "align": "right",
                "enableSorting": True,
                **({"sort": "asc" if panel.ascending else "desc"} if number == 1 else {}),
            }
        )
    return {
        "density": "compact",
        "defaultColumnWidth": "auto",
        "columnSettings": settings,
        **({"cellSettings": _cells(panel)} if panel.thresholds else {}),
        "transforms": [{"kind": "MergeSeries", "spec": {}}] if several else [],
    }


def _cells(panel: Panel) -> list[Object]:
    """Return the colours of figures. The first condition that holds counts; a name meets none."""
    steps = [({"min": each.value}, each.level) for each in reversed(panel.thresholds)]
    steps.append(({"max": panel.thresholds[0].value}, panel.level))
    return [{"condition": {"kind": "Range", "spec": spec}, "textColor": COLOURS[level]} for spec, level in steps]
