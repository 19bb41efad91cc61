"""Every query of every dashboard answers, and with what the lab's own kernels, files and programs say."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator

import pytest
from activity import MOVER, Activity
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import Panel, Query, dashboard_queries
from ansible_collections.jhok.lab.plugins.plugin_utils.promql import metric_names
from comparisons import PANELS, Case, judged
from facts import WINDOW, Facts
from lab import Site, Visitor, Watch, wait_for

# Metrics that a lab without any fault need not have. All others are there, or a zero in a panel would mean nothing.
MAY_BE_ABSENT = {
    "ALERTS",  # nothing fires or waits
    "jupyterhub_server_stop_seconds_count",  # no server has been stopped since the hub began
}

SLACK = 20  # seconds that cAdvisor may be late


def chosen(query: Query) -> str:
    """Return a query in which a dashboard's variables stand for everything."""
    return re.sub(r"\$\w+", ".*", query.expr)


@pytest.fixture(scope="module")
def case(site: Site, activity: Activity, watches: dict[str, Watch], person: Visitor) -> Case:
    """Give the lab at a moment of which rates know nothing but the activity."""

    wait_for("two minutes of activity", lambda: time.time() > activity.began + WINDOW + SLACK, WINDOW + 2 * SLACK, 2)
    # One figure that is missing changes no rate by much; a target that was silent for longer does.
    silent = f"min_over_time(max_over_time(up[{3 * site.settings['scrape_interval']}s])[{WINDOW}s:5s]) == 0"
    deadline = time.monotonic() + 300
    while names := sorted(f"{labels['job']} {labels['instance']}" for labels, _ in person.query(silent)):
        assert time.monotonic() < deadline, f"for minutes these have been silent for a while again and again: {names}"
        time.sleep(5)
    return Case(Facts(site, activity, watches), person)


def panels(site: Site) -> Iterator[tuple[str, Panel]]:
    for dashboard in site.dashboards:
        for row in dashboard.rows:
            for panel in row.panels:
                yield f"{dashboard.uid}: {panel.title}", panel


def test_all_panels_are_compared(site: Site) -> None:
    there = {name: len(panel.queries) for name, panel in panels(site)}
    assert there == {name: len(check.bands) for name, check in PANELS.items()}


def test_every_query_answers(site: Site, case: Case) -> None:
    empty = []
    for name, query in dashboard_queries(site.dashboards):
        found = case.visitor.query(chosen(query), case.facts.now)
        if not found or any(math.isnan(value) for _, value in found):
            empty.append(f"{name} ({query.legend}): {found or 'nothing'}: {query.expr}")
    assert not empty, "\n".join(empty)


def test_every_metric_is_there(site: Site, case: Case) -> None:
    """A query that puts a zero where there is nothing answers for a name that is misspelt, too."""
    names = {name for _, query in dashboard_queries(site.dashboards) for name in metric_names(query.expr)}
    names |= {variable.metric for dashboard in site.dashboards for variable in dashboard.variables}
    missing = {
        name for name in names if not case.visitor.query(f"count(last_over_time({name}[1h])) > 0", case.facts.now)
    }
    assert not missing - MAY_BE_ABSENT


def test_known_download_is_counted(activity: Activity, case: Case) -> None:
    """What is measured with has to be right itself: the bytes that the test gave and took, and their packets' heads."""
    moment = time.time()
    for watch in case.facts.watches.values():
        watch.wait(moment)
    for direction, known in ((0, activity.receiver.given), (1, activity.receiver.taken)):
        counted = case.facts.moved(MOVER, direction, moment)
        assert 0.97 * known < counted < 1.12 * known + 10e6


def test_values_are_true(site: Site, case: Case) -> None:
    wrong = []
    for name, panel in panels(site):
        check = PANELS[name]
        for query, bands in zip(panel.queries, check.bands, strict=True):
            expected = dict(bands(case))
            found = case.visitor.query(chosen(query), case.facts.now)
            wrong += [
                f"{name} ({query.legend}): {text}; {check.why}"
                for text in judged(found, check.labels, expected, check.whole)
            ]
    assert not wrong, "\n" + "\n".join(wrong)
