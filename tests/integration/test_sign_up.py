"""Sign-up, approval and passwords by a real JupyterHub behind its real proxy."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError
from ansible_collections.jhok.lab.plugins.module_utils.secrets import scrypt_hash
from hub import PAGES, TOKEN, running_hub, until

pytestmark = pytest.mark.integration

CONFIG = Path(__file__).with_name("sign_in_config.py")
GENERATED = {"carol": "Generated-of-carol", "alice": "Generated-of-alice", "jhok-verify": "Generated-of-verify"}
PASSWORD = "correct horse 4711"


class Browser(requests.Session):
    """One person's browser at the hub."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.trust_env = False
        self.url = url

    def fill(self, path: str, **fields: str) -> requests.Response:
        """Open a page and send its form."""
        page = self.get(f"{self.url}/hub/{path}", timeout=20)
        token = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        assert token, page.text
        return self.post(f"{self.url}/hub/{path}", data={"_xsrf": token[1], **fields}, timeout=20)

    def sign_up(self, name: str, password: str = PASSWORD, again: str | None = None) -> requests.Response:
        return self.fill("signup", username=name, password=password, again=password if again is None else again)

    def sign_in(self, name: str, password: str = PASSWORD) -> requests.Response:
        return self.fill("login?next=%2Fhub%2Fhome", username=name, password=password)

    def decide(self, name: str, action: str) -> requests.Response:
        return self.fill("accounts", name=name, action=action)

    def who(self) -> str:
        """Return whom the hub takes this browser for; nobody leads to the sign-in page."""
        page = self.get(f"{self.url}/hub/home", timeout=20)
        found = re.search(r'user: "([^"]*)"', page.text)
        return found[1] if found else ""


def fault(page: requests.Response) -> str:
    found = re.search(r'class="login_error"[^>]*>\s*([^<]*?)\s*<', page.text)
    return found[1] if found else ""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, proxy_command: str) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("hub")
    settings: dict[str, Any] = {
        **PAGES,
        "dashboards_viewers": "admins",
        "auth": "native",
        "users": ["alice"],
        "admins": ["carol"],
    }
    settings |= {"dashboards_url": "http://dashboards.test/", "dashboards_viewers": "admins"}
    hashes = {name: scrypt_hash(password, b"salt") for name, password in GENERATED.items()}
    (directory / "secrets").mkdir()
    (directory / "secrets" / "passwords.json").write_text(json.dumps(hashes))
    (directory / "settings.json").write_text(json.dumps(settings))
    with running_hub(directory, proxy_command, CONFIG, JHOK_CONFIG_DIR=str(directory)) as address:
        yield address
    log = (directory / "hub.log").read_text()
    assert PASSWORD not in log
    assert "Traceback" not in log


@pytest.fixture
def browser(url: str) -> Browser:
    return Browser(url)


@pytest.fixture
def admin(url: str) -> Browser:
    carol = Browser(url)
    carol.sign_in("carol", GENERATED["carol"])
    assert carol.who() == "carol"
    return carol


def test_a_stranger_gets_in_when_an_admin_has_approved(browser: Browser, admin: Browser) -> None:
    page = browser.sign_up("Dora")
    assert (page.status_code, fault(page)) == (200, "")
    assert "You have signed up as dora" in page.text
    page = browser.sign_in("dora")
    assert (page.status_code, fault(page)) == (403, "An admin has not approved your account yet.")
    assert browser.who() == ""
    assert fault(browser.sign_in("dora", "wrong password")) == "Invalid username or password"

    assert "dora" in admin.get(f"{admin.url}/hub/accounts", timeout=20).text
    admin.decide("dora", "approve")
    page = browser.sign_in("dora")
    assert urlsplit(page.url).path == "/hub/home"
    assert browser.who() == "dora"
    assert "/hub/accounts" not in page.text
    assert "/hub/password" in page.text
    assert ">Dashboards</a>" not in page.text
    assert browser.get(f"{browser.url}/hub/accounts", timeout=20).status_code == 403
    until(lambda: browser.who() == "dora", "signed in after a look at the list")

    admin.decide("dora", "remove")
    until(lambda: browser.who() == "", "signed out")
    assert fault(browser.sign_in("dora")) == "Invalid username or password"


def test_only_what_is_open_to_somebody_is_linked(url: str, browser: Browser, admin: Browser) -> None:
    page = browser.get(f"{url}/hub/login", timeout=20)
    assert ">Dashboards</a>" not in page.text
    page = browser.sign_in("alice", GENERATED["alice"])
    assert browser.who() == "alice"
    assert "/hub/password" not in page.text, "her password was generated"
    assert ">Dashboards</a>" not in page.text
    page = admin.get(f"{url}/hub/home", timeout=20)
    assert ">Dashboards</a>" in page.text
    assert "/hub/accounts" in page.text


def test_no_approval_without_the_form(url: str, browser: Browser, admin: Browser) -> None:
    """A link or a foreign page that an admin opens approves nobody."""
    browser.sign_up("erin")
    for cookies in (admin.cookies, None):
        answer = requests.post(
            f"{url}/hub/accounts", data={"name": "erin", "action": "approve"}, cookies=cookies, timeout=20
        )
        assert answer.status_code == 403
    admin.get(f"{url}/hub/accounts?name=erin&action=approve", timeout=20)
    assert fault(browser.sign_in("erin")) == "An admin has not approved your account yet."


