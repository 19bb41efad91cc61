"""Sign-in by a real JupyterHub behind its real proxy: with GitHub, whose part tests/fakes/github plays."""

from __future__ import annotations

import copy
import json
import re
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urljoin, urlsplit

import pytest
import requests
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient
from github.server import FakeGitHub
from hub import PAGES, TOKEN, free_port, running_hub, until
from squid import Squid, running_squid

pytestmark = pytest.mark.integration

CONFIG = Path(__file__).with_name("sign_in_config.py")
CLIENT_SECRET = "Secret-of-the-app-4711"
OUTSIDE = "github.invalid"  # no name server knows it
PROXY_PASSWORD = "Password/of@the-proxy-4711"
NAMES = ["007bond", "octo-cat", "Octo-CAT2", "a", "a" * 39, "1-2-3", "x-y-z-0"]
STATE: dict[str, Any] = {
    "client_id": "Iv1.physics",
    "client_secret": CLIENT_SECRET,
    "mode": "up",
    "organizations_mode": "up",
    "accounts": {
        name: number
        for number, name in enumerate(
            ["alice", "Boss", "member", "Quiet-Member", "teamer", "orgonly", "stranger", "jhok-verify", *NAMES], 100
        )
    },
    "organizations": {
        "Physics": {"members": ["member", "quiet-member", "jhok-verify"], "public": ["member"]},
        "chemistry": {"members": ["teamer", "orgonly"], "teams": {"laser-lab": ["teamer"]}},
    },
}


