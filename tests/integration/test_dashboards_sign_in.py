"""The sign-in of the dashboards with a real hub: who gets in, how, and where people land."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from dashboards_page import PASSWORD, SETTINGS, TOKEN, Page, running_page
from hub import PASSWORD as HUB_PASSWORD
from hub import free_port, running_hub, until

pytestmark = pytest.mark.integration

COOKIE = "jhok-dashboards"
WANTED = "/d/overview?orgId=1&start=6h&var-user=a%20b&x=%26"
DASHBOARDS = {"index.json": "[]", "overview.json": "{}"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, proxy_command: str) -> Iterator[Page]:
    directory = tmp_path_factory.mktemp("hub")
    page_url, api_url = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    environment = {
        "TEST_HUB_USERS": "ada eve boss",
        "TEST_HUB_INTERNAL_URL": api_url,
        "TEST_DASHBOARDS_URL": page_url,
        "TEST_DASHBOARDS_TOKEN": TOKEN,
    }
    config = Path(__file__).with_name("dashboards_config.py")
    with running_hub(directory, proxy_command, config, **environment) as hub_url:
        settings = SETTINGS | {"access": "hub", "url": page_url, "hub_url": hub_url}
        directory = tmp_path_factory.mktemp("page")
        with running_page(directory, settings, DASHBOARDS, hub_api_url=f"{api_url}/hub/api") as page:
            yield page


@pytest.fixture(scope="module")
def hubless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Serve the page of a site whose hub does not answer."""
    with running_page(tmp_path_factory.mktemp("page"), SETTINGS | {"access": "hub"}, DASHBOARDS) as page:
        yield page


def hub_session(page: Page, user: str) -> requests.Session:
    """Return a browser of somebody whom the hub knows."""
    session = requests.Session()
    hub_url = page.get("/site/settings.json", auth=("admin", PASSWORD)).json()["hub_url"]
    session.get(f"{hub_url}/hub/login")
    form = {"username": user, "password": HUB_PASSWORD, "_xsrf": session.cookies.get("_xsrf", path="/hub/")}
    assert session.post(f"{hub_url}/hub/login", data=form, allow_redirects=False).status_code == 302
    return session


@pytest.mark.parametrize("user", ["ada", "boss"])
def test_the_hub_lets_viewers_and_admins_in_and_they_land_where_they_wanted(page: Page, user: str) -> None:
    session = hub_session(page, user)
    response = session.get(page.url + WANTED)
    assert (response.status_code, response.url) == (200, page.url + WANTED)
    assert '<div id="app">' in response.text
    assert session.get(f"{page.url}/sign-in/user").json() == {"name": user}
    assert f"{user} signed in with JupyterHub" in (page.directory / "sign-in/sign_in.log").read_text()


def test_somebody_signed_out_comes_to_the_hubs_own_sign_in(page: Page) -> None:
    response = requests.get(page.url + WANTED)
    assert urlsplit(response.url).path == "/hub/login"
    assert 'name="password"' in response.text


def test_the_hub_keeps_out_who_is_no_viewer(page: Page) -> None:
    session = hub_session(page, "eve")
    response = session.get(page.url + WANTED)
    assert response.status_code == 403
    assert COOKIE not in session.cookies
    assert session.get(f"{page.url}/sign-in/user").status_code == 401


def test_the_cookie_is_for_this_site_and_no_script(page: Page) -> None:
    session = hub_session(page, "ada")
    response = session.get(page.url + WANTED)
    [said] = [
        each.headers["Set-Cookie"] for each in response.history if f"{COOKIE}=" in each.headers.get("Set-Cookie", "")
    ]
    assert re.search(rf"{COOKIE}=[^;]+", said)
    for flag in ("HttpOnly", "SameSite=Lax", "Path=/", "expires="):
        assert flag in said
    assert "Secure" not in said, "this site has no TLS"
    value = session.cookies[COOKIE]
    for forged in (value[:-1] + ("0" if value[-1] != "0" else "1"), "ada", value.replace("|", "||")):
        assert page.get("/site/settings.json", cookies={COOKIE: forged}).status_code == 401
    assert page.get("/site/settings.json", cookies={COOKIE: value}).status_code == 200


def test_a_code_of_somebody_else_is_refused(page: Page) -> None:
    """Nobody can be signed in as somebody else by a link: the state belongs to one browser."""
    session = hub_session(page, "ada")
    response = session.get(f"{page.url}/sign-in/?next=/", allow_redirects=False)
    assert parse_qs(urlsplit(response.headers["Location"]).query)["code_challenge_method"] == ["S256"]
    back = session.get(response.headers["Location"], allow_redirects=False).headers["Location"]
    assert back.startswith(f"{page.url}/sign-in/callback?")
    other = requests.get(back, allow_redirects=False)
    assert (other.status_code, COOKIE in other.cookies) == (400, False)
    assert "Try again" in other.text
    again = session.get(back, allow_redirects=False)
    assert (again.status_code, again.headers["Location"]) == (302, "/")
    assert session.get(back, allow_redirects=False).status_code == 400, "a code is good once"


