"""What of the load run is arithmetic; tests/integration/test_benchmark_load.py runs it on a real hub."""

from __future__ import annotations

import pytest
from ansible_collections.jhok.lab.plugins.modules.benchmark_load import Prober, Start, page_summary, quantile, summary
from hub_queue import describe


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0], 0.99, 3.0),
        ([3.0, 1.0, 2.0], 0.0, 1.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0, 3.0, 1.0, 2.0], 0.5, 2.0),
        ([3.0, 1.0, 2.0], 1.0, 3.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 102)], 0.99, 100.0),
    ],
)
def test_quantile(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == expected


def test_summary() -> None:
    starts = [
        Start("a", ["Server requested", describe(2), describe(1), "Server ready"], 9.04),
        Start("b", ["Server requested", describe(0)], 4.0),
        Start("c", ["Server requested"], None, "the server did not start: no image"),
        Start("d", ["Server requested", "Waiting for the volume"], 5.0),
    ]
    assert summary(starts) == {
        "started": 3,
        "not_started": [{"user": "c", "reason": "the server did not start: no image"}],
        "ready": {"first": 4.0, "median": 5.0, "last": 9.0},
        "told": 2,
    }


def test_summary_of_failures_alone() -> None:
    got = summary([Start("a", reason="no")])
    assert (got["started"], got["ready"]) == (0, {})


def test_page_summary() -> None:
    assert page_summary([0.1, 0.2, 4.0], 1) == {"asked": 3, "failed": 1, "p50": 0.2, "p99": 4.0, "max": 4.0}


def test_a_slow_answer_makes_the_next_ones_late() -> None:
    """While one answer takes 10 pauses, 10 questions become due: they count as slow as a person would find them."""
    pause = 0.05
    prober: Prober

    def answer() -> None:
        if len(prober.seconds["page"]) == 0:
            prober.enough.wait(10 * pause)
        if len(prober.seconds["page"]) == 4:
            prober.enough.set()

    prober = Prober({"page": answer}, pause)
    with prober:
        prober.thread.join()
    assert prober.seconds["page"] == sorted(prober.seconds["page"], reverse=True)
    assert prober.seconds["page"][1] > 5 * pause


def test_failed_questions_are_counted() -> None:
    prober: Prober

    def answer() -> None:
        if len(prober.seconds["page"]) == 2:
            prober.enough.set()
        raise ConnectionError

    prober = Prober({"page": answer}, 0)
    with prober:
        prober.thread.join()
    assert prober.results()["page"]["failed"] == prober.results()["page"]["asked"] == 3
