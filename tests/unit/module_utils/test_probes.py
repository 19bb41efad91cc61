from __future__ import annotations

import pytest
from ansible_collections.jhok.lab.plugins.filter.probes import probe_missing, probe_table
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError, ProbeLog, missing, summary, table


def line(check: str = "node", *, ok: bool = True, got: str = "fine", asked: str = "a question") -> dict[str, object]:
    return {"check": check, "asked": asked, "got": got, "ok": ok, "seconds": 1.25}


def wrong() -> str:
    raise ProbeError("it said no")


def broken() -> str:
    raise ConnectionRefusedError(111, "Connection refused")


def test_answers_wrong_answers_and_unasked_are_lines() -> None:
    log = ProbeLog("area")
    assert log.ask("one", lambda: "yes") is True
    assert log.ask("two", wrong, "other") is False
    assert log.ask("three", broken) is False
    log.not_asked("four", "three failed")
    assert [(p["check"], p["asked"], p["got"], p["ok"]) for p in log.as_dicts()] == [
        ("area", "one", "yes", True),
        ("other", "two", "it said no", False),
        ("area", "three", "ConnectionRefusedError: [Errno 111] Connection refused", False),
        ("area", "four", "not asked: three failed", False),
    ]


def test_secrets_appear_in_no_line() -> None:
    log = ProbeLog("area", ["s3cret", ""])
    log.ask("with s3cret", lambda: "got s3cret and t0ken")
    log.hide("t0ken")
    log.ask("later", lambda: "got s3cret and t0ken")
    assert log.lines[0].asked == "with ********"
    assert log.lines[1].got == "got ******** and ********"


def test_lines_are_single_lines() -> None:
    log = ProbeLog("area")
    log.ask("a\nquestion", lambda: "two\n  lines")
    assert (log.lines[0].asked, log.lines[0].got) == ("a question", "two lines")


def test_missing_areas_of_a_host_fail() -> None:
    found = missing([line("node")], ["node", "registry"], "worker1")
    assert [(p["check"], p["ok"], "worker1" in p["asked"]) for p in found] == [("registry", False, True)]


def test_hosts_that_said_nothing_fail() -> None:
    answers = {"a": {"verify_probes": [line("node")]}, "b": {}}
    found = probe_missing({"a": ["node"], "b": ["node"], "c": ["node"]}, answers)
    assert [p["asked"] for p in found] == ["all probes of node on b", "all probes of node on c"]


def test_table_is_aligned_cut_and_summed() -> None:
    long = "x" * 100
    lines = table([line(asked=long, got=long), line("registry", ok=False, got=long)])
    assert lines[0].split() == ["check", "asked", "seconds", "ok", "got"]
    columns = {text.index(mark) for text, mark in zip(lines, ("ok ", "ok ", "FAILED"), strict=False)}
    assert len(columns) == 1
    assert lines[1].count("…") == 2
    assert lines[2].endswith(f"FAILED  {long}"), "a failed line tells everything"
    assert lines[3] == "1 of 2 passed in 2.5 s"
    assert probe_table([line()]) == table([line()])


@pytest.mark.parametrize(("probes", "expected"), [([], "0 of 0 passed in 0.0 s"), ([line()], "1 of 1 passed in 1.2 s")])
def test_summary(probes: list[dict[str, object]], expected: str) -> None:
    assert summary(probes) == expected
