"""Every query of every dashboard answers, and with what the lab's own kernels, files and programs say."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator

import pytest
from activity import MOVER, Activity
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import Panel, Query, dashboard_queries
from comparisons import PANELS, Band, Case, Key
from facts import WINDOW, Facts
from lab import Site, Visitor, Watch, wait_for

SLACK = 20  # seconds that cAdvisor may be late


def chosen(query: Query) -> str:
    """Return a query in which a dashboard's variables stand for everything."""
    return re.sub(r"\$\w+", ".*", query.expr)


@pytest.fixture(scope="module")
def case(site: Site, activity: Activity, watches: dict[str, Watch], person: Visitor) -> Case:
    """Give the lab at a moment of which rates know nothing but the activity."""

    def steady() -> bool:
        younger = person.value("min(min_over_time(up[2m]))") == 1  # no figure is missing within two minutes
        return time.time() > activity.began + WINDOW + SLACK and younger

    wait_for("two minutes of activity", steady, 300, 2)
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


def test_known_download_is_counted(activity: Activity, case: Case) -> None:
    """What is measured with has to be right itself: the bytes that the test gave and took, and their packets' heads."""
    moment = time.time()
    for watch in case.facts.watches.values():
        watch.wait(moment)
    for direction, known in ((0, activity.receiver.given), (1, activity.receiver.taken)):
        counted = case.facts.moved(MOVER, direction, moment)
        assert 0.97 * known < counted < 1.12 * known + 10e6


def judged(found: list[tuple[dict[str, str], float]], labels: tuple[str, ...], bands: dict[Key, Band]) -> Iterator[str]:
    """Yield what is wrong with the answer to a query."""
    values: dict[Key, float] = {}
    for metric, value in found:
        key = tuple(metric[label] for label in labels if label in metric)
        values["".join(key) if len(key) < 2 else key] = value
    for key, band in bands.items():
        value = values.get(key)
        if value is None:
            yield f"{key}: is not there, only {sorted(map(str, values))}"
        elif not band.low <= value <= band.high:
            yield f"{key}: shows {value:.6g}, is {band.told:.6g} ({band.low:.6g} to {band.high:.6g})"
    if not bands:
        yield "the other way told nothing"


def test_values_are_true(site: Site, case: Case) -> None:
    wrong = []
    for name, panel in panels(site):
        check = PANELS[name]
        for query, bands in zip(panel.queries, check.bands, strict=True):
            expected = dict(bands(case))
            found = case.visitor.query(chosen(query), case.facts.now)
            wrong += [f"{name} ({query.legend}): {text}; {check.why}" for text in judged(found, check.labels, expected)]
    assert not wrong, "\n" + "\n".join(wrong)
