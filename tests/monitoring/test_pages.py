"""The pages, in a real browser: every panel shows something, and nothing is asked of anybody else."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from activity import BURNER, MOVER
from lab import Site
from playwright.sync_api import BrowserContext, Error, FloatRect, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/admin/images"
FAILURES = ROOT / ".cache/browser"
TIMEOUT_MS = 30_000
LINE_PIXELS, LINE_MS = 30, 1000  # of a legend, and until it is drawn
HEIGHT = 4000  # a window in which all panels of a dashboard are in sight: what is not in sight is not drawn
TROUBLE = re.compile(r"no data|error|not found|undefined|NaN", re.IGNORECASE)


@pytest.fixture(scope="module")
def context(site: Site) -> Iterator[BrowserContext]:
    """Give the browser of a user who is no admin; it finds nothing but the site."""
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.fail("chromium is not installed: apt-get install chromium fonts-wqy-microhei.", pytrace=False)
    hosts = f"MAP * ~NOTFOUND, EXCLUDE {urlsplit(site.url).hostname}"
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--no-proxy-server", f"--host-resolver-rules={hosts}"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        context = browser.new_context(viewport={"width": 1280, "height": HEIGHT}, locale="en-GB")
        context.set_default_timeout(TIMEOUT_MS)
        yield context
        browser.close()


@pytest.fixture(scope="module")
def trouble() -> list[str]:
    """Give the list of what is wrong with a page besides what it shows."""
    return []


@pytest.fixture(autouse=True)
def without_trouble(trouble: list[str]) -> Iterator[None]:
    """See that the test at hand asked nothing of others and that the browser complained about nothing."""
    trouble.clear()
    yield
    assert not trouble


@pytest.fixture(scope="module")
def page(site: Site, context: BrowserContext, trouble: list[str]) -> Page:
    """Give a tab of somebody who is signed in."""
    page = context.new_page()
    origins = (*(f"{url}/" for url in (site.url, site.hub_url)), "data:", "blob:")
    context.on(
        "request",
        lambda request: request.url.startswith(origins) or trouble.append(f"asks elsewhere: {request.url}"),
    )
    page.on("console", lambda message: message.type == "error" and trouble.append(f"{page.url}: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"{page.url}: {error}"))
    page.goto(f"{site.url}/?orgId=1")
    page.locator("input[name=username]").fill(MOVER)
    page.locator("input[name=password]").fill(site.passwords[MOVER])
    page.locator("#login_submit").click()
    page.wait_for_url(f"{site.url}/**")
    return page


def picture(page: Page, name: str, last: Locator) -> None:
    """Make a picture for the docs down to the last thing on the page, if that is asked for."""
    if os.environ.get("JHOK_SCREENSHOTS"):
        IMAGES.mkdir(parents=True, exist_ok=True)
        box = last.bounding_box()
        assert box
        clip: FloatRect = {"x": 0, "y": 0, "width": 1280, "height": box["y"] + box["height"] + 16}
        page.screenshot(path=IMAGES / f"monitoring-{name}.jpg", type="jpeg", quality=60, clip=clip)


def test_start_page_lists_all(site: Site, page: Page) -> None:
    for dashboard in site.dashboards:
        expect(page.get_by_role("main").get_by_role("link", name=dashboard.title, exact=True)).to_be_visible()
    expect(page.get_by_text(MOVER, exact=True).first).to_be_visible()
    picture(page, "start", page.get_by_role("main").get_by_role("listitem").last)


@pytest.mark.parametrize("uid", ["overview", "hub", "users", "nodes", "homes", "traffic"])
def test_every_panel_shows_something(site: Site, page: Page, uid: str) -> None:
    dashboard = next(each for each in site.dashboards if each.uid == uid)
    page.goto(f"{site.url}/d/{uid}?start=5m")
    panels = page.get_by_test_id("panel")
    titles = [panel.title for row in dashboard.rows for panel in row.panels]
    expect(panels).to_have_count(len(titles))
    expect(page.get_by_role("progressbar")).to_have_count(0)
    for number, title in enumerate(titles):
        panel = panels.nth(number)
        expect(panel).to_contain_text(title)
        figure = panel.get_by_role("figure")
        # A chart is painted, a table and a figure are text.
        expect(figure.locator("canvas, table, h3").first).to_be_visible()
    texts = dict(zip(titles, panels.all_inner_texts(), strict=True))
    assert not {title: text for title, text in texts.items() if TROUBLE.search(text.replace(title, ""))}
    picture(page, uid, panels.last)


def test_without_gpus_there_is_no_page_of_them(site: Site, page: Page) -> None:
    assert not site.settings["gpus"]
    page.goto(f"{site.url}/d/gpu")
    expect(page.get_by_role("alert")).to_contain_text("There is no such dashboard")


@pytest.mark.parametrize("title", ["CPU", "Memory", "Received", "Sent"])
def test_legends_have_users_names(site: Site, page: Page, title: str) -> None:
    page.goto(f"{site.url}/d/users?start=5m")
    header = page.get_by_role("heading", name=title, exact=True)
    legend = page.get_by_test_id("panel").filter(has=header).get_by_test_id("virtuoso-scroller")
    for user in (BURNER, MOVER):
        name = legend.get_by_text(user, exact=True)
        # Only the lines in sight are there.
        for line in range(0, 20 * LINE_PIXELS, LINE_PIXELS):
            legend.evaluate("(list, top) => list.scrollTo(0, top)", line)
            with contextlib.suppress(Error):
                name.wait_for(timeout=LINE_MS)
                break
        expect(name).to_be_visible()