def test_approval_is_for_admins(url: str) -> None:
    alice = Browser(url)
    alice.sign_up("fred")
    alice.sign_in("alice", GENERATED["alice"])
    token = alice.get(f"{url}/hub/home", timeout=20).text.partition('xsrf_token: "')[2].partition('"')[0]
    answer = alice.post(f"{url}/hub/accounts", data={"_xsrf": token, "name": "fred", "action": "approve"}, timeout=20)
    assert answer.status_code == 403
    assert fault(Browser(url).sign_in("fred")) == "An admin has not approved your account yet."


@pytest.mark.parametrize("name", ["carol", "Alice", "jhok-verify", "CAROL "])
def test_nobody_signs_up_under_a_name_of_the_inventory(browser: Browser, name: str) -> None:
    assert fault(browser.sign_up(name)) == "This name is taken. Choose another."
    assert browser.sign_in(name).status_code == 403


@pytest.mark.parametrize("name", ["../etc", ".ssh", "a b", "a/b", "", "x" * 65, "<b>x</b>", "ann-"])
def test_names_that_cannot_be(browser: Browser, name: str) -> None:
    page = browser.sign_up(name)
    assert page.status_code == 400
    assert fault(page).startswith("Choose a name")
    assert "<b>" not in page.text


@pytest.mark.parametrize(
    ("password", "again", "what"),
    [
        ("short", "short", "at least 10 characters"),
        ("x" * 1025, "x" * 1025, "at least 10 characters"),
        (PASSWORD, PASSWORD + "x", "differ"),
        ("aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaa", "too easy"),
        ("my-name-is-GINA", "my-name-is-GINA", "too easy"),
    ],
)
def test_poor_passwords(browser: Browser, password: str, again: str, what: str) -> None:
    assert what in fault(browser.sign_up("gina", password, again))
    assert fault(browser.sign_in("gina", password)) == "Invalid username or password"


def test_a_name_is_taken_once(browser: Browser, admin: Browser) -> None:
    browser.sign_up("hugo")
    assert fault(browser.sign_up("hugo", "another password")) == "This name is taken. Choose another."
    admin.decide("hugo", "approve")
    assert fault(browser.sign_in("hugo", "another password")) == "Invalid username or password"
    browser.sign_in("hugo")
    assert browser.who() == "hugo"


def test_guessing_closes_the_account_for_a_while(url: str, admin: Browser) -> None:
    Browser(url).sign_up("ivan")
    admin.decide("ivan", "approve")
    with ThreadPoolExecutor(12) as pool:
        faults = list(pool.map(lambda number: fault(Browser(url).sign_in("ivan", f"guess {number:06}")), range(12)))
    assert faults.count("Invalid username or password") == 10
    assert faults.count("Too many wrong passwords for this name. Try again in 10 minutes.") == 2
    assert "Too many wrong passwords" in fault(Browser(url).sign_in("ivan"))
    # Others are not concerned, nor are admins, whose passwords nobody guesses.
    for _ in range(11):
        assert fault(Browser(url).sign_in("carol", "guess")) == "Invalid username or password"
    carol = Browser(url)
    carol.sign_in("carol", GENERATED["carol"])
    assert carol.who() == "carol"


def test_people_change_their_password(url: str, browser: Browser, admin: Browser) -> None:
    browser.sign_up("jana")
    admin.decide("jana", "approve")
    browser.sign_in("jana")
    new = "another password"
    assert "wrong" in fault(browser.fill("password", old="guess", password=new, again=new))
    assert "differ" in fault(browser.fill("password", old=PASSWORD, password=new, again=new + "x"))
    assert "was changed" in browser.fill("password", old=PASSWORD, password=new, again=new).text
    other = Browser(url)
    assert fault(other.sign_in("jana")) == "Invalid username or password"
    other.sign_in("jana", new)
    assert other.who() == "jana"
    assert admin.get(f"{url}/hub/password", timeout=20).status_code == 404


def test_a_deleted_record_takes_the_account_along(url: str, browser: Browser, admin: Browser) -> None:
    browser.sign_up("kurt")
    admin.decide("kurt", "approve")
    browser.sign_in("kurt")
    token = re.search(r'xsrf_token: "([^"]+)"', admin.get(f"{url}/hub/home", timeout=20).text)
    assert token
    answer = admin.delete(f"{url}/hub/api/users/kurt", headers={"X-XSRFToken": token[1]}, timeout=20)
    assert answer.status_code == 204
    assert browser.who() == ""
    assert fault(browser.sign_in("kurt")) == "Invalid username or password"


def test_the_verify_user_signs_in_by_the_form_and_by_token(url: str) -> None:
    visitor = HubClient(url)
    visitor.sign_in("jhok-verify", GENERATED["jhok-verify"])
    with pytest.raises(HubError, match="Invalid username or password"):
        HubClient(url).sign_in("jhok-verify", PASSWORD)
    service = HubClient(url, token=TOKEN)
    assert service.delete_user("jhok-verify")
    service.create_user("jhok-verify")
    by_token = HubClient(url, token=service.create_token("jhok-verify", 600))
    by_token.request("GET", "/hub/api/users/jhok-verify")
    assert service.delete_user("jhok-verify")


def test_too_many_who_wait(browser: Browser) -> None:
    """The last test, for nobody else can sign up after it."""
    answers = (fault(browser.sign_up(f"flood{number}")) for number in range(101))
    assert next(filter(None, answers)) == "Too many people wait for approval. Ask an admin to look at them."
