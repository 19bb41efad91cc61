"""Who gets in where, and what people see who are not signed in."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from pages import Person, Site
from playwright.sync_api import expect


@pytest.mark.parametrize(
    ("locale", "title"), [("en-GB", "user guide"), ("zh-CN", "用户指南")], ids=["english", "chinese"]
)
def test_the_guide_needs_no_sign_in(new_person: Callable[..., Person], site: Site, locale: str, title: str) -> None:
    person = new_person(locale=locale)
    person.hub.open("/hub/guide/")
    expect(person.page).to_have_url(f"{site.url}/hub/guide/{locale[:2]}")
    guide = person.page.locator(".jhok-guide")
    expect(guide.get_by_role("heading", level=1)).to_contain_text(title)
    for size in site.variables["jupyterhub_sizes"]:
        expect(guide.get_by_role("cell", name=size["title"], exact=True)).to_be_visible()


def test_somebody_from_elsewhere_is_told_whom_to_ask(new_person: Callable[..., Person], site: Site) -> None:
    person = new_person()
    person.hub.open()
    person.hub.sign_in("mallory")
    expect(person.page).to_have_url(re.compile(rf"{re.escape(site.url)}/hub/oauth_callback"))
    expect(person.page.get_by_role("heading", level=1)).to_contain_text("403")
    expect(person.page.locator("#jhok-advice")).to_contain_text(site.variables["jupyterhub_contact"])
    person.errors.clear()  # Chromium's own word on a page of status 403


def test_a_member_of_the_organization_gets_in_and_sees_the_options(
    new_person: Callable[..., Person], site: Site
) -> None:
    grace = new_person(viewport={"width": 390, "height": 844}, color_scheme="dark")
    grace.hub.open()
    grace.hub.sign_in("4Grace")
    expect(grace.page).to_have_url(f"{site.url}/hub/spawn")
    default = {
        key: next(item["name"] for item in site.variables[f"jupyterhub_{key}s"] if item.get("default"))
        for key in ("environment", "size")
    }
    assert {key: grace.hub.chosen(key) for key in default} == {key: [name] for key, name in default.items()}
    count, kind = grace.page.get_by_label("How many"), grace.page.get_by_label("Which", exact=True)
    expect(kind).to_be_hidden()
    count.select_option("1")
    expect(kind).to_be_visible()
    kind.select_option("a100")
    count.select_option("2")  # more than there are of that type
    expect(kind).to_have_value("t4")
    count.select_option("0")
    expect(kind).to_be_hidden()
