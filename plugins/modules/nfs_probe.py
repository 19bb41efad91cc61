#!/usr/bin/python
"""Ansible module nfs_probe: whether an NFS export is open to whom it should be, and works for them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_probe
short_description: Asks an NFS server for its exports, or mounts one and uses it
version_added: 0.1.0
description:
  - With O(clients), asks the server's mountd who may mount what, and that must be just that.
  - With O(refused=true), asks mountd for the path as a machine that may not mount it; it must be refused.
  - Otherwise mounts the path in a temporary directory, makes a directory in its C(homes) as a user makes the own home,
    writes and reads a file, sees that root cannot, removes all and unmounts it. Needs root.
  - Leaves nothing behind and never fails by itself; what is wrong is a line with C(ok=false) under RV(probes).
attributes:
  check_mode:
    support: none
    description: It mounts, so it is skipped in check mode.
options:
  check:
    description: Area of the report that the lines belong to.
    type: str
    default: nfs
  server:
    description: Address of the server.
    type: str
    required: true
  path:
    description: The exported directory.
    type: path
    required: true
  clients:
    description: Addresses of all that may mount the path.
    type: list
    elements: str
  refused:
    description: Whether this machine must be refused. When the server lists this machine's address, it is not asked.
    type: bool
    default: false
  root:
    description: Whether root of this machine may be root on the export, as the one that makes backups must.
    type: bool
    default: false
  options:
    description: Mount options; V(hard) is left out, so that a dead server is reported instead of waited for.
    type: list
    elements: str
    default: []
  mountd_port:
    description: Port of the server's mountd.
    type: int
    default: 20048
  host:
    description: Name of the asking machine in the report.
    type: str
    required: true
  timeout:
    description: Seconds until mounting, using and unmounting must each be done.
    type: int
    default: 30
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: Compare the export list
  jhok.lab.nfs_probe:
    server: 172.16.0.100
    path: /data/nfs
    clients: [172.16.0.100, 172.16.0.101]
    host: "{{ inventory_hostname }}"
  register: exports

- name: Mount the export and use it
  jhok.lab.nfs_probe:
    server: 172.16.0.100
    path: /data/nfs
    options: [nfsvers=4, noatime]
    host: "{{ inventory_hostname }}"
  register: mounted
"""

RETURN = r"""
probes:
  description: One line per question.
  returned: always
  type: list
  elements: dict
  sample:
    - check: storage
      asked: mount 172.16.0.100:/data/nfs on worker1, make, write, read, remove as a user
      got: same text back; root of this node is refused
      ok: true
      seconds: 0.2
"""

import os
import secrets
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError, ProbeLog

MOUNT_PROGRAM = 100005
MOUNT_VERSION = 3
MNT = 1
UMNT = 3
EXPORT = 5
LAST_FRAGMENT = 1 << 31
# As nobody else is called: below the numbers of homes, and not nobody (65534), whom the server takes root for.
SOMEBODY = 0x6FFFFFFF
# Makes a directory as a user makes the own home, uses it, and tries to look into it as root. From within the directory
# above, since a user may not come in through root's temporary one.
USE = """
import os, shutil, sys
above, name, text, uid = *sys.argv[1:4], int(sys.argv[4])
os.chdir(above)
os.setgroups([])
os.setegid(uid)
os.seteuid(uid)
try:
    os.mkdir(name, 0o700)
except PermissionError:
    sys.exit("a user may not make a home in directory homes: chmod 1733 homes, on the server")
try:
    owner = os.stat(name).st_uid
    with open(f"{name}/file", "x") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    with open(f"{name}/file") as file:
        got = file.read()
    os.seteuid(0)
    try:
        root = f"reads it ({len(os.listdir(name))} files)"
    except PermissionError:
        root = "is refused"
    os.seteuid(uid)
finally:
    shutil.rmtree(name)
print(got, owner, root)
"""


