"""What the two users do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError
from lab import Receiver, Site

BURNER, MOVER = "ada", "linus"
DOWNLOAD = 200_000_000  # bytes, at once
PIECE_IN, PIECE_OUT = 1_000_000, 500_000  # bytes each second, afterwards
FILL = 64 * 1024 * 1024  # bytes
START_SECONDS = 180
HUB_REQUESTS = 2  # per second

BURN = "while True: pass"
FILL_HOME = f"""
import os, pathlib
with pathlib.Path.home().joinpath("filled").open("wb") as file:
    file.write(os.urandom({FILL}))
    file.flush()
    os.fsync(file.fileno())
"""
MOVE = """
import time, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
def get(count):
    with opener.open(f"{url}/bytes/{{count}}") as answer:
        while answer.read(1 << 20):
            pass
get({download})
due = time.monotonic()
while True:
    get({piece_in})
    opener.open("{url}/sink", data=bytes({piece_out})).close()
    due += 1
    time.sleep(max(0, due - time.monotonic()))
"""


@dataclass
class Activity:
    """What the users do, and what was counted before."""

    began: float  # when the download began
    before: float  # when `site` had not seen anything of it
    receiver: Receiver
    clients: dict[str, HubClient]
    homes: dict[str, int]  # bytes of each home before one was filled
    starts: list[float] = field(default_factory=list)  # seconds that each server took


def home_sizes(site: Site) -> dict[str, int]:
    """Return what each home takes on the server, in bytes, as du says."""
    lines = site.run(site.nfs_server, f"cd {site.homes} && sync && du -s -B1 -- *").splitlines()
    return {name: int(size) for size, _, name in (line.partition("\t") for line in lines)}


class Forever(threading.Thread):
    """Does what does not end by itself; that it is broken off at the end is no failure."""

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.start()

    def run(self) -> None:
        with contextlib.suppress(HubError, OSError):
            self.work()
