"""The page of the dashboards in our image: what nginx serves and what not, and what a browser shows of real figures."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import (
    CRITICAL,
    OK,
    WARNING,
    Dashboard,
    Panel,
    Query,
    Row,
    Threshold,
    Variable,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.monitoring_web import QUERIES, web_files
from ansible_collections.jhok.lab.plugins.plugin_utils.perses import COLOURS, perses_dashboard, perses_files
from dashboards_page import DASHBOARDS, LIMITS, PASSWORD, PODMAN, SETTINGS, Page, running_page
from hub import until
from playwright.sync_api import Browser, BrowserContext, expect
from playwright.sync_api import Page as Tab

pytestmark = pytest.mark.integration

TIMEOUT_MS = 30_000
USERS = [f"user-{number:02}" for number in range(39)] + ["maximilian-alexander-langenfeld"]
ADMIN = ("admin", PASSWORD)
SITE: dict[str, Any] = {
    "dashboards": ["overview", "hub", "users", "nodes", "homes", "traffic", "gpu"],
    "panels": [],
    "gpus": True,
    "nfs_kernel": True,
    "nfs_address": "10.0.0.1",
    "manage_kubernetes": True,
    "traffic_budget_gb": 5,
    "scrape_interval": 1,
}
NO_LABELS = {"metric_relabel_configs": [{"action": "labeldrop", "regex": "instance|job"}]}
CPU = Query('test_cpu{user=~"$user"}', "{{user}}")
OURS = Dashboard(
    "ours",
    "One of each",
    "Every kind of panel that there is.",
    (
        Row(
            "Kinds",
            (
                Panel("Lines", (CPU,), "cores", height=12),
                Panel("Bars", (CPU,), "cores", "bar", height=12),
                Panel("Figure", (Query("test_total", "all"),), "bytes", "stat"),
                Panel("Gauge", (Query("test_share", "share"),), "ratio", "gauge", maximum=1),
                Panel(
                    "Table",
                    (Query("test_cpu", "CPU"), Query("test_memory", "Memory", "bytes")),
                    kind="table",
                    columns=(("user", "User"),),
                    width=24,
                ),
                Panel(
                    "Coloured",
                    (Query("test_cpu", "CPU"),),
                    kind="table",
                    columns=(("user", "User"),),
                    level=CRITICAL,
                    thresholds=(Threshold(0.1, WARNING), Threshold(0.2, OK)),
                    ascending=True,
                ),
            ),
        ),
    ),
    (Variable("user", "User", "test_cpu"),),
    duration="1h",
)
RULES = {
    "groups": [
        {
            "name": "test",
            "rules": [
                {
                    "alert": "DiskFull",
                    "expr": "test_alerts > 0",
                    "labels": {"severity": severity},
                    "annotations": {
                        "summary": f"A disk is {how} <b>full</b>",
                        "runbook_url": "http://127.0.0.1/site/runbooks.html#diskfull",
                    },
                }
                for severity, how in (("warning", "nearly"), ("critical", "quite"))
            ],
        }
    ]
}


class Exporter(ThreadingHTTPServer):
    """Tells made-up figures."""

    alerts = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines = [f'test_cpu{{user="{user}"}} {number / 10}' for number, user in enumerate(USERS)]
            lines += [f'test_memory{{user="{user}"}} {number * 1e9}' for number, user in enumerate(USERS)]
            lines += ["test_total 1.5e9", "test_share 0.25", f"test_alerts {self.server.alerts}"]  # type: ignore[attr-defined]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write("".join(f"{line}\n" for line in lines).encode())

        def log_message(self, *_arguments: object) -> None:
            pass


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    server = Exporter(("127.0.0.1", 0), Exporter.Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, exporter: Exporter) -> Iterator[Page]:
    files = perses_files(SITE)
    index = json.loads(files["index.json"])
    index.append({"uid": OURS.uid, "title": OURS.title, "description": OURS.description})
    files |= {"index.json": json.dumps(index), "ours.json": json.dumps(perses_dashboard(OURS))}
    prometheus = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {"job_name": "test", "static_configs": [{"targets": [f"127.0.0.1:{exporter.server_port}"]}]} | NO_LABELS
        ],
    }
    config = {"prometheus.yml": json.dumps(prometheus), "rules.yml": json.dumps(RULES)}
    with running_page(tmp_path_factory.mktemp("page"), SETTINGS, files, config) as page:
        until(lambda: is_in_charts(page), "the figures are in charts")
        yield page


def is_in_charts(page: Page) -> bool:
    """Tell whether there is a figure at the last time that a chart asks for: full half minutes."""
    moment = time.time() // 30 * 30
    answer = page.get(f"/prometheus/api/v1/query?query=test_cpu&time={moment}", auth=ADMIN).json()
    return bool(answer["data"]["result"])


@pytest.mark.parametrize(
    ("ui", "access"), [("perses", "hub"), ("perses", "password"), ("perses", "open"), ("grafana", "hub")]
)
def test_nginx_takes_every_variant(tmp_path: Path, ui: str, access: str) -> None:
    (tmp_path / "nginx.conf").write_text(web_files(SETTINGS | {"ui": ui, "access": access})["nginx.conf"])
    options = ["--rm", "--network=none", "--read-only", "--tmpfs=/tmp:mode=1777", "--cap-drop=all", *LIMITS]
    command = [*PODMAN, "run", *options, f"-v={tmp_path / 'nginx.conf'}:/nginx.conf:ro", DASHBOARDS]
    done = subprocess.run([*command, "nginx", "-t", "-c", "/nginx.conf"], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if "nginx:" in line or "[" in line]
    assert (done.returncode, [line for line in said if "[" in line]) == (0, []), said


@pytest.mark.parametrize("path", ["/", "/?orgId=1", "/d/ours", "/d/none?start=6h", "/site/runbooks.html"])
def test_pages_need_a_sign_in(page: Page, path: str) -> None:
    response = page.get(path)
    assert (response.status_code, response.headers["Location"]) == (302, f"/sign-in/?next={path}")
    assert page.get(path, auth=ADMIN).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/site/settings.json", "/site/dashboards/index.json", "/prometheus/api/v1/query?query=up", "/assets/none.js"],
)
def test_what_a_page_asks_for_needs_one_too(page: Page, path: str) -> None:
    response = page.get(path)
    assert (response.status_code, response.headers["Content-Type"]) == (401, "application/json")
    assert "load the page again" in response.json()["error"]


def test_what_is_open(page: Page) -> None:
    assert page.get("/healthz").text == "ok\n"
    assert page.get("/logo.svg").headers["Content-Type"] == "image/svg+xml"
    assert page.get("/internal/auth", auth=ADMIN).status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        *(f"/prometheus/api/v1/{query}" for query in QUERIES if "[" not in query),
        "/prometheus/api/v1/label/user/values",
    ],
)
def test_prometheus_answers_what_dashboards_ask(page: Page, path: str) -> None:
    query = "?query=test_total&match[]=test_total&start=0&end=1&step=1"
    response = page.get(path + query, auth=ADMIN)
    assert (response.status_code, response.json()["status"]) == (200, "success")
    assert (
        "Access-Control-Allow-Origin" not in page.get(path + query, auth=ADMIN, headers={"Origin": "http://x"}).headers
    )


def test_long_queries_are_posted(page: Page) -> None:
    query = "test_total + 0 * (" + " + ".join(["test_total"] * 1000) + ")"
    response = requests.post(f"{page.url}/prometheus/api/v1/query", data={"query": query}, auth=ADMIN)
    assert response.json()["data"]["result"][0]["value"][1] == "1500000000"


FORBIDDEN = [
    "/prometheus/",
    "/prometheus/metrics",
    "/prometheus/graph",
    "/prometheus/-/healthy",
    "/prometheus/-/quit",
    "/prometheus/-/reload",
    "/prometheus/api/v1/admin/tsdb/snapshot",
    "/prometheus/api/v1/admin/tsdb/delete_series?match[]=up",
    "/prometheus/api/v1/status/config",
    "/prometheus/api/v1/status/flags",
    "/prometheus/api/v1/query/../status/config",
    "/prometheus/api/v1/query/%2e%2e/status/config",
    "/prometheus/api/v1/query%2f..%2fstatus%2fconfig",
    "/prometheus/api/v1/label/..%2f..%2fstatus%2fconfig%23/values",
    "/prometheus/api/v1/label/%2e%2e/status/config/values",
    "/prometheus/api/v1/status%2fbuildinfo/../config",
    "/prometheus//api/v1//status//config",
    "/prometheus/api/v1/query_exemplars",
    "/prometheus/api/v1/targets/metadata",
    "/prometheus/api/v1/read",
    "/prometheus/api/v1/write",
    "/prometheus/api/v1/querystatus/config",
    "/prometheus/api/v1/query;/status/config",
    "/prometheus/federate?match[]=up",
]


@pytest.mark.parametrize("path", FORBIDDEN)
def test_nothing_else_of_prometheus_is_reached(page: Page, path: str) -> None:
    """As a client sends it: `requests` would tidy up the path first."""
    for method in ("GET", "POST"):
        connection = http.client.HTTPConnection("127.0.0.1", page.ports["web"], timeout=30)
        authorization = requests.auth._basic_auth_str(*ADMIN)
        connection.request(method, path, headers={"Authorization": authorization})
        assert connection.getresponse().status == 403, method
        connection.close()


def test_the_paths_above_are_there_in_prometheus(page: Page) -> None:
    """So that their refusal is nginx' own."""
    base = f"http://127.0.0.1:{page.ports['prometheus']}"
    for path in ("/metrics", "/-/healthy", "/api/v1/status/config", "/api/v1/status/flags", "/federate?match[]=up"):
        assert requests.get(base + path).ok


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_prometheus_takes_questions_only(page: Page, method: str) -> None:
    response = requests.request(method, f"{page.url}/prometheus/api/v1/query?query=up", auth=ADMIN)
    assert response.status_code in (403, 405)
    path = f"{page.url}/prometheus/api/v1/series?match[]=test_total"
    assert requests.request(method, path, auth=ADMIN).status_code in (403, 405)


