"""How a lab node is made ready: the key that opens it, and what it is told of the kernel's modules."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "images/lab-node/root/usr/local/sbin/lab-prepare"
KERNEL = "6.1.0-test"
ALL = {"br_netfilter", "nf_conntrack", "overlay"}


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root directory, and programs that would act on the real machine as stand-ins."""
    for path in ("bin", "proc", "sys/module", "lib/modules", "root/.ssh", "usr/local/lib/lab"):
        (tmp_path / path).mkdir(parents=True)
    for name, does in {
        "mount": "exit 0",
        "uname": f"echo {KERNEL}",
        "depmod": f'echo "$@" >> {tmp_path}/depmod',
    }.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{does}\n")
        program.chmod(0o755)
    (tmp_path / "proc/filesystems").write_text("nodev\tproc\n\text4\n")
    return tmp_path


def prepare(machine: Path) -> None:
    environment = {"PATH": f"{machine}/bin:{os.environ['PATH']}", "LAB_ROOT": str(machine)}
    done = subprocess.run(["/bin/sh", str(SCRIPT)], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def built_in(machine: Path) -> set[str]:
    text = (machine / "lib/modules" / KERNEL / "modules.builtin").read_text()
    return {Path(line).stem for line in text.splitlines()}


def test_key_of_somebody_else_becomes_roots_own(machine: Path) -> None:
    given = machine / "usr/local/lib/lab/authorized_keys"
    given.write_text("ssh-ed25519 AAAA lab\n")
    given.chmod(0o664)
    if os.getuid() == 0:
        os.chown(given, 1000, 1000)
    prepare(machine)
    key = machine / "root/.ssh/authorized_keys"
    assert key.read_text() == given.read_text()
    assert (key.stat().st_mode & 0o777, key.stat().st_uid) == (0o600, os.getuid())


def test_monolithic_kernel_says_it_in_its_configuration(machine: Path) -> None:
    options = "BRIDGE_NETFILTER=y NF_CONNTRACK=y OVERLAY_FS=y OVERLAY_FS_INDEX=y NFSD=m"
    (machine / "proc/config.gz").write_bytes(gzip.compress("".join(f"CONFIG_{o}\n" for o in options.split()).encode()))
    prepare(machine)
    assert built_in(machine) == ALL
    assert (machine / "depmod").read_text() == f"--basedir {machine}\n"


def test_modules_of_the_machine_are_left_alone(machine: Path) -> None:
    tree = machine / "lib/modules" / KERNEL
    tree.mkdir()
    (tree / "modules.dep").write_text("kernel/fs/overlayfs/overlay.ko:\n")
    prepare(machine)
    assert [path.name for path in tree.iterdir()] == ["modules.dep"]
    assert not (machine / "depmod").exists()


def test_neither_tells_what_is_at_work(machine: Path) -> None:
    (machine / "proc/filesystems").write_text("nodev\tproc\nnodev\toverlay\n\text4\n")
    (machine / "proc/sys/net/bridge").mkdir(parents=True)
    (machine / "sys/module/nf_conntrack").mkdir()
    prepare(machine)
    assert built_in(machine) == ALL


def test_neither_claims_nothing_that_is_not_there(machine: Path) -> None:
    (machine / "proc/filesystems").write_text("nodev\toverlayfs2\nnodev\tnfsd4\n")
    prepare(machine)
    assert built_in(machine) == set()
