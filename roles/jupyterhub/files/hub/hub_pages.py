"""What people see of the hub: the pages' templates, the site's own static files and the user guide."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.static import CacheControlStaticFilesHandler
from tornado.web import HTTPError, StaticFileHandler

if TYPE_CHECKING:
    from jupyterhub.user import User
    from traitlets.config import Config

HERE = Path(__file__).parent
GUIDE_DIR = Path(os.environ.get("JHOK_GUIDE_DIR", "/srv/guide"))  # ConfigMap hub-guide
LANGUAGES = {"en": "English", "zh": "中文"}


def configure(c: Config, settings: dict[str, Any], secret: Callable[[str], str]) -> None:  # noqa: ARG001
    """Set templates, what they show, and the addresses below /hub/ that JupyterHub does not have."""
    site = {
        "name": settings["site_name"],
        "notice": settings["notice"],
        "contact": settings["contact"],
        "auth": settings["auth"],
        "languages": LANGUAGES,
        "version": static_version(HERE / "static"),
    }
    c.JupyterHub.template_paths = [str(HERE / "templates")]
    c.JupyterHub.logo_file = str(HERE / "static" / "logo.svg")
    # JupyterHub calls what is callable with the signed-in user; the templates name the server's owner themselves.
    c.JupyterHub.template_vars = {
        "site": site,
        "describe_server": lambda _user: partial(describe_server, settings),
        "dashboards_url": partial(dashboards_url, settings),
        "has_account": partial(has_account, settings),
    }
    # JupyterHub advises services instead: a process and a sign-in of its own, too much for a few files.
    c.JupyterHub.extra_handlers = [
        (r"/jhok/([a-z0-9.-]+)", CacheControlStaticFilesHandler, {"path": str(HERE / "static")}),
        (r"/guide/?", GuideLanguageHandler),
        (rf"/guide/({'|'.join(LANGUAGES)})/?", GuideHandler),
        (r"/guide/images/([a-z0-9-]+\.(?:jpg|png|webp))", StaticFileHandler, {"path": str(GUIDE_DIR)}),
    ]


def dashboards_url(settings: dict[str, Any], user: User | None) -> str:
    """Return where the dashboards are; nothing for those whom they refuse."""
    everybody = settings["dashboards_viewers"] == "users"
    return str(settings["dashboards_url"]) if everybody or (user is not None and user.admin) else ""


def has_account(settings: dict[str, Any], user: User | None) -> bool:
    """Tell whether somebody signed up: the others' passwords are generated, and not changed in the browser."""
    if settings["auth"] != "native" or user is None:
        return False
    from hub_native import Account  # makes a table in the hub's database, where it is imported

    return user.db.get(Account, user.name) is not None


def static_version(directory: Path) -> str:
    """Return what changes with any of the files, so that browsers may keep them for ever."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def describe_server(settings: dict[str, Any], user: User) -> dict[str, str]:
    """Return what runs for a user and until when, in words and as RFC 3339 times; empty where it is not known."""
    spawner = user.spawner
    record = spawner.orm_spawner
    options = spawner.user_options or {}
    environment = _named(settings["environments"], options.get("environment"))
    gpu = _named(settings["gpus"], options.get("gpu_type"))
    count = options.get("gpu_count")
    idle, age = (_limit(settings, environment, name) for name in ("idle_timeout", "max_age"))
    started = record.started if record else None
    used = max(filter(None, (started, record.last_activity)), default=None) if record else None
    return {
        "environment": environment.get("title", ""),
        "size": _named(settings["sizes"], options.get("size")).get("title", ""),
        "gpus": f"{count} x {gpu['title']}" if count and gpu else "",
        "started": _time(started),
        "idle_stop": _time(used, idle),
        "age_stop": _time(started, age),
    }


def _named(items: list[dict[str, Any]], name: object) -> dict[str, Any]:
    return next((item for item in items if item["name"] == name), {})


def _limit(settings: dict[str, Any], environment: dict[str, Any], name: str) -> int:
    """Return the environment's limit, else the site's, in seconds; 0 is none."""
    own = environment.get(name)
    return int(settings[name] if own is None else own)


def _time(start: datetime | None, limit: int | None = None) -> str:
    """Return a time of the hub's database (UTC without a zone), plus `limit` seconds; empty when there is none."""
    if start is None or limit == 0:
        return ""
    return f"{(start + timedelta(seconds=limit or 0)).isoformat(timespec='seconds')}Z"


def preferred_language(header: str) -> str:
    """Return which of our languages an Accept-Language header prefers."""
    wanted = []
    for part in header.split(","):
        tag, _, quality = part.strip().partition(";q=")
        try:
            wanted.append((-float(quality or 1), tag.split("-")[0].lower()))
        except ValueError:
            continue
    # Stable: of equal ones the first counts.
    ordered = [language for _quality, language in sorted(wanted, key=lambda pair: pair[0]) if language in LANGUAGES]
    return ordered[0] if ordered else next(iter(LANGUAGES))


class GuideLanguageHandler(BaseHandler):
    """Leads to the user guide in the browser's language."""

    async def get(self) -> None:
        """Redirect; the answer depends on the browser, so nothing may keep it."""
        language = preferred_language(self.request.headers.get("Accept-Language", ""))
        self.set_header("Vary", "Accept-Language")
        self.redirect(f"{self.hub.base_url}guide/{language}")


class GuideHandler(BaseHandler):
    """Shows the user guide, to people who are not signed in, too."""

    async def get(self, language: str) -> None:
        """Show the guide as the playbook wrote it."""
        path = GUIDE_DIR / f"guide.{language}.html"
        if not path.is_file():
            raise HTTPError(404, f"The user guide is not installed in this language ({language}).")
        html = await self.render_template("guide.html", language=language, guide=path.read_text(encoding="utf-8"))
        self.finish(html)
