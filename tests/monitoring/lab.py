"""The lab under test: its machines' own counts, its users, and whom it tells of alerts."""

from __future__ import annotations

import bisect
import contextlib
import json
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import Dashboard, site_dashboards
from kubernetes import client, config

EXPORTER = "prometheus-node-exporter"  # the service on every machine
WATCH_SECONDS = 3
LATE, LENGTHS = (0, 5, 10, 15, 20), (90, 105, 120)  # seconds, see Watch.extremes
BLOCK = bytes(1024 * 1024)
Sample = Mapping[str, Any]
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Site:
    """What molecule/monitoring says of the site."""

    url: str  # of the dashboards
    hub_url: str
    password: str = field(repr=False)  # of the dashboards' user `admin`
    passwords: dict[str, str] = field(repr=False)  # of the hub's users
    kubeconfig: str
    namespace: str
    node: str  # the machine that monitoring runs on
    machines: dict[str, str]  # how to reach each by SSH
    nfs_server: str
    homes: str
    homes_interval: int
    textfiles: str
    receiver: str
    settings: dict[str, Any]  # of role monitoring

    @cached_property
    def dashboards(self) -> list[Dashboard]:
        return site_dashboards(self.settings)

    @cached_property
    def api(self) -> client.CoreV1Api:
        return client.CoreV1Api(config.new_client_from_config(self.kubeconfig))

    def pods(self) -> list[Any]:
        return list(self.api.list_pod_for_all_namespaces().items)

    def run(self, machine: str, command: str) -> str:
        """Run a command on a machine."""
        done = subprocess.run(
            [*shlex.split(self.machines[machine]), command], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"{machine}: {command}: {done.stderr}"
        return done.stdout


def wait_for(what: str, ask: Callable[[], Answer], seconds: float, pause: float = 0.5) -> Answer:
    """Ask until the answer is true; an error of the connection is no answer."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(requests.ConnectionError):
            answer = ask()
            if answer:
                return answer
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(pause)


class Visitor:
    """Asks Prometheus through the page, with a browser's cookies or the page's password."""

    def __init__(self, site: Site, password: str = "") -> None:
        self.site = site
        self.session = requests.Session()
        self.session.trust_env = False
        if password:
            self.session.auth = ("admin", password)

    def sign_in(self, user: str) -> requests.Response:
        """Sign in at the hub and then, through it, at the page; return the page."""
        login = f"{self.site.hub_url}/hub/login"
        form = self.session.get(login, timeout=30).text
        xsrf = re.search(r'name="_xsrf"[^>]*value="([^"]+)"', form)
        assert xsrf, "the hub's sign-in has no form"
        data = {"username": user, "password": self.site.passwords[user], "_xsrf": xsrf[1]}
        answer = self.session.post(f"{login}?next=%2Fhub%2Fhome", data=data, timeout=30)
        assert answer.url.endswith("/hub/home"), f"the hub did not let {user} in"
        return self.session.get(f"{self.site.url}/?orgId=1", headers={"Accept": "text/html"}, timeout=30)

    def api(self, path: str, **fields: str | float) -> Any:  # noqa: ANN401
        """Return the data of an answer of Prometheus."""
        method = "POST" if fields else "GET"
        answer = self.session.request(method, f"{self.site.url}/prometheus/api/v1/{path}", data=fields, timeout=30)
        assert answer.status_code == 200, f"{path} {fields}: {answer.status_code} {answer.text[:500]}"
        return answer.json()["data"]

    def query(self, expression: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Return labels and value of each answer to a question."""
        data = self.api("query", query=expression, **({"time": at} if at else {}))
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(each["metric"], float(each["value"][1])) for each in data["result"]]

    def value(self, expression: str, at: float | None = None) -> float:
        """Return the only answer's value; 0 without one."""
        found = self.query(expression, at)
        assert len(found) < 2, found
        return found[0][1] if found else 0


class Watch:
    """Keeps what a machine's kernel counts, from now on."""

    def __init__(self, command: str) -> None:
        self.times: list[float] = []
        self.samples: list[Sample] = []
        program = Path(__file__).with_name("machine_watch.py").read_bytes()
        self._process = subprocess.Popen(
            [*shlex.split(command), f"python3 - {WATCH_SECONDS}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin
        self._process.stdin.write(program)
        self._process.stdin.close()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            sample = json.loads(line)
            self.samples.append(sample)
            self.times.append(sample["time"])

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def wait(self, moment: float) -> None:
        """Wait until there is a sample after this moment."""
        wait_for("the machine's counts", lambda: self.times and self.times[-1] > moment, 30)

    def at(self, moment: float, read: Callable[[Sample], float]) -> float:
        """Return a figure at a moment, between two samples by their distance; the first or last one outside."""
        after = min(bisect.bisect(self.times, moment), len(self.times) - 1)
        before = max(after - 1, 0)
        (begin, first), (end, last) = ((self.times[i], read(self.samples[i])) for i in (before, after))
        return last if begin == end else first + (last - first) * min(max((moment - begin) / (end - begin), 0), 1)

    def extremes(self, end: float, figure: Callable[[float, float], float]) -> tuple[float, float]:
        """Return the least and the largest figure of the windows that a rate over two minutes may have looked at.

        What Prometheus reads may be some seconds old, and a window is from its first figure in it to its last. A steady
        rate is the same in all of them; a burst at an end is in some and not in others.
        """
        figures = [figure(end - late - length, end - late) for late in LATE for length in LENGTHS]
        return min(figures), max(figures)

    def rates(self, end: float, read: Callable[[Sample], float]) -> tuple[float, float]:
        """Return how fast a counter rose at least and at most, per second."""
        return self.extremes(end, lambda first, last: (self.at(last, read) - self.at(first, read)) / (last - first))

    def range(self, end: float, seconds: float, read: Callable[[Sample], float]) -> tuple[float, float]:
        """Return the least and the largest figure of some time."""
        moments = [end - seconds, *(moment for moment in self.times if end - seconds < moment < end), end]
        figures = [self.at(moment, read) for moment in moments]
        return min(figures), max(figures)


class Receiver:
    """Gives and takes bytes, and hears of alerts, on the control machine's address in the lab's network."""

    def __init__(self, url: str) -> None:
        self.given = self.taken = 0
        self.messages: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                length = int(self.path.rpartition("/")[2])
                self.send_response(200)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                for begin in range(0, length, len(BLOCK)):
                    self.wfile.write(BLOCK[: length - begin])
                receiver.given += length

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == urlsplit(url).path:
                    receiver.messages.append(json.loads(body))
                else:
                    receiver.taken += len(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        parts = urlsplit(url)
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._server = ThreadingHTTPServer((str(parts.hostname), int(parts.port or 80)), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def alerts(self, name: str, status: str) -> Iterator[dict[str, Any]]:
        """Yield the alerts of a name that it was told of."""
        for message in list(self.messages):
            for alert in message["alerts"]:
                if alert["labels"]["alertname"] == name and alert["status"] == status:
                    yield alert
