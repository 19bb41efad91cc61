"""Who sees the figures: people who are signed in, and nobody's server."""

from __future__ import annotations

import json

import pytest
import requests
from activity import BURNER, Activity
from lab import Site, Visitor

# Runs in a user's server; prints for each address the status, or why there was none. Follows no redirects.
ASK = """
import json, urllib.error, urllib.request
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_arguments):
        return None
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}), Stay())
answers = {{}}
for url in {urls}:
    try:
        answers[url] = opener.open(url, timeout=10).status
    except urllib.error.HTTPError as error:
        answers[url] = error.code
    except OSError as error:
        answers[url] = type(getattr(error, "reason", error)).__name__
print(json.dumps(answers))
"""
REFUSED = "ConnectionRefusedError"


def test_users_servers_reach_nothing(site: Site, activity: Activity) -> None:
    master = site.url.rpartition(":")[0]
    service = f"http://dashboards.{site.settings['namespace']}.svc"
    api = f"http://hub.{site.namespace}.svc:8081/hub"
    wanted: dict[str, object] = {
        # Controls: this server reaches what it may reach, by address and by name.
        f"{activity.receiver.url}/bytes/10": 200,
        f"{site.hub_url}/hub/api/": 200,
        f"{api}/api/": 200,
        # The page is there, and wants a sign-in.
        f"{site.url}/": 302,
        f"{site.url}/prometheus/api/v1/query?query=up": 401,
        f"{service}/prometheus/api/v1/query?query=up": 401,
        # The hub is there, and wants a token.
        f"{site.hub_url}/hub/metrics": 403,
        f"{api}/metrics": 403,
        # What is behind the page, and the machines' own figures, answer nobody.
        **{f"{master}:{port}/": REFUSED for port in (9790, 9791, 9792, 9793, 9100)},
    }
    answers = json.loads(activity.clients[BURNER].run(BURNER, ASK.format(urls=list(wanted)), 240))
    assert answers == wanted


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
