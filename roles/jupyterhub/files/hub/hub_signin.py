"""How people sign in: with GitHub, or with passwords; hub_native.py has sign-up."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hub_tunnel
from hub_spawner import USERNAME_PATTERN, VERIFY_USER
from jupyterhub.auth import Authenticator
from jupyterhub.handlers import BaseHandler
from oauthenticator.github import GitHubOAuthenticator
from oauthenticator.oauth2 import OAuthCallbackHandler
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.web import HTTPError
from traitlets import Dict, Unicode, default

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyterhub.user import User
    from traitlets.config import Config

REFRESH_SECONDS = 300  # how soon those are signed out whom GitHub no longer vouches for, or who left the inventory
DEBIAN_TRUSTS = Path("/etc/ssl/certs/ca-certificates.crt")
GITHUB_SECONDS = {"connect_timeout": 3, "request_timeout": 5}  # pages wait for GitHub no longer than this

# JupyterHub 6.1.1 forgets it, and fails on the way of signing somebody out.
BaseHandler._token_authenticated = False


class PasswordAuthenticator(Authenticator):
    """Sign-in with the passwords that were generated on the control plane host.

    The inventory's list decides who may sign in, not the hub's user records: a name that left the list is signed out
    within `auth_refresh_age`, and deleting a record locks nobody out.
    """

    passwords = Dict(help="Hash of each user's password, `scrypt$n$r$p$salt$hash`, by name").tag(config=True)

    _pool = ThreadPoolExecutor(max_workers=2)  # wrong passwords in any number keep the hub answering
    failure_delay = 1.0  # seconds

    @staticmethod
    def matches(password: str, encoded: str) -> bool:
        """Tell in constant time whether `password` has the hash `encoded`."""
        try:
            scheme, n, r, p, salt, digest = encoded.split("$")
            if scheme != "scrypt":
                return False
            got = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=int(n), r=int(r), p=int(p), dklen=32)
        except ValueError:
            return False
        return hmac.compare_digest(got.hex(), digest)

    async def is_right(self, password: str, encoded: str | None) -> bool:
        """Tell whether `password` has the hash `encoded`; None is the hash of a name that nobody has.

        An unknown name costs as much time as a wrong password, so answers do not tell who exists.
        """
        encoded = encoded or f"scrypt$16384$8$1${'00' * 16}${'00' * 32}"
        loop = asyncio.get_running_loop()
        if len(password) <= 1024 and await loop.run_in_executor(self._pool, self.matches, password, encoded):
            return True
        await asyncio.sleep(self.failure_delay)
        return False

    async def authenticate(self, handler: BaseHandler | None, data: dict[str, str]) -> dict[str, Any] | None:  # noqa: ARG002
        """Return the user's name and whether they are an admin, or None when name or password is wrong."""
        name = self.normalize_username(data.get("username", ""))
        if await self.is_right(data.get("password", ""), self.passwords.get(name)):
            return {"name": name, "admin": name in self.admin_users}
        return None

    async def refresh_user(self, user: User, handler: BaseHandler | None = None) -> bool:  # noqa: ARG002
        """Sign out who left the list."""
        return user.name in self.allowed_users

    def delete_user(self, user: User) -> None:
        """Leave the list as the inventory has it."""


class GitHubDownError(HTTPError):
    """GitHub cannot be asked just now: no answer, an error of its own, or too many questions."""

    def __init__(self, reason: str) -> None:
        message = f"GitHub does not answer properly ({reason}). Please try to sign in again in a few minutes."
        super().__init__(503, message)


def is_outage(code: int, headers: Mapping[str, str]) -> bool:
    """Tell whether an answer of GitHub says nothing about the person: its own error, no answer (599), a rate limit."""
    limited = headers.get("X-RateLimit-Remaining") == "0" or "Retry-After" in headers
    return code >= 500 or code == 429 or (code == 403 and limited)


class CallbackHandler(OAuthCallbackHandler):
    """Where GitHub sends people back to."""

    def check_arguments(self) -> None:
        """Refuse what this browser did not ask for, before anything else in the address counts."""
        try:
            self.check_state()
        except HTTPError as error:
            message = (
                "This sign-in was not begun in this browser at this address, or too long ago. "
                f"Please begin again at {self.authenticator.site_url} ({error.log_message})"
            )
            raise HTTPError(400, message) from error
        if self.get_argument("error", "") == "access_denied":
            raise HTTPError(403, "You did not let GitHub tell this hub who you are, so nobody was signed in.")
        self.check_error()
        self.check_code()