class Reader:
    """Reads XDR, the encoding of RPC answers (RFC 4506), piece by piece."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def number(self) -> int:
        """Return an unsigned integer of four bytes."""
        (value,), self.data = struct.unpack(">I", self.data[:4]), self.data[4:]
        return int(value)

    def text(self) -> str:
        """Return a string: its length, its bytes, and padding to a multiple of four."""
        length = self.number()
        value, self.data = self.data[:length], self.data[length + -length % 4 :]
        return value.decode()


def xdr_text(text: str) -> bytes:
    """Encode a string in XDR."""
    data = text.encode()
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def parse_exports(answer: Reader) -> dict[str, list[str]]:
    """Return path → sorted clients from mountd's list of exports; no clients means everybody."""
    exports: dict[str, list[str]] = {}
    while answer.number():
        path = answer.text()
        clients = []
        while answer.number():
            clients.append(answer.text())
        exports[path] = sorted(clients)
    return exports


class Mountd:
    """A server's mountd (RFC 1813, appendix I), which kernel and user space servers both have, over TCP."""

    def __init__(self, server: str, port: int, timeout: float) -> None:
        self.server = server
        self.port = port
        self.timeout = timeout
        self.own_address = ""

    def call(self, procedure: int, arguments: bytes = b"") -> Reader:
        """Call a procedure of version 3 with a root credential and return its results."""
        credential = struct.pack(">I", 0) + xdr_text("jhok") + struct.pack(">III", 0, 0, 0)
        number = secrets.randbits(31)
        head = struct.pack(">6I", number, 0, 2, MOUNT_PROGRAM, MOUNT_VERSION, procedure)
        message = head + struct.pack(">II", 1, len(credential)) + credential + struct.pack(">II", 0, 0) + arguments
        with self._connect() as connection:
            connection.sendall(struct.pack(">I", LAST_FRAGMENT | len(message)) + message)
            answer = Reader(self._receive(connection))
        if answer.number() != number or answer.number() != 1:
            raise ProbeError("mountd sent something that is no answer")
        if answer.number() != 0:
            raise ProbeError("mountd denied the call")
        answer.number()  # the verifier: flavour and, as a string, its body
        answer.text()
        if status := answer.number():
            raise ProbeError(f"mountd does not serve version {MOUNT_VERSION} (status {status})")
        return answer

    def exports(self) -> dict[str, list[str]]:
        """Return path → clients."""
        return parse_exports(self.call(EXPORT))

    def mount(self, path: str) -> int:
        """Ask for the handle of a path and return mountd's status: 0 allowed, 13 refused."""
        status = self.call(MNT, xdr_text(path)).number()
        if status == 0:
            self.call(UMNT, xdr_text(path))
        return status

    def _connect(self) -> socket.socket:
        # Servers refuse unprivileged ports, so root comes from a privileged one: else every answer were a refusal.
        for port in range(1023, 900, -1):
            try:
                connection = socket.create_connection((self.server, self.port), self.timeout, source_address=("", port))
            except PermissionError:
                break
            except OSError as error:
                if error.errno in (98, 99):  # EADDRINUSE, EADDRNOTAVAIL
                    continue
                raise
            self.own_address = connection.getsockname()[0]
            return connection
        connection = socket.create_connection((self.server, self.port), self.timeout)
        self.own_address = connection.getsockname()[0]
        return connection

    @staticmethod
    def _receive(connection: socket.socket) -> bytes:
        def read(length: int) -> bytes:
            data = b""
            while len(data) < length:
                if not (more := connection.recv(length - len(data))):
                    raise ProbeError("mountd ended the connection")
                data += more
            return data

        data, last = b"", 0
        while not last:
            (head,) = struct.unpack(">I", read(4))
            last = head & LAST_FRAGMENT
            data += read(head & ~LAST_FRAGMENT)
        return data


def compare(exports: dict[str, list[str]], path: str, clients: list[str]) -> str:
    """Return the clients of `path`; ProbeError unless they are `clients`, addresses or names that lead to them."""
    if path not in exports:
        raise ProbeError(f"{path} is not exported; what is: {', '.join(sorted(exports)) or 'nothing'}")
    # Kernel and ganesha differ in how they write one address: ganesha may add the length of the prefix.
    found = {client.removesuffix("/32").removesuffix("/128") for client in exports[path]}
    if found != set(clients):
        extra, lacking = sorted(found - set(clients)), sorted(set(clients) - found)
        raise ProbeError(
            f"may mount but should not: {extra}; should but may not: {lacking}" if found else "open to everybody"
        )
    return f"exported to {', '.join(sorted(found))}"


