"""Hands Alertmanager's notifications on to robots of DingTalk and WeCom."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import urllib3

from jhok_exporter import messages

TIMEOUT = urllib3.Timeout(connect=4, read=6)
"""Seconds to wait for the robot."""

MESSAGES = {"dingtalk": messages.dingtalk, "wecom": messages.wecom}


class RelayError(Exception):
    """A notification was not handed on.

    Args:
        status: HTTP status for Alertmanager, which tries again after 5xx.
        text: Why; neither the receiver's address nor its secret is in it.

    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Relay:
    """Sends messages. May be used by several threads.

    Args:
        path: File with name → {type, url, secret}. It is read for each message, so that a new address needs no restart.
            Without the file there are no receivers.

    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pool = urllib3.PoolManager(timeout=TIMEOUT, retries=False)

    def send(self, name: str, notification: bytes) -> None:
        """Send a notification to the receiver `name`.

        Raises:
            RelayError: There is no such receiver (404), it is no notification (400), or the far side did not take it
                (502).

        """
        receivers = json.loads(self._path.read_text(encoding="utf-8")) if self._path.is_file() else {}
        if name not in receivers:
            raise RelayError(404, "there is no such receiver")
        receiver = receivers[name]
        url, secret = receiver["url"], receiver.get("secret") or ""
        to_message = MESSAGES[receiver["type"]]
        try:
            message = to_message(json.loads(notification))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RelayError(400, f"no notification of Alertmanager: {type(error).__name__}: {error}") from error
        signed = messages.signed(url, secret, time.time_ns() // 1_000_000) if secret else url
        try:
            answer = self._pool.request("POST", signed, json=message, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            raise RelayError(502, redacted(f"no answer: {error}", url, secret)) from None
        refusal = messages.refusal(answer.status, answer.data)
        if refusal:
            raise RelayError(502, redacted(refusal, url, secret))


def redacted(text: str, url: str, secret: str) -> str:
    """Return `text` without the address's path, what its query says, and the secret."""
    parts = urlsplit(url)
    query = [value for _, value in parse_qsl(parts.query)]
    for hidden in sorted({url, parts.query, parts.path, *query, secret}, key=len, reverse=True):
        if len(hidden) > 1:
            text = text.replace(hidden, "…")
    return text
