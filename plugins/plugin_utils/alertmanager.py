"""Alertmanager's configuration: who is told of alerts, and how. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.jhok.lab.plugins.plugin_utils.prometheus import EXPORTER

RECEIVERS = "monitoring_receivers"
RELAYED = ("dingtalk", "wecom")  # the exporter turns Alertmanager's messages into theirs

Receiver = Mapping[str, Any]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MAIL = re.compile(r"[^\s@,;<>\"]+@[^\s@,;<>\"]+")
_SERVER = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):(\d{1,5})")
_SMTPS = "465"  # the port on which TLS comes first

# What each type needs, and what it may have besides; of the rest it makes nothing.
_NEEDS = {"email": ("to", "from", "smarthost"), **dict.fromkeys(("webhook", "slack", *RELAYED), ("url",))}
_TAKES = {"email": ("username", "password"), "dingtalk": ("secret",)}
_KEYS = ("url", "secret", "to", "from", "smarthost", "username", "password")
_HIDDEN_KEYS = ("url", "secret", "password")
_EXAMPLES = {
    "to": "admin@example.org",
    "from": "lab@example.org",
    "smarthost": "mail.example.org:587",
    "url": "https://hooks.example.org/…",
}

_SLACK = {
    "title": '{{ if eq .Status "resolved" }}Over: {{ end }}{{ .GroupLabels.alertname }}',
    "text": "{{ range .Alerts }}*{{ .Annotations.summary }}*\n{{ .Annotations.description }}\n"
    "{{ with .Annotations.runbook_url }}<{{ . }}|What to do>\n{{ end }}{{ end }}",
}


def alertmanager_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return alertmanager.yml, which holds secrets: the addresses of receivers, the mail server's password.

    Every receiver gets every alert; without any, alerts are on the page only. Alerts of one name come in one message.
    What is critical is told at once and again every 4 hours, the rest after a minute and once a day.

    Args:
        settings: `receivers`, as the role's argument specification describes them.

    Raises ValueError for a receiver that cannot work, without a secret in the message.

    """
    for path, shown, what, do in receiver_faults(settings["receivers"]):
        raise ValueError(f"{path}{f' = {shown}' if shown else ''}: {what}. To do: {do}.")
    everyone: dict[str, Any] = {"name": "everyone"}
    for receiver in settings["receivers"]:
        kind = receiver["type"]
        everyone.setdefault("webhook_configs" if kind in RELAYED else f"{kind}_configs", []).append(_config(receiver))
    return {
        "route": {
            "receiver": "everyone",
            "group_by": ["alertname"],
            "group_wait": "1m",
            "group_interval": "5m",
            "repeat_interval": "1d",
            "routes": [{"matchers": ['severity="critical"'], "group_wait": "10s", "repeat_interval": "4h"}],
        },
        # What follows from an alert is not told besides.
        "inhibit_rules": [
            _inhibit("NodeDown", "TargetMissing", "node"),
            _inhibit("NFSDown", "NFSSlow"),
        ],
        "receivers": [everyone],
    }


def relay_receivers(settings: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return what the exporter has to know of the receivers whose messages it makes, by name. It holds secrets."""
    return {
        receiver["name"]: {
            "type": receiver["type"],
            "url": receiver["url"],
            "secret": receiver.get("secret") or "",
        }
        for receiver in settings["receivers"]
        if receiver["type"] in RELAYED
    }


def receiver_faults(receivers: object) -> Iterator[tuple[str, str, str, str]]:
    """Yield (path, shown value, what is wrong, what to do) for receivers that cannot work.

    Of an address no more than scheme and host is shown: its path is what lets one write there.
    """
    seen: set[str] = set()
    for number, receiver in enumerate(receivers if isinstance(receivers, list) else []):
        if not isinstance(receiver, dict):
            continue  # its type's own message says so
        path, name, kind = f"{RECEIVERS}[{number}]", str(receiver.get("name")), receiver.get("type")
        if not _NAME.fullmatch(name):
            what = "not a name that an address can have as its end"
            yield f"{path}.name", name, what, "write 1 to 63 of a-z, 0-9 and -, first and last a letter or digit"
        if name in seen:
            yield f"{path}.name", name, "another receiver has this name", "give each its own"
        seen.add(name)
        if kind not in _NEEDS:
            yield f"{path}.type", str(kind), "there is no such type", f"choose one of: {', '.join(_NEEDS)}"
            continue
        takes = (*_NEEDS[kind], *_TAKES.get(kind, ()))
        for key in _KEYS:
            value = receiver.get(key)
            if key in _NEEDS[kind] and not value:
                yield f"{path}.{key}", "", f"a receiver of type {kind} needs it", f"add {key}: {_EXAMPLES[key]}"
            elif value and key not in takes:
                shown = "" if key in _HIDDEN_KEYS else str(value)
                yield f"{path}.{key}", shown, f"a receiver of type {kind} has no use for it", "remove it"
            elif value:
                yield from _value_faults(f"{path}.{key}", key, str(value))
        if kind == "email" and bool(receiver.get("username")) != bool(receiver.get("password")):
            missing = "username" if receiver.get("password") else "password"
            yield f"{path}.{missing}", "", "a mail server wants both or none", "give username and password, or neither"


def _value_faults(path: str, key: str, value: str) -> Iterator[tuple[str, str, str, str]]:
    if key == "url":
        try:
            parts = urlsplit(value)
            fine = parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", value)
            _ = parts.port  # ValueError when it is none
        except ValueError:
            fine = False
        if not fine:
            do = f"write it whole, as the service gave it to you, e.g. {_EXAMPLES[key]}"
            yield path, shown_url(value), "not an address that a message can be sent to", do
    elif key in ("to", "from"):
        mails = value.split(",") if key == "to" else [value]
        if not all(_MAIL.fullmatch(mail.strip()) for mail in mails):
            yield path, value, "not a mail address", f"write it as {_EXAMPLES[key]}"
    elif key == "smarthost":
        match = _SERVER.fullmatch(value)
        if not match or not 0 < int(match[1]) < 65536:
            yield path, value, "not a mail server with its port", f"write it as {_EXAMPLES[key]}"


def shown_url(url: str) -> str:
    """Return of an address what may be seen: scheme and host; nothing of what is no address."""
    match = re.match(r"(https?://)(?:[^\s/?#]*@)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?=[\s:/?#]|$)", url)
    return f"{match[1]}{match[2]}/…" if match else "(hidden)"


def _config(receiver: Receiver) -> dict[str, Any]:
    kind = receiver["type"]
    common = {"send_resolved": receiver.get("send_resolved", True)}
    if kind == "slack":
        return {"api_url": receiver["url"], **_SLACK, **common}
    if kind in RELAYED:
        return {"url": f"http://127.0.0.1:{EXPORTER}/relay/{receiver['name']}", **common}
    if kind == "webhook":
        return {"url": receiver["url"], **common}
    named = bool(receiver.get("username"))
    return {
        "to": receiver["to"],
        "from": receiver["from"],
        "smarthost": receiver["smarthost"],
        **({"auth_username": receiver["username"], "auth_password": receiver["password"]} if named else {}),
        # Here it means STARTTLS, which a connection that is TLS from its first byte does not offer.
        "require_tls": receiver.get("require_tls", True) and not receiver["smarthost"].endswith(f":{_SMTPS}"),
        **common,
    }


def _inhibit(source: str, target: str, *equal: str) -> dict[str, Any]:
    return {
        "source_matchers": [f'alertname="{source}"'],
        "target_matchers": [f'alertname="{target}"'],
        **({"equal": list(equal)} if equal else {}),
    }
