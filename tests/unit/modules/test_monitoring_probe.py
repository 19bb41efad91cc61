from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import time
from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError, ProbeLog
from ansible_collections.jhok.lab.plugins.modules import monitoring_probe
from ansible_collections.jhok.lab.plugins.modules.monitoring_probe import Site

PASSWORD = "pass word"
KEY = "Basic " + base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
Answers = dict[str, tuple[int, Any]]


@contextmanager
def serving(answers: Answers, open_paths: tuple[str, ...] = ()) -> Iterator[str]:
    """Serve `METHOD path` → status and JSON on loopback to who has the password; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            path = self.path.partition("?")[0]
            status, body = answers.get(f"{self.command} {path}", (404, {}))
            if open_paths and path not in open_paths and self.headers.get("Authorization") != KEY:
                status = 401
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def target(job: str, health: str = "up", error: str = "") -> dict[str, Any]:
    return {"labels": {"job": job, "instance": f"{job}:1"}, "health": health, "lastError": error}


def prometheus(targets: list[dict[str, Any]], url: str = "", rules: list[dict[str, Any]] | None = None) -> Answers:
    groups = [{"rules": [{"name": "NodeDown", "health": "ok"}] if rules is None else rules}]
    return {
        "GET /api/v1/targets": (200, {"data": {"activeTargets": targets}}),
        "GET /api/v1/rules": (200, {"data": {"groups": groups}}),
        "GET /api/v1/alertmanagers": (200, {"data": {"activeAlertmanagers": [{"url": f"{url}/api/v2/alerts"}]}}),
        "GET /-/ready": (200, "ok"),
    }


def lines(ask: Any, **params: object) -> list[tuple[str, bool]]:  # noqa: ANN401
    defaults = {"alertmanager": "", "timeout": 0, "access": "hub", "ui": "perses", "closed_ports": []}
    log = ProbeLog("monitoring")
    ask(log, defaults | params, "from here")
    return [(line.got, line.ok) for line in log.lines]


def test_every_target_of_every_job() -> None:
    answers = prometheus([target("hub"), target("kubelet"), target("kubelet", "down", "connection refused")])
    with serving(answers) as url:
        found = lines(monitoring_probe.ask_prometheus, prometheus=url, jobs={"hub": 1, "kubelet": 2, "etcd": 1})
    assert found == [
        ("3 targets", True),
        ("0 targets instead of 1", False),
        ("1 of 1 up", True),
        ("kubelet:1: connection refused", False),
        ("1 rules", True),
    ]


def test_a_target_that_was_not_read_yet_is_waited_for() -> None:
    unread = [target("hub", "unknown")]
    answers = prometheus(unread)
    with serving(answers) as url:
        Thread(target=lambda: unread[0].update(health="up")).start()
        assert monitoring_probe.wait_for_targets(Site(url), {"hub": 1}, 30) == [target("hub")]


def test_rules_that_cannot_be_worked_out_and_none() -> None:
    broken = [{"name": "NodeDown", "health": "err", "lastError": "many-to-many"}]
    for rules, message in ((broken, "NodeDown: many-to-many"), ([], "there is no rule")):
        with serving(prometheus([], rules=rules)) as url, pytest.raises(ProbeError, match=message):
            monitoring_probe.rules_healthy(Site(url))


def test_alertmanager_known_and_ready() -> None:
    answers: Answers = {}
    with serving(answers) as url:
        answers |= prometheus([], url)
        assert monitoring_probe.alertmanager_found(Site(url), url) == "ready"
        answers["GET /-/ready"] = (503, "not yet")
        with pytest.raises(ProbeError, match=r"503 .*not yet"):
            monitoring_probe.alertmanager_found(Site(url), url)
        answers |= prometheus([], "http://other")
        with pytest.raises(ProbeError, match="Prometheus knows http://other"):
            monitoring_probe.alertmanager_found(Site(url), url)


def page(age: float = 5) -> Answers:
    result = [{"value": [0, str(time() - age)]}]
    return {
        "GET /healthz": (200, ""),
        "GET /site/dashboards/index.json": (200, [{"uid": "overview"}, {"uid": "hub"}]),
        "GET /prometheus/api/v1/query": (200, {"data": {"result": result}}),
        "POST /prometheus/-/reload": (403, ""),
        "POST /prometheus/api/v1/admin/tsdb/snapshot": (403, ""),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def asked(
    answers: Answers, *, password: str = PASSWORD, open_paths: tuple[str, ...] = ("/healthz",)
) -> list[tuple[str, bool]]:
    with serving(answers, open_paths) as url:
        return lines(
            monitoring_probe.ask_pages,
            pages=[url],
            password=password,
            dashboards=["hub", "overview"],
            closed_ports=[free_port()],
        )


def test_the_page_of_a_healthy_site() -> None:
    found = asked(page())
    assert [ok for _, ok in found] == [True] * 7
    assert found[1][0] == "refused: 401"
    assert found[3][0].startswith("1 targets, the newest figure ")


def test_the_page_with_a_wrong_password() -> None:
    assert [ok for _, ok in asked(page(), password="wrong")] == [True, True, False, False, False, False, True]


def test_the_page_that_lets_everybody_in() -> None:
    found = asked(page(), open_paths=("/healthz", "/site/dashboards/index.json"))
    assert found[1] == ("not refused: 200", False)


def test_old_figures_missing_dashboards_and_a_prometheus_that_obeys() -> None:
    answers = page(age=500)
    answers["GET /site/dashboards/index.json"] = (200, [{"uid": "hub"}])
    answers["POST /prometheus/-/reload"] = (200, "")
    found = asked(answers)
    assert found[2] == ("missing: overview", False)
    assert not found[3][1]
    assert "s old" in found[3][0]
    assert found[4] == ("not refused: 200", False)


def test_a_port_that_must_be_closed() -> None:
    with serving({}) as url, pytest.raises(ProbeError, match="it accepts connections"):
        monitoring_probe.no_connection("127.0.0.1", int(url.rpartition(":")[2]), 3)
