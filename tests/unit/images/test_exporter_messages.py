"""Alerts as messages for chat robots."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def load() -> ModuleType:
    path = Path(__file__).parents[3] / "images" / "exporter" / "jhok_exporter" / "messages.py"
    spec = importlib.util.spec_from_file_location("jhok_exporter_messages", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


messages = load()

FIRING = {
    "status": "firing",
    "labels": {"alertname": "HomesFilling", "severity": "warning"},
    "annotations": {
        "summary": "Homes are full in 20 h.",
        "description": "12 GB\n  are left.",
        "runbook_url": "http://192.0.2.1:30759/site/runbooks.html#homesfilling",
    },
    "startsAt": "2026-11-24T12:00:59.123456789+08:00",
    "endsAt": "0001-01-01T00:00:00Z",
}
RESOLVED = FIRING | {
    "status": "resolved",
    "labels": {"alertname": "NFSSlow", "severity": "warning"},
    "annotations": {"summary": "The NFS server is slow."},
    "startsAt": "2026-11-24T04:00:00Z",
    "endsAt": "2026-11-24T05:30:00Z",
}


def notification(*alerts: dict[str, Any], status: str = "firing", truncated: int = 0) -> dict[str, Any]:
    return {"version": "4", "status": status, "alerts": list(alerts), "truncatedAlerts": truncated}


def test_a_message_says_what_since_when_and_where_help_is() -> None:
    assert messages.markdown(notification(FIRING, RESOLVED), 4096).split("\n\n") == [
        "#### Firing: HomesFilling, NFSSlow (2)",
        "**warning** Homes are full in 20 h. 12 GB are left. (since 2026-11-24 04:00 UTC) "
        "[What to do](http://192.0.2.1:30759/site/runbooks.html#homesfilling)",
        "**resolved** The NFS server is slow. (2026-11-24 04:00 UTC to 2026-11-24 05:30 UTC)",
    ]


def test_the_end_of_an_alert_is_told() -> None:
    assert messages.headline(notification(RESOLVED, status="resolved")) == "Resolved: NFSSlow"


def test_an_alert_without_words_shows_its_labels() -> None:
    alert = FIRING | {"labels": {"job": "hub", "alertname": "Own"}, "annotations": {}}
    assert messages.line(alert) == "**firing** alertname=Own, job=hub (since 2026-11-24 04:00 UTC)"


def test_what_does_not_fit_is_counted() -> None:
    alerts = [FIRING | {"annotations": {"summary": f"主目录 {number}"}} for number in range(100)]
    whole = messages.markdown(notification(*alerts), 100_000)
    assert whole.count("\n\n") == 100
    text = messages.markdown(notification(*alerts, truncated=5), 1000)
    first, *lines, last = text.split("\n\n")
    assert first == "#### Firing: HomesFilling (105)"
    assert last == f"And {105 - len(lines)} more."
    assert lines == [messages.line(alert) for alert in alerts[: len(lines)]]
    longer = len("\n\n".join([first, *lines, messages.line(alerts[len(lines)]), "And 90 more."]).encode())
    assert len(text.encode()) <= 1000 < longer


@pytest.mark.parametrize("limit", range(200, 206))
def test_one_alert_too_long_is_cut_between_characters(limit: int) -> None:
    alert = FIRING | {"annotations": {"summary": "目录" * 200}}
    text = messages.markdown(notification(alert), limit)
    assert limit - 3 <= len(text.encode()) <= limit
    assert text.endswith(("目…", "录…"))


def test_a_signature() -> None:
    # Made with: printf '1700000000000\nSECabc' | openssl dgst -sha256 -hmac SECabc -binary | base64
    sign = "jcUpW0QmtKduN03n4JqQ0PBosVjqnM8gU7fIIvsDmCM%3D"
    assert messages.signed("https://robot.example.org/send?access_token=t", "SECabc", 1700000000000) == (
        f"https://robot.example.org/send?access_token=t&timestamp=1700000000000&sign={sign}"
    )
    assert messages.signed("https://robot.example.org/t", "SECabc", 1700000000000).startswith(
        "https://robot.example.org/t?timestamp="
    )


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, '{"errcode": 0, "errmsg": "ok"}', ""),
        (200, '{"errcode": 310000, "errmsg": "sign not match"}', "errcode 310000: sign not match"),
        (200, '{"errcode": 130101}', "errcode 130101: "),
        (200, "<html>\n sign in\n</html>", "HTTP status 200, <html> sign in </html>"),
        (200, "[0]", "HTTP status 200, [0]"),
        (502, "", "HTTP status 502, "),
    ],
)
def test_a_robots_answer(status: int, body: str, why: str) -> None:
    assert messages.refusal(status, body.encode()) == why


def test_messages_are_within_the_robots_limits() -> None:
    alert = FIRING | {"annotations": {"summary": "主" * 2000}}
    many = notification(*[alert] * 50)
    assert len(json.dumps(messages.dingtalk(many), ensure_ascii=False).encode()) <= 20000
    assert len(messages.wecom(many)["markdown"]["content"].encode()) <= 4096
