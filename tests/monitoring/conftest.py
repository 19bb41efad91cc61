"""Two users who work on the lab, whose traces are then looked for. molecule/monitoring says where the lab is.

    JHOK_MONITORING_SITE  a JSON file, see lab.Site
    JHOK_SCREENSHOTS      when set, the pictures of docs/admin/monitoring.md are made anew

The activity goes on while the files are worked through in the order of their names: rates over two minutes have to be
full before they are compared.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from activity import (
    BURN,
    BURNER,
    DOWNLOAD,
    FILL_HOME,
    HUB_REQUESTS,
    MOVE,
    MOVER,
    PIECE_IN,
    PIECE_OUT,
    START_SECONDS,
    WORK_SECONDS,
    Activity,
    Forever,
    home_sizes,
)
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError
from facts import alertmanager_alerts
from lab import EXPORTER, Receiver, Site, Visitor, Watch, wait_for

GROUP_SECONDS = 300  # after which Alertmanager tells what has changed in a group
MAX_FAILURES = 5  # of what goes on, each tried again a second later


def pytest_configure(config: pytest.Config) -> None:
    if not os.environ.get("JHOK_MONITORING_SITE") and not config.option.collectonly:
        pytest.exit("JHOK_MONITORING_SITE is not set: these tests are run by molecule's scenario `monitoring`.", 4)


@pytest.fixture(scope="session")
def site() -> Site:
    return Site(**json.loads(Path(os.environ["JHOK_MONITORING_SITE"]).read_text()))


@pytest.fixture(scope="session")
def admin(site: Site) -> Visitor:
    """Give one who asks with the page's password, as a script does."""
    return Visitor(site, site.password)


@pytest.fixture(scope="session")
def person(site: Site) -> Visitor:
    """Give a user of the hub who is no admin, signed in at the page."""
    visitor = Visitor(site)
    visitor.sign_in(MOVER)
    return visitor


@pytest.fixture(scope="session")
def watches(site: Site) -> Iterator[dict[str, Watch]]:
    watches = {name: Watch(command) for name, command in site.machines.items()}
    yield watches
    for watch in watches.values():
        watch.stop()


@pytest.fixture(scope="session")
def receiver(site: Site) -> Iterator[Receiver]:
    receiver = Receiver(site.receiver)
    yield receiver
    receiver.stop()


def forget_earlier_run(site: Site) -> None:
    """Undo what a run that was broken off has left: a stopped exporter, and its alert, which would not be told anew."""
    for machine in site.machines:
        site.run(machine, f"systemctl start {EXPORTER}")

    def is_over() -> bool:
        return not any(alert["labels"]["alertname"] == "ExporterStopped" for alert in alertmanager_alerts(site))

    if not is_over():
        wait_for("the alert of an earlier run is over", is_over, 240, 2)
        time.sleep(GROUP_SECONDS + 10)  # only then Alertmanager has told of the end and takes a new one as new


@pytest.fixture(scope="session", autouse=True)
def activity(site: Site, admin: Visitor, watches: dict[str, Watch], receiver: Receiver) -> Iterator[Activity]:
    forget_earlier_run(site)
    before = time.time()
    for watch in watches.values():
        watch.wait(before)
    with pytest.raises(HubError):
        HubClient(site.hub_url).sign_in(BURNER, "wrong")
    clients = {user: HubClient(site.hub_url, timeout=60) for user in (BURNER, MOVER)}
    starts: list[float] = []
    work = []
    going_on: dict[str, Forever] = {}

    def start(user: str) -> None:
        begin = time.monotonic()
        clients[user].start_server(user, {"environment": "standard"}, START_SECONDS)
        starts.append(time.monotonic() - begin)

    try:
        for user, visitor in clients.items():
            visitor.sign_in(user, site.passwords[user])
            visitor.stop_server(user, START_SECONDS)
        work = [threading.Thread(target=start, args=[user]) for user in clients]
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        assert len(starts) == len(clients), "a server did not start"

        site.run(site.nfs_server, "systemctl start jhok-homes")  # measures the homes now

        def seen() -> bool:
            pods = {labels["user"] for labels, _ in admin.query("user:network_receive_bytes:rate2m > 0")}
            homes = {labels["user"] for labels, _ in admin.query("jhok_home_bytes")}
            return pods & homes >= {BURNER, MOVER}

        wait_for("Prometheus sees both servers and homes", seen, 240)
        homes = home_sizes(site)
        for user, visitor in clients.items():
            visitor.lab_page(user)  # brings the server's cookies
        clients[BURNER].run(BURNER, FILL_HOME, 60)
        began = time.time()
        move = MOVE.format(url=receiver.url, download=DOWNLOAD, piece_in=PIECE_IN, piece_out=PIECE_OUT)
        asked = requests.Session()
        asked.trust_env = False

        def ask() -> None:
            asked.get(f"{site.hub_url}/hub/api/", timeout=30).raise_for_status()

        going_on = {
            "burning": Forever(lambda: clients[BURNER].run(BURNER, BURN, WORK_SECONDS)),
            "moving": Forever(lambda: clients[MOVER].run(MOVER, move, WORK_SECONDS)),
            "asking": Forever(ask, 1 / HUB_REQUESTS),
        }
        wait_for("the download", lambda: receiver.given >= DOWNLOAD, 240)
        yield Activity(began, before, receiver, clients, homes, starts, going_on)
        failed = {name: each.failures for name, each in going_on.items() if len(each.failures) > MAX_FAILURES}
        ended = [name for name, each in going_on.items() if not each.is_alive()]
        assert not failed, f"what was to go on broke off again and again: {failed}"
        assert not ended, f"what was to go on has ended: {ended}"
    finally:
        for each in going_on.values():
            each.stop()
        for user, visitor in clients.items():
            with contextlib.suppress(HubError, requests.RequestException):
                visitor.stop_server(user, 90)
