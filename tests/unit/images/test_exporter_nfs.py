"""The call that asks an NFS server whether it is there, against servers that behave badly."""

from __future__ import annotations

import importlib.util
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest


def load() -> ModuleType:
    path = Path(__file__).parents[3] / "images" / "exporter" / "jhok_exporter" / "nfs.py"
    spec = importlib.util.spec_from_file_location("jhok_exporter_nfs", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nfs = load()


@contextmanager
def server(answer: Callable[[socket.socket, int], object]) -> Iterator[int]:
    """Take one call, let `answer` do what it likes with the connection and the call's number, and yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                call = connection.recv(44, socket.MSG_WAITALL)
                answer(connection, struct.unpack_from(">I", call, 4)[0])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


def record(*words: int, mark: int | None = None) -> bytes:
    data = struct.pack(f">{len(words)}I", *words)
    return struct.pack(">I", 0x80000000 | len(data) if mark is None else mark) + data


def test_an_answer_with_a_verifier_counts() -> None:
    with server(lambda connection, call: connection.sendall(record(call, 1, 0, 1, 5, 0, 0, 0))) as port:
        assert nfs.call("127.0.0.1", port, 4, time.monotonic() + 30)


@pytest.mark.parametrize(
    "answer",
    [
        lambda call: record(call + 1 & 0xFFFFFFFF, 1, 0, 0, 0, 0),
        lambda call: record(call, 0, 0, 0, 0, 0),
        lambda call: record(call, 1, 1, 0, 0, 0),
        lambda call: record(call, 1, 0, 0, 0, 1),
        lambda call: record(call, 1, 0, 0, 4000, 0),
        lambda call: record(call, 1, 0, 0, 0xFFFFFFFF, 0),
        lambda call: record(call, 1, 0, 0, 0),
        lambda call: record(call, 1, 0, 0, 0, 0, mark=24),
        lambda call: record(call, 1, 0, 0, 0, 0, mark=0xFFFFFFFF),
        lambda _: b"SSH-2.0-OpenSSH_10.0p2 Debian-7\r\n",
    ],
    ids=[
        "other-call",
        "no-reply",
        "denied",
        "no-such-program",
        "verifier-too-long",
        "verifier-longer-than-all",
        "too-short",
        "not-the-last-fragment",
        "too-long",
        "ssh",
    ],
)
def test_what_is_no_answer(answer: Callable[[int], bytes]) -> None:
    with (
        server(lambda connection, call: connection.sendall(answer(call))) as port,
        pytest.raises(nfs.NfsError),
    ):
        nfs.call("127.0.0.1", port, 4, time.monotonic() + 30)


def test_a_server_that_hangs_up() -> None:
    with server(lambda *_: None) as port, pytest.raises(ConnectionError):
        nfs.call("127.0.0.1", port, 4, time.monotonic() + 30)


def test_a_server_that_goes_on_byte_by_byte_is_given_up() -> None:
    def dribble(connection: socket.socket, _: int) -> None:
        connection.sendall(struct.pack(">I", 0x80000000 | 4096))
        while True:
            try:
                connection.sendall(b"\0")
            except OSError:
                return
            time.sleep(0.02)

    with server(dribble) as port, pytest.raises(TimeoutError):
        nfs.call("127.0.0.1", port, 4, time.monotonic() + 0.5)
