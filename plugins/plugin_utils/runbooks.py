"""The page of runbooks that alerts link to: docs/admin/runbooks.md as HTML. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from markdown_it import MarkdownIt

_OUTWARD = re.compile(r"\[([^\]]+)\]\((?!#)[^)]*\)")
_STYLE = """\
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 56rem; margin: 0 auto; padding: 1rem; }
pre, code { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; padding: .75rem; border: 1px solid #8886; border-radius: .4rem; }
table { border-collapse: collapse; }
th, td { border: 1px solid #8886; padding: .3rem .6rem; text-align: left; vertical-align: top; }
h2 { margin-top: 2.5rem; padding-top: .5rem; border-top: 1px solid #8886; }
h2:target { outline: 2px solid; outline-offset: .4rem; }
nav ul { columns: 14rem; }
"""


def runbooks_html(text: str, settings: Mapping[str, Any]) -> str:
    """Return the page, with a section per alert whose anchor is the alert's name in small letters.

    Args:
        text: docs/admin/runbooks.md. Links to other documents, which the page has not beside it, become plain text.
        settings: `site_name`, `url` of the dashboards, `namespace` of monitoring and `hub_namespace`, for commands.

    """
    for namespace, name in (("jupyterhub", settings["hub_namespace"]), ("monitoring", settings["namespace"])):
        text = text.replace(f"kubectl -n {namespace} ", f"kubectl -n {name} ")
    text = _OUTWARD.sub(r"\1", text)
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    sections = []
    for number, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            name = tokens[number + 1].content
            token.attrSet("id", name.lower())
            sections.append(f'<li><a href="#{escape(name.lower())}">{escape(name)}</a></li>')
    body = str(parser.renderer.render(tokens, parser.options, {}))
    body = body.replace("</h1>", f"</h1>\n<nav><ul>{''.join(sections)}</ul></nav>", 1)
    title = f"What to do about alerts · {settings['site_name']}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE}</style>\n</head>\n<body>\n"
        f'<p><a href="{escape(settings["url"])}/">Dashboards</a></p>\n{body}</body>\n</html>\n'
    )
