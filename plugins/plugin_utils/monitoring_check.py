"""The files that Prometheus' own tools judge before anything of a site changes. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import dashboard_queries, site_dashboards
from ansible_collections.jhok.lab.plugins.plugin_utils.rules import OWN_RULES, rules_text

_VARIABLE = re.compile(r"\$\w+")  # of a dashboard; promtool knows none


def rule_files(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return files for `promtool check rules` by what they are of.

    `rules` are the product's, `monitoring_rules` the site's own, and `queries` has every query of every dashboard as a
    rule in a group that is named after it: `monitoring_panels[0].query` or `hub: Starts of servers`.
    """
    queries = {
        f"{where} ({number})": query.expr
        for number, (where, query) in enumerate(dashboard_queries(site_dashboards({**settings, "panels": []})))
    }
    queries |= {f"monitoring_panels[{number}].query": panel["query"] for number, panel in enumerate(settings["panels"])}
    groups = [
        {"name": name, "rules": [{"record": "query", "expr": _VARIABLE.sub(".*", query)}]}
        for name, query in queries.items()
    ]
    return {
        "rules": rules_text({**settings, "rules": []}),
        OWN_RULES: _yaml({"groups": settings["rules"]}),
        "queries": _yaml({"groups": groups}),
    }


def _yaml(document: object) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=1000, allow_unicode=True)
