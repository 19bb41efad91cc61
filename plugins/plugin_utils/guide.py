"""The user guide of a site: Markdown sources with variables become HTML. Pure functions."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterator, Mapping
from html import escape
from pathlib import PurePath
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.hub import Object, server_choices
from jinja2 import Environment, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token

LANGUAGES = ("en", "zh")
MAX_BYTES = 1000 * 1000  # a ConfigMap holds 1 MiB

_UNITS = {
    "en": (
        (86400, " day", " days"),
        (3600, " hour", " hours"),
        (60, " minute", " minutes"),
        (1, " second", " seconds"),
    ),
    "zh": ((86400, " 天", " 天"), (3600, " 小时", " 小时"), (60, " 分钟", " 分钟"), (1, " 秒", " 秒")),
}
_BYTES = {"K": "KB", "M": "MB", "G": "GB", "T": "TB"}
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def guide_config_map(settings: Mapping[str, Any], sources: Mapping[str, str], images: Mapping[str, bytes]) -> Object:
    """Return ConfigMap `hub-guide`.

    Args:
        settings: those of the hub (`HubSettings`).
        sources: text of guide.<language>.md by language.
        images: pictures by file name; a picture that the guide has and this has not is left out.

    Raises ValueError when it is more than a ConfigMap holds.

    """
    pages = {
        f"guide.{language}.html": guide_html(text, language, settings, images) for language, text in sources.items()
    }
    size = sum(len(page.encode()) for page in pages.values()) + sum(map(len, images.values()))
    if size > MAX_BYTES:
        raise ValueError(f"the user guide has {size} bytes, and a ConfigMap holds {MAX_BYTES}: compress its pictures")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "hub-guide",
            "namespace": settings["namespace"],
            "labels": {"app.kubernetes.io/name": "jupyterhub", "app.kubernetes.io/component": "hub"},
        },
        "data": pages,
        "binaryData": {name: base64.b64encode(data).decode() for name, data in sorted(images.items())},
    }


def guide_html(source: str, language: str, settings: Mapping[str, Any], images: Collection[str] = ()) -> str:
    """Return the guide as HTML without a page around it.

    Markdown's own HTML is off, so neither a source nor an inventory can bring any in. The sections are listed below the
    title. A paragraph with a picture whose file is missing from `images` is left out; the ending does not matter:
    `sign-in.png` in the text may be `sign-in.webp`.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = list(_with_images(parser.parse(guide_markdown(source, language, settings)), images))
    sections = []
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            text = tokens[number + 1].content
            token.attrSet("id", _slug(text))
            if token.tag == "h2":
                sections.append(f'<li><a href="#{_slug(text)}">{escape(text)}</a></li>')
    body = str(parser.renderer.render(tokens, parser.options, {}))
    return body.replace("</h1>", f"</h1>\n<nav><ul>{''.join(sections)}</ul></nav>", 1)


def guide_markdown(source: str, language: str, settings: Mapping[str, Any]) -> str:
    """Return the guide with the site's values, each of them escaped: what an inventory says stays plain text.

    Raises jinja2.UndefinedError for a variable that does not exist.
    """
    environment = Environment(  # noqa: S701 - what comes out is Markdown, and `finalize` escapes for that
        undefined=StrictUndefined, finalize=_escape, trim_blocks=True, lstrip_blocks=True
    )
    choices = server_choices(settings)
    limits = ("idle_timeout", "max_age")
    environments = [
        {
            **item,
            **{name: settings[name] if item.get(name) is None else item[name] for name in limits},
            "own_limits": any(item.get(name) is not None for name in limits),
        }
        for item in choices["environments"]
    ]
    environment.filters["duration"] = lambda seconds: duration(seconds, language)
    environment.filters["memory"] = memory
    environment.filters["cores"] = lambda number: cores(number, language)
    return environment.from_string(source).render(site={**settings, **choices, "environments": environments})


def commands(markdown: str) -> list[str]:
    """Return the shell commands of a guide that a test can run: its blocks marked `sh` and nothing more.

    A block that needs the internet or a person is marked `sh internet` or `sh example`.
    """
    return [token.content for token in MarkdownIt().parse(markdown) if token.type == "fence" and token.info == "sh"]


def duration(seconds: int, language: str) -> str:
    """Return a time in words, in its two largest units: `7 days`, `1 hour 30 minutes`, `7 天`."""
    words = []
    for length, singular, plural in _UNITS[language]:
        count, seconds = divmod(seconds, length)
        if count:
            words.append(f"{count}{singular if count == 1 else plural}")
    return " ".join(words[:2])


def cores(number: float, language: str) -> str:
    """Return a number of cores in words: `1 core`, `0.5 cores`, `2 核`."""
    return f"{number:g} 核" if language == "zh" else f"{number:g} core{'' if number == 1 else 's'}"


def memory(amount: str) -> str:
    """Return an amount as KubeSpawner takes it (`512M`) for people (`512 MB`)."""
    return f"{amount[:-1]} {_BYTES[amount[-1]]}"


def _slug(heading: str) -> str:
    """Return the anchor of a heading: `Python packages` has `python-packages`."""
    return re.sub(r"\W+", "-", heading.lower()).strip("-")


def _escape(value: object) -> str:
    """Return a value as Markdown that shows just this, on one line."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(str(value).split()))


def _with_images(tokens: list[Token], images: Collection[str]) -> Iterator[Token]:
    """Yield the tokens, without the paragraphs whose picture is not there, and with the pictures' true names."""
    names = {name.rpartition(".")[0]: name for name in images}
    number = 0
    while number < len(tokens):
        if tokens[number].type != "paragraph_open":
            yield tokens[number]
            number += 1
            continue
        paragraph = tokens[number : number + 3]  # open, inline, close
        number += 3
        pictures = [child for child in paragraph[1].children or () if child.type == "image"]
        found = [names.get(PurePath(str(picture.attrs["src"])).stem) for picture in pictures]
        if all(found):
            for picture, name in zip(pictures, found, strict=True):
                picture.attrSet("src", f"images/{name}")
            yield from paragraph
