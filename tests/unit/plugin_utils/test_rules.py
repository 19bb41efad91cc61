"""Prometheus' rules. What they do is tried by promtool in tests/integration/test_alert_rules.py."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import site_dashboards
from ansible_collections.jhok.lab.plugins.plugin_utils.monitoring_check import rule_files
from ansible_collections.jhok.lab.plugins.plugin_utils.prometheus import expected_targets
from ansible_collections.jhok.lab.plugins.plugin_utils.rules import own_rule_faults, rules, rules_text

SETTINGS: dict[str, Any] = {
    "url": "https://dashboards.example.org",
    "hub_namespace": "hub",
    "machines": {"master": "172.16.0.100"},
    "node": "master",
    "manage_kubernetes": True,
    "traffic_budget_gb": 0,
    "backup_max_age_days": 7,
    "rules": [],
    "dashboards": ["overview", "hub", "traffic"],
    "panels": [],
    "gpus": False,
    "nfs_kernel": False,
    "nfs_address": "172.16.0.100",
    "scrape_interval": 30,
}


def alerts(**changes: object) -> dict[str, dict[str, Any]]:
    groups = rules({**SETTINGS, **changes})["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_every_alert_says_how_bad_it_is_what_happened_and_what_to_do() -> None:
    for name, rule in alerts(traffic_budget_gb=5).items():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith((".", "{{ end }}"))
        assert rule["annotations"]["runbook_url"] == f"https://dashboards.example.org/site/runbooks.html#{name.lower()}"


def test_traffic_is_no_alert_without_a_budget() -> None:
    assert "UserOverTrafficBudget" not in alerts()
    rule = alerts(traffic_budget_gb=2.5)["UserOverTrafficBudget"]
    assert rule["expr"].endswith("> 2500000000")
    assert "2.5 GB" in rule["annotations"]["description"]


def test_homes_are_watched_where_there_are_quotas() -> None:
    assert "HomeNearlyFull" not in alerts()
    assert "jhok_home_quota_bytes" in alerts(quotas=True)["HomeNearlyFull"]["expr"]


def test_a_backup_s_age_is_the_site_s() -> None:
    rule = alerts()["BackupTooOld"]
    assert rule["expr"].endswith("> 604800")
    assert "7 days" in rule["annotations"]["summary"]


def test_a_job_that_has_vanished_is_missed_whatever_jobs_there_are() -> None:
    for managed in (True, False):
        found = alerts(manage_kubernetes=managed)
        text = found["TargetMissing"]["expr"] + found["HubDown"]["expr"]
        missed = set(re.findall(r'absent\(up\{job="([^"]+)"\}\)', text))
        assert missed == set(expected_targets({**SETTINGS, "manage_kubernetes": managed}, 1))


def test_the_hub_s_pods_are_counted_in_its_own_namespace() -> None:
    assert 'jhok:user_pod:info{namespace="hub"}' in alerts()["PodWatchStuck"]["expr"]


def test_the_site_s_own_groups_come_last_and_as_they_are() -> None:
    own = [{"name": "Räume", "interval": "1m", "rules": [{"alert": "Hot", "expr": "t > 30", "labels": {"a": "b"}}]}]
    text = rules_text({**SETTINGS, "rules": own})
    assert yaml.safe_load(text)["groups"][-1] == own[0]
    assert [group["name"] for group in yaml.safe_load(text)["groups"]][:3] == [
        "jhok-users",
        "jhok-traffic-by-day",
        "jhok-alerts",
    ]


@pytest.mark.parametrize(
    ("own", "pieces"),
    [
        (["x"], ["monitoring_rules[0]", "not a group"]),
        ([{"name": "a", "rules": {}}], ["monitoring_rules[0]", "not a group"]),
        ([{"name": "jhok-users", "rules": []}], ["monitoring_rules[0].name = jhok-users", "already"]),
        ([{"name": "a", "rules": []}, {"name": "a", "rules": []}], ["monitoring_rules[1].name = a", "already"]),
        ([{"name": "a", "rules": ["up"]}], ["monitoring_rules[0].rules[0]", "not a rule"]),
        ([{"name": "a", "rules": [{"expr": "up"}]}], ["monitoring_rules[0].rules[0]", "not a rule"]),
        ([{"name": "a", "rules": [{"alert": "A", "record": "b", "expr": "up"}]}], ["not a rule"]),
        ([{"name": "a", "rules": [{"alert": "A", "expr": 1}]}], ["not a rule"]),
        ([{"name": "a", "rules": [{"alert": "HubDown", "expr": "up"}]}], ["HubDown", "the product has"]),
        # Also one that this site does not have.
        ([{"name": "a", "rules": [{"alert": "UserOverTrafficBudget", "expr": "up"}]}], ["the product has"]),
        ([{"name": "a", "rules": [{"record": "jhok:user_pod:info", "expr": "up"}]}], ["the product has"]),
    ],
)
def test_groups_that_would_break_ours_are_refused(own: list[Any], pieces: list[str]) -> None:
    with pytest.raises(ValueError, match=r"monitoring_rules") as refused:
        rules({**SETTINGS, "rules": own})
    assert all(piece in str(refused.value) for piece in pieces), refused.value
    assert "To do:" in str(refused.value)


def test_what_is_no_list_is_left_to_its_type() -> None:
    assert list(own_rule_faults("x")) == []


def test_every_query_of_every_dashboard_is_judged_under_its_name() -> None:
    panel = {"dashboard": "hub", "title": "Mine", "query": 'up{node=~"$node"}'}
    files = rule_files({**SETTINGS, "panels": [panel]})
    groups = yaml.safe_load(files["queries"])["groups"]
    queries = {group["name"]: group["rules"][0]["expr"] for group in groups}
    assert queries["monitoring_panels[0].query"] == 'up{node=~".*"}'
    panels = [p for dashboard in site_dashboards(SETTINGS) for row in dashboard.rows for p in row.panels]
    assert len(queries) == len(groups) == sum(len(p.queries) for p in panels) + 1
    assert not any("$" in query for query in queries.values())
    assert yaml.safe_load(files["monitoring_rules"]) == {"groups": []}
