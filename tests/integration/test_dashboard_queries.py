"""What the dashboards' queries answer, judged by promtool of the image that is shipped.

Run as root, after `site.yml --tags bundle`, or with promtool on the path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import dashboard_queries, site_dashboards
from ansible_collections.jhok.lab.plugins.plugin_utils.rules import rules
from test_alert_rules import SETTINGS as RULES_SETTINGS
from test_alert_rules import run

pytestmark = pytest.mark.integration

TABLE = yaml.safe_load(Path(__file__).with_name("dashboard_queries.yml").read_text())
QUIET, BUSY = TABLE["quiet"], {**TABLE["quiet"], **TABLE["busy"]}
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
QUERIES = {
    (*where.split(": ", 1), query.legend): query.expr.replace("$node", ".*").replace("$user", ".*")
    for where, query in dashboard_queries(site_dashboards({**SETTINGS, "quotas": True}))
}
RATES = [group for group in rules(RULES_SETTINGS)["groups"] if group["name"] == "jhok-users"]


def judge(directory: Path, series: dict[str, str], answers: dict[str, dict[str, float]], **more: str) -> None:
    """Fail unless each query has these answers, half an hour after the first sample."""
    timing = {"every": "30s", "at": "30m", **more}
    (directory / "rules.yml").write_text(yaml.safe_dump({"groups": RATES}))
    document = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": timing["every"],
        "tests": [
            {
                "interval": timing["every"],
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": timing["at"],
                        "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
                    }
                    for query, samples in answers.items()
                ],
            }
        ],
    }
    (directory / "tests.yml").write_text(yaml.safe_dump(document, width=1000))
    result = run(directory, "promtool", "test", "rules", "tests.yml")
    assert result.returncode == 0, result.stdout + result.stderr


def rounded(query: str) -> str:
    """Return a query whose figures have no trace of binary fractions."""
    return f"round({query}, 0.0001)"


@pytest.mark.parametrize("series", [QUIET, BUSY], ids=["quiet", "busy"])
def test_no_panel_is_empty(series: dict[str, str], tmp_path: Path) -> None:
    judge(tmp_path, series, {f"count({query}) > bool 0": {"{}": 1} for query in QUERIES.values()})


def test_panels_tell_the_right_figures(tmp_path: Path) -> None:
    judge(
        tmp_path,
        BUSY,
        {
            rounded(QUERIES[uid, title, legend]): {
                # round() takes the name away
                labels if "__name__" not in labels else "{" + labels.split(",", 1)[1]: value
                for labels, value in samples.items()
            }
            for uid, title, legend, samples in TABLE["figures"]
        },
    )


def test_traffic_is_told_by_day_and_for_the_week(tmp_path: Path) -> None:
    def told(name: str, panel: str = "Received by day") -> str:
        return rounded(QUERIES["traffic", panel, name])

    judge(
        tmp_path,
        TABLE["days"],
        {
            told("Last 24 h"): {'{user="ann"}': 800, '{user="bob"}': 7, '{user="all users"}': 807},
            told("The day before"): {'{user="ann"}': 700, '{user="all users"}': 700},
            told("6 days before"): {'{user="ann"}': 200, '{user="all users"}': 200},
            told("7 days"): {'{user="ann"}': 3500, '{user="bob"}': 7, '{user="all users"}': 3507},
            told("7 days", "Received by day and machine"): {'{node="master"}': 80, '{node="all machines"}': 80},
            told("Last 24 h", "Sent by day and namespace"): {'{namespace="all namespaces"}': 0},
        },
        every="30m",
        at="191h",
    )
