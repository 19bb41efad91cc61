"""Whether an NFS server answers: ONC RPC's NULL call (RFC 5531) to program NFS over TCP."""

from __future__ import annotations

import secrets
import socket
import struct
import time

PROGRAM = 100003
VERSIONS = (4, 3)
TIMEOUT = 5.0
"""Seconds in which the server has to answer."""

CALL, REPLY, RPC_VERSION, NULL_PROCEDURE = 0, 1, 2, 0
ACCEPTED, SUCCESS, PROGRAM_MISMATCH = 0, 0, 2
LAST_FRAGMENT = 0x80000000
LONGEST_REPLY = 4096
"""Bytes; an answer to NULL has 24 and, with an authentication's verifier, up to 400 more."""


class NfsError(Exception):
    """What answered is no NFS server."""


def probe(server: str, port: int) -> float | None:
    """Return the seconds that `server` took to answer, or None when it gave no right answer in time."""
    start = time.monotonic()
    for version in VERSIONS:
        try:
            if call(server, port, version, start + TIMEOUT):
                return time.monotonic() - start
        except (OSError, NfsError):
            return None
    return None


def call(server: str, port: int, version: int, deadline: float) -> bool:
    """Call NULL and return whether the server serves this version of NFS.

    Raises:
        OSError: No connection, or no whole answer before `deadline` (of time.monotonic).
        NfsError: The answer is none of NFS.

    """
    call_id = secrets.randbits(32)
    # No credentials and no verifier: their kind is 0 (AUTH_NONE), their length 0.
    message = struct.pack(">10I", call_id, CALL, RPC_VERSION, PROGRAM, version, NULL_PROCEDURE, 0, 0, 0, 0)
    with socket.create_connection((server, port), timeout=left(deadline)) as connection:
        connection.sendall(struct.pack(">I", LAST_FRAGMENT | len(message)) + message)
        (mark,) = struct.unpack(">I", read(connection, 4, deadline))
        size = mark & ~LAST_FRAGMENT
        if not mark & LAST_FRAGMENT or not 24 <= size <= LONGEST_REPLY:
            raise NfsError("no answer to an RPC")
        reply = read(connection, size, deadline)
    answer_id, kind, status, _flavour, length = struct.unpack_from(">5I", reply)
    if (answer_id, kind, status) != (call_id, REPLY, ACCEPTED) or length > size - 24:
        raise NfsError("the call was not accepted")
    (accepted,) = struct.unpack_from(">I", reply, 20 + (length + 3) // 4 * 4)
    if accepted not in (SUCCESS, PROGRAM_MISMATCH):
        raise NfsError(f"the call ended with {accepted}")
    return bool(accepted == SUCCESS)


def read(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Read `size` bytes, or raise OSError when they have not come before `deadline`."""
    data = b""
    while len(data) < size:
        connection.settimeout(left(deadline))
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("the server closed the connection")
        data += part
    return data


def left(deadline: float) -> float:
    """Return the seconds to `deadline`; raise TimeoutError when there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("no answer in time")
    return seconds
