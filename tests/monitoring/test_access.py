"""Who sees the figures: people who are signed in, and nobody's server."""

from __future__ import annotations

import json

import pytest
import requests
from activity import BURNER, Activity
from lab import Site, Visitor

# Runs in a user's server; prints for each address the status, or why there was none.
ASK = """
import json, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
answers = {{}}
for url in {urls}:
    try:
        answers[url] = opener.open(url, timeout=5).status
    except urllib.error.HTTPError as error:
        answers[url] = error.code
    except OSError as error:
        answers[url] = "closed"
print(json.dumps(answers))
"""


def test_users_servers_reach_nothing(site: Site, activity: Activity) -> None:
    master = site.url.rpartition(":")[0]
    service = f"http://dashboards.{site.settings['namespace']}.svc"
    page = [
        f"{site.url}/",
        f"{site.url}/prometheus/api/v1/query?query=up",
        f"{service}/prometheus/api/v1/query?query=up",
    ]
    closed = [f"{master}:{port}/" for port in (9790, 9791, 9792, 9793, 9100)]
    hub = [f"{site.hub_url}/hub/metrics", f"http://hub.{site.namespace}.svc:8081/hub/metrics"]
    urls = [*page, *closed, *hub]
    answers = json.loads(activity.clients[BURNER].run(BURNER, ASK.format(urls=urls), 120))
    wanted = dict.fromkeys(closed, ("closed",)) | dict.fromkeys(hub, (401, 403, "closed"))
    wanted |= dict.fromkeys(page, (200, 401, "closed"))  # the page itself answers with the sign-in, see below
    assert not {url: answer for url, answer in answers.items() if answer not in wanted[url]}
    assert answers[page[1]] in (401, "closed")
    assert answers[page[2]] in (401, "closed")


@pytest.mark.parametrize(
    "path",
    ["/prometheus/api/v1/query?query=up", "/site/settings.json", "/site/dashboards/index.json", "/site/runbooks.html"],
)
def test_strangers_see_nothing(site: Site, path: str) -> None:
    answer = requests.get(f"{site.url}{path}", allow_redirects=False, timeout=30, proxies={"http": ""})
    assert answer.status_code in (302, 401)


@pytest.mark.parametrize(
    "path",
    [
        "/prometheus/api/v1/admin/tsdb/snapshot",
        "/prometheus/api/v1/status/config",
        "/prometheus/-/reload",
        "/prometheus/api/v1/write",
        "/prometheus/graph",
    ],
)
def test_nothing_else_of_prometheus_is_open(site: Site, person: Visitor, path: str) -> None:
    for method in ("GET", "POST"):
        assert person.session.request(method, f"{site.url}{path}", timeout=30).status_code in (403, 404)


def test_plain_user_may_look(person: Visitor) -> None:
    assert person.value("count(up)") > 10
