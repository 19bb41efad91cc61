"""A headless Chromium at a running site, and the OAuth server that the site's people sign in with.

molecule/users brings the site up and says where it is:

    JHOK_SITE_URL         where people reach the hub
    JHOK_SITE_GITHUB      where the OAuth server has to be
    JHOK_SITE_VARS        the file of variables that site.yml was given (molecule/users/vars/site.yml)
    JHOK_SITE_KUBECONFIG  to see, and to choose, on which node a server runs
    JHOK_SITE_NAMESPACE   of the hub
    JHOK_SCREENSHOTS      when set, the user guide's pictures are made anew
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from pages import ROOT, Person, Site
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

FAILURES = ROOT / ".cache/browser"  # pictures and traces of what failed
IMAGES = ROOT / "docs/user-guide/images"
TIMEOUT_MS = 30_000

people = pytest.StashKey[list[Person]]()


def given(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        pytest.fail(f"{name} is not set: these tests are run by molecule's scenario `users`.", pytrace=False)
    return value


@pytest.fixture(scope="session")
def site() -> Site:
    variables = yaml.safe_load(Path(given("JHOK_SITE_VARS")).read_text())
    names = ("JHOK_SITE_URL", "JHOK_SITE_GITHUB", "JHOK_SITE_KUBECONFIG", "JHOK_SITE_NAMESPACE")
    return Site(*(given(name) for name in names), variables)


@pytest.fixture(scope="session", autouse=True)
def github(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the OAuth server where the hub and the browser expect it."""
    state = tmp_path_factory.mktemp("github") / "state.json"
    address = urlsplit(site.github)
    state.write_text(
        json.dumps(
            {
                "client_id": site.variables["jupyterhub_github_client_id"],
                "client_secret": site.variables["jupyterhub_github_client_secret"],
                "callback_url": f"{site.url}/hub/oauth_callback",
                "accounts": {"Ada-Lovelace": 1, "4Grace": 2, "mallory": 3},
                "organizations": {"rear-admirals": {"members": ["4Grace"]}},
            }
        )
    )
    program = ROOT / "tests/fakes/github/server.py"
    command = [sys.executable, program, "--host", address.hostname, "--port", str(address.port), "--state", state]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        assert server.stdout.readline().strip() == site.github, "the OAuth server did not start"
        yield site.github
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def browser(site: Site, github: str) -> Iterator[Browser]:
    """Run the browser, which finds nothing but the site and its OAuth server: there is no internet in a lab."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.fail("chromium is not installed: apt-get install chromium fonts-wqy-microhei.", pytrace=False)
    hosts = ", ".join(f"EXCLUDE {urlsplit(url).hostname}" for url in (site.url, github))
    arguments = ["--no-sandbox", "--no-proxy-server", f"--host-resolver-rules=MAP * ~NOTFOUND, {hosts}"]
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield instance
        instance.close()


@pytest.fixture(scope="module")
def new_person(
    request: pytest.FixtureRequest, browser: Browser, site: Site, github: str
) -> Iterator[Callable[..., Person]]:
    """Give a function that returns a new person's browser; its options are those of a context."""
    known = request.session.stash.setdefault(people, [])
    mine: list[Person] = []
    failed_before = request.session.testsfailed

    def make(**options: object) -> Person:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, "locale": "en-GB", **options})
        context.set_default_timeout(TIMEOUT_MS)
        context.tracing.start(screenshots=True, snapshots=False)
        person = Person(context, site.url, [site.url, github])
        mine.append(person)
        known.append(person)
        return person

    yield make
    for number, person in enumerate(mine):
        failed = request.session.testsfailed > failed_before
        trace = FAILURES / f"{request.module.__name__}-{number}.zip"
        person.context.tracing.stop(path=trace if failed else None)
        person.context.close()
        known.remove(person)
    foreign = sorted({url for person in mine for url in person.foreign})
    assert not foreign, f"pages asked for what is not the site's: {foreign}"
    errors = [error for person in mine for error in person.errors]
    assert not errors, f"the hub's pages complained: {errors}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Keep pictures of all tabs when a test fails."""
    report = yield
    if report.when == "call" and report.failed:
        FAILURES.mkdir(parents=True, exist_ok=True)
        tabs = [page for person in item.session.stash.get(people, []) for page in person.context.pages]
        for number, page in enumerate(tabs):
            try:
                page.screenshot(path=FAILURES / f"{item.name}-{number}.png")
            except Error as error:
                report.sections.append(("browser", f"no picture of {page.url}: {error}"))
            else:
                report.sections.append(("browser", f"{page.url}: {FAILURES}/{item.name}-{number}.png"))
    return report


@pytest.fixture(scope="session")
def picture() -> Callable[[Page, str], None]:
    """Give a function that makes a picture of the user guide, if that is asked for."""

    def take(page: Page, name: str) -> None:
        if os.environ.get("JHOK_SCREENSHOTS"):
            IMAGES.mkdir(parents=True, exist_ok=True)
            if name != "upload":  # where JupyterLab's notice belongs to the picture
                expect(page.locator(".Toastify__toast")).to_have_count(0)
            page.screenshot(path=IMAGES / f"{name}.jpg", type="jpeg", quality=70)

    return take
