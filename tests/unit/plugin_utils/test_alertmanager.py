"""Alertmanager's configuration. amtool judges it in tests/integration/test_alert_rules.py."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.alertmanager import (
    alertmanager_config,
    receiver_faults,
    relay_receivers,
    shown_url,
)

MAIL: dict[str, Any] = {
    "name": "admin",
    "type": "email",
    "to": "admin@example.org",
    "from": "lab@example.org",
    "smarthost": "mail.example.org:587",
}
DINGTALK = {"name": "ding", "type": "dingtalk", "url": "https://oapi.dingtalk.com/robot/send?access_token=1"}
WECOM = {"name": "we", "type": "wecom", "url": "https://qyapi.weixin.qq.com/send?key=2", "secret": None}


def config(*receivers: dict[str, Any]) -> dict[str, Any]:
    return alertmanager_config({"receivers": list(receivers)})


def everyone(*receivers: dict[str, Any]) -> dict[str, Any]:
    (receiver,) = config(*receivers)["receivers"]
    return {key: value for key, value in receiver.items() if key != "name"}


def test_without_receivers_nobody_is_told() -> None:
    assert config()["receivers"] == [{"name": "everyone"}]


def test_all_receivers_get_all_alerts() -> None:
    hook = {"name": "hook", "type": "webhook", "url": "http://127.0.0.1:9/x", "send_resolved": False}
    found = config(MAIL, hook, DINGTALK)
    assert {route["receiver"] for route in [found["route"]]} == {"everyone"}
    (receiver,) = found["receivers"]
    assert len(receiver["email_configs"]) == 1
    assert receiver["webhook_configs"] == [
        {"url": "http://127.0.0.1:9/x", "send_resolved": False},
        {"url": "http://127.0.0.1:9791/relay/ding", "send_resolved": True},
    ]


def test_critical_alerts_are_told_sooner_and_more_often() -> None:
    route = config()["route"]
    (critical,) = route["routes"]
    assert critical["matchers"] == ['severity="critical"']
    assert (critical["group_wait"], critical["repeat_interval"]) == ("10s", "4h")
    assert (route["group_wait"], route["repeat_interval"]) == ("1m", "1d")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"require_tls": True}),
        ({"require_tls": False}, {"require_tls": False}),
        # TLS from the first byte on: there is no STARTTLS to require.
        ({"smarthost": "mail.example.org:465"}, {"require_tls": False}),
        ({"username": "u", "password": "p"}, {"require_tls": True, "auth_username": "u", "auth_password": "p"}),
    ],
)
def test_mail(change: dict[str, Any], expected: dict[str, Any]) -> None:
    merged = {**MAIL, **change}
    common = {key: merged[key] for key in ("to", "from", "smarthost")} | {"send_resolved": True}
    assert everyone(merged) == {"email_configs": [common | expected]}


def test_the_exporter_knows_those_whose_messages_it_makes() -> None:
    hook = {"name": "hook", "type": "webhook", "url": "http://127.0.0.1:9/x"}
    assert relay_receivers({"receivers": [MAIL, hook, {**DINGTALK, "secret": "SEC"}, WECOM]}) == {
        "ding": {"type": "dingtalk", "url": DINGTALK["url"], "secret": "SEC"},
        "we": {"type": "wecom", "url": WECOM["url"], "secret": ""},
    }


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({**DINGTALK, "name": "Ding talk"}, ["monitoring_receivers[0].name = Ding talk", "a-z"]),
    ({**DINGTALK, "type": "sms"}, ["monitoring_receivers[0].type = sms", "email, webhook, slack, dingtalk, wecom"]),
    ({**DINGTALK, "url": ""}, ["monitoring_receivers[0].url", "of type dingtalk needs it"]),
    ({**DINGTALK, "url": "oapi.dingtalk.com/robot?token=tok3n"}, ["url = (hidden)", "not an address"]),
    ({**DINGTALK, "url": "https:///robot?token=tok3n"}, ["url = (hidden)", "not an address"]),
    ({**DINGTALK, "url": "ftp://oapi.dingtalk.com/tok3n"}, ["url = (hidden)", "not an address"]),
    ({**DINGTALK, "url": "https://oapi.dingtalk.com/a b?tok3n"}, ["url = https://oapi.dingtalk.com/…"]),
    ({**DINGTALK, "url": "https://u:tok3n@oapi.dingtalk.com:x/"}, ["url = https://oapi.dingtalk.com/…"]),
    ({**WECOM, "secret": "tok3n"}, ["monitoring_receivers[0].secret:", "of type wecom has no use for it"]),
    ({**MAIL, "url": "https://x/tok3n"}, ["monitoring_receivers[0].url:", "no use for it"]),
    ({**MAIL, "to": "admin"}, ["to = admin", "not a mail address"]),
    ({**MAIL, "to": "a@b.c,"}, ["to = a@b.c,", "not a mail address"]),
    ({**MAIL, "from": "a@b.c, d@e.f"}, ["from =", "not a mail address"]),
    ({**MAIL, "smarthost": "mail.example.org"}, ["smarthost = mail.example.org", "mail.example.org:587"]),
    ({**MAIL, "smarthost": "mail.example.org:99999"}, ["smarthost =", "with its port"]),
    ({**MAIL, "username": "u"}, ["monitoring_receivers[0].password", "both or none"]),
    ({**MAIL, "password": "tok3n"}, ["monitoring_receivers[0].username", "both or none"]),
]


@pytest.mark.parametrize(("receiver", "pieces"), BAD)
def test_a_receiver_that_cannot_work_is_refused_without_its_secret(receiver: dict[str, Any], pieces: list[str]) -> None:
    (fault,) = receiver_faults([receiver])
    with pytest.raises(ValueError, match="monitoring_receivers") as refused:
        config(receiver)
    for message in (": ".join(fault), str(refused.value)):
        assert "tok3n" not in message
    assert all(piece in str(refused.value) for piece in [*pieces, "To do:"]), refused.value


def test_two_receivers_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match=r"monitoring_receivers\[1\]\.name = admin: another receiver"):
        config(MAIL, {**DINGTALK, "name": "admin"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.slack.com/services/T/B/tok3n", "https://hooks.slack.com/…"),
        ("http://127.0.0.1:8080/tok3n", "http://127.0.0.1/…"),
        ("https://tok3n@example.org", "https://example.org/…"),
        ("https://a:tok3n@b:tok3n@example.org/", "https://example.org/…"),
        ("http://[::1]:80/tok3n", "http://[::1]/…"),
        ("tok3n", "(hidden)"),
    ],
)
def test_of_an_address_scheme_and_host_are_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown
