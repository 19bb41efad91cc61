"""The hub's pages as a real JupyterHub shows them, with the templates and files that role `jupyterhub` ships."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
import requests
from ansible_collections.jhok.lab.plugins.filter.user_guide import user_guide
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient
from hub import PASSWORD, running_hub

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
USER = "jhok-verify"
DASHBOARDS = "http://172.16.0.100:30759/?orgId=1&x=2"
PICTURE = b"\x89PNG\r\n\x1a\n picture"
SETTINGS: dict[str, Any] = {
    "namespace": "jupyterhub",
    "site_name": "Physics <b>lab</b>",
    "notice": "Down on Friday <script>alert('notice')</script>\n& back on Monday",
    "contact": "Ann <i>Example</i>",
    "dashboards_url": DASHBOARDS,
    "dashboards_viewers": "users",
    "url": "http://172.16.0.100:30080",
    "auth": "password",
    "environments": [
        {"name": "base", "title": "Python", "description": "Python, <u>git</u> and a terminal", "default": True},
        {"name": "science", "title": "Science", "description": "numpy, scipy", "max_age": 86400},
    ],
    "sizes": [
        {
            "name": name,
            "title": name.title(),
            "cpu_guarantee": 0.5,
            "cpu_limit": limit,
            "memory_guarantee": "512M",
            "memory_limit": "2G",
            "default": name == "large",
        }
        for name, limit in (("small", 1), ("large", 0))
    ],
    "gpus": [
        {"name": "a100", "title": "A100", "resource": "nvidia.com/gpu", "max": 2, "node_selector": {}},
        {"name": "t4", "title": "T4", "resource": "nvidia.com/gpu", "max": 4, "node_selector": {}},
    ],
    "idle_timeout": 604800,
    "max_age": 0,
    "stop_warning": 1800,
    "user_allowed_cidrs": [],
}
CHOICE = {"environment": "science", "size": "large", "gpu_count": "1", "gpu_type": "t4"}


@dataclass
class Hub:
    """A hub that runs, and the file that lets servers start."""

    url: str
    go: Path

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=30, allow_redirects=False)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, proxy_command: str) -> Iterator[Hub]:
    directory = tmp_path_factory.mktemp("pages")
    guide = directory / "guide"
    guide.mkdir()
    config_map = user_guide(SETTINGS, str(ROOT / "docs/user-guide"))
    for name, text in config_map["data"].items():
        (guide / name).write_text(text)
    for name, data in config_map["binaryData"].items():
        (guide / name).write_bytes(base64.b64decode(data))
    (guide / "one.png").write_bytes(PICTURE)
    environment = {"TEST_HUB_SETTINGS": json.dumps(SETTINGS), "JHOK_GUIDE_DIR": str(guide)}
    config = Path(__file__).with_name("pages_config.py")
    with running_hub(directory, proxy_command, config, **environment) as url:
        yield Hub(url, directory / "go")


@pytest.fixture(scope="module")
def pages(hub: Hub) -> dict[str, requests.Response]:
    """Visit every page once, in the order in which a person would."""
    visitor = HubClient(hub.url)
    seen = {
        "sign-in": hub.get("/hub/login"),
        "wrong password": requests.Response(),
        "guide en": hub.get("/hub/guide/en"),
        "guide zh": hub.get("/hub/guide/zh"),
    }
    form = {"username": USER, "password": "wrong"}
    session = requests.Session()
    session.get(f"{hub.url}/hub/login")
    form["_xsrf"] = session.cookies.get("_xsrf", path="/hub/")
    seen["wrong password"] = session.post(f"{hub.url}/hub/login", data=form)
    visitor.sign_in(USER, PASSWORD)
    seen["home, stopped"] = visitor.request("GET", "/hub/home")
    seen["options"] = visitor.request("GET", "/hub/spawn")
    seen["not running"] = visitor.request("GET", f"/hub/user/{USER}/lab", accept=(424,))
    seen["not found"] = visitor.request("GET", "/hub/nowhere", accept=(404,))
    seen["forbidden"] = visitor.request("GET", "/hub/admin", accept=(403,))
    seen["token"] = visitor.request("GET", "/hub/token")
    action = re.search(r'action="([^"]+)"', seen["options"].text)
    assert action
    seen["pending"] = visitor.request("POST", action[1], data=CHOICE)
    seen["home, starting"] = visitor.request("GET", "/hub/home")
    hub.go.touch()
    visitor.start_server(USER, {}, timeout=60)
    seen["home, running"] = visitor.request("GET", "/hub/home")
    visitor.stop_server(USER, timeout=60)
    seen["failed"] = visitor.request("POST", action[1], data=CHOICE | {"size": "small"}, accept=(500,))
    return seen


class Loads(HTMLParser):
    """Collects what a browser fetches for a page by itself, and what it links to."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__()
        self.base = response.url
        self.fetched: set[str] = set()
        self.links: set[str] = set()
        self.feed(response.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a":
            self.links.add(urljoin(self.base, values.get("href") or ""))
        for name in ("src", "srcset", "data", "poster"):
            if values.get(name):
                self.fetched.add(urljoin(self.base, values[name]))
        if tag == "link":
            self.fetched.add(urljoin(self.base, values["href"]))


SIGNED_OUT = ("sign-in", "wrong password", "guide en", "guide zh")
SIGNED_IN = (
    "home, stopped",
    "home, starting",
    "home, running",
    "options",
    "pending",
    "not running",
    "failed",
    "not found",
    "forbidden",
    "token",
)


@pytest.mark.parametrize("page", SIGNED_OUT + SIGNED_IN)
def test_every_page(hub: Hub, pages: dict[str, requests.Response], page: str) -> None:
    text = pages[page].text
    assert "Physics &lt;b&gt;lab&lt;/b&gt;</title>" in text
    assert "Down on Friday &lt;script&gt;alert(&#39;notice&#39;)&lt;/script&gt;\n&amp; back on Monday</div>" in text
    for tag in ("<b>lab", "<script>alert", "<i>Example", "<u>git"):
        assert tag not in text
    loads = Loads(pages[page])
    assert loads.links >= {f"{hub.url}/hub/guide", DASHBOARDS}
    assert {urlsplit(url).netloc for url in loads.fetched} == {urlsplit(hub.url).netloc}
    assert any(re.search(r"/hub/jhok/favicon\.svg\?v=", url) for url in loads.fetched)


def test_what_the_pages_load_is_there_and_loads_nothing_from_elsewhere(
    hub: Hub, pages: dict[str, requests.Response]
) -> None:
    wanted = {url for response in pages.values() for url in Loads(response).fetched}
    done = set()
    while wanted:
        url = wanted.pop()
        done.add(url)
        response = requests.get(url, timeout=30)
        assert response.ok, url
        if response.headers["Content-Type"].startswith("text/css"):
            found = re.findall(r"""(?:url\(|@import\s*)["']?([^"')]+)""", response.text)
            wanted |= {urljoin(url, item) for item in found if not item.startswith("data:")} - done
    assert {urlsplit(url).netloc for url in done} == {urlsplit(hub.url).netloc}
    assert len(done) > 5


def test_our_files_may_be_kept_by_the_browser(hub: Hub, pages: dict[str, requests.Response]) -> None:
    for name, kind in (("jhok.css", "text/css"), ("favicon.svg", "image/svg+xml")):
        [url] = {url for url in Loads(pages["sign-in"]).fetched if f"/{name}?" in url}
        response = requests.get(url, timeout=30)
        assert response.headers["Content-Type"].startswith(kind)
        assert "max-age=315360000" in response.headers["Cache-Control"]
        assert requests.get(url.partition("?")[0], timeout=30).headers["Cache-Control"] == "no-cache"
    assert hub.get("/hub/jhok/..%2f..%2fhub_pages.py").status_code == 404
    assert hub.get("/hub/logo").headers["Content-Type"].startswith("image/svg+xml")


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("sign-in", "Use the user name and the password that you were given"),
        ("sign-in", "Trouble signing in? Ask Ann &lt;i&gt;Example&lt;/i&gt;."),
        ("wrong password", "Invalid username or password"),
        ("home, stopped", "It is not running."),
        ("home, starting", "See how it starts"),
        ("home, running", "It is running."),
        ("not running", "or because it had run for as long as a server may. Your files are kept."),
        ("pending", "ask Ann &lt;i&gt;Example&lt;/i&gt;. Your files are safe."),
        ("failed", "Choose a smaller size"),
        ("not found", "<h1>Not found <small"),
        ("not found", "Nothing is at this address."),
        ("forbidden", "<h1>Not allowed <small"),
        ("forbidden", "You are signed in as jhok-verify, who may not see this page. If you should, ask Ann"),
    ],
)
def test_pages_say_what_to_do(pages: dict[str, requests.Response], page: str, said: str) -> None:
    assert said in " ".join(pages[page].text.split())


