"""The machines of molecule/nfs_kernel, and what is known of them."""

from __future__ import annotations

import shlex
import subprocess

EXPORT = "/srv/nfs"
# What a user reads who is over quota: on XFS the kernel says the same of a project's limit as of a full disk.
OVER = {"ext4": "Disk quota exceeded", "xfs": "No space left on device"}


class Machine:
    """One of the scenario's machines."""

    def __init__(self, ssh: str, address: str) -> None:
        self._ssh = shlex.split(ssh)
        self.address = address

    def run(self, script: str, *, uid: int = 0, fails: bool = False) -> str:
        """Run a shell script as this user; return what it printed, errors included. It must fail just when `fails`."""
        command = f"setpriv --reuid={uid} --regid=100 --clear-groups sh" if uid else "sh"
        text = f"set -e\nexec 2>&1\n{script}\n"
        done = subprocess.run(
            [*self._ssh, command], input=text, capture_output=True, text=True, timeout=120, check=False
        )
        assert (done.returncode != 0) is fails, f"{script}\nended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout.strip()
