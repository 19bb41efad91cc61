"""The page of runbooks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.rules import rules
from ansible_collections.jhok.lab.plugins.plugin_utils.runbooks import runbooks_html

RUNBOOKS = (Path(__file__).parents[3] / "docs" / "admin" / "runbooks.md").read_text()
SETTINGS: dict[str, Any] = {
    "site_name": "<Physics & lab>",
    "url": "http://172.16.0.100:30759",
    "namespace": "watch",
    "hub_namespace": "hub",
    "machines": {"master": "172.16.0.100"},
    "node": "master",
    "manage_kubernetes": True,
    "traffic_budget_gb": 20,
    "quotas": True,
    "backup_max_age_days": 2,
    "rules": [],
}


def test_every_alert_links_to_its_section_and_there_is_no_other() -> None:
    page = runbooks_html(RUNBOOKS, SETTINGS)
    alerts = [rule for group in rules(SETTINGS)["groups"] for rule in group["rules"] if "alert" in rule]
    links = {rule["annotations"]["runbook_url"] for rule in alerts}
    anchors = re.findall(r'<h2 id="([^"]+)">', page)
    assert links == {f"http://172.16.0.100:30759/site/runbooks.html#{anchor}" for anchor in anchors}
    assert len(set(anchors)) == len(anchors) == len(alerts)


def test_every_section_says_what_people_notice_where_to_look_and_what_to_do() -> None:
    for section in RUNBOOKS.split("\n## ")[1:]:
        headings = re.findall(r"^\*\*(.+?):\*\*", section, re.MULTILINE)
        assert headings == ["People notice", "Look", "Do"] or section.startswith("TargetMissing"), section[:20]


def test_commands_have_the_namespaces_of_the_site() -> None:
    page = runbooks_html(RUNBOOKS, SETTINGS)
    assert "kubectl -n hub logs deployment/hub" in page
    assert "kubectl -n watch exec deployment/monitoring" in page
    assert "kubectl -n jupyterhub" not in page
    assert "kubectl -n monitoring" not in page


def test_links_lead_within_the_page_or_to_the_dashboards() -> None:
    page = runbooks_html(RUNBOOKS, SETTINGS)
    anchors = set(re.findall(r'id="([^"]+)"', page))
    links = set(re.findall(r'href="([^"]+)"', page))
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    assert {link for link in links if not link.startswith("#")} == {"http://172.16.0.100:30759/"}


def test_a_site_s_name_is_text() -> None:
    assert "&lt;Physics &amp; lab&gt;" in runbooks_html("# Title\n", SETTINGS)
