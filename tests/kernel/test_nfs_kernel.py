"""Role nfs_server on a real kernel, as conftest.py has it: what it lets through, limits and bears."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from machines import EXPORT, OVER, Machine, available, wait_until_free

UIDS = {"alice": 1000, "bob": 1001, "large": 1002, "ann": 1003, "ben": 1004, "writer": 1005}
KIB = 1024
LINES = 150


@pytest.fixture(scope="session")
def homes(client: Machine, server: Machine, name: str) -> Iterator[str]:
    """Homes made as users' pods make them: by their numbers, through the mount."""
    path = f"/mnt/{name}/homes"
    for user, uid in UIDS.items():
        client.run(f"umask 077; mkdir -p {path}/{user}", uid=uid)
    yield path
    server.run(f"rm -rf {EXPORT}/homes/*")
    # The service has seen that before the next run of the tests makes them again.
    server.run("systemctl start jhok-quota.service")


def size(client: Machine, directory: str) -> int:
    """Return the size of the file system as df tells it in this directory, in KiB."""
    return int(client.run(f"df --output=size {directory} | tail -n 1"))


def wait_for_size(client: Machine, directory: str, wanted: int) -> None:
    """Wait until the limit is in force, which the path unit sees to; what that misses, the timer within a minute."""
    until = time.monotonic() + 90
    while size(client, directory) != wanted:
        assert time.monotonic() < until, f"df in {directory} still says {size(client, directory)}"


def fill(directory: str, megabytes: int, file: str = "big") -> str:
    return f"dd if=/dev/zero of={directory}/{file} bs=1M count={megabytes} conv=fsync status=none"


# ------------------------------------------------------------------ export and permissions


def test_only_the_client_may_mount(machines: dict[str, Machine], client: Machine, name: str) -> None:
    server = machines[name]
    assert client.run(f"showmount --no-headers -e {server.address}").split() == [EXPORT, client.address]
    stranger = machines["xfs" if name == "ext4" else "ext4"]
    for version in ("3", "4.2"):
        told = stranger.run(
            "mkdir -p /tmp/try\n"
            f"timeout 20 mount -t nfs -o soft,retry=0,nfsvers={version} {server.address}:{EXPORT} /tmp/try",
            fails=True,
        )
        assert "denied" in told or "No such file" in told or "not permitted" in told, told


def test_versions(client: Machine, name: str) -> None:
    mounts = [line.split() for line in client.run("cat /proc/mounts").splitlines()]
    options = {place: options.split(",") for _device, place, _kind, options, *_ in mounts}
    assert "vers=4.2" in options[f"/mnt/{name}"]
    assert "vers=3" in options[f"/mnt3/{name}"]


def test_owner_and_mode_are_kept(client: Machine, server: Machine, homes: str, name: str) -> None:
    client.run(f"umask 027; echo hello > {homes}/alice/file", uid=UIDS["alice"])
    for machine, path in ((client, homes), (server, f"{EXPORT}/homes"), (client, f"/mnt3/{name}/homes")):
        told = machine.run(f"stat --format='%u %g %a' {path}/alice {path}/alice/file", uid=UIDS["alice"])
        assert told.splitlines() == ["1000 100 700", "1000 100 640"]


def test_another_user_cannot_enter(client: Machine, homes: str, name: str) -> None:
    for path in (homes, f"/mnt3/{name}/homes"):
        assert "Permission denied" in client.run(f"ls {path}/alice", uid=UIDS["bob"], fails=True)
        assert "Permission denied" in client.run(f"echo x > {path}/alice/by-bob", uid=UIDS["bob"], fails=True)
        assert "Permission denied" in client.run(f"ls {path}", uid=UIDS["bob"], fails=True)


def test_root_of_the_client_is_nobody(client: Machine, server: Machine, homes: str, name: str) -> None:
    """It neither sees a home nor takes one away, and nothing there becomes root's."""
    client.run(f"echo mine > {homes}/alice/secret", uid=UIDS["alice"])
    for path in (homes, f"/mnt3/{name}/homes"):
        for attempt in (
            f"ls {path}",
            f"ls {path}/alice",
            f"cat {path}/alice/secret",
            f"chown 0 {path}/alice",
            f"touch /mnt/{name}/x",
        ):
            told = client.run(attempt, fails=True)
            assert "denied" in told or "not permitted" in told, f"{attempt}: {told}"
        assert "not permitted" in client.run(f"rmdir {path}/bob", fails=True)
    client.run(f"touch {homes}/by-root")
    assert server.run(f"stat --format='%U' {EXPORT}/homes/by-root; rm {EXPORT}/homes/by-root") == "nobody"


def test_no_user_touches_another_s_place(client: Machine, homes: str) -> None:
    for attempt in (f"rmdir {homes}/alice", f"mv {homes}/alice {homes}/taken", f"chmod 0777 {homes}/alice"):
        assert "not permitted" in client.run(attempt, uid=UIDS["bob"], fails=True)


def test_without_the_disk_nothing_is_served(server: Machine) -> None:
    """An empty directory in the disk's place would be a lab of empty homes."""
    assert EXPORT in server.run("systemctl show --value --property RequiresMountsFor nfs-server").split()
    assert "nofail" in server.run(f"grep ' {EXPORT} ' /etc/fstab"), "the machine itself boots"


def test_locks_hold(client: Machine, homes: str) -> None:
    told = client.run(f"cd {homes}/alice; flock lock flock --nonblock lock true || echo held", uid=UIDS["alice"])
    assert told == "held"


# ------------------------------------------------------------------ quotas


def test_a_new_home_has_its_limit_within_seconds(client: Machine, homes: str) -> None:
    client.run(f"umask 077; mkdir {homes}/newcomer", uid=1010)
    wait_for_size(client, f"{homes}/newcomer", 20 * KIB)


