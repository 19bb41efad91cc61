"""Homes on a real kernel's NFS server, used by a real kernel's client; molecule/nfs_kernel says where they are.

    JHOK_KERNEL_MACHINES  a JSON file: per machine, `ssh` (the command that runs another one there) and `address`

Each server has another file system, and quotas as in molecule/nfs_kernel/vars/site.yml: 20 MB for a home, 40 MB for
`large`, 30 MB for `ann` and `ben` together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import EXPORT, OVER, Machine


@pytest.fixture(scope="session")
def machines() -> dict[str, Machine]:
    text = Path(os.environ["JHOK_KERNEL_MACHINES"]).read_text()
    return {name: Machine(**values) for name, values in json.loads(text).items()}


@pytest.fixture(scope="session")
def client(machines: dict[str, Machine]) -> Iterator[Machine]:
    """The machine that may mount, with both servers mounted by version 4.2 and 3."""
    machine = machines["client"]
    for name in OVER:
        machine.run(
            f"mkdir -p /mnt/{name} /mnt3/{name}\n"
            f"mount -t nfs -o hard,noatime {machines[name].address}:{EXPORT} /mnt/{name}\n"
            f"mount -t nfs -o hard,noatime,nfsvers=3 {machines[name].address}:{EXPORT} /mnt3/{name}"
        )
    yield machine
    machine.run("cd /; umount /mnt/* /mnt3/*; rmdir /mnt/* /mnt3/*")


@pytest.fixture(params=list(OVER), scope="session")
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def server(machines: dict[str, Machine], name: str) -> Machine:
    return machines[name]
