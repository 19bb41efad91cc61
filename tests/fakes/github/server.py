"""A small stand-in for GitHub: its OAuth web flow and what JupyterHub asks of its REST API, in a test's hands.

Speaks like a GitHub Enterprise server (API under /api/v3). No password is asked: the page of /login/oauth/authorize
lets a person choose one of the accounts and authorize or refuse. Run it as a program, or as `FakeGitHub` in a test;
both take the state as a mapping:

    client_id, client_secret, callback_url  of the one OAuth app
    accounts: {login: id}
    organizations: {name: {members: [login], public: [login], teams: {slug: [login]}}}
    mode: up, error (503), limited (429), forbidden (403 of the rate limit), hang (no answer), garbage (no JSON)
    organizations_mode: the same for what is asked about organizations and teams alone

POST /_control with a JSON object changes parts of the state; {"revoke": login} ends that account's tokens.
A server that refuses connections is one that does not run.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import secrets
import ssl
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

API = "/api/v3"
DEFAULTS: dict[str, Any] = {"mode": "up", "organizations_mode": "up", "accounts": {}, "organizations": {}}
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Authorize application</title></head><body>
<h1>Authorize {client_id}</h1>
<form method="post" action="/login/oauth/authorize">
{hidden}
<fieldset><legend>Account</legend>
{accounts}
</fieldset>
<button name="decision" value="authorize">Authorize</button>
<button name="decision" value="cancel">Cancel</button>
</form></body></html>
"""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Answer a browser or the hub."""
        self._answer()

    def do_POST(self) -> None:
        """Answer a browser or the hub."""
        self._answer()

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _answer(self) -> None:
        fake = self.server.fake
        url = urlsplit(self.path)
        fake.asked.append(f"{self.command} {url.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if url.path == "/_control":
            return self._send(200, fake.control(json.loads(body)))
        mode = fake.state["mode"]
        if mode == "up" and url.path.startswith(f"{API}/orgs/"):
            mode = fake.state["organizations_mode"]
        if mode == "hang":
            fake.released.wait()
            return None
        if mode == "garbage":
            return self._send(200, "<html>Sign in to the hotel's network</html>")
        if mode != "up":
            status, headers = {
                "error": (503, {}),
                "limited": (429, {"Retry-After": "60"}),
                "forbidden": (403, {"X-RateLimit-Remaining": "0"}),
            }[mode]
            return self._send(status, {"message": "as the test wants it"}, headers)
        query, form = dict(parse_qsl(url.query)), dict(parse_qsl(body))
        if url.path == "/login/oauth/authorize":
            return self._authorize(query) if self.command == "GET" else self._decide(form)
        if url.path == "/login/oauth/access_token":
            return self._send(200, fake.exchange(form))
        if url.path.startswith(f"{API}/"):
            return self._api(url.path.removeprefix(API))
        return self._send(404, {"message": "Not Found"})

    def _authorize(self, query: dict[str, str]) -> None:
        fake = self.server.fake
        if query.get("client_id") != fake.state["client_id"]:
            return self._send(404, {"message": "Not Found"})
        if query.get("redirect_uri", "") != fake.state["callback_url"]:
            return self._redirect(fake.state["callback_url"], error="redirect_uri_mismatch", state=query.get("state"))
        fields = ("redirect_uri", "state", "scope", "code_challenge")
        hidden = [f'<input type="hidden" name="{n}" value="{html.escape(query.get(n, ""))}">' for n in fields]
        logins = [html.escape(login) for login in fake.state["accounts"]]
        accounts = [f'<label><input type="radio" name="login" value="{n}" required> {n}</label>' for n in logins]
        page = {"client_id": html.escape(query["client_id"]), "hidden": "\n".join(hidden)}
        return self._send(200, PAGE.format(**page, accounts="\n".join(accounts)))

    def _decide(self, form: dict[str, str]) -> None:
        state = form.get("state")
        if form.get("decision") != "authorize":
            said = "The user has denied your application access."
            return self._redirect(form["redirect_uri"], error="access_denied", error_description=said, state=state)
        return self._redirect(form["redirect_uri"], code=self.server.fake.code(form), state=state)

    def _api(self, path: str) -> None:
        fake = self.server.fake
        found = fake.tokens.get(self.headers.get("Authorization", "").partition(" ")[2])
        if found is None or found[0] not in fake.state["accounts"]:
            return self._send(401, {"message": "Bad credentials"})
        login, scopes = found
        match path.strip("/").split("/"):
            case ["user"]:
                return self._send(200, {"login": login, "id": fake.state["accounts"][login], "email": None})
            case ["orgs", org, "members", who] if "read:org" in scopes and fake.is_member(org, login):
                return self._send(204 if fake.is_member(org, who) else 404)
            case ["orgs", org, "members", who]:  # somebody from outside is told of public members only
                self.send_response(302)
                self.send_header("Location", f"{API}/orgs/{org}/public_members/{who}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            case ["orgs", org, "public_members", who]:
                return self._send(204 if fake.is_member(org, who, "public") else 404)
            case ["orgs", org, "teams", team, "members", who] if "read:org" in scopes and fake.is_member(org, login):
                return self._send(204 if fake.is_member(org, who, team=team) else 404)
        return self._send(404, {"message": "Not Found"})

    def _redirect(self, url: str, **query: str | None) -> None:
        self.send_response(302)
        self.send_header("Location", f"{url}?{urlencode({n: v for n, v in query.items() if v})}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, status: int, content: object = "", headers: dict[str, str] | None = None) -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        kind = "text/html; charset=utf-8" if isinstance(content, str) else "application/json; charset=utf-8"
        self.send_response(status)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status != HTTPStatus.NO_CONTENT:
            self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """The listening socket."""

    daemon_threads = True
    fake: FakeGitHub

    def handle_error(self, *args: object) -> None:
        """Say nothing of clients that did not wait for an answer."""


class FakeGitHub:
    """The stand-in and its memory; `with fake.running():`, or start and stop.

    `asked` holds method and path of every request.
    """

    def __init__(
        self, state: dict[str, Any], host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.state: dict[str, Any] = {**DEFAULTS, **state}
        self.host, self.port, self.tls = host, port, tls
        self.asked: list[str] = []
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, tuple[str, list[str]]] = {}
        self.released = threading.Event()
        self._server: Server | None = None

    @property
    def url(self) -> str:
        """Its address for browsers and for the hub."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def start(self) -> None:
        """Listen; after the first time on the same port again."""
        self.released.clear()
        self._server = Server((self.host, self.port), Handler)
        self._server.fake = self
        if self.tls:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections; whoever waits for an answer gets none."""
        self.released.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def control(self, change: dict[str, Any]) -> dict[str, Any]:
        """Change parts of the state and return it whole."""
        login = change.pop("revoke", None)
        self.tokens = {token: found for token, found in self.tokens.items() if found[0] != login}
        self.state.update(change)
        if "hang" not in (self.state["mode"], self.state["organizations_mode"]):
            self.released.set()
            self.released = threading.Event()
        return self.state

    def code(self, form: dict[str, str]) -> str:
        """Return a code for the account that a person chose."""
        code = secrets.token_hex(10)
        self.codes[code] = form
        return code

    def exchange(self, form: dict[str, str]) -> dict[str, str]:
        """Return a token for a code, or GitHub's error, which comes with status 200."""
        app = (self.state["client_id"], self.state["client_secret"])
        if (form.get("client_id"), form.get("client_secret")) != app:
            said = "The client_id and/or client_secret passed are incorrect."
            return {"error": "incorrect_client_credentials", "error_description": said}
        given = self.codes.pop(form.get("code", ""), None)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).decode().rstrip("=")
        if given is None or given.get("code_challenge", challenge) != challenge:
            said = "The code passed is incorrect or expired."
            return {"error": "bad_verification_code", "error_description": said}
        token, scope = f"gho_{secrets.token_hex(18)}", given.get("scope", "")
        self.tokens[token] = (given["login"], scope.replace(",", " ").split())
        return {"access_token": token, "token_type": "bearer", "scope": scope}

    def is_member(self, org: str, login: str, group: str = "members", team: str = "") -> bool:
        """Tell whether `login` is in an organization, in its `public` part, or in its `team`; case does not count."""
        found = {name.lower(): value for name, value in self.state["organizations"].items()}.get(org.lower(), {})
        people = found.get("teams", {}).get(team, []) if team else found.get(group, [])
        return login.lower() in {name.lower() for name in people}


def main() -> None:
    """Run it until it is stopped."""
    parser = argparse.ArgumentParser(description="A small stand-in for GitHub, for tests.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", type=Path, required=True, help="JSON file with the state to begin with")
    args = parser.parse_args()
    fake = FakeGitHub(json.loads(args.state.read_text()), args.host, args.port)
    fake.start()
    print(fake.url, flush=True)
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    fake.stop()


if __name__ == "__main__":
    main()