def test_headers(page: Page) -> None:
    response = page.get("/", auth=ADMIN)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Cache-Control"] == "no-store"
    assert "nginx/" not in response.headers["Server"]
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "http" not in response.headers["Content-Security-Policy"]
    script = re.search(r'src="(/assets/[^"]+\.js)"', response.text)
    assert script
    asset = page.get(script[1], auth=ADMIN, headers={"Accept-Encoding": "gzip"})
    assert asset.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert asset.headers["Content-Encoding"] == "gzip"
    assert int(asset.headers["Content-Length"]) < 100_000, "the start page's code is small"
    assert "sourceMappingURL" not in asset.text
    assert page.get(f"{script[1]}.map", auth=ADMIN).status_code == 404


def test_the_log_keeps_query_strings_to_itself(page: Page) -> None:
    page.get("/sign-in/callback?code=secret-code&state=x")
    page.get("/prometheus/graph?secret-code")
    log = page.logs("web")
    assert '"GET /prometheus/graph" 403' in log
    assert "secret-code" not in log


def test_parts_that_do_not_answer_are_named(tmp_path: Path) -> None:
    with running_page(tmp_path, SETTINGS, {"index.json": "[]"}) as page:
        response = page.get("/prometheus/api/v1/query?query=up", auth=ADMIN)
        assert (response.status_code, response.json()["error"]) == (502, "Prometheus does not answer.")


