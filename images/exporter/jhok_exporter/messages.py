"""Alertmanager's notifications as messages of chat robots: pure functions.

A notification is the JSON that Alertmanager sends to a webhook (its version 4).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

WECOM_BYTES = 4096
"""Longest text that WeCom takes, in bytes of UTF-8."""

DINGTALK_BYTES = 16000
"""Longest text that is sent to DingTalk, in bytes of UTF-8: a whole message may have 20000."""

Json = Mapping[str, Any]


def headline(notification: Json) -> str:
    """Return what it is about, such as ``Firing: NFSDown (2)``."""
    alerts = notification["alerts"]
    names = dict.fromkeys(alert["labels"].get("alertname", "alert") for alert in alerts)
    count = len(alerts) + int(notification.get("truncatedAlerts") or 0)
    number = f" ({count})" if count > 1 else ""
    return f"{notification['status'].capitalize()}: {cut(', '.join(names), 200)}{number}"


def line(alert: Json) -> str:
    """Return one alert: how grave, what is wrong, since when, and the link to what to do."""
    labels, annotations = alert["labels"], alert["annotations"]
    texts = [annotations[key] for key in ("summary", "description") if annotations.get(key)]
    if not texts:
        texts = [", ".join(f"{name}={value}" for name, value in sorted(labels.items()))]
    ended = alert["status"] == "resolved"
    grade = "resolved" if ended else labels.get("severity", "firing")
    times = (
        f"{moment(alert['startsAt'])} to {moment(alert['endsAt'])}" if ended else f"since {moment(alert['startsAt'])}"
    )
    text = " ".join(" ".join(texts).split())
    link = f" [What to do]({annotations['runbook_url']})" if annotations.get("runbook_url") else ""
    return f"**{grade}** {text} ({times}){link}"


def moment(text: str) -> str:
    """Return an RFC 3339 time to the minute, in UTC."""
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def markdown(notification: Json, limit: int) -> str:
    """Return the whole message in at most `limit` bytes of UTF-8; what does not fit is counted at its end."""
    lines = [f"#### {headline(notification)}", *map(line, notification["alerts"])]
    beyond = int(notification.get("truncatedAlerts") or 0)
    for kept in range(len(lines), 1, -1):
        missing = len(lines) - kept + beyond
        text = "\n\n".join([*lines[:kept], *([f"And {missing} more."] if missing else [])])
        if len(text.encode()) <= limit:
            return text
    return cut("\n\n".join(lines[:2]), limit)


def cut(text: str, limit: int) -> str:
    """Return `text` in at most `limit` bytes of UTF-8, with an ellipsis where it was cut."""
    data = text.encode()
    if len(data) <= limit:
        return text
    ellipsis = "…"
    return data[: limit - len(ellipsis.encode())].decode(errors="ignore") + ellipsis


def dingtalk(notification: Json) -> dict[str, Any]:
    """Return the message for a DingTalk robot."""
    text = markdown(notification, DINGTALK_BYTES)
    return {"msgtype": "markdown", "markdown": {"title": headline(notification), "text": text}}


def wecom(notification: Json) -> dict[str, Any]:
    """Return the message for a WeCom robot."""
    return {"msgtype": "markdown", "markdown": {"content": markdown(notification, WECOM_BYTES)}}


def signed(url: str, secret: str, milliseconds: int) -> str:
    """Return the address of a DingTalk robot that asks for signatures.

    Args:
        url: The robot's address.
        secret: The robot's secret (``SEC…``).
        milliseconds: Unix time.

    """
    digest = hmac.digest(secret.encode(), f"{milliseconds}\n{secret}".encode(), hashlib.sha256)
    query = urlencode({"timestamp": milliseconds, "sign": base64.b64encode(digest).decode()})
    return f"{url}{'&' if '?' in url else '?'}{query}"


def refusal(status: int, body: bytes) -> str:
    """Return why a robot did not take a message, or "" when it did: both say so by an ``errcode`` of 0."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or "errcode" not in answer:
        return f"HTTP status {status}, {cut(' '.join(body.decode(errors='replace').split()), 300)}"
    if answer["errcode"] == 0:
        return ""
    return f"errcode {answer['errcode']}: {cut(str(answer.get('errmsg', '')), 300)}"