def test_several_tabs_sign_in_at_once(page: Page) -> None:
    session = hub_session(page, "ada")
    starts = [session.get(f"{page.url}/sign-in/?next=/d/{n}", allow_redirects=False) for n in range(3)]
    for number, start in enumerate(starts):
        assert session.get(start.headers["Location"]).url == f"{page.url}/d/{number}"


def test_a_code_that_the_hub_does_not_know(page: Page) -> None:
    session = requests.Session()
    start = session.get(f"{page.url}/sign-in/?next=/", allow_redirects=False)
    state = parse_qs(urlsplit(start.headers["Location"]).query)["state"][0]
    response = session.get(f"{page.url}/sign-in/callback?state={state}&code=made-up", allow_redirects=False)
    assert (response.status_code, COOKIE in response.cookies) == (403, False)
    assert "did not confirm who you are" in response.text


@pytest.mark.parametrize(
    "elsewhere",
    [
        "//evil.example/",
        "https://evil.example/",
        "/\\evil.example/",
        "\\/evil.example",
        "javascript:alert(1)",
        "evil.example",
        "%2F%2Fevil.example",
        "/ok\r\nSet-Cookie: a=b",
        "/two words",
        "",
    ],
)
def test_nobody_is_sent_elsewhere(hubless: Page, elsewhere: str) -> None:
    form = {"password": PASSWORD, "next": elsewhere}
    response = requests.post(f"{hubless.url}/sign-in/password", data=form, allow_redirects=False)
    assert (response.status_code, response.headers["Location"]) == (302, "/")
    assert "a" not in response.cookies


def test_without_the_hub_there_is_the_password(hubless: Page) -> None:
    session = requests.Session()
    response = session.get(hubless.url + WANTED)
    assert response.status_code == 503
    assert "JupyterHub does not answer" in response.text
    assert "Physics &lt;b&gt;lab" in response.text
    next_path = re.search(r'name="next" value="([^"]+)"', response.text)
    assert next_path
    form = {"password": PASSWORD, "next": next_path[1].replace("&amp;", "&")}
    response = session.post(f"{hubless.url}/sign-in/password", data=form)
    assert (response.status_code, response.url) == (200, hubless.url + WANTED)
    assert session.get(f"{hubless.url}/sign-in/user").json() == {"name": "admin"}
    response = session.get(f"{hubless.url}/sign-in/out")
    assert "You are signed out" in response.text
    assert session.get(f"{hubless.url}/sign-in/user").status_code == 401


def test_wrong_passwords_wait_for_each_other_and_never_the_right_one(hubless: Page) -> None:
    """Behind kube-proxy all have one address: nobody's guesses lock the admin out."""
    log, answered = hubless.directory / "sign-in/sign_in.log", []
    before = log.read_text().count("wrong password")
    guesses = [f"wrong guess {number}" for number in range(6)]

    def attempt(password: str) -> requests.Response:
        form = {"password": password, "next": "/"}
        response = requests.post(f"{hubless.url}/sign-in/password", data=form, allow_redirects=False)
        answered.append(password)
        return response

    with ThreadPoolExecutor(len(guesses)) as pool:
        wrong = [pool.submit(attempt, guess) for guess in guesses]
        until(lambda: log.read_text().count("wrong password from 127.0.0.1") == before + len(guesses), "all are there")
        assert attempt(PASSWORD).status_code == 302
        assert hubless.get("/site/settings.json", auth=("admin", PASSWORD)).status_code == 200
        assert len(answered) < len(guesses), "the right one did not wait for the wrong ones"
    assert [each.result().status_code for each in wrong] == [403] * len(guesses)
    assert "The password is wrong." in wrong[0].result().text
    assert "wrong guess" not in log.read_text()


def test_scripts_use_name_and_password(hubless: Page) -> None:
    assert hubless.get("/site/settings.json", auth=("admin", PASSWORD)).status_code == 200
    assert hubless.get("/site/settings.json", auth=("root", PASSWORD)).status_code == 401
    assert hubless.get("/site/settings.json", auth=("admin", "wrong")).status_code == 401
    for header in ("Basic", "Basic !", "Basic /w==", f"Bearer {PASSWORD}"):
        assert hubless.get("/site/settings.json", headers={"Authorization": header}).status_code == 401


def test_the_service_says_nothing_that_is_not_asked(hubless: Page) -> None:
    assert hubless.get("/sign-in/nowhere").status_code == 404
    assert hubless.get("/sign-in/secrets/password").status_code == 404
    response = hubless.get("/sign-in/password")
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"] == "no-store"
    for secret in (PASSWORD, TOKEN):
        assert secret not in response.text
