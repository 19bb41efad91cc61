from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError
from ansible_collections.jhok.lab.plugins.modules.registry_probe import Registry

IMAGES = [{"name": "jhok/hub", "digest": "sha256:aa"}, {"name": "jhok/proxy", "digest": "sha256:bb"}]


@contextmanager
def serving(answers: dict[str, tuple[int, dict[str, str]]]) -> Iterator[tuple[Registry, list[str]]]:
    """Serve `METHOD path` → status and headers on loopback."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.command} {self.path}")
            status, headers = answers.get(asked[-1], (404, {}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield Registry(f"127.0.0.1:{server.server_port}", timeout=5), asked
    finally:
        server.shutdown()
        server.server_close()


def test_version_check() -> None:
    with serving({"GET /v2/": (200, {})}) as (registry, _):
        assert registry.answers() == "200"
    with serving({}) as (registry, _), pytest.raises(ProbeError, match="404"):
        registry.answers()


def test_images_by_digest() -> None:
    good = (200, {"Docker-Content-Digest": "sha256:aa"})
    hub, proxy = "HEAD /v2/jhok/hub/manifests/sha256:aa", "HEAD /v2/jhok/proxy/manifests/sha256:bb"
    with serving({hub: good, proxy: (200, {})}) as (registry, _):
        assert registry.has(IMAGES) == "all there"
    with serving({hub: good}) as (registry, _), pytest.raises(ProbeError, match="1 of 2 missing: jhok/proxy: 404"):
        registry.has(IMAGES)
    with serving({hub: good, proxy: good}) as (registry, _), pytest.raises(ProbeError, match="jhok/proxy: sha256:aa"):
        registry.has(IMAGES)
    with serving({}) as (registry, _), pytest.raises(ProbeError, match="names no image"):
        registry.has([])


def test_writes_must_be_refused_and_an_upload_that_began_is_ended() -> None:
    post = "POST /v2/jhok/verify/blobs/uploads/"
    with serving({post: (405, {})}) as (registry, _):
        assert registry.refuses_writes() == "refused: 405"
    upload = "/v2/jhok/verify/blobs/uploads/1?s=2"
    answers: dict[str, tuple[int, dict[str, str]]] = {}
    with serving(answers) as (registry, asked):
        for location in (upload, f"http://{registry.address}{upload}"):
            answers[post] = (202, {"Location": location})
            asked.clear()
            with pytest.raises(ProbeError, match="not refused: 202"):
                registry.refuses_writes()
            assert asked == [post, f"DELETE {upload}"]
    with serving({post: (500, {})}) as (registry, _), pytest.raises(ProbeError, match="not refused: 500"):
        registry.refuses_writes()


def test_metrics_must_be_there() -> None:
    with serving({"GET /metrics": (200, {})}) as (registry, _), pytest.raises(ProbeError, match="200, 0 values"):
        registry.tells(registry.address)
    with serving({}) as (registry, _), pytest.raises(ProbeError, match="404, 0 values"):
        registry.tells(registry.address)


def test_write_side_must_not_answer() -> None:
    with serving({}) as (registry, _):
        port = int(registry.address.rpartition(":")[2])
        with pytest.raises(ProbeError, match="accepts connections"):
            registry.hides(port)
    assert "refused" in registry.hides(port)
