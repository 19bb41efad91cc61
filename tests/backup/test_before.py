"""On a lab: work, and back up meanwhile. What was there is written down for test_after."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

import requests
import websocket
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError
from lost_site import CONTENT, USERS, Lab

# Writes until its server is lost: every line is on the server's disk before the next one.
WRITER = """
import os, pathlib
with pathlib.Path.home().joinpath("log.txt").open("a") as file:
    for number in range(10**9):
        file.write(f"{number:08}\\n")
        file.flush()
        os.fsync(file.fileno())
"""


def write(client: HubClient) -> None:
    """Write in a server until it goes, which is no failure."""
    with contextlib.suppress(HubError, requests.RequestException, websocket.WebSocketException, OSError):
        client.run("anna", WRITER, 900)


def test_a_backup_is_made_while_people_work(lab: Lab) -> None:
    passwords = {user: lab.password(user) for user in USERS}
    anna = lab.visitor("anna", passwords["anna"])
    lab.visitor("ben", passwords["ben"]).stop_server("ben", 60)
    for user in USERS:
        home = f"{lab.homes}/{user}"
        lab.on_machine(f"rm -rf {home}/kept")
        lab.on_machine(f"install -d -o $(stat -c %u {home}) -g $(stat -c %g {home}) {home}/kept")
        lab.on_machine(f"python3 - fill {home}/kept", CONTENT)
    before = {user: lab.facts(user) for user in USERS}
    threading.Thread(target=write, args=[anna], daemon=True).start()
    anna.run(
        "anna", "import pathlib, time\nwhile not pathlib.Path('~/log.txt').expanduser().exists(): time.sleep(1)", 60
    )

    done = lab.playbook("playbooks/backup.yml")
    assert done.returncode == 0, done.stdout
    assert "Snapshot " in done.stdout

    for options, reason in (([], "restore_confirm"), (lab.confirmed(), "anna")):
        done = lab.playbook("playbooks/restore.yml", "-e", "restore=all", *options)
        assert done.returncode
        assert "Nothing has been touched" in done.stdout
        assert reason in done.stdout
    assert before == {user: lab.facts(user) for user in USERS}
    Path(lab.kept).write_text(json.dumps({"passwords": passwords, "facts": before}))
