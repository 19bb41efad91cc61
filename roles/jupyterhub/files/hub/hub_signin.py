"""How people sign in."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from hub_spawner import USERNAME_PATTERN, VERIFY_USER
from jupyterhub.auth import Authenticator
from traitlets import Dict

if TYPE_CHECKING:
    from jupyterhub.user import User
    from traitlets.config import Config


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

    async def authenticate(self, handler: object, data: dict[str, str]) -> dict[str, Any] | None:  # noqa: ARG002
        """Return the user's name and whether they are an admin, or None when name or password is wrong."""
        name = self.normalize_username(data.get("username", ""))
        password = data.get("password", "")
        # An unknown name costs as much time as a wrong password, so answers do not tell who exists.
        encoded = self.passwords.get(name, f"scrypt$16384$8$1${'00' * 16}${'00' * 32}")
        loop = asyncio.get_running_loop()
        if len(password) <= 1024 and await loop.run_in_executor(self._pool, self.matches, password, encoded):
            return {"name": name, "admin": name in self.admin_users}
        await asyncio.sleep(self.failure_delay)
        return None

    async def refresh_user(self, user: User, handler: object = None) -> bool:  # noqa: ARG002
        """Sign out who left the list."""
        return user.name in self.allowed_users

    def delete_user(self, user: User) -> None:
        """Leave the list as the inventory has it."""


def configure(c: Config, settings: dict[str, Any], secret: Callable[[str], str]) -> None:
    """Set up the sign-in that the inventory chose."""
    if settings["auth"] != "password":
        sys.exit(f"jupyterhub_auth is {settings['auth']!r}; this version knows `password`")
    c.JupyterHub.authenticator_class = PasswordAuthenticator
    c.PasswordAuthenticator.passwords = json.loads(secret("passwords.json"))
    c.Authenticator.allow_all = False
    c.Authenticator.allow_existing_users = False
    c.Authenticator.allowed_users = {*settings["users"], *settings["admins"], VERIFY_USER}
    c.Authenticator.admin_users = set(settings["admins"])
    c.Authenticator.username_pattern = USERNAME_PATTERN
