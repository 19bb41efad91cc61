"""Sign-up: people choose a name and a password, and get in once an admin has approved them."""

from __future__ import annotations

import asyncio
import hashlib
import re
import secrets
import time
from typing import TYPE_CHECKING, Any, ClassVar

from hub_signin import PasswordAuthenticator
from hub_spawner import USERNAME_PATTERN, VERIFY_USER
from jupyterhub import orm
from jupyterhub.handlers import BaseHandler
from jupyterhub.scopes import needs_scope
from sqlalchemy import Boolean, Column, DateTime, Unicode, func
from tornado.web import HTTPError, authenticated

if TYPE_CHECKING:
    from jupyterhub.user import User
    from sqlalchemy.orm import Session

LEAST_CHARACTERS = 10  # of a password
MOST_WAITING = 100  # people who wait for approval; more are not taken, so that nobody fills the database
TRIES = 10  # wrong passwords in a row after which an account is closed
CLOSED_SECONDS = 600.0


class Account(orm.Base):  # type: ignore[misc]
    """Somebody who signed up. The hub makes the table when it starts."""

    __tablename__ = "jhok_accounts"
    name = Column(Unicode(64), primary_key=True)
    password = Column(Unicode(255), nullable=False)  # `scrypt$n$r$p$salt$hash`
    approved = Column(Boolean, nullable=False, default=False)
    signed_up = Column(DateTime, nullable=False, default=func.now())


def password_hash(password: str) -> str:
    """Return the hash that `PasswordAuthenticator.matches` takes."""
    salt = secrets.token_bytes(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=16384, r=8, p=1, dklen=32)
    return f"scrypt$16384$8$1${salt.hex()}${digest.hex()}"


def password_fault(name: str, password: str, again: str) -> str:
    """Return what is wrong with a password that somebody chose; empty when nothing is."""
    if password != again:
        return "The two passwords differ."
    if not LEAST_CHARACTERS <= len(password) <= 1024:
        return f"The password must have at least {LEAST_CHARACTERS} characters and at most 1024."
    if name in password.lower() or len(set(password)) < 5:
        return "The password is too easy to guess: it must not contain your name, and needs five different characters."
    return ""


class SignUpHandler(BaseHandler):  # type: ignore[misc]
    """/hub/signup: anybody may ask for an account."""

    async def get(self) -> None:
        """Show the form."""
        await self._show()

    async def post(self) -> None:
        """Note the wish, or say what is wrong with it."""
        name = self.authenticator.normalize_username(self.get_body_argument("username", ""))
        password, again = (self.get_body_argument(field, "", strip=False) for field in ("password", "again"))
        fault = await self.authenticator.sign_up(self.db, name, password, again)
        self.set_status(400 if fault else 200)
        await self._show(name, fault, done=not fault)

    async def _show(self, name: str = "", fault: str = "", *, done: bool = False) -> None:
        self.finish(
            await self.render_template("signup.html", username=name, fault=fault, done=done, least=LEAST_CHARACTERS)
        )


class AccountsHandler(BaseHandler):  # type: ignore[misc]
    """/hub/accounts: admins approve and remove."""

    @authenticated
    @needs_scope("admin:users")
    async def get(self) -> None:
        """Show who waits, and who was approved."""
        accounts = self.db.query(Account).order_by(Account.approved, Account.signed_up, Account.name).all()
        self.finish(await self.render_template("accounts.html", accounts=accounts))

    @authenticated
    @needs_scope("admin:users")
    async def post(self) -> None:
        """Approve or remove one account; who is removed is signed out, and the files stay."""
        account = self.db.get(Account, self.get_body_argument("name"))
        action = self.get_body_argument("action")
        if account is None or action not in ("approve", "remove"):
            raise HTTPError(400, "There is no such account any more, or nothing was chosen.")
        if action == "approve":
            account.approved = True
        else:
            self.db.delete(account)
        self.db.commit()
        self.log.info("%s: account %s: %s", self.current_user.name, account.name, action)
        self.redirect(f"{self.hub.base_url}accounts")


