"""A user of a JupyterHub, over HTTP and websocket, as a browser would do it.

Needs `requests` and `websocket-client` and runs on the control machine only. Every wait has an end: `timeout` is for
one answer, what takes longer (the start of a server, a cell) has a limit of its own. Failures raise HubError with what
came back; a connection that fails raises the library's own error (`requests.RequestException`, `OSError`).
"""

from __future__ import annotations

import contextlib
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError

try:
    import requests
    import websocket

    IMPORT_ERROR: str | None = None
except ImportError as error:  # the module says it in its own words
    IMPORT_ERROR = str(error)

POLL_SECONDS = 0.25


class HubError(ProbeError):
    """The hub or a user's server answered otherwise than it should; the message says how."""


class HubClient:
    """One visitor of the hub at `url`, e.g. `http://172.16.0.100:30080`.

    token: an API token that authorises every request, as scripts use it; without one the visitor is a browser, with
    cookies that `sign_in` gets. timeout: seconds for one answer. The environment's proxies are not used: a hub
    stands in the lab's network.
    """

    def __init__(self, url: str, token: str = "", timeout: float = 15) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["User-Agent"] = "jhok-verify"
        self._token = token
        if token:
            self._session.headers["Authorization"] = f"token {token}"

    def request(
        self,
        method: str,
        path: str,
        *,
        accept: tuple[int, ...] = (200,),
        data: Mapping[str, str] | None = None,
        body: object = None,
        stream: bool = False,
    ) -> requests.Response:
        """Send one request and follow redirects; HubError unless the final status is in `accept`.

        data: fields of a form. body: sent as JSON. Requests that change something carry the XSRF token of their path.
        """
        headers = {} if method == "GET" or self._token or data else {"X-XSRFToken": self._xsrf(path)}
        response = self._session.request(
            method, self.url + path, data=data, json=body, headers=headers, timeout=self.timeout, stream=stream
        )
        if response.status_code not in accept:
            where = urlsplit(response.url).path
            raise HubError(f"{response.status_code} from {method} {where}: {_reason(response)}")
        return response

    def health(self) -> None:
        """Ask the hub whether it is up."""
        self.request("GET", "/hub/health")

    def version(self) -> str:
        """Return JupyterHub's version."""
        return str(self.request("GET", "/hub/api/").json()["version"])

    def sign_in(self, user: str, password: str) -> None:
        """Fill in the form of the login page; HubError when the hub does not let the user in."""
        page = self.request("GET", "/hub/login")
        if 'name="password"' not in page.text:
            raise HubError("the login page has no form for name and password")
        form = {"username": user, "password": password, "_xsrf": self._xsrf("/hub/login")}
        # Landing on /hub/home keeps the hub from starting a server by itself, as the default landing page does.
        answer = self.request("POST", "/hub/login?next=%2Fhub%2Fhome", data=form, accept=(200, 403))
        if answer.status_code == 403 or "/hub/login" in urlsplit(answer.url).path:
            raise HubError(f"the hub refused the sign-in of {user}: {_reason(answer)}")
        self.request("GET", f"/hub/api/users/{quote(user)}")

    def user(self, name: str) -> dict[str, Any] | None:
        """Return the hub's record of a user, None when it has none."""
        response = self.request("GET", f"/hub/api/users/{quote(name)}", accept=(200, 404))
        return dict(response.json()) if response.status_code == 200 else None

    def create_user(self, name: str) -> None:
        """Make a user's record; one that exists is kept."""
        self.request("POST", f"/hub/api/users/{quote(name)}", accept=(201, 409))

    def delete_user(self, name: str) -> bool:
        """Remove a user's record and tokens; returns whether there was one."""
        return self.request("DELETE", f"/hub/api/users/{quote(name)}", accept=(204, 404)).status_code == 204

    def create_token(self, name: str, expires_in: int) -> str:
        """Make an API token of a user that ends after `expires_in` seconds."""
        body = {"note": "verify", "expires_in": expires_in}
        return str(
            self.request("POST", f"/hub/api/users/{quote(name)}/tokens", body=body, accept=(201,)).json()["token"]
        )

    def start_server(
        self,
        name: str,
        options: Mapping[str, Any],
        timeout: float,
        heard: Callable[[str], object] | None = None,
    ) -> str:
        """Start a user's server and follow its progress as the hub's page does; returns the last message.

        options: KubeSpawner's user options. timeout: seconds until it must be ready. heard: called with each message.
        HubError with the reason when it does not start.
        """
        deadline = time.monotonic() + timeout
        self.request("POST", f"/hub/api/users/{quote(name)}/server", body=dict(options), accept=(201, 202))
        last = "no progress was reported"
        for event in self._progress(name, deadline):
            last = str(event.get("message", last))
            if heard:
                heard(last)
            if event.get("failed"):
                raise HubError(f"the server did not start: {last}")
            if event.get("ready"):
                return last
        raise HubError(f"the server was not ready after {timeout:.0f} s; last message: {last}")

    def stop_server(self, name: str, timeout: float) -> None:
        """Stop a user's server and wait until the hub knows of none; one that is not running is fine."""
        deadline = time.monotonic() + timeout
        while True:
            record = self.user(name)
            if record is None or not record.get("servers"):
                return
            if time.monotonic() > deadline:
                raise HubError(f"the server is still there after {timeout:.0f} s (pending: {record.get('pending')})")
            if record.get("pending") is None:
                self.request("DELETE", f"/hub/api/users/{quote(name)}/server", accept=(202, 204, 400, 404))
            time.sleep(POLL_SECONDS)

    def lab_page(self, name: str) -> None:
        """Open JupyterLab in the user's server."""
        response = self.request("GET", f"/user/{quote(name)}/lab")
        if "jupyter-config-data" not in response.text:
            raise HubError(f"{urlsplit(response.url).path} is not the page of JupyterLab")

    def vscode_page(self, name: str) -> None:
        """Open VS Code in the user's server: its page, the program that the page loads, and its websocket."""
        base = f"/user/{quote(name)}/vscode/"
        program = re.search(r'src="([^"]*?)(/static/[^"]*/workbench\.js)"', self.request("GET", base).text)
        if not program:
            raise HubError(f"{base} is not the page of VS Code")
        self.request("GET", f"{base}{program[1]}{program[2]}")
        query = {"reconnectionToken": str(uuid.uuid4()), "reconnection": "false", "skipWebSocketFrames": "false"}
        self.socket(f"{base}{program[1]}", self.timeout, query).close()

    def run(self, name: str, code: str, timeout: float) -> str:
        """Run Python code in a new kernel of the user's server and return what it printed.

        timeout: seconds for kernel and code together. HubError when the code raises, the kernel dies or time is up.
        """
        deadline = time.monotonic() + timeout
        base = f"/user/{quote(name)}/api/kernels"
        kernel = str(self.request("POST", base, body={"name": "python3"}, accept=(201,)).json()["id"])
        try:
            with contextlib.closing(self.socket(f"{base}/{kernel}/channels", timeout)) as channels:
                return _execute(channels, code, deadline)
        finally:
            # A kernel that died is gone already, and with it perhaps the server: that is no second failure.
            with contextlib.suppress(HubError, requests.RequestException):
                self.request("DELETE", f"{base}/{kernel}", accept=(204, 404))

    def _progress(self, name: str, deadline: float) -> Iterator[dict[str, Any]]:
        """Yield the events of the start until the stream or the time ends."""
        with self.request("GET", f"/hub/api/users/{quote(name)}/server/progress", stream=True) as response:
            # The hub sends an empty line every 8 s, so that waiting for the next line never hangs.
            for line in response.iter_lines(chunk_size=1):
                if line.startswith(b"data:"):
                    yield json.loads(line[len(b"data:") :])
                if time.monotonic() > deadline:
                    return

    def socket(self, path: str, timeout: float, query: Mapping[str, str] | None = None) -> websocket.WebSocket:
        """Open a websocket; `timeout` in seconds is also for each of its answers. By default `query` is Jupyter's."""
        parts = urlsplit(self.url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        # What the session would send there: its cookies for the path, or its token.
        request = self._session.prepare_request(requests.Request("GET", self.url + path))
        connection: websocket.WebSocket = websocket.create_connection(
            f"{scheme}://{parts.netloc}{path}?{urlencode(query or {'session_id': uuid.uuid4().hex})}",
            timeout=min(self.timeout, timeout),
            cookie=request.headers.get("Cookie"),
            header={"Authorization": request.headers["Authorization"]} if self._token else {},
            http_no_proxy=["*"],
        )
        return connection

    def _xsrf(self, path: str) -> str:
        """Return the XSRF cookie with the longest path that covers `path`: the hub and each server have their own."""
        found = [c for c in self._session.cookies if c.name == "_xsrf" and path.startswith(c.path)]
        return str(max(found, key=lambda cookie: len(cookie.path)).value) if found else ""


@contextlib.contextmanager
def visit(url: str, service_token: str, user: str, password: str, stop_timeout: float) -> Iterator[HubClient]:
    """Give a user who has signed in, whose server and record are removed before and afterwards.

    password: for the sign-in page's form; without one the user gets in with a token that the service makes.
    stop_timeout: seconds until the server must be gone.
    """
    admin = HubClient(url, token=service_token)
    visitor = HubClient(url)
    admin.stop_server(user, stop_timeout)
    try:
        if password:
            visitor.sign_in(user, password)
        else:
            admin.create_user(user)
            visitor = HubClient(url, token=admin.create_token(user, expires_in=3600))
        yield visitor
    finally:
        admin.stop_server(user, stop_timeout)
        admin.delete_user(user)


def _execute(channels: websocket.WebSocket, code: str, deadline: float) -> str:
    """Send an execute_request and return the text of its stdout."""
    request_id = uuid.uuid4().hex
    header = {
        "msg_id": request_id,
        "msg_type": "execute_request",
        "username": "",
        "session": uuid.uuid4().hex,
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    channels.send(
        json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"})
    )
    printed: list[str] = []
    while True:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise HubError("the kernel did not answer in time")
        channels.settimeout(remaining)
        try:
            message = json.loads(channels.recv())
        except websocket.WebSocketTimeoutException:
            continue
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] in ("dead", "restarting", "autorestarting"):
            raise HubError("the kernel died")
        if message["parent_header"].get("msg_id") != request_id:
            continue
        if kind == "stream" and content["name"] == "stdout":
            printed.append(content["text"])
        elif kind == "error":
            raise HubError(f"the code raised {content['ename']}: {content['evalue']}")
        elif kind == "status" and content["execution_state"] == "idle":
            return "".join(printed)


def _reason(response: requests.Response) -> str:
    """Return what the answer says of itself: the API's message, or the page's error, else the standard phrase."""
    with contextlib.suppress(ValueError, AttributeError):
        return str(response.json().get("message") or response.reason)
    for mark in ('class="login_error">', 'class="error-message">', "<p>"):
        _, found, rest = response.text.partition(mark)
        if found:
            return " ".join(rest.partition("<")[0].split()) or str(response.reason)
    return str(response.reason)