def test_without_the_sign_in_nothing_is_open(tmp_path: Path) -> None:
    with running_page(tmp_path, SETTINGS, {"index.json": "[]"}, sign_in=False) as page:
        for path in ("/", "/site/settings.json", "/prometheus/api/v1/query?query=up", "/sign-in/"):
            response = page.get(path, auth=ADMIN)
            assert (response.status_code, "The sign-in does not answer" in response.text) == (503, True), path


def test_open_to_all(tmp_path: Path) -> None:
    with running_page(tmp_path, SETTINGS | {"access": "open"}, {"index.json": "[]"}, sign_in=False) as page:
        assert page.get("/").status_code == 200
        assert page.get("/site/settings.json").json()["access"] == "open"
        assert page.get("/prometheus/api/v1/query?query=up").status_code == 502
        assert page.get("/prometheus/metrics").status_code == 403
        assert page.get("/sign-in/?next=/").headers["Location"] == "/"


def test_grafana_gets_all_but_the_runbooks(tmp_path: Path) -> None:
    with running_page(tmp_path, SETTINGS | {"ui": "grafana"}, {"index.json": "[]"}, sign_in=False) as page:
        assert page.get("/site/runbooks.html").status_code == 200
        assert page.get("/").status_code == 502
        server = ThreadingHTTPServer(("127.0.0.1", page.ports["grafana"]), Echo)
        Thread(target=server.serve_forever, daemon=True).start()
        for path in ("/?orgId=1", "/d/x/y?a=%20b", "/prometheus/metrics", "/site/settings.json"):
            assert page.get(path).json() == {"path": path, "host": page.url.removeprefix("http://")}
        server.shutdown()