class GitHubAuthenticator(GitHubOAuthenticator):
    """Sign-in with GitHub.

    Those who are signed in are looked up again every `auth_refresh_age`. Only a definite answer signs them out (token
    revoked, no member any more); while GitHub is down they stay, and it is asked again after `pause`.
    """

    proxy = Unicode(help="Address of the HTTP proxy that leads to GitHub, with its login; empty without one").tag(
        config=True
    )

    callback_handler = CallbackHandler
    pause = 60.0  # seconds
    _paused_until = 0.0

    @default("http_client")
    def _way_to_github(self) -> AsyncHTTPClient:
        return hub_tunnel.client(self.proxy) if self.proxy else AsyncHTTPClient()

    @property
    def site_url(self) -> str:
        """The hub's address that GitHub sends people back to."""
        return str(self.oauth_callback_url.removesuffix("/hub/oauth_callback"))

    async def fetch(self, req: Any, label: str = "fetching", parse_json: bool = True, **kwargs: Any) -> Any:  # noqa: ANN401
        """Ask GitHub; GitHubDownError when the answer says nothing."""
        try:
            answer = await super().fetch(req, label, parse_json, **kwargs)
        except HTTPClientError as error:
            if is_outage(error.code, error.response.headers if error.response else {}):
                raise GitHubDownError(str(error)) from error
            raise
        except (OSError, ValueError) as error:  # ValueError: not JSON
            raise GitHubDownError(type(error).__name__) from error
        if not parse_json and is_outage(answer.code, answer.headers):
            raise GitHubDownError(f"HTTP {answer.code}")
        return answer

    async def authenticate(self, handler: BaseHandler, data: object = None, **kwargs: object) -> dict[str, Any]:
        """Return who signs in. A name that belonged to another account of GitHub before does not get its home."""
        model: dict[str, Any] = await super().authenticate(handler, data, **kwargs)
        user = handler.find_user(model["name"])
        before = await user.get_auth_state() if user else None
        if before and before[self.user_auth_state_key]["id"] != model["auth_state"][self.user_auth_state_key]["id"]:
            message = (
                f"The name {model['name']} belonged to another GitHub account when it was used here before. An admin "
                "has to move that person's home away and delete the user on the admin page."
            )
            raise HTTPError(403, message)
        return model

    async def update_auth_model(self, auth_model: dict[str, Any]) -> dict[str, Any]:
        """Let the inventory alone decide who is an admin, also for those who were one."""
        auth_model["admin"] = auth_model["name"] in self.admin_users
        return auth_model

    async def check_allowed(self, username: str, auth_model: dict[str, Any]) -> bool:
        """Tell whether the inventory lets the person in; nobody on GitHub is the verify user."""
        return username != VERIFY_USER and bool(await super().check_allowed(username, auth_model))

    async def refresh_user(self, user: User, handler: object = None, **_: object) -> bool | dict[str, Any]:  # noqa: ARG002
        """Ask GitHub again about who is signed in; False signs them out."""
        if user.name == VERIFY_USER or time.monotonic() < self._paused_until:
            return True
        state = await user.get_auth_state()
        if not state:
            return False
        try:
            model: dict[str, Any] = await self._token_to_auth_model(state["token_response"])
            return model if model["name"] == user.name and await self.check_allowed(user.name, model) else False
        except GitHubDownError as error:
            self.log.warning("Nobody is signed out while GitHub is down: %s", error.log_message)
            self._paused_until = time.monotonic() + self.pause
            return True
        except HTTPClientError:  # a definite one, and in the log
            return False

    def delete_user(self, user: User) -> None:
        """Leave the list as the inventory has it."""


def configure(c: Config, settings: dict[str, Any], secret: Callable[[str], str]) -> None:
    """Set up the sign-in that the inventory chose."""
    c.Authenticator.allow_all = False
    c.Authenticator.allow_existing_users = False
    c.Authenticator.allowed_users = {*settings["users"], *settings["admins"]}
    c.Authenticator.admin_users = set(settings["admins"])
    c.Authenticator.username_pattern = USERNAME_PATTERN
    c.Authenticator.auth_refresh_age = REFRESH_SECONDS
    c.Authenticator.auth_refresh_strict = True  # who is signed out is so in a server that still runs, too
    if settings["auth"] == "github":
        _configure_github(c, settings["github"], secret)
        return
    c.Authenticator.allowed_users |= {VERIFY_USER}
    c.JupyterHub.authenticator_class = PasswordAuthenticator
    if settings["auth"] == "native":
        from hub_native import NativeAuthenticator  # here: it adds a table to the hub's database

        c.JupyterHub.authenticator_class = NativeAuthenticator
    c.PasswordAuthenticator.passwords = json.loads(secret("passwords.json"))


def trust(certificates: str) -> Path:
    """Return a file with the certificates that Debian trusts, and these."""
    path = Path(tempfile.mkdtemp()) / "ca.pem"
    path.write_text(DEBIAN_TRUSTS.read_text() + certificates.strip() + "\n")
    return path


def _configure_github(c: Config, github: dict[str, Any], secret: Callable[[str], str]) -> None:
    c.JupyterHub.authenticator_class = GitHubAuthenticator
    c.Authenticator.enable_auth_state = True  # the token, encrypted, to ask again
    c.Authenticator.refresh_pre_spawn = False  # a start never waits for GitHub
    c.GitHubOAuthenticator.github_url = github["url"].rstrip("/")
    c.GitHubOAuthenticator.client_id = github["client_id"]
    c.GitHubOAuthenticator.client_secret = secret("github-client-secret").strip()
    c.GitHubAuthenticator.proxy = secret("github-proxy").strip()
    c.GitHubOAuthenticator.oauth_callback_url = github["callback_url"]
    trusted = {"ca_certs": str(trust(github["ca"]))} if github["ca"] else {}
    c.GitHubOAuthenticator.http_request_kwargs = {**GITHUB_SECONDS, **trusted}
    c.GitHubOAuthenticator.allowed_organizations = {*github["organizations"], *github["teams"]}
    c.GitHubOAuthenticator.scope = ["read:org"] if c.GitHubOAuthenticator.allowed_organizations else []
    c.GitHubOAuthenticator.custom_403_message = (
        "GitHub says who you are, but this site does not know you. Ask its admins to let you in."
    )