def test_home_says_what_runs_and_until_when(pages: dict[str, requests.Response]) -> None:
    text = pages["home, running"].text
    found = dict(re.findall(r'<dd id="jhok-([a-z-]+)">\s*(?:<time datetime=")?([^<"]+)', text))
    assert found["environment"] == "Science"
    assert found["size"] == "Large"
    assert found["gpus"] == "1 x T4"
    assert found["age-stop"][:10] > found["started"][:10], "a day later"
    assert found["idle-stop"] > found["age-stop"]
    assert 'id="stop"' in text
    assert 'id="stop"' not in pages["home, stopped"].text


def test_the_wait_names_the_choice(pages: dict[str, requests.Response]) -> None:
    assert 'id="progress-message"' in pages["pending"].text
    assert '<dd id="jhok-size">Large</dd>' in pages["pending"].text


def test_the_options_page(pages: dict[str, requests.Response]) -> None:
    text = pages["options"].text
    radios = re.findall(r'<input type="radio"[^>]*name="(\w+)" value="(\w+)" required\s*(checked)?>', text)
    assert radios == [
        ("environment", "base", ""),
        ("environment", "science", "checked"),
        ("size", "small", "checked"),
        ("size", "large", ""),
    ]
    words = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    assert "Memory: 2 GB, of which 512 MB reserved Processor: up to 1 core, at least 0.5 cores" in words
    assert "Processor: all that is free, at least 0.5 cores" in words
    counts = re.findall(r'<option value="(\d)" (selected)?>', text)
    assert counts == [("0", "selected"), ("1", ""), ("2", ""), ("3", ""), ("4", "")]
    assert re.findall(r'<option value="(\w+)" data-max="(\d)"', text) == [("a100", "2"), ("t4", "4")]


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("de-DE,de;q=0.9,en;q=0.5,zh;q=0.7", "zh"),
        ("en-GB,zh;q=0.9", "en"),
        ("fr,*;q=0.5", "en"),
        ("zh;q=nonsense", "en"),
    ],
)
def test_the_guide_follows_the_browsers_language(hub: Hub, header: str, language: str) -> None:
    for path in ("/hub/guide", "/hub/guide/"):
        response = hub.get(path, **{"Accept-Language": header})
        assert (response.status_code, response.headers["Location"]) == (302, f"/hub/guide/{language}")
        assert response.headers["Vary"] == "Accept-Language"


def test_the_guide_is_for_everybody_in_both_languages(hub: Hub, pages: dict[str, requests.Response]) -> None:
    for language, heading in (("en", "Choose an environment</h2>"), ("zh", "选择环境</h2>")):
        response = pages[f"guide {language}"]
        text = response.content.decode()  # the page itself names its character set
        assert heading in text
        assert f'<main class="jhok-guide" lang="{language}">' in text
        assert Loads(response).links >= {f"{hub.url}/hub/guide/en", f"{hub.url}/hub/guide/zh"}
    assert hub.get("/hub/guide/images/one.png").content == PICTURE
    assert hub.get("/hub/guide/images/none.png").status_code == 404
    assert hub.get("/hub/guide/fr").status_code == 404
