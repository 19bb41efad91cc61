from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import pytest
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError
from ansible_collections.jhok.lab.plugins.modules.nfs_probe import (
    LAST_FRAGMENT,
    SOMEBODY,
    USE,
    Mountd,
    Reader,
    compare,
    judge,
    parse_exports,
    refuse,
    remove,
    run,
    use,
    xdr_text,
)


def number(value: int) -> bytes:
    return struct.pack(">I", value)


def encoded(exports: dict[str, list[str]]) -> bytes:
    data = b""
    for path, clients in exports.items():
        data += number(1) + xdr_text(path) + b"".join(number(1) + xdr_text(client) for client in clients) + number(0)
    return data + number(0)


def test_xdr_of_text_is_padded() -> None:
    assert xdr_text("abcde") == b"\0\0\0\5abcde\0\0\0"
    assert Reader(xdr_text("abcde") + number(7)).text() == "abcde"


def test_exports_are_read() -> None:
    exports = {"/data/nfs": ["172.16.0.101", "172.16.0.100"], "/open": []}
    assert parse_exports(Reader(encoded(exports))) == {"/data/nfs": ["172.16.0.100", "172.16.0.101"], "/open": []}


def test_exports_must_be_as_configured() -> None:
    exports = {"/data/nfs": ["10.0.0.1", "10.0.0.2/32"]}
    assert compare(exports, "/data/nfs", ["10.0.0.1", "10.0.0.2"]) == "exported to 10.0.0.1, 10.0.0.2"
    with pytest.raises(ProbeError, match=r"should not: \['10.0.0.2'\]; should but may not: \['10.0.0.3'\]"):
        compare(exports, "/data/nfs", ["10.0.0.1", "10.0.0.3"])
    with pytest.raises(ProbeError, match="/x is not exported; what is: /data/nfs"):
        compare(exports, "/x", [])
    with pytest.raises(ProbeError, match="open to everybody"):
        compare({"/data/nfs": []}, "/data/nfs", ["10.0.0.1"])


def mountd(results: dict[int, bytes]) -> tuple[Mountd, list[int]]:
    """Answer calls on loopback: procedure → results. One answer goes out in two fragments, as RPC allows."""
    listener = socket.create_server(("127.0.0.1", 0))
    called: list[int] = []

    def serve() -> None:
        while len(called) < 3:
            connection, _ = listener.accept()
            with connection:
                (head,) = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
                call = connection.recv(head & ~LAST_FRAGMENT, socket.MSG_WAITALL)
                called.append(struct.unpack(">I", call[20:24])[0])
                body = call[:4] + number(1) + number(0) + number(0) + number(0) + number(0) + results[called[-1]]
                connection.sendall(number(8) + body[:8] + number(LAST_FRAGMENT | len(body) - 8) + body[8:])

    Thread(target=serve, daemon=True).start()
    return Mountd("127.0.0.1", listener.getsockname()[1], timeout=5), called


def test_exports_over_the_wire() -> None:
    server, called = mountd({5: encoded({"/data/nfs": ["10.0.0.1"]})})
    assert server.exports() == {"/data/nfs": ["10.0.0.1"]}
    assert called == [5]


def test_a_stranger_must_be_refused() -> None:
    exports = encoded({"/data/nfs": ["10.0.0.1"]})
    server, _ = mountd({5: exports, 1: number(13)})
    assert refuse(server, "/data/nfs") == "refused 127.0.0.1: status 13"
    server, called = mountd({5: exports, 1: number(0), 3: b""})
    with pytest.raises(ProbeError, match=r"127\.0\.0\.1 is not listed and may mount it"):
        refuse(server, "/data/nfs")
    assert called == [5, 1, 3], "what was mounted is given back"
    server, called = mountd({5: encoded({"/data/nfs": ["127.0.0.1/32"]})})
    assert refuse(server, "/data/nfs") == "not a stranger: 127.0.0.1 is listed"
    assert called == [5]


@pytest.fixture
def homes() -> Iterator[Path]:
    """A place for homes where users can get at it (tmp_path's parents are root's alone)."""
    if os.geteuid() != 0:
        pytest.skip("needs root to be several users")
    with TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o1733)
        yield path


def test_a_home_is_made_as_its_user_and_root_is_found_out(homes: Path) -> None:
    """Here nothing squashes root; on the lab and in tests/kernel a server does."""
    used = run([sys.executable, "-c", USE, str(homes), "new", "text", str(SOMEBODY)], 20)
    assert used == f"text {SOMEBODY} reads it (1 files)\n"
    assert list(homes.iterdir()) == []
    with pytest.raises(ProbeError, match=r"root of this node reads it .*: export it with root_squash"):
        judge(used, "text", root_may=False)
    assert judge(used, "text", root_may=True) == "same text back; root of this node reads it (1 files)"


def test_a_place_that_users_may_not_add_to(homes: Path) -> None:
    homes.chmod(0o711)
    with pytest.raises(ProbeError, match="a user may not make a home in directory homes: chmod 1733 homes"):
        run([sys.executable, "-c", USE, str(homes), "new", "text", str(SOMEBODY)], 20)


def test_what_was_used_is_judged() -> None:
    for root_may in (True, False):
        said = judge(f"text {SOMEBODY} is refused", "text", root_may=root_may)
        assert said == "same text back; root of this node is refused"
    with pytest.raises(ProbeError, match="not what was written"):
        judge(f"other {SOMEBODY} is refused", "text", root_may=True)
    with pytest.raises(ProbeError, match="belongs to 99: export it without all_squash"):
        judge("text 99 is refused", "text", root_may=True)


def test_a_mount_that_fails_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ProbeError, match="mount"):
        use("127.0.0.1:/nowhere", ["port=1", "mountport=1", "tcp", "nfsvers=3", "hard", "retry=0"], timeout=20)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_mount_is_just_removed(tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    remove(str(tmp_path / "mount"), timeout=5)
    assert list(tmp_path.iterdir()) == []
