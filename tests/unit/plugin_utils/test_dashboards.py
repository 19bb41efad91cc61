"""What the dashboards ask, and what a site's own panels may say."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import (
    COLUMNS,
    KINDS,
    LEVELS,
    UNITS,
    Dashboard,
    Panel,
    Query,
    Row,
    dashboard_queries,
    placed,
    site_dashboards,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.promql import metric_names

UIDS = ["overview", "hub", "users", "nodes", "homes", "traffic", "gpu"]
FULL: dict[str, Any] = {
    "dashboards": UIDS,
    "panels": [],
    "gpus": True,
    "nfs_kernel": True,
    "nfs_address": "172.16.0.100",
    "manage_kubernetes": True,
    "traffic_budget_gb": 5,
    "scrape_interval": 30,
    "quotas": True,
}
BARE: dict[str, Any] = {
    **FULL,
    "gpus": False,
    "nfs_kernel": False,
    "manage_kubernetes": False,
    "traffic_budget_gb": 0,
    "homes_measured": False,
    "quotas": False,
}
OWN = {"dashboard": "overview", "title": "Printers", "query": "count(printer_up)"}


def _panels(dashboard: Dashboard) -> list[Panel]:
    return [panel for row in dashboard.rows for panel in row.panels]


def _metrics(settings: dict[str, Any]) -> set[str]:
    dashboards = site_dashboards(settings)
    names = {name for _, query in dashboard_queries(dashboards) for name in metric_names(query.expr)}
    return names | {variable.metric for dashboard in dashboards for variable in dashboard.variables}


@pytest.mark.parametrize("settings", [FULL, BARE], ids=["full", "bare"])
def test_every_panel_can_be_read(settings: dict[str, Any]) -> None:
    for dashboard in site_dashboards(settings):
        assert dashboard.title
        assert dashboard.description.endswith((".", "?"))
        titles = [panel.title for panel in _panels(dashboard)]
        assert len(set(titles)) == len(titles) <= 15, dashboard.uid
        for panel in _panels(dashboard):
            where = f"{dashboard.uid}: {panel.title}"
            assert panel.description.endswith("."), where
            assert panel.kind in KINDS, where
            assert panel.unit in UNITS, where
            assert {query.unit for query in panel.queries} <= {"", *UNITS}, where
            assert all(query.legend for query in panel.queries), where
            assert len({query.legend for query in panel.queries}) == len(panel.queries) > 0, where
            assert len(panel.queries) == 1 or panel.kind not in ("gauge", "stat", "bar"), where
            assert {panel.level, *(each.level for each in (*panel.thresholds, *panel.words))} <= set(LEVELS), where
            values = [each.value for each in panel.thresholds]
            assert values == sorted(set(values)), where
            assert bool(panel.columns) == (panel.kind == "table"), where
            units = {query.unit or panel.unit for query in panel.queries}
            assert len(units) == 1 or not panel.thresholds, f"{where}: a threshold for several units"
            assert panel.kind == "table" or not panel.ascending, where


@pytest.mark.parametrize("settings", [FULL, BARE], ids=["full", "bare"])
def test_every_query_names_its_metrics(settings: dict[str, Any]) -> None:
    for where, query in dashboard_queries(site_dashboards(settings)):
        assert metric_names(query.expr), where
        assert "__name__" not in query.expr, where


@pytest.mark.parametrize("settings", [FULL, BARE], ids=["full", "bare"])
def test_queries_use_the_variables_that_their_dashboard_has(settings: dict[str, Any]) -> None:
    for dashboard in site_dashboards(settings):
        queries = " ".join(query.expr for panel in _panels(dashboard) for query in panel.queries)
        names = {variable.name for variable in dashboard.variables}
        assert {name for name in ("node", "user") if f"${name}" in queries} == names, dashboard.uid


def test_the_pages_are_in_the_inventorys_order() -> None:
    assert [each.uid for each in site_dashboards(FULL)] == UIDS
    assert [each.uid for each in site_dashboards({**FULL, "dashboards": ["users", "hub"]})] == ["users", "hub"]


def test_what_a_site_has_not_is_left_out() -> None:
    assert [each.uid for each in site_dashboards(BARE)] == UIDS[:-1]
    missing = {
        "jhok_home_bytes",
        "jhok_home_quota_bytes",
        "jhok_home_quota_used_bytes",
        "jhok_homes_filesystem_size_bytes",
        "jhok_gpu_utilization_ratio",
        "node_nfsd_requests_total",
        "etcd_disk_wal_fsync_duration_seconds_bucket",
        "jhok_certificate_expiry_timestamp_seconds",
    }
    assert missing <= _metrics(FULL)
    assert not missing & _metrics(BARE)
    assert "jhok_nfs_up" in _metrics(BARE)
    assert "homes" not in [each.uid for each in site_dashboards({**FULL, "nfs_address": ""})]
    assert "jhok_home_bytes" not in _metrics({**FULL, "nfs_address": ""})


def test_the_certificate_that_ends_next_is_first_and_coloured() -> None:
    nodes = site_dashboards({**FULL, "dashboards": ["nodes"]})[0]
    panel = next(panel for panel in _panels(nodes) if panel.title == "Certificates expire in")
    assert panel.ascending
    levels = [panel.level, *(each.level for each in panel.thresholds)]
    assert levels == ["critical", "warning", "ok"]
    assert panel.thresholds[-1].value == 30 * 86400, "the alert's"


def test_quotas_and_budget_appear_on_demand() -> None:
    assert "jhok_home_quota_bytes" not in _metrics({**FULL, "quotas": False})
    titles = [panel.title for panel in _panels(site_dashboards({**FULL, "dashboards": ["traffic"]})[0])]
    assert "Share of the budget of 5 GB a day" in titles
    assert not any("budget" in panel.title for panel in _panels(site_dashboards(BARE)[5]))


def test_a_row_is_laid_out_from_left_to_right() -> None:
    panels = [Panel(str(number), (), width=width, height=height) for number, (width, height) in enumerate(
        [(12, 4), (12, 6), (16, 3), (12, 8)]
    )]  # fmt: skip
    assert [(x, y) for _, x, y in placed(Row("row", tuple(panels)))] == [(0, 0), (12, 0), (0, 6), (0, 9)]
    for dashboard in site_dashboards(FULL):
        for row in dashboard.rows:
            assert all(x + panel.width <= COLUMNS for panel, x, _ in placed(row))


def test_own_panels_come_at_the_end() -> None:
    own = [
        OWN,
        {**OWN, "title": "Paper", "row": "Printers", "unit": "percent", "kind": "gauge", "legend": "{{printer}}"},
        {**OWN, "title": "Ink", "row": "Printers"},
        {**OWN, "title": "Queue", "row": "State"},
    ]
    before = site_dashboards(FULL)[0].rows
    rows = site_dashboards({**FULL, "panels": own})[0].rows
    assert [row.title for row in rows] == [*(row.title for row in before), "Our own", "Printers"]
    assert [panel.title for panel in rows[-2].panels] == ["Printers"]
    assert [panel.title for panel in rows[-1].panels] == ["Paper", "Ink"]
    assert rows[0].panels == (*before[0].panels, rows[0].panels[-1])
    assert rows[0].panels[-1].title == "Queue"
    paper = rows[-1].panels[0]
    assert (paper.kind, paper.unit) == ("gauge", "percent")
    assert paper.queries == (Query("count(printer_up)", "{{printer}}"),)
    assert rows[-2].panels[0].description == "This site's own panel: count(printer_up)"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dashboards": ["overview", "hubb"]}, ["monitoring_dashboards", "'hubb'", "overview, hub, users"]),
        ({"dashboards": ["hub", "hub"]}, ["monitoring_dashboards", "'hub'", "once"]),
        ({"dashboards": []}, ["monitoring_dashboards", "empty"]),
        ({"panels": [OWN, {**OWN, "dashboard": "print"}]}, ["monitoring_panels[1].dashboard", "'print'", "overview"]),
        ({"panels": [{**OWN, "dashboard": "gpu"}], "gpus": False}, ["monitoring_panels[0].dashboard", "'gpu'"]),
        ({"panels": [{**OWN, "kind": "pie"}]}, ["monitoring_panels[0].kind", "'pie'", "gauge"]),
        ({"panels": [{**OWN, "unit": "miles"}]}, ["monitoring_panels[0].unit", "'miles'", "bytes/s"]),
        ({"panels": [{**OWN, "query": " "}]}, ["monitoring_panels[0].query", "empty", "PromQL"]),
        ({"panels": [{**OWN, "title": ""}]}, ["monitoring_panels[0].title", "empty"]),
    ],
)
def test_what_there_is_not_is_refused(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^monitoring_") as refusal:
        site_dashboards({**FULL, **changes})
    assert all(word in str(refusal.value) for word in words), refusal.value
