"""The sign-in of the dashboards: says to nginx who may look, signs people in through the hub or with a password.

Beside it lie settings.json (plugins/plugin_utils/monitoring_web.py, sign_in_settings) and secrets/.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import re
import secrets
from collections import Counter
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode
from weakref import WeakValueDictionary

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPResponse
from tornado.web import Application, HTTPError, RequestHandler

HERE = Path(__file__).parent
SERVICE = "dashboards"
SCOPES = {f"access:services!service={SERVICE}", "access:services"}
COOKIE = "jhok-dashboards"
HOURS = 8
STATE_MINUTES = 10  # for the sign-in at the hub
WRONG_SECONDS = 1.0  # between the answers to two wrong passwords from one address
WRONG_WAITING = 20  # from one address; more are turned away at once
PASSWORD_USER = "admin"  # noqa: S105

_log = logging.getLogger("sign-in")

STYLE = """
:root { color-scheme: light dark; --page: #fff; --line: #dee2e6; --text: #212529; --soft: #5c636a; --link: #0b5ed7;
  --field: #fff; --notice: #fff3cd; --button: #0b5ed7;
  font: 16px/1.5 system-ui, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "Microsoft YaHei", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --page: #212529; --line: #495057; --text: #dee2e6; --soft: #adb5bd;
  --link: #6ea8fe; --field: #2b3035; --notice: #332701; } }
body { margin: 0; padding: 12vh 1rem 2rem; background: var(--page); color: var(--text); }
main { max-width: 24rem; margin: 0 auto; overflow-wrap: anywhere; }
img { display: block; margin: 0 auto 1rem; }
h1 { margin: 0 0 1.5rem; font-size: 1.75rem; font-weight: 500; text-align: center; }
label { display: block; margin-bottom: .25rem; }
input { box-sizing: border-box; width: 100%; padding: .45rem .75rem; border: 1px solid var(--line);
  border-radius: .375rem; background: var(--field); color: inherit; font: inherit; }
button, .button { display: block; box-sizing: border-box; width: 100%; margin-top: 1rem; padding: .45rem .75rem;
  border: 0; border-radius: .375rem; background: var(--button); color: #fff; font: inherit; text-align: center;
  text-decoration: none; cursor: pointer; }
.notice { padding: .75rem 1rem; border-radius: .375rem; background: var(--notice); }
.more { margin-top: 1.5rem; color: var(--soft); text-align: center; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - {site_name}</title>
<link rel="icon" href="/logo.svg" type="image/svg+xml">
<style>{style}</style>
</head>
<body><main><img src="/logo.svg" alt="" width="64" height="64"><h1>{site_name}</h1>{body}</main></body>
</html>
"""

FORM = """<form method="post" action="/sign-in/password">
<input type="hidden" name="next" value="{next}">
<label for="password">Password of the dashboards</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus>
<button>Sign in</button>
</form>"""


class Guesses:
    """Wrong passwords: those of one address are answered one after the other."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def wait(self, address: str) -> None:
        """Wait for the turn of one more.

        Raises:
            HTTPError: 429, too many wait.

        """
        if self._waiting[address] >= WRONG_WAITING:
            raise HTTPError(429)
        _log.warning("wrong password from %s", address)
        lock = self._locks.setdefault(address, asyncio.Lock())
        self._waiting[address] += 1
        try:
            async with lock:
                await asyncio.sleep(WRONG_SECONDS)
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]


class Base(RequestHandler):
    """What all addresses share."""

    settings: dict[str, Any]

    @property
    def site(self) -> dict[str, Any]:
        """The settings."""
        return self.settings["site"]  # type: ignore[no-any-return]

    @property
    def address(self) -> str:
        """The visitor's, as nginx says."""
        return self.request.headers.get("X-Real-IP", "")

    def compute_etag(self) -> None:
        """Give pages no tag, since no browser keeps them."""

    def show(self, title: str, body: str, status: int = 200) -> None:
        """Answer with a page; `title` is text, `body` HTML."""
        self.set_status(status)
        site_name = escape(self.site["site_name"])
        self.finish(PAGE.format(title=escape(title), site_name=site_name, style=STYLE, body=body))

    def show_form(self, next_path: str, notice: str = "", status: int = 200) -> None:
        """Answer with the form for the password; `notice` is text."""
        body = f'<p class="notice" role="alert">{escape(notice)}</p>' if notice else ""
        body += FORM.format(next=escape(next_path))
        if self.site["access"] == "hub":
            query = escape(next_path)
            body += f'<p class="more"><a href="/sign-in/?next={query}">Sign in with JupyterHub instead</a></p>'
        self.show("Sign in", body, status)

    def write_error(self, status_code: int, **_more: object) -> None:
        """Answer to what is wrong with the request, or with us."""
        self.show("Not possible", f'<p class="notice">{status_code} {escape(self._reason)}</p>', status_code)

    def log_exception(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Log what is our fault, without the address that was asked: a sign-in's holds its code."""
        if kind and error and not isinstance(error, HTTPError):
            _log.error("%s failed", type(self).__name__, exc_info=(kind, error, trace))

    def sign_in(self, user: str, way: str) -> None:
        """Let the browser in for some hours."""
        self.set_signed_cookie(COOKIE, user, expires_days=HOURS / 24, **self.cookie_options("/"))
        _log.info("%s signed in with %s from %s", user, way, self.address)

    def cookie_options(self, path: str) -> dict[str, Any]:
        """Return what our cookies have in common: no script sees them, no other site's request takes them along."""
        secure = self.site["url"].startswith("https:")
        return {"httponly": True, "samesite": "Lax", "secure": secure, "path": path}

    async def is_password(self, password: str) -> bool:
        """Compare with the password; answer to a wrong one later.

        The right one never waits: behind one address there may be many people, and users' servers. The password is
        generated, so that guessing is hopeless at any speed; what is slowed down is the noise.

        Raises:
            HTTPError: 429, too many wrong ones wait.

        """
        if hmac.compare_digest(password.encode(), self.settings["password"].encode()):
            return True
        await self.settings["guesses"].wait(self.address)
        return False

    async def user(self) -> str:
        """Return who asks, by cookie or by a script's name and password; empty for nobody."""
        cookie = self.get_signed_cookie(COOKIE, max_age_days=HOURS / 24)
        if cookie:
            return cookie.decode()
        scheme, _, encoded = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return ""
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ""
        try:
            return name if name == PASSWORD_USER and await self.is_password(password) else ""
        except HTTPError:
            return ""  # nginx knows no answer to this question but yes and no


class Auth(Base):
    """What nginx asks before it serves anything."""

    async def get(self) -> None:
        """Say whether it may."""
        self.set_status(204 if await self.user() else 401)


class User(Base):
    """Who is signed in, for the app."""

    async def get(self) -> None:
        """Return the name."""
        name = await self.user()
        self.set_status(200 if name else 401)
        self.finish({"name": name} if name else {"error": "You are signed out."})


class SignIn(Base):
    """Where nginx sends those whom it does not know."""

    async def get(self) -> None:
        """Send them on to the hub, or show the form when that is not possible."""
        next_path = safe_path(self.request.query.removeprefix("next="))
        if self.site["access"] != "hub":
            self.show_form(next_path)
            return
        try:
            await self.settings["hub"].ask("/")
        except OSError:
            self.show_form(next_path, HUB_SILENT, 503)
            return
        state, verifier = secrets.token_urlsafe(16), secrets.token_urlsafe(48)
        self.set_signed_cookie(
            f"{COOKIE}-{state}",
            json.dumps({"verifier": verifier, "next": next_path}),
            expires_days=STATE_MINUTES / 1440,
            **self.cookie_options("/sign-in/"),
        )
        self.redirect(self.settings["hub"].authorize_url(state, verifier))


HUB_SILENT = (
    "JupyterHub does not answer, so that it cannot say who you are. Try again later, or sign in with the password."
)
NO_STATE = "The sign-in took too long, or your browser keeps no cookies."


class Callback(Base):
    """Where the hub sends people back to."""

    async def get(self) -> None:
        """Let in whom the hub names."""
        name = f"{COOKIE}-{self.get_query_argument('state', '')}"
        cookie = self.get_signed_cookie(name, max_age_days=STATE_MINUTES / 1440) if _STATE.fullmatch(name) else None
        code = self.get_query_argument("code", "")
        if not cookie:
            self.show("Sign in", again(NO_STATE, "/"), 400)
            return
        self.clear_cookie(name, path="/sign-in/")
        state = json.loads(cookie)
        next_path = safe_path(state["next"])
        if not code:
            self.show("Sign in", again("JupyterHub did not let you in.", next_path), 403)
            return
        try:
            user = await self.settings["hub"].user_of_code(code, state["verifier"])
        except HTTPClientError as error:
            _log.warning("the hub refused a sign-in: %s", error)
            self.show("Sign in", again("JupyterHub did not confirm who you are.", next_path), 403)
            return
        except OSError:
            self.show_form(next_path, HUB_SILENT, 503)
            return
        if not SCOPES & set(user["scopes"]):
            self.show("Not allowed", again(f"{user['name']} may not see the dashboards.", next_path), 403)
            return
        self.sign_in(user["name"], "JupyterHub")
        self.redirect(next_path)


class Password(Base):
    """The sign-in without the hub."""

    def get(self) -> None:
        """Show the form."""
        self.show_form(safe_path(self.request.query.removeprefix("next=")))

    async def post(self) -> None:
        """Let in who knows the password."""
        next_path = safe_path(self.get_body_argument("next", "/"))
        try:
            right = await self.is_password(self.get_body_argument("password", "", strip=False))
        except HTTPError as error:
            self.set_header("Retry-After", str(WRONG_WAITING))
            self.show_form(next_path, "The password is wrong, as were many from your address.", error.status_code)
            return
        if not right:
            self.show_form(next_path, "The password is wrong.", 403)
            return
        self.sign_in(PASSWORD_USER, "the password")
        self.redirect(next_path)


class SignOut(Base):
    """The end of the sign-in here; the hub's goes on."""

    def get(self) -> None:
        """Forget who it was."""
        self.clear_cookie(COOKIE, path="/")
        body = '<p>You are signed out of the dashboards.</p><a class="button" href="/sign-in/?next=/">Sign in again</a>'
        if self.site["access"] == "hub":
            link = f'<a href="{escape(self.site["hub_url"])}/hub/logout">sign out of JupyterHub</a>'
            body += f'<p class="more">On a computer that others use, {link} as well.</p>'
        self.show("Signed out", body)


class Healthz(Base):
    """Whether this service runs."""

    def get(self) -> None:
        """Say that it does."""
        self.finish("ok\n")


class Hub:
    """The hub as service `dashboards` sees it.

    Raises:
        OSError: it does not answer.
        HTTPClientError: it says no.

    """

    def __init__(self, site: dict[str, Any], token: str) -> None:
        self.site, self.token = site, token

    def authorize_url(self, state: str, verifier: str) -> str:
        """Return where a browser has to go."""
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
        query = {
            **self._client(),
            "response_type": "code",
            "state": state,
            "code_challenge": digest.rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        return f"{self.site['hub_url']}/hub/api/oauth2/authorize?{urlencode(query)}"

    async def user_of_code(self, code: str, verifier: str) -> dict[str, Any]:
        """Return the hub's words on the person whom it sent with `code`: `name` and `scopes` among them."""
        form = {
            **self._client(),
            "client_secret": self.token,
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": verifier,
        }
        token = json.loads((await self.ask("/oauth2/token", method="POST", body=urlencode(form))).body)["access_token"]
        user = await self.ask("/user", headers={"Authorization": f"token {token}"})
        return json.loads(user.body)  # type: ignore[no-any-return]

    async def ask(self, path: str, **request: Any) -> HTTPResponse:  # noqa: ANN401
        """Return the answer of the hub's API."""
        try:
            return await AsyncHTTPClient().fetch(
                self.site["hub_api_url"] + path,
                connect_timeout=3,
                request_timeout=10,
                follow_redirects=False,
                **request,
            )
        except HTTPClientError as error:
            if error.code >= 500:
                raise OSError(str(error)) from error
            raise

    def _client(self) -> dict[str, str]:
        return {"client_id": f"service-{SERVICE}", "redirect_uri": f"{self.site['url']}/sign-in/callback"}


_STATE = re.compile(rf"{COOKIE}-[A-Za-z0-9_-]{{22}}")
_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


def safe_path(text: str) -> str:
    """Return `text` where it is a path of this site, `/` otherwise: nobody is sent elsewhere."""
    return text if _PATH.fullmatch(text) else "/"


def again(words: str, next_path: str) -> str:
    """Return a page's body that says what went wrong, and lets people try again."""
    return (
        f'<p class="notice" role="alert">{escape(words)}</p>'
        f'<a class="button" href="/sign-in/?next={escape(next_path)}">Try again</a>'
        f'<p class="more"><a href="/sign-in/password?next={escape(next_path)}">Sign in with the password</a></p>'
    )


def make_app(site: dict[str, Any], secret: dict[str, str]) -> Application:
    """Return the service; `secret` has `dashboards-token`, `password` and `cookie-secret`."""
    return Application(
        [
            (r"/auth", Auth),
            (r"/sign-in/", SignIn),
            (r"/sign-in/callback", Callback),
            (r"/sign-in/password", Password),
            (r"/sign-in/out", SignOut),
            (r"/sign-in/user", User),
            (r"/sign-in/healthz", Healthz),
        ],
        site=site,
        hub=Hub(site, secret["dashboards-token"]),
        password=secret["password"],
        guesses=Guesses(),
        cookie_secret=secret["cookie-secret"],
        default_handler_class=NotFound,
        log_function=lambda _handler: None,  # nginx says what failed
    )


class NotFound(Base):
    """Every other address."""

    def prepare(self) -> None:
        """Say so."""
        raise HTTPError(404)


async def main() -> None:
    """Serve until the end."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    site = json.loads((HERE / "settings.json").read_text())
    secret = {name: (HERE / "secrets" / name).read_text() for name in ("dashboards-token", "password", "cookie-secret")}
    make_app(site, secret).listen(site["port"], address="127.0.0.1", max_body_size=16384)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
