"""What the two users do."""

from __future__ import annotations

import bisect
import threading
import time
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
WORK_SECONDS = 3600  # longer than all tests together

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
    work: dict[str, Forever] = field(default_factory=dict)  # what goes on


def home_sizes(site: Site) -> dict[str, int]:
    """Return what each home takes on the server, in bytes, as du says."""
    lines = site.run(site.nfs_server, f"cd {site.homes} && sync && du -s -B1 -- *").splitlines()
    return {name: int(size) for size, _, name in (line.partition("\t") for line in lines)}


class Forever(threading.Thread):
    """Does something over and over until it is stopped, notes when it was done, and goes on after a failure."""

    def __init__(self, work: Callable[[], object], every: float = 0) -> None:
        super().__init__(daemon=True)
        self.done: list[float] = []
        self.failures: list[str] = []
        self._work, self._every, self._end = work, every, threading.Event()
        self.start()

    def run(self) -> None:
        due = time.monotonic()
        while not self._end.is_set():
            try:
                self._work()
                self.done.append(time.time())
            except (HubError, OSError) as error:  # those of requests are OSErrors
                self.failures.append(f"{time.time():.0f}: {error}")
                self._end.wait(1)
            due = max(due + self._every, time.monotonic() - self._every)
            self._end.wait(max(0, due - time.monotonic()))

    def stop(self) -> None:
        """Begin nothing more."""
        self._end.set()

    def times(self, first: float, last: float) -> int:
        """Return how often it was done within a time."""
        return bisect.bisect(self.done, last) - bisect.bisect(self.done, first)
