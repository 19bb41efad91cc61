#!/usr/bin/python
"""Ansible module monitoring_probe: whether figures are read, and whether those who may see them can."""

from __future__ import annotations

DOCUMENTATION = r"""
module: monitoring_probe
short_description: Asks Prometheus, Alertmanager and the page in front of them
version_added: 0.1.0
description:
  - With O(prometheus), on the machine that monitoring runs on, asks whether every target of O(jobs) is read, every rule
    works and Alertmanager is ready.
  - With O(pages), from anywhere, asks for the page through every address, whether it lets in who has the password and
    nobody else, and whether it shows figures of now and lets nothing be changed.
  - Changes nothing and never fails by itself; what is wrong is a line with C(ok=false) under RV(probes).
attributes:
  check_mode:
    support: full
    description: Nothing that it asks changes anything.
options:
  prometheus:
    description: Address of Prometheus, such as C(http://127.0.0.1:9790).
    type: str
  alertmanager:
    description: Address of Alertmanager; goes with O(prometheus).
    type: str
  jobs:
    description: How many targets each job must have; goes with O(prometheus).
    type: dict
    default: {}
  pages:
    description: Addresses of the page through every node (C(http://172.16.0.100:30759)), the main one first.
    type: list
    elements: str
    default: []
  ui:
    description: What shows the dashboards.
    type: str
    choices: [perses, grafana]
    default: perses
  access:
    description: Who is let in without a password, V(open) meaning everybody.
    type: str
    choices: [hub, password, open]
    default: hub
  password:
    description: Password of user C(admin).
    type: str
    default: ""
  dashboards:
    description: Names (uid) of the dashboards that must be there.
    type: list
    elements: str
    default: []
  closed_ports:
    description: Ports of the first page's host that must not answer.
    type: list
    elements: int
    default: []
  host:
    description: Name of the asking machine in the report.
    type: str
    required: true
  timeout:
    description: Seconds until any single request must be answered, and until every target must have been read once.
    type: int
    default: 90
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: Ask Prometheus
  jhok.lab.monitoring_probe:
    prometheus: http://127.0.0.1:9790
    alertmanager: http://127.0.0.1:9793
    jobs: {prometheus: 1, kubelet: 2}
    host: "{{ inventory_hostname }}"

- name: Ask for the page as people do
  jhok.lab.monitoring_probe:
    pages: [http://172.16.0.100:30759, http://172.16.0.101:30759]
    password: "{{ password }}"
    dashboards: [overview, hub]
    closed_ports: [9790, 9793]
    host: the control machine
  no_log: true
"""

RETURN = r"""
probes:
  description: One line per question.
  returned: always
  type: list
  elements: dict
  sample:
    - check: monitoring
      asked: targets of job kubelet at http://127.0.0.1:9790 from master
      got: 2 of 2 up
      ok: true
      seconds: 0.1
"""

import base64
import http.client
import json
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError, ProbeLog

POLL_SECONDS = 2
STALE_SECONDS = 120  # four times the longest interval at which figures are read


