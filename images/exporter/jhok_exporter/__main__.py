"""The program: ``/metrics``, ``/healthz`` and ``POST /relay/<receiver>`` over HTTP."""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kubernetes.config import ConfigException
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Gauge, generate_latest

from jhok_exporter import nfs
from jhok_exporter.kube import Api, ClusterCollector
from jhok_exporter.relay import Relay, RelayError

PLAIN = "text/plain; charset=utf-8"
LONGEST_NOTIFICATION = 4 * 2**20
"""Bytes."""


class Exporter:
    """What the program answers from.

    Args:
        api: The cluster.
        nfs_server: Address of the NFS server; empty: none is asked.
        nfs_port: Its TCP port.
        relay: Where notifications go.

    """

    def __init__(self, api: Api, nfs_server: str, nfs_port: int, relay: Relay) -> None:
        self.relay = relay
        self._cluster = ClusterCollector(api)
        self._nfs_server, self._nfs_port = nfs_server, nfs_port
        self._threads = ThreadPoolExecutor(max_workers=4)

    def metrics(self) -> bytes:
        """Return all metrics. The cluster and the NFS server are asked at the same time.

        Raises:
            ApiError: The API server did not give what was asked for.

        """
        registry = CollectorRegistry()
        registry.register(self._cluster)
        if not self._nfs_server:
            return generate_latest(registry)
        asked = self._threads.submit(nfs.probe, self._nfs_server, self._nfs_port)
        cluster = generate_latest(registry)
        seconds = asked.result()
        registry = CollectorRegistry()
        up = Gauge("jhok_nfs_up", "1 when the NFS server answers.", ["server"], registry=registry)
        up.labels(self._nfs_server).set(seconds is not None)
        if seconds is not None:
            took = Gauge("jhok_nfs_response_seconds", "How long it took.", ["server"], registry=registry)
            took.labels(self._nfs_server).set(seconds)
        return cluster + generate_latest(registry)


class Server(ThreadingHTTPServer):
    """A thread per request; none of them keeps the program from ending."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], exporter: Exporter) -> None:
        self.exporter = exporter
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version = "jhok-exporter"
    sys_version = ""
    timeout = 20
    """Seconds without a byte after which a connection is closed."""

    def do_GET(self) -> None:
        """Answer /metrics and /healthz."""
        path = self.path.partition("?")[0]
        if path == "/healthz":
            self.answer(200, b"ok\n")
        elif path == "/metrics":
            try:
                metrics = self.server.exporter.metrics()
            except Exception as error:  # whatever it was: no numbers are better than wrong ones
                self.fail(500, f"no metrics: {type(error).__name__}: {error}")
            else:
                self.answer(200, metrics, CONTENT_TYPE_PLAIN_0_0_4)
        else:
            self.answer(404, b"not found\n")

    def do_POST(self) -> None:
        """Hand a notification on."""
        start, _, name = self.path.rpartition("/")
        if start != "/relay":
            self.answer(404, b"not found\n")
            return
        size = int(self.headers.get("Content-Length") or 0)
        if not 0 < size <= LONGEST_NOTIFICATION:
            self.fail(413, f"relay {name}: a notification of {size} bytes")
            return
        try:
            self.server.exporter.relay.send(name, self.rfile.read(size))
        except RelayError as error:
            self.fail(error.status, f"relay {name}: {error}")
        except Exception as error:  # such as a file of receivers that is none
            self.fail(500, f"relay {name}: {type(error).__name__}")
        else:
            self.answer(200, b"sent\n")

    def fail(self, status: int, text: str) -> None:
        """Answer with an error that the log has, too."""
        print(text, file=sys.stderr, flush=True)
        self.answer(status, f"{text}\n".encode())

    def answer(self, status: int, body: bytes, content_type: str = PLAIN) -> None:
        """Send the answer."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Leave what went well out of the log."""


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="jhok_exporter", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:9791", metavar="ADDRESS:PORT")
    parser.add_argument(
        "--service-account", type=Path, default=Path("/var/run/secrets/kubernetes.io/serviceaccount"), metavar="DIR"
    )
    parser.add_argument("--receivers", type=Path, default=Path("/etc/jhok-exporter/receivers.json"), metavar="FILE")
    options = parser.parse_args()
    address, _, port = options.listen.rpartition(":")
    try:
        exporter = Exporter(
            Api(options.service_account),
            os.environ.get("NFS_SERVER", ""),
            int(os.environ.get("NFS_PORT") or 2049),
            Relay(options.receivers),
        )
        server = Server((address, int(port)), exporter)
    except (ConfigException, OSError, ValueError) as error:
        sys.exit(f"jhok_exporter: {error}")
    server.serve_forever()


if __name__ == "__main__":
    main()