def refuse(mountd: Mountd, path: str) -> str:
    """Ask for the path as a stranger."""
    allowed = mountd.exports().get(path, [])
    if mountd.own_address in {client.partition("/")[0] for client in allowed}:
        return f"not a stranger: {mountd.own_address} is listed"
    status = mountd.mount(path)
    if status == 0:
        raise ProbeError(f"{mountd.own_address} is not listed and may mount it all the same")
    return f"refused {mountd.own_address}: status {status}"


def run(command: list[str], timeout: int) -> str:
    """Run a command and return what it printed; ProbeError with its words when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)  # noqa: S603
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise ProbeError(f"{command[0]}: {said[-1] if said else f'ended with {done.returncode}'}")
    return done.stdout


def judge(used: str, text: str, *, root_may: bool) -> str:
    """Return what USE printed in words; ProbeError unless it wrote and read `text`, and root sees it only if it may."""
    got, owner, root = used.strip().split(" ", 2)
    if got != text:
        raise ProbeError("what was read is not what was written")
    if int(owner) != SOMEBODY:
        raise ProbeError(f"what user number {SOMEBODY} makes there belongs to {owner}: export it without all_squash")
    if root != "is refused" and not root_may:
        raise ProbeError(
            f"a user makes a directory of mode 0700, and root of this node {root}: export it with root_squash"
        )
    return f"same text back; root of this node {root}"


def use(source: str, options: list[str], timeout: int, *, root_may: bool = False) -> str:
    """Mount `source`, use its directory `homes` as a user does, unmount it."""
    text = secrets.token_hex(16)
    chosen = [option for option in options if option != "hard"] + ["soft", "timeo=50", "retrans=2"]
    target = tempfile.mkdtemp(prefix="jhok-verify-")
    try:
        run(["mount", "-t", "nfs", "-o", ",".join(chosen), source, target], timeout)
        # In a process of its own, because a dead server blocks whoever touches the mount.
        used = run(
            [sys.executable, "-c", USE, f"{target}/homes", f".jhok-verify-{text[:8]}", text, str(SOMEBODY)], timeout
        )
    finally:
        remove(target, timeout)
    return judge(used, text, root_may=root_may)


def remove(target: str, timeout: int) -> None:
    """Unmount and remove a temporary mount point, whatever state it is in."""
    for command in (["umount", target], ["umount", "--lazy", "--force", target]):
        if not os.path.ismount(target):
            break
        subprocess.run(command, capture_output=True, timeout=timeout, check=False)  # noqa: S603
    Path(target).rmdir()


def questions(params: dict[str, Any]) -> list[tuple[str, Callable[[], str]]]:
    """Return what the parameters ask for."""
    server, path, host = params["server"], params["path"], params["host"]
    mountd = Mountd(server, params["mountd_port"], params["timeout"])
    if params["clients"] is not None:
        return [(f"exports of {server} from {host}", lambda: compare(mountd.exports(), path, params["clients"]))]
    if params["refused"]:
        return [(f"mount {server}:{path} from {host}, which may not", lambda: refuse(mountd, path))]
    asked = f"mount {server}:{path} on {host}, make, write, read, remove as a user"
    source, options, timeout = f"{server}:{path}", params["options"], params["timeout"]
    return [(asked, lambda: use(source, options, timeout, root_may=params["root"]))]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "check": {"type": "str", "default": "nfs"},
            "server": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "clients": {"type": "list", "elements": "str"},
            "refused": {"type": "bool", "default": False},
            "root": {"type": "bool", "default": False},
            "options": {"type": "list", "elements": "str", "default": []},
            "mountd_port": {"type": "int", "default": 20048},
            "host": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=False,
    )
    log = ProbeLog(module.params["check"])
    for asked, question in questions(module.params):
        log.ask(asked, question)
    module.exit_json(changed=False, probes=log.as_dicts())


if __name__ == "__main__":
    main()