class Site:
    """One HTTP server, asked without any proxy: it stands in the lab's network."""

    def __init__(self, url: str, password: str = "", timeout: float = 30) -> None:
        self.url = url
        self.password = password
        self.timeout = timeout

    def send(self, method: str, path: str, signed_in: bool = True) -> tuple[int, bytes]:
        """Return status and body of one request, as user `admin` where there is a password."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=self.timeout)
        headers = {"Content-Length": "0"} if method == "POST" else {}
        if self.password and signed_in:
            headers["Authorization"] = "Basic " + base64.b64encode(f"admin:{self.password}".encode()).decode()
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:  # noqa: ANN401
        """Return the JSON at a path. Raises ProbeError for any status but 200."""
        status, body = self.send("GET", path)
        if status != 200:
            raise ProbeError(f"{status} {body[:200].decode(errors='replace')}")
        return json.loads(body)


def targets_up(targets: Sequence[Mapping[str, Any]], job: str, count: int) -> str:
    """Judge the targets of a job. Raises ProbeError when one is missing, not read yet or down, with its reason."""
    of_job = [target for target in targets if target["labels"].get("job") == job]
    down = [
        f"{target['labels'].get('instance', '?')}: {target['lastError'] or 'not read yet'}"
        for target in of_job
        if target["health"] != "up"
    ]
    if len(of_job) != count:
        down.append(f"{len(of_job)} targets instead of {count}")
    if down:
        raise ProbeError("; ".join(down))
    return f"{count} of {count} up"


def wait_for_targets(site: Site, jobs: Mapping[str, int], seconds: float) -> list[dict[str, Any]]:
    """Return the targets once all are up, or as they are when the time is over."""
    end = time.monotonic() + seconds
    while True:
        targets: list[dict[str, Any]] = site.json("/api/v1/targets?state=active")["data"]["activeTargets"]
        try:
            for job, count in jobs.items():
                targets_up(targets, job, count)
        except ProbeError:
            if time.monotonic() < end:
                time.sleep(POLL_SECONDS)
                continue
        return targets


def rules_healthy(site: Site) -> str:
    """Ask whether every rule could be worked out."""
    groups = site.json("/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    broken = [f"{rule['name']}: {rule.get('lastError') or rule['health']}" for rule in rules if rule["health"] == "err"]
    if broken:
        raise ProbeError("; ".join(broken))
    if not rules:
        raise ProbeError("there is no rule")
    return f"{len(rules)} rules"


def alertmanager_found(site: Site, expected: str) -> str:
    """Ask whether Prometheus tells Alertmanager, which is ready."""
    managers = [manager["url"] for manager in site.json("/api/v1/alertmanagers")["data"]["activeAlertmanagers"]]
    if not any(url.startswith(expected) for url in managers):
        raise ProbeError(f"Prometheus knows {', '.join(managers) or 'none'}")
    status, body = Site(expected).send("GET", "/-/ready")
    if status != 200:
        raise ProbeError(f"{status} {body.decode(errors='replace')}")
    return "ready"


def answers(site: Site, path: str) -> str:
    """Ask for a path that is open."""
    status, _ = site.send("GET", path, signed_in=False)
    if status != 200:
        raise ProbeError(f"{status}")
    return f"{status}"


def closed(site: Site, path: str) -> str:
    """Ask for a path without a sign-in."""
    status, _ = site.send("GET", path, signed_in=False)
    if status in (302, 303, 401, 403):
        return f"refused: {status}"
    raise ProbeError(f"not refused: {status}")


def read_only(site: Site, path: str) -> str:
    """Try to have Prometheus do something, signed in."""
    status, _ = site.send("POST", path)
    if status in (403, 404, 405):
        return f"refused: {status}"
    raise ProbeError(f"not refused: {status}")


def has_dashboards(found: Sequence[Mapping[str, Any]], expected: Sequence[str]) -> str:
    """Judge which dashboards are there."""
    missing = sorted(set(expected) - {str(dashboard["uid"]) for dashboard in found})
    if missing:
        raise ProbeError(f"missing: {', '.join(missing)}")
    return f"{len(found)} dashboards"


def figures_of_now(site: Site, prefix: str) -> str:
    """Ask, through the page, how many targets are up and how old the figure is."""
    result = site.json(f"{prefix}/api/v1/query?query=timestamp(up)")["data"]["result"]
    if not result:
        raise ProbeError("no figure")
    age = time.time() - max(float(series["value"][1]) for series in result)
    if age > STALE_SECONDS:
        raise ProbeError(f"the newest figure is {age:.0f} s old")
    return f"{len(result)} targets, the newest figure {max(age, 0):.0f} s old"


def no_connection(host: str, port: int, timeout: float) -> str:
    """Try to connect to a port that must be closed."""
    try:
        socket.create_connection((host, port), timeout=timeout).close()
    except OSError as error:
        return f"no connection: {error}"
    raise ProbeError("it accepts connections")


def ask_prometheus(log: ProbeLog, params: Mapping[str, Any], here: str) -> None:
    """Put the questions that only Prometheus' own machine can put."""
    site, jobs = Site(params["prometheus"]), {job: int(count) for job, count in params["jobs"].items()}
    asked = f"targets at {params['prometheus']} {here}"
    targets: list[dict[str, Any]] = []

    def fetch() -> str:
        targets.extend(wait_for_targets(site, jobs, params["timeout"]))
        return f"{len(targets)} targets"

    if log.ask(asked, fetch):
        for job, count in sorted(jobs.items()):
            log.ask(f"targets of job {job} {here}", lambda job=job, count=count: targets_up(targets, job, count))  # type: ignore[misc]
    log.ask(f"rules at {params['prometheus']} {here}", lambda: rules_healthy(site))
    if params["alertmanager"]:
        log.ask(
            f"Alertmanager {params['alertmanager']} {here}", lambda: alertmanager_found(site, params["alertmanager"])
        )


def ask_pages(log: ProbeLog, params: Mapping[str, Any], here: str) -> None:
    """Put the questions of people who look."""
    grafana = params["ui"] == "grafana"
    for page in params["pages"]:
        log.ask(f"GET {page}/healthz {here}", lambda page=page: answers(Site(page), "/healthz"))  # type: ignore[misc]
    site = Site(params["pages"][0], params["password"])
    listing = "/api/search?type=dash-db" if grafana else "/site/dashboards/index.json"
    if grafana or params["access"] != "open":
        log.ask(f"GET {site.url}{listing} without a sign-in {here}", lambda: closed(site, listing))
    log.ask(f"dashboards at {site.url} {here}", lambda: has_dashboards(site.json(listing), params["dashboards"]))
    if not grafana:
        log.ask(f"figures at {site.url}/prometheus/ {here}", lambda: figures_of_now(site, "/prometheus"))
        for path in ("/prometheus/-/reload", "/prometheus/api/v1/admin/tsdb/snapshot"):
            log.ask(f"POST {site.url}{path} {here}", lambda path=path: read_only(site, path))  # type: ignore[misc]
    host = urlsplit(site.url).hostname or ""
    for port in params["closed_ports"]:
        log.ask(f"connection to {host}:{port} {here}", lambda port=port: no_connection(host, port, 3))  # type: ignore[misc]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "prometheus": {"type": "str"},
            "alertmanager": {"type": "str"},
            "jobs": {"type": "dict", "default": {}},
            "pages": {"type": "list", "elements": "str", "default": []},
            "ui": {"type": "str", "choices": ["perses", "grafana"], "default": "perses"},
            "access": {"type": "str", "choices": ["hub", "password", "open"], "default": "hub"},
            "password": {"type": "str", "default": "", "no_log": True},
            "dashboards": {"type": "list", "elements": "str", "default": []},
            "closed_ports": {"type": "list", "elements": "int", "default": []},
            "host": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 90},
        },
        supports_check_mode=True,
    )
    here = f"from {module.params['host']}"
    log = ProbeLog("monitoring", [module.params["password"]])
    if module.params["prometheus"]:
        ask_prometheus(log, module.params, here)
    if module.params["pages"]:
        ask_pages(log, module.params, here)
    module.exit_json(changed=False, probes=log.as_dicts())


if __name__ == "__main__":
    main()