def test_more_than_the_limit_is_refused_and_less_is_possible_again(client: Machine, homes: str, name: str) -> None:
    home, uid = f"{homes}/alice", UIDS["alice"]
    wait_for_size(client, home, 20 * KIB)
    assert OVER[name] in client.run(fill(home, 25), uid=uid, fails=True)
    assert available(client, home) < KIB
    # Who is over quota can still look, delete, and go on.
    client.run(f"ls {home}; cat {home}/file; rm {home}/big", uid=uid)
    wait_until_free(client, home, 15 * KIB)
    client.run(f"{fill(home, 15)}; rm {home}/big", uid=uid)


def test_users_with_another_limit(client: Machine, homes: str, name: str) -> None:
    home, uid = f"{homes}/large", UIDS["large"]
    wait_for_size(client, home, 40 * KIB)
    client.run(fill(home, 35), uid=uid)
    assert OVER[name] in client.run(fill(home, 10, "more"), uid=uid, fails=True)
    client.run(f"rm {home}/*", uid=uid)


def test_a_shared_limit_counts_both(client: Machine, homes: str, name: str) -> None:
    wait_for_size(client, f"{homes}/ben", 30 * KIB)
    client.run(fill(f"{homes}/ann", 20), uid=UIDS["ann"])
    assert OVER[name] in client.run(fill(f"{homes}/ben", 20), uid=UIDS["ben"], fails=True)
    client.run(f"rm {homes}/ann/big", uid=UIDS["ann"])
    client.run(f"rm -f {homes}/ben/big", uid=UIDS["ben"])
    wait_until_free(client, f"{homes}/ben", 20 * KIB)
    client.run(f"{fill(f'{homes}/ben', 20)}; rm {homes}/ben/big", uid=UIDS["ben"])


def test_what_was_there_before_counts_too(client: Machine, server: Machine, homes: str) -> None:
    """A home that is restored, or was made while nothing was limited, has files of no project."""
    home = f"{EXPORT}/homes/old"
    server.run(f"rm -rf /root/old; mkdir -p /root/old/deep; {fill('/root/old/deep', 8)}; ln -s / /root/old/link")
    server.run(f"cp -a /root/old {home}")
    wait_for_size(client, f"{homes}/old", 20 * KIB)
    server.run("systemctl start jhok-quota.service")
    assert int(client.run(f"df --output=used {homes}/old | tail -n 1")) >= 8 * KIB
    assert int(server.run("lsattr -pd /root | awk '{print $1}'")) == 0


def test_users_are_told_and_cannot_change_it(client: Machine, server: Machine, homes: str, name: str) -> None:
    client.run(fill(f"{homes}/bob", 3), uid=UIDS["bob"])
    server.run("systemctl start jhok-quota.service")
    file = f"/mnt/{name}/usage/bob/home.json"
    told = json.loads(client.run(f"cat {file}", uid=UIDS["bob"]))
    assert (told["limit"], told["shared"]) == (20 * KIB * KIB, None)
    assert 3 * KIB * KIB <= told["used"] < 4 * KIB * KIB
    assert abs(told["time"] - time.time()) < 60
    shared = json.loads(client.run(f"cat /mnt/{name}/usage/ann/home.json", uid=UIDS["ann"]))
    assert (shared["limit"], shared["shared"]) == (30 * KIB * KIB, "class")
    for attempt in (f"echo x > {file}", f"rm -f {file}", f"touch /mnt/{name}/usage/bob/x", f"ls /mnt/{name}/usage"):
        assert "denied" in client.run(attempt, uid=UIDS["bob"], fails=True)


def test_a_run_without_news_changes_nothing(server: Machine, homes: str) -> None:  # noqa: ARG001
    look = f"find {EXPORT}/homes -printf '%p %i %C@\\n' | sort | md5sum"
    assert server.run(f"{look}; systemctl start jhok-quota.service; {look} | uniq").splitlines()[0] == server.run(look)


# ------------------------------------------------------------------ faults


def test_a_restart_of_the_server_loses_nothing(client: Machine, server: Machine, homes: str) -> None:
    """Every line that was written and synced is there, in its order, though the server went away meanwhile."""
    log = f"{homes}/writer/log"
    write = f"i=0; while [ $i -lt {LINES} ]; do echo $i >> {log}; sync {log}; i=$((i+1)); done; echo done"
    with ThreadPoolExecutor() as pool:
        writing = pool.submit(client.run, write, uid=UIDS["writer"])
        begin = time.monotonic()
        while client.run(f"wc -l < {log} 2>/dev/null || true") in ("", "0"):
            assert time.monotonic() < begin + 30
        server.run("systemctl restart nfs-server")
        assert not writing.done(), "the restart came too late to disturb anything"
        assert writing.result() == "done"
    assert server.run(f"cat {EXPORT}/homes/writer/log").split() == [str(number) for number in range(LINES)]


def test_a_full_disk_is_told_and_recovers(client: Machine, server: Machine, homes: str) -> None:
    home, uid = f"{homes}/alice", UIDS["alice"]
    server.run(f"fallocate --length $(($(df --output=avail {EXPORT} | tail -n 1) - 2048))KiB {EXPORT}/filler")
    try:
        assert "No space left on device" in client.run(fill(home, 10), uid=uid, fails=True)
        # The figures of the homes need no room on their disk that a full one would not have.
        server.run("systemctl start jhok-quota.service || true")
    finally:
        server.run(f"rm {EXPORT}/filler")
    client.run(f"rm -f {home}/big", uid=uid)
    wait_until_free(client, home, 10 * KIB)
    client.run(f"{fill(home, 10)}; rm {home}/big", uid=uid)