class Echo(BaseHTTPRequestHandler):
    """Says what was asked, as Grafana's stand-in."""

    def do_GET(self) -> None:
        body = json.dumps({"path": self.path, "host": self.headers["Host"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def browser(chromium: Browser) -> Browser:
    expect.set_options(timeout=TIMEOUT_MS)
    return chromium


class Visitor:
    """Somebody's browser, with what went wrong in it."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self.url = page.url
        self.context = context
        self.tab: Tab = context.new_page()
        self.trouble: list[str] = []
        self.tab.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.tab.on("console", lambda line: line.type == "error" and self.trouble.append(line.text))
        self.tab.on("request", self._check)

    def _check(self, request: Any) -> None:  # noqa: ANN401
        if not request.url.startswith((f"{self.url}/", "data:", "blob:")):
            self.trouble.append(f"asks elsewhere: {request.url}")

    def open(self, path: str) -> None:
        self.tab.goto(self.url + path)

    def sign_in(self) -> None:
        self.tab.get_by_label("Password").fill(PASSWORD)
        self.tab.get_by_role("button", name="Sign in").click()

    def panel(self, title: str) -> Any:  # noqa: ANN401
        return self.tab.get_by_test_id("panel").filter(has=self.tab.get_by_role("heading", name=title, exact=True))


@pytest.fixture
def visitor(browser: Browser, page: Page) -> Iterator[Visitor]:
    context = browser.new_context(viewport={"width": 1400, "height": 1400}, locale="en-GB")
    someone = Visitor(context, page)
    yield someone
    context.close()
    assert someone.trouble == []


@pytest.fixture
def admin(visitor: Visitor) -> Visitor:
    visitor.open("/?orgId=1")
    visitor.sign_in()
    expect(visitor.tab).to_have_url(f"{visitor.url}/?orgId=1")
    return visitor


def test_the_start_page_lists_dashboards_and_alerts(admin: Visitor, exporter: Exporter) -> None:
    tab = admin.tab
    expect(tab).to_have_title("Dashboards \u2013 Physics <b>lab</b>")
    expect(tab.get_by_role("heading", level=1)).to_have_text("Physics <b>lab</b>")
    expect(tab.get_by_text("All is well: no alert fires.")).to_be_visible()
    cards = tab.get_by_role("region", name="Dashboards")
    expect(cards.get_by_role("link")).to_have_count(len(SITE["dashboards"]) + 1)
    expect(cards.get_by_text(OURS.description)).to_be_visible()
    expect(tab.get_by_text("admin", exact=True)).to_be_visible()
    expect(tab.get_by_role("link", name="JupyterHub")).to_have_attribute("href", SETTINGS["hub_url"])
    exporter.alerts = 1
    url = f"{admin.url}/prometheus/api/v1/alerts"
    until(lambda: requests.get(url, auth=ADMIN).text.count('"firing"') == 2, "alerts fire")
    tab.reload()
    alerts = tab.get_by_role("region", name="Alerts").get_by_role("listitem")
    expect(alerts).to_have_count(2)
    expect(alerts.first).to_contain_text("A disk is quite <b>full</b>")
    expect(alerts.first).to_contain_text("critical")
    expect(alerts.first.get_by_role("link")).to_have_attribute("href", re.compile("#diskfull$"))
    expect(alerts.last).to_contain_text("A disk is nearly <b>full</b>")
    exporter.alerts = 0
    until(lambda: '"firing"' not in requests.get(url, auth=ADMIN).text, "alerts end")
    cards.get_by_role("link", name=OURS.title).click()
    expect(tab).to_have_url(re.compile(f"{re.escape(admin.url)}/d/ours"))


def test_every_kind_of_panel_shows_its_figures(admin: Visitor) -> None:
    admin.open("/d/ours?orgId=1")
    tab = admin.tab
    expect(tab).to_have_title("One of each \u2013 Physics <b>lab</b>")
    expect(admin.panel("Figure")).to_contain_text("1.5 GB")
    for title in ("Lines", "Bars", "Gauge"):
        expect(admin.panel(title).locator("canvas")).to_be_visible()
    rows = admin.panel("Table").get_by_role("row")
    expect(rows.nth(1)).to_have_text("maximilian-alexander-langenfeld3.939 GB")
    expect(rows.nth(2)).to_have_text("user-383.838 GB")
    legend = admin.panel("Lines").get_by_role("row")
    expect(legend.nth(1)).to_be_visible()
    for user in ("user-00", "user-01"):
        expect(admin.panel("Lines").get_by_text(user, exact=True)).to_be_attached()
    assert admin.tab.get_by_role("button", name=re.compile("edit", re.IGNORECASE)).count() == 0
    assert tab.locator(".MuiAlert-root").count() == 0


def test_a_table_begins_with_the_most_urgent_in_colours(admin: Visitor) -> None:
    admin.tab.set_viewport_size({"width": 1400, "height": 4000})  # panels below the window ask for nothing
    admin.open("/d/ours?orgId=1")
    rows = admin.panel("Coloured").get_by_role("row")
    for number, level in enumerate((CRITICAL, WARNING, OK), start=1):
        expect(rows.nth(number).get_by_role("cell").first).to_have_text(f"user-{number - 1:02}")
        red, green, blue = (int(COLOURS[level][place : place + 2], 16) for place in (1, 3, 5))
        figure = rows.nth(number).get_by_role("cell").last.locator("div").first
        expect(figure).to_have_css("color", f"rgb({red}, {green}, {blue})")


def test_charts_ask_for_points_as_often_as_there_are_figures(admin: Visitor) -> None:
    steps: set[str] = set()

    def note(request: Any) -> None:  # noqa: ANN401
        if "/query_range" in request.url:
            found = parse_qs(f"{urlsplit(request.url).query}&{request.post_data or ''}")
            steps.update(found["step"])

    admin.tab.on("request", note)
    admin.open("/d/ours?orgId=1&start=5m")
    expect(admin.panel("Lines").locator("canvas")).to_be_visible()
    assert steps
    assert all(float(step) < 30 for step in steps), steps  # figures come every second, not every 30


def test_a_choice_of_users_is_in_the_address_and_in_the_queries(admin: Visitor) -> None:
    admin.open("/d/ours?var-user=user-07&start=15m")
    lines = admin.panel("Lines")
    expect(lines.get_by_text("user-07", exact=True)).to_be_visible()
    expect(lines.get_by_text("user-08", exact=True)).to_have_count(0)
    admin.tab.get_by_role("link", name="Users", exact=True).click()
    expect(admin.tab).to_have_url(re.compile(r"/d/users\?start=15m"))
    expect(admin.tab.get_by_role("heading", level=1)).to_have_text("Users")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_sites_own_dashboards_show_no_error(admin: Visitor, scheme: Any) -> None:  # noqa: ANN401
    admin.tab.emulate_media(color_scheme=scheme)
    admin.tab.set_viewport_size({"width": 1400, "height": 4000})  # panels below the window ask for nothing
    for uid in SITE["dashboards"]:
        admin.open(f"/d/{uid}")
        expect(admin.tab.get_by_test_id("panel").first).to_be_visible()
        admin.tab.wait_for_load_state("networkidle")
        expect(admin.tab.get_by_label("panel errors")).to_have_count(0)
        expect(admin.tab.locator(".MuiAlert-root")).to_have_count(0)
    background = admin.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(33, 37, 41)" if scheme == "dark" else "rgb(255, 255, 255)")


def test_what_is_not_there_is_said(admin: Visitor) -> None:
    admin.open("/d/nowhere")
    expect(admin.tab.get_by_role("alert")).to_contain_text("There is no such dashboard")
    admin.open("/nowhere")
    expect(admin.tab.get_by_role("alert")).to_contain_text("Nothing is at this address")


def test_the_end_of_the_sign_in_leads_back_to_it(admin: Visitor) -> None:
    admin.open("/d/ours?start=15m")
    expect(admin.panel("Figure")).to_contain_text("1.5 GB")
    admin.context.clear_cookies()
    admin.tab.get_by_role("button", name="Refresh", exact=True).click()
    expect(admin.tab).to_have_url(re.compile(r"/sign-in/\?next=/d/ours\?start=15m"))
    admin.sign_in()
    expect(admin.panel("Figure")).to_contain_text("1.5 GB")
    admin.tab.get_by_role("link", name="Sign out").click()
    expect(admin.tab.get_by_text("You are signed out of the dashboards.")).to_be_visible()
    admin.open("/")
    expect(admin.tab).to_have_url(re.compile("/sign-in/"))
    admin.trouble.clear()  # Chromium's own word on status 401


def test_a_silent_prometheus_is_said(browser: Browser, tmp_path: Path) -> None:
    files = {"index.json": json.dumps([{"uid": "ours", "title": "Ours", "description": ""}])}
    files["ours.json"] = json.dumps(perses_dashboard(OURS))
    with running_page(tmp_path, SETTINGS | {"access": "open"}, files, sign_in=False) as page:
        context = browser.new_context()
        visitor = Visitor(context, page)
        visitor.open("/")
        expect(visitor.tab.get_by_role("alert")).to_contain_text("Prometheus does not answer.")
        visitor.open("/d/ours")
        expect(visitor.panel("Figure")).to_contain_text("Prometheus does not answer.")
        context.close()
