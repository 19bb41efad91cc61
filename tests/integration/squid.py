"""A real HTTP proxy, as labs have it between themselves and the internet, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import requests

DEADLINE_SECONDS = 30
CONFIG = """\
http_port 127.0.0.1:{port}
visible_hostname proxy.invalid
hosts_file {directory}/hosts
dns_nameservers 127.0.0.1
auth_param basic program /usr/lib/squid/basic_ncsa_auth {directory}/logins
auth_param basic children 1
acl tunnel method CONNECT
acl known proxy_auth REQUIRED
http_access allow tunnel known
http_access deny all
cache deny all
logformat passed %>Hs %rm %ru %un
access_log stdio:{directory}/passed.log passed
cache_log {directory}/squid.log
pid_filename none
netdb_filename none
pinger_enable off
coredump_dir {directory}
shutdown_lifetime 0 seconds
"""


class Squid:
    """A proxy on loopback that lets those with a login through by CONNECT, and alone knows the addresses of `names`."""

    def __init__(self, directory: Path, port: int, logins: Mapping[str, str], names: Mapping[str, str]) -> None:
        self.directory, self.port = directory, port
        (directory / "squid.conf").write_text(CONFIG.format(port=port, directory=directory))
        (directory / "hosts").write_text("".join(f"{address} {name}\n" for name, address in names.items()))
        self.let_in(logins)
        self._process: subprocess.Popen[bytes] | None = None

    def let_in(self, logins: Mapping[str, str]) -> None:
        """Write down who may pass from the next start on."""
        lines = []
        for name, password in logins.items():
            make = ["openssl", "passwd", "-apr1", "-stdin"]
            made = subprocess.run(make, input=password, capture_output=True, text=True, check=True)
            lines.append(f"{name}:{made.stdout}")
        (self.directory / "logins").write_text("".join(lines))

    def url(self, login: str) -> str:
        """Return its address with a login."""
        return f"http://{login}@127.0.0.1:{self.port}"

    def passed(self) -> list[str]:
        """Return status, method, target and login of everything so far."""
        log = self.directory / "passed.log"
        return log.read_text().splitlines() if log.exists() else []

    def start(self) -> None:
        """Start it and wait until it answers."""
        user = {"user": "proxy", "group": "proxy", "extra_groups": []} if os.geteuid() == 0 else {}
        program = shutil.which("squid", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "squid is not installed: apt-get install squid"
        command = [program, "-N", "-f", str(self.directory / "squid.conf")]
        self._process = subprocess.Popen(command, cwd=self.directory, stderr=subprocess.DEVNULL, **user)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                requests.get(f"http://127.0.0.1:{self.port}/", timeout=2)
                return
            except requests.ConnectionError:
                assert self._process.poll() is None, (self.directory / "squid.log").read_text()
                assert time.monotonic() < deadline, (self.directory / "squid.log").read_text()
                time.sleep(0.05)

    def signal(self, number: int) -> None:
        """Send its process a signal."""
        assert self._process
        self._process.send_signal(number)

    def stop(self) -> None:
        """Refuse connections."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_squid(port: int, logins: Mapping[str, str], names: Mapping[str, str]) -> Iterator[Squid]:
    """Run one; its files are where its own user can write, too."""
    with tempfile.TemporaryDirectory(prefix="squid-") as directory:
        if os.geteuid() == 0:
            shutil.chown(directory, "proxy", "proxy")
        squid = Squid(Path(directory), port, logins, names)
        squid.start()
        try:
            yield squid
        finally:
            squid.stop()