class Browser(requests.Session):
    """One person's browser at the hub."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.trust_env = False
        self.url = url

    def get_page(self, path: str, **query: str) -> requests.Response:
        return self.get(f"{self.url}{path}", params=query, timeout=20)

    def who(self) -> dict[str, Any] | None:
        """Return whom the hub takes this browser for; None leads to the sign-in page."""
        page = self.get_page("/hub/home")
        if "/hub/login" in urlsplit(page.url).path:
            return None
        assert page.status_code == 200, page.text
        name = re.search(r'user: "([^"]*)"', page.text)
        assert name, page.text
        return {"name": name[1], "admin": "/hub/admin" in page.text}

    def api(self, method: str, path: str, body: object = None) -> requests.Response:
        """Ask the hub's API as its own pages do."""
        token = re.search(r'xsrf_token: "([^"]+)"', self.get_page("/hub/home").text)
        assert token
        headers = {"X-XSRFToken": token[1]}
        return self.request(method, f"{self.url}/hub/api/{path}", json=body, headers=headers, timeout=20)

    def begin(self) -> requests.Response:
        """Follow the sign-in page's button to GitHub's page."""
        page = self.get_page("/hub/login", next="/hub/home")
        link = re.search(r'href=["\']([^"\']+)["\']\s*>\s*Sign in with GitHub', page.text)
        assert link, page.text
        return self.get(urljoin(page.url, link[1].replace("&amp;", "&")), timeout=20)

    def decide(self, page: requests.Response, login: str, decision: str = "authorize") -> requests.Response:
        """Choose an account on GitHub's page; returns the page on which it ends."""
        form = dict(re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', page.text))
        target = urljoin(page.url, "/login/oauth/authorize")
        return self.post(target, data={**form, "login": login, "decision": decision}, timeout=20)

    def sign_in(self, login: str) -> requests.Response:
        return self.decide(self.begin(), login)


@contextmanager
def running_site(
    directory: Path, proxy_command: str, host: str = "127.0.0.1", http_proxy: str = ""
) -> Iterator[SimpleNamespace]:
    """Run a GitHub that is called `host`, and a hub that reaches it through `http_proxy`, if one is given."""
    # A certificate that nobody else trusts, as those of a lab's own CA.
    key, certificate = directory / "key.pem", directory / "ca.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=GitHub Enterprise", "-days", "1"]
    make += ["-addext", f"subjectAltName=IP:127.0.0.1,DNS:{OUTSIDE}", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(make, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    state = {**copy.deepcopy(STATE), "callback_url": f"{url}/hub/oauth_callback"}
    github = FakeGitHub(copy.deepcopy(state), tls=tls)
    github.start()
    settings = {
        **PAGES,
        "auth": "github",
        "users": ["alice", *NAMES],
        "admins": ["Boss"],
        "github": {
            "url": f"https://{host}:{github.port}/",
            "client_id": STATE["client_id"],
            "callback_url": state["callback_url"],
            "ca": certificate.read_text(),
            "organizations": ["physics"],
            "teams": ["chemistry:laser-lab"],
        },
    }
    secrets = {"github-client-secret": f"{CLIENT_SECRET}\n", "github-proxy": f"{http_proxy}\n"}
    (directory / "secrets").mkdir()
    for name, secret in secrets.items():
        (directory / "secrets" / name).write_text(secret)
    (directory / "settings.json").write_text(json.dumps(settings))
    try:
        with running_hub(directory, proxy_command, CONFIG, JHOK_CONFIG_DIR=str(directory), TEST_HUB_URL=url):
            yield SimpleNamespace(url=url, directory=directory, github=github, state=state)
    finally:
        github.stop()
    log = (directory / "hub.log").read_text()
    assert CLIENT_SECRET not in log
    assert not [form for form in (PROXY_PASSWORD, quote(PROXY_PASSWORD, safe="")) if form in log]
    assert "Traceback" not in log


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, proxy_command: str) -> Iterator[SimpleNamespace]:
    with running_site(tmp_path_factory.mktemp("hub"), proxy_command) as site:
        yield site


@pytest.fixture
def github(hub: SimpleNamespace) -> FakeGitHub:
    """Give GitHub as it was in the beginning."""
    hub.github.control(copy.deepcopy(hub.state))
    return hub.github


def visitor(hub: SimpleNamespace) -> Browser:
    """Return a browser that knows GitHub's certificate."""
    browser = Browser(hub.url)
    browser.verify = str(hub.directory / "ca.pem")
    return browser


@pytest.fixture
def browser(hub: SimpleNamespace, github: FakeGitHub) -> Browser:  # noqa: ARG001 - GitHub is to be as in the beginning
    return visitor(hub)


def agreed(browser: Browser, github: FakeGitHub, login: str) -> dict[str, str]:
    """Begin a sign-in and agree to it; returns with what GitHub sends the browser back, which it has not yet done."""
    form = dict(re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', browser.begin().text))
    return {"code": github.code({**form, "login": login}), "state": form["state"]}


def asked_again(browser: Browser, github: FakeGitHub, name: str) -> None:
    """Use the hub until it has asked GitHub again, and be signed in all the while."""
    seen = len(github.asked)

    def asked() -> bool:
        assert browser.who() == {"name": name, "admin": False}
        return len(github.asked) > seen

    until(asked, "the hub asks GitHub again")


def stays_out(browser: Browser) -> None:
    until(lambda: browser.who() is None, "signed out")


@pytest.mark.parametrize(
    ("login", "name", "admin"),
    [
        ("alice", "alice", False),
        ("Boss", "boss", True),
        ("member", "member", False),
        ("Quiet-Member", "quiet-member", False),
        ("teamer", "teamer", False),
        *((name, name.lower(), False) for name in NAMES),
    ],
)
def test_who_may(browser: Browser, login: str, name: str, admin: bool) -> None:
    page = browser.sign_in(login)
    assert (page.status_code, urlsplit(page.url).path) == (200, "/hub/home"), page.text
    assert browser.who() == {"name": name, "admin": admin}


def test_the_inventory_decides_who_is_an_admin(browser: Browser, hub: SimpleNamespace) -> None:
    boss = visitor(hub)
    boss.sign_in("Boss")
    browser.sign_in("alice")
    assert boss.api("PATCH", "users/alice", {"admin": True}).json()["admin"] is True
    until(lambda: browser.who() == {"name": "alice", "admin": False}, "an admin no longer")


@pytest.mark.parametrize("login", ["stranger", "orgonly", "jhok-verify"])
def test_who_may_not(browser: Browser, hub: SimpleNamespace, login: str) -> None:
    page = browser.sign_in(login)
    assert page.status_code == 403
    assert "this site does not know you" in page.text
    assert browser.who() is None
    assert HubClient(hub.url, token=TOKEN).user("jhok-verify") is None


def test_a_person_who_refuses(browser: Browser) -> None:
    page = browser.decide(browser.begin(), "alice", "cancel")
    assert page.status_code == 403
    assert "You did not let GitHub tell this hub who you are" in page.text
    assert browser.who() is None


@pytest.mark.parametrize("state", ["bm9uc2Vuc2U=", "eyJzdGF0ZV9pZCI6ICJ3cm9uZyJ9", ""])
def test_a_state_that_is_not_this_browsers(browser: Browser, github: FakeGitHub, state: str) -> None:
    browser.begin()
    code = github.code({"login": "alice"})
    page = browser.get_page("/hub/oauth_callback", code=code, state=state)
    assert page.status_code == 400
    assert code in github.codes, "the code was used all the same"
    assert browser.who() is None


def test_a_callback_that_somebody_else_began(browser: Browser, hub: SimpleNamespace) -> None:
    """An attacker's link must not sign anybody in under the attacker's name."""
    attacker = visitor(hub)
    form = parse_qs(urlsplit(attacker.begin().url).query)
    answer = attacker.post(
        f"{hub.github.url}/login/oauth/authorize",
        data={"decision": "authorize", "login": "alice", **{name: values[0] for name, values in form.items()}},
        allow_redirects=False,
        timeout=20,
    )
    for victim in (browser, visitor(hub)):
        if victim is browser:
            victim.begin()
        page = victim.get(answer.headers["Location"], timeout=20)
        assert page.status_code == 400
        assert f"Please begin again at {hub.url}" in page.text
        assert victim.who() is None


def test_an_error_in_the_address_is_not_believed(browser: Browser) -> None:
    page = browser.get_page("/hub/oauth_callback", error="x", error_description="Call 0900-FRAUD")
    assert page.status_code == 400
    assert "0900-FRAUD" not in page.text


def test_a_code_that_github_does_not_know(browser: Browser) -> None:
    page = browser.begin()
    state = parse_qs(urlsplit(page.url).query)["state"][0]
    page = browser.get_page("/hub/oauth_callback", code="0" * 20, state=state)
    assert page.status_code == 403
    assert "The code passed is incorrect or expired" in page.text


def test_wrong_client_secret(browser: Browser, github: FakeGitHub) -> None:
    github.control({"client_secret": "another"})
    page = browser.sign_in("alice")
    assert page.status_code == 403
    assert "client_secret passed are incorrect" in page.text


def test_next_never_leads_elsewhere(browser: Browser, hub: SimpleNamespace) -> None:
    page = browser.get(f"{hub.url}/hub/oauth_login?{urlencode({'next': 'http://192.0.2.1/evil'})}", timeout=20)
    form = dict(re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', page.text))
    answer = browser.post(
        f"{hub.github.url}/login/oauth/authorize",
        data={**form, "login": "alice", "decision": "authorize"},
        allow_redirects=False,
        timeout=20,
    )
    answer = browser.get(answer.headers["Location"], allow_redirects=False, timeout=20)
    assert answer.headers["Location"] == "/evil"


def test_a_revoked_token_signs_out(browser: Browser, github: FakeGitHub) -> None:
    browser.sign_in("alice")
    asked_again(browser, github, "alice")
    github.control({"revoke": "alice"})
    stays_out(browser)
    browser.sign_in("alice")
    assert browser.who() == {"name": "alice", "admin": False}


def test_who_left_the_organization_is_signed_out(browser: Browser, github: FakeGitHub) -> None:
    browser.sign_in("member")
    asked_again(browser, github, "member")
    github.control({"organizations": {"Physics": {"members": ["alice"]}}})
    stays_out(browser)
    assert browser.sign_in("member").status_code == 403


def test_who_left_the_team_is_signed_out(browser: Browser, github: FakeGitHub) -> None:
    browser.sign_in("teamer")
    asked_again(browser, github, "teamer")
    github.state["organizations"]["chemistry"]["teams"]["laser-lab"].clear()
    stays_out(browser)


def test_a_renamed_account_is_signed_out(browser: Browser, github: FakeGitHub) -> None:
    browser.sign_in("alice")
    [token] = [token for token, (login, _) in github.tokens.items() if login == "alice"][-1:]
    github.state["accounts"]["alice2"] = github.state["accounts"].pop("alice")
    github.tokens[token] = ("alice2", [])
    stays_out(browser)


def test_a_name_that_changed_hands(browser: Browser, hub: SimpleNamespace, github: FakeGitHub) -> None:
    browser.sign_in("1-2-3")
    github.state["accounts"]["1-2-3"] = 4711
    other = visitor(hub)
    page = other.sign_in("1-2-3")
    assert page.status_code == 403
    assert "belonged to another GitHub account" in page.text
    assert other.who() is None
    boss = visitor(hub)
    boss.sign_in("Boss")
    assert boss.api("DELETE", "users/1-2-3").status_code == 204
    other.sign_in("1-2-3")
    assert other.who() == {"name": "1-2-3", "admin": False}


@pytest.mark.parametrize("mode", ["error", "limited", "forbidden", "hang", "garbage", "refused"])
def test_github_down_at_sign_in(browser: Browser, github: FakeGitHub, mode: str) -> None:
    answer = agreed(browser, github, "alice")
    if mode == "refused":
        github.stop()
    else:
        github.control({"mode": mode})
    try:
        page = browser.get_page("/hub/oauth_callback", **answer)
        assert page.status_code == 503
        assert "GitHub does not answer properly" in page.text
        assert "try to sign in again in a few minutes" in page.text
        assert browser.who() is None
    finally:
        if mode == "refused":
            github.start()


@pytest.mark.parametrize("mode", ["error", "limited", "forbidden", "hang", "garbage"])
@pytest.mark.parametrize("login", ["alice", "member"])
def test_github_down_signs_nobody_out(browser: Browser, github: FakeGitHub, login: str, mode: str) -> None:
    browser.sign_in(login)
    github.control({"mode": mode})
    asked_again(browser, github, login)
    asked_again(browser, github, login)
    github.control({"mode": "up", "revoke": login})
    stays_out(browser)


def test_only_the_membership_cannot_be_asked(browser: Browser, github: FakeGitHub) -> None:
    """An error there is no answer either."""
    github.control({"organizations_mode": "error"})
    assert browser.sign_in("member").status_code == 503
    github.control({"organizations_mode": "up"})
    browser.sign_in("member")
    github.control({"organizations_mode": "error"})
    asked_again(browser, github, "member")
    asked_again(browser, github, "member")


def test_a_server_starts_while_github_is_down(browser: Browser, hub: SimpleNamespace, github: FakeGitHub) -> None:
    browser.sign_in("octo-cat")
    github.stop()
    try:
        page = browser.get_page("/hub/spawn")
        assert page.status_code == 200
        assert "octo-cat" in urlsplit(page.url).path, page.url
        until(lambda: "/user/octo-cat/lab" in browser.get_page("/user/octo-cat/").url, "JupyterLab")
        assert browser.get_page("/user/octo-cat/api/status").status_code == 200
        assert browser.who() == {"name": "octo-cat", "admin": False}
    finally:
        github.start()
    assert (hub.directory / "homes" / "octo-cat").is_dir()
    github.control({"revoke": "octo-cat"})
    status = "/user/octo-cat/api/status"
    until(lambda: browser.get_page(status).status_code == 403, "signed out of the server that still runs")
    stays_out(browser)


def test_the_verify_user_comes_with_a_token_and_stays(hub: SimpleNamespace) -> None:
    admin = HubClient(hub.url, token=TOKEN)
    admin.create_user("jhok-verify")
    try:
        visitor = HubClient(hub.url, token=admin.create_token("jhok-verify", 600))
        visitor.start_server("jhok-verify", {}, timeout=60)
        visitor.lab_page("jhok-verify")
    finally:
        admin.stop_server("jhok-verify", timeout=60)
        admin.delete_user("jhok-verify")


def in_files_alone(hub: SimpleNamespace, *secrets: str) -> None:
    """See that secrets are neither in arguments nor in the environment of a process that a user's server could see."""
    settings = (hub.directory / "settings.json").read_text()
    assert not [secret for secret in secrets if secret in settings]
    seen = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == hub.directory:
                seen.append((process / "cmdline").read_bytes() + (process / "environ").read_bytes())
        except OSError:  # it has ended
            continue
    assert len(seen) >= 2, "hub and proxy"
    assert not [secret for process in seen for secret in secrets if secret.encode() in process]


def test_the_secret_is_in_its_file_alone(hub: SimpleNamespace) -> None:
    in_files_alone(hub, CLIENT_SECRET)


@pytest.fixture(scope="module")
def firewall() -> Iterator[Squid]:
    """Give the one machine that knows where GitHub is."""
    logins = {"hub": PROXY_PASSWORD, "people": "theirs"}
    with running_squid(free_port(), logins, {OUTSIDE: "127.0.0.1"}) as squid:
        yield squid


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory, proxy_command: str, firewall: Squid) -> Iterator[SimpleNamespace]:
    """Give a hub behind it."""
    way = firewall.url(f"hub:{quote(PROXY_PASSWORD, safe='')}")
    with running_site(tmp_path_factory.mktemp("inside"), proxy_command, OUTSIDE, way) as site:
        yield site


def person(site: SimpleNamespace, firewall: Squid) -> Browser:
    """Return the browser of somebody who reaches GitHub, too."""
    browser = visitor(site)
    browser.proxies = {"https": firewall.url("people:theirs")}
    return browser


def test_without_a_proxy_there_is_no_way_to_github(tmp_path: Path, proxy_command: str, firewall: Squid) -> None:
    with running_site(tmp_path, proxy_command, OUTSIDE) as site:
        page = person(site, firewall).sign_in("alice")
        assert page.status_code == 503
        assert "GitHub does not answer properly (gaierror)" in page.text
        assert site.github.tokens == {}


@pytest.mark.parametrize("login", ["alice", "Quiet-Member", "teamer"])
def test_sign_in_through_a_proxy(inside: SimpleNamespace, firewall: Squid, login: str) -> None:
    before = len(firewall.passed())
    browser = person(inside, firewall)
    page = browser.sign_in(login)
    assert (page.status_code, urlsplit(page.url).path) == (200, "/hub/home"), page.text
    assert browser.who() == {"name": login.lower(), "admin": False}
    asked_again(browser, inside.github, login.lower())
    inside.github.control({"revoke": login})
    stays_out(browser)
    asked = f"200 CONNECT {OUTSIDE}:{inside.github.port} hub"
    until(lambda: firewall.passed()[before:].count(asked) >= 4, "token and person, and the person again, twice")


def test_nothing_but_github_is_asked_through_the_proxy(inside: SimpleNamespace, firewall: Squid) -> None:
    browser = person(inside, firewall)
    browser.sign_in("octo-cat")
    firewall.stop()
    try:
        browser.get_page("/hub/spawn")
        until(lambda: "/user/octo-cat/lab" in browser.get_page("/user/octo-cat/").url, "JupyterLab")
        assert browser.who() == {"name": "octo-cat", "admin": False}
    finally:
        firewall.start()
    targets = {line.split()[2] for line in firewall.passed() if line.endswith(" hub")}
    assert targets == {f"{OUTSIDE}:{inside.github.port}"}


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("gone", "the HTTP proxy is not reached (ConnectionRefusedError)"),
        ("refuses", "the HTTP proxy answers 407"),
        ("hangs", "Timeout on the way through the HTTP proxy"),
        ("github", "the HTTP proxy answers 503"),
    ],
)
def test_a_proxy_that_lets_nobody_through(inside: SimpleNamespace, firewall: Squid, fault: str, what: str) -> None:
    """Nobody gets in, but who is in stays, and the message tells an admin where to look."""
    browser, other = person(inside, firewall), person(inside, firewall)
    browser.sign_in("alice")
    answer = agreed(other, inside.github, "Boss")
    if fault == "github":
        inside.github.stop()
    elif fault == "hangs":
        firewall.signal(signal.SIGSTOP)
    else:
        firewall.stop()
    if fault == "refuses":
        firewall.let_in({"hub": "changed", "people": "theirs"})
        firewall.start()
    try:
        page = other.get_page("/hub/oauth_callback", **answer)
        assert page.status_code == 503
        assert what in page.text
        assert other.who() is None
        assert browser.who() == {"name": "alice", "admin": False}
    finally:
        if fault == "github":
            inside.github.start()
        elif fault == "hangs":
            firewall.signal(signal.SIGCONT)
        else:
            firewall.stop()
            firewall.let_in({"hub": PROXY_PASSWORD, "people": "theirs"})
            firewall.start()
    other.sign_in("Boss")
    assert other.who() == {"name": "boss", "admin": True}


def test_the_proxys_login_is_in_its_file_alone(inside: SimpleNamespace) -> None:
    in_files_alone(inside, PROXY_PASSWORD, quote(PROXY_PASSWORD, safe=""))
