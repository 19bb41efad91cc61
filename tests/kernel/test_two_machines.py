"""A user who works on one machine and goes on on another: what is closed on the first is what the second opens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machines import EXPORT, SHIPPED, Machine

USER, UID = "frank", 1021
PLACE = "/mnt-shipped"
HOME = f"{PLACE}/homes/{USER}"
TIMES = 4


@pytest.fixture(scope="module")
def pair(machines: dict[str, Machine]) -> Iterator[tuple[Machine, Machine]]:
    """Two clients of one server, with the mount options that the site ships."""
    server, first, second = (machines[name] for name in ("ext4", "client", "xfs"))
    server.run(f"exportfs -o rw,sync,no_subtree_check {second.address}:{EXPORT}")
    try:
        for machine in (first, second):
            machine.run(f"mkdir -p {PLACE}; mount -t nfs -o {SHIPPED} {server.address}:{EXPORT} {PLACE}")
        first.run(f"mkdir -m 0700 {HOME}", uid=UID)
        yield first, second
    finally:
        server.run(f"rm -rf {EXPORT}/homes/{USER}")
        for machine in (first, second):
            machine.run(f"umount {PLACE}; rmdir {PLACE}")
        server.run(f"exportfs -u {second.address}:{EXPORT}")


@pytest.mark.parametrize("back", [False, True])
def test_what_one_has_closed_is_what_the_other_opens(pair: tuple[Machine, Machine], back: bool) -> None:
    """Of the same length each time, so that the size tells nothing."""
    writer, reader = reversed(pair) if back else pair
    for number in range(100, 100 + TIMES):
        writer.run(f"echo {number} > {HOME}/note", uid=UID)
        assert reader.run(f"cat {HOME}/note", uid=UID) == str(number)


def test_what_one_makes_and_removes_the_other_lists(pair: tuple[Machine, Machine]) -> None:
    first, second = pair
    for number in range(TIMES):
        first.run(f"touch {HOME}/new-{number}; rm -f {HOME}/new-{number - 1}", uid=UID)
        assert second.run(f"ls {HOME} | grep new", uid=UID) == f"new-{number}"