class PasswordHandler(BaseHandler):  # type: ignore[misc]
    """/hub/password: people who signed up change their own password."""

    @authenticated
    async def get(self) -> None:
        """Show the form."""
        await self._show(self._account())

    @authenticated
    async def post(self) -> None:
        """Change it, or say what is wrong."""
        account = self._account()
        old, new, again = (self.get_body_argument(field, "", strip=False) for field in ("old", "password", "again"))
        fault = await self.authenticator.change_password(self.db, account.name, old, new, again)
        self.set_status(400 if fault else 200)
        await self._show(account, fault, done=not fault)

    def _account(self) -> Account:
        account = self.db.get(Account, self.current_user.name)
        if account is None:
            raise HTTPError(404, "Your password was generated for you. An admin can have a new one generated.")
        return account

    async def _show(self, account: Account, fault: str = "", *, done: bool = False) -> None:
        html = await self.render_template(
            "password.html", username=account.name, fault=fault, done=done, least=LEAST_CHARACTERS
        )
        self.finish(html)


class NativeAuthenticator(PasswordAuthenticator):
    """Users and admins of the inventory have generated passwords; others sign up.

    Nobody can sign up under a name that the inventory or another person has.
    """

    tries: ClassVar[dict[str, tuple[int, float]]] = {}
    """Wrong passwords in a row, and when the last was, by account."""

    def get_handlers(self, app: Any) -> list[tuple[str, type[BaseHandler]]]:  # noqa: ANN401
        """Add the pages."""
        own = [(r"/signup", SignUpHandler), (r"/accounts", AccountsHandler), (r"/password", PasswordHandler)]
        return [*super().get_handlers(app), *own]

    async def authenticate(self, handler: BaseHandler, data: dict[str, str]) -> dict[str, Any] | None:
        """Return who signs in, None when name or password is wrong; HTTPError when the account is not open."""
        name = self.normalize_username(data.get("username", ""))
        account = None if name in self.passwords else handler.db.get(Account, name)
        if account is None:
            return await super().authenticate(handler, data)
        encoded, approved = account.password, account.approved
        if not await self.is_own(name, data.get("password", ""), encoded):
            return None
        if not approved:
            raise HTTPError(403, "An admin has not approved your account yet.")
        return {"name": name, "admin": False}

    async def is_own(self, name: str, password: str, encoded: str) -> bool:
        """Tell whether it is the account's password; HTTPError after too many wrong ones.

        Every try counts from its beginning, so many at the same time do not help.
        """
        count, last = self.tries.get(name, (0, 0.0))
        if time.monotonic() - last > CLOSED_SECONDS:
            count = 0
        if count >= TRIES:
            minutes = CLOSED_SECONDS / 60
            raise HTTPError(429, f"Too many wrong passwords for this name. Try again in {minutes:.0f} minutes.")
        self.tries[name] = (count + 1, time.monotonic())
        right = await self.is_right(password, encoded)
        if right:
            self.tries.pop(name, None)
        return right

    def check_allowed(self, username: str, authentication: object = None) -> bool:  # noqa: ARG002
        """Let in whom `authenticate` has let through: it has looked at the list and at the approval."""
        return authentication is not None

    async def refresh_user(self, user: User, handler: BaseHandler | None = None) -> bool:
        """Sign out who left the list, or whose account was removed."""
        if await super().refresh_user(user, handler):
            return True
        account = user.db.get(Account, user.name)
        return account is not None and bool(account.approved)

    def delete_user(self, user: User) -> None:
        """Remove the account along with the hub's record."""
        if account := user.db.get(Account, user.name):
            user.db.delete(account)

    async def sign_up(self, db: Session, name: str, password: str, again: str) -> str:
        """Make an account that waits for approval; returns what is wrong, or nothing."""
        if not re.match(USERNAME_PATTERN, name):
            return "Choose a name of 1 to 64 of a-z, 0-9, '.', '_' and '-', with a letter or digit first and last."
        if fault := password_fault(name, password, again):
            return fault
        encoded = await asyncio.get_running_loop().run_in_executor(self._pool, password_hash, password)
        # From here on nobody else's request comes between.
        if name in self.passwords or name in self.allowed_users or name == VERIFY_USER or db.get(Account, name):
            return "This name is taken. Choose another."
        if db.query(Account).filter_by(approved=False).count() >= MOST_WAITING:
            return "Too many people wait for approval. Ask an admin to look at them."
        db.add(Account(name=name, password=encoded, approved=False))
        db.commit()
        self.log.info("%s signed up and waits for approval", name)
        return ""

    async def change_password(self, db: Session, name: str, old: str, new: str, again: str) -> str:
        """Give an account a new password; returns what is wrong, or nothing."""
        if not await self.is_own(name, old, db.get(Account, name).password):
            return "The old password is wrong."
        if fault := password_fault(name, new, again):
            return fault
        encoded = await asyncio.get_running_loop().run_in_executor(self._pool, password_hash, new)
        db.get(Account, name).password = encoded
        db.commit()
        return ""
