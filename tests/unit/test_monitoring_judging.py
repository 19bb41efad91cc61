"""How the lab's comparisons of monitoring judge: each of them has to be able to fail, and not by bad luck."""

from __future__ import annotations

import threading
import time

import pytest
from activity import Forever
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import dashboard_queries, site_dashboards
from comparisons import PANELS, Band, around, judged, wide
from lab import Watch

BANDS = {"a": Band(5, 4, 6)}


@pytest.mark.parametrize(
    ("found", "whole", "words"),
    [
        ([({"node": "a"}, 5)], True, []),
        ([({"node": "a"}, 7)], True, ["shows 7, is 5 (4 to 6)"]),
        ([({"node": "a"}, float("nan"))], True, ["shows nan"]),
        ([], True, ["is not there"]),
        ([({"node": "a", "cpu": "0"}, 7), ({"node": "a", "cpu": "1"}, 5)], False, ["told twice"]),
        ([({"node": "a"}, 5), ({"node": "b"}, 5)], True, ["b: is told, and nobody knows of it"]),
        ([({"node": "a"}, 5), ({"node": "b"}, 5)], False, []),
    ],
)
def test_answers_are_judged(found: list[tuple[dict[str, str], float]], whole: bool, words: list[str]) -> None:
    wrong = list(judged(found, ("node",), BANDS, whole))
    assert len(wrong) == len(words)
    assert all(word in text for word, text in zip(words, wrong, strict=True))


def test_an_answer_without_labels_stands_alone() -> None:
    assert list(judged([({}, 5), ({"job": "x"}, 5)], (), {"": Band(5, 4, 6)}, whole=False)) != []
    assert list(judged([({}, 5)], (), {}, whole=False)) != [], "nothing to compare with is no success"


def test_a_time_of_zero_is_wrong() -> None:
    band = wide([0.01, 0.02, 0.5])
    assert band.low == 0.01 / 20
    assert not list(judged([({}, 0.02)], (), {"": band}, whole=False))
    assert list(judged([({}, 0)], (), {"": band}, whole=False))


def watch(*counts: float) -> Watch:
    """Return a watch of a counter with a sample each 3 seconds."""
    made = object.__new__(Watch)
    made.times = [3.0 * number for number in range(len(counts))]
    made.samples = [{"count": count} for count in counts]
    return made


def test_a_steady_rate_leaves_no_doubt() -> None:
    steady = watch(*(30.0 * number for number in range(60)))
    assert steady.rates(170, lambda sample: sample["count"]) == pytest.approx((10, 10))


def test_a_burst_at_the_end_may_count_or_not() -> None:
    burst = watch(*(0.0 for _ in range(55)), *(1200.0 for _ in range(5)))
    least, largest = burst.rates(170, lambda sample: sample["count"])
    assert least == 0
    assert largest == pytest.approx(1200 / 90)
    assert around((least, largest)).high < 15, "more than that is wrong all the same"


def test_what_goes_on_goes_on_after_a_failure() -> None:
    calls: list[float] = []
    enough = threading.Event()

    def work() -> None:
        calls.append(time.time())
        if len(calls) == 1:
            raise OSError("broken off")
        if len(calls) == 4:
            enough.set()

    forever = Forever(work, every=0.01)
    assert enough.wait(60)
    assert forever.is_alive()
    forever.stop()
    forever.join(60)
    assert not forever.is_alive()
    assert len(forever.failures) == 1
    assert forever.times(0, time.time()) == len(forever.done) == len(calls) - 1
    assert forever.times(forever.done[0], forever.done[2]) == 2


def test_all_panels_of_the_lab_are_compared() -> None:
    """The scenario's own settings, as far as they decide which panels there are."""
    settings = {
        "dashboards": ["overview", "hub", "users", "nodes", "homes", "traffic", "gpu"],
        "panels": [{"dashboard": "homes", "title": "Inodes of homes", "query": "jhok_home_files"}],
        "gpus": False,
        "nfs_kernel": False,
        "nfs_address": "172.16.0.100",
        "manage_kubernetes": True,
        "traffic_budget_gb": 0.2,
    }
    there: dict[str, int] = {}
    for where, _query in dashboard_queries(site_dashboards(settings)):
        there[where] = there.get(where, 0) + 1
    assert {name: len(check.bands) for name, check in PANELS.items()} == there
