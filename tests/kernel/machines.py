"""The machines of molecule/nfs_kernel, and the users' image on them."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

EXPORT = "/srv/nfs"
# What a user reads who is over quota: on XFS the kernel says the same of a project's limit as of a full disk.
OVER = {"ext4": "Disk quota exceeded", "xfs": "No space left on device"}
STORAGE = yaml.safe_load((Path(__file__).parents[2] / "roles/storage/defaults/main.yml").read_text())
SHIPPED = ",".join(STORAGE["storage_nfs_mount_options"])
IMAGE = "/run/singleuser"
SPARE = 64  # KiB, for what the file system itself needs
FREE_SECONDS = 60  # nfsd keeps a file open for a while after its last user has gone


class Machine:
    """One of the scenario's machines."""

    def __init__(self, ssh: str, address: str) -> None:
        self._ssh = shlex.split(ssh)
        self.address = address

    def run(self, script: str, *, uid: int = 0, fails: bool = False, seconds: float = 120) -> str:
        """Run a shell script as this user; return what it printed, errors included. It must fail just when `fails`."""
        command = f"setpriv --reuid={uid} --regid=100 --clear-groups sh" if uid else "sh"
        text = f"set -e\nexec 2>&1\n{script}\n"
        done = subprocess.run(
            [*self._ssh, command], input=text, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert (done.returncode != 0) is fails, f"{script}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    @contextlib.contextmanager
    def port(self, there: int) -> Iterator[int]:
        """Give a port of this computer that leads to one of the machine's own."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            here = free.getsockname()[1]
        ssh = [self._ssh[0], "-o", "ControlPath=none", "-N", "-L", f"127.0.0.1:{here}:127.0.0.1:{there}"]
        tunnel = subprocess.Popen([*ssh, *self._ssh[1:]])
        try:
            until = time.monotonic() + 30
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", here)).close()
                    break
                assert time.monotonic() < until
                time.sleep(0.1)
            yield here
        finally:
            tunnel.terminate()
            tunnel.wait()


def in_image(home: str, user: str, *options: str) -> str:
    """Return the beginning of a command that runs another in the users' image, with `home` at /home/<user>.

    As in the cluster nothing but the home and /tmp can be written. It is root's; options are those of systemd-run.
    """
    settings = ["RootDirectory=" + IMAGE, "MountAPIVFS=yes", "TemporaryFileSystem=/tmp:mode=1777"]
    settings += ["TemporaryFileSystem=/home", f"BindPaths={home}:/home/{user}", "LimitNOFILE=16384"]
    environment = [f"HOME=/home/{user}", f"NB_USER={user}", "LANG=C.UTF-8", "SHELL=/bin/zsh"]
    environment += ["PATH=/usr/local/bin:/usr/bin:/bin:/opt/jupyter/bin"]
    words = ["systemd-run", "--quiet", "--collect", *options]
    words += [f"--property={setting}" for setting in settings] + [f"--setenv={value}" for value in environment]
    mount = f"mkdir -p {IMAGE}; mountpoint -q {IMAGE} || mount -o ro /dev/ubdc {IMAGE}"
    return f"{mount}\n{shlex.join(words)}"


def available(machine: Machine, place: str) -> int:
    """Return how many KiB may be written there."""
    return int(machine.run(f"df --output=avail {place} | tail -n 1"))


def wait_until_free(machine: Machine, place: str, wanted: int) -> None:
    """Wait until so many KiB are free; what is removed takes the server a moment."""
    until = time.monotonic() + FREE_SECONDS
    while (free := available(machine, place)) < wanted - SPARE:
        assert time.monotonic() < until, f"{free} KiB, not {wanted}"
        time.sleep(0.1)
