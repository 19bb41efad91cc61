"""On a lab: work, back up meanwhile, lose everything, restore, go on working (molecule/backup)."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError

ROOT = Path(__file__).parents[2]
CONTENT = ROOT / "tests/lab/home_content.py"
START_SECONDS = 180
# Writes until its server is stopped: every line is on the server's disk before the next one.
WRITER = """
import os, pathlib
with pathlib.Path.home().joinpath("log.txt").open("a") as file:
    for number in range(10**9):
        file.write(f"{number:08}\\n")
        file.flush()
        os.fsync(file.fileno())
"""


@dataclass
class Lab:
    """What molecule/backup says of the lab."""

    url: str
    ssh: str  # to the machine of the homes, which is the control plane host
    homes: str
    database: str
    secrets: str
    site: str
    variables: str  # file of the scenario's variables

    def on_machine(self, command: str, program: Path | None = None) -> str:
        """Run a command on the machine, with a program as its standard input."""
        done = subprocess.run(
            [*shlex.split(self.ssh), command],
            input=program.read_text() if program else "",
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def facts(self, user: str) -> dict[str, Any]:
        """Return what is in a home, without what changes while a server runs."""
        found = json.loads(self.on_machine(f"python3 - facts {self.homes}/{user}/kept", CONTENT))
        assert len(found) > 10_000
        return dict(found)

    def password(self, user: str) -> str:
        """Return the password that the machine has for a user now."""
        return str(
            json.loads(self.on_machine(f"cat {self.secrets}"))["secrets"][f"jupyterhub/password/{user}"]["value"]
        )

    def playbook(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a playbook with the scenario's variables."""
        command = ["ansible-playbook", str(ROOT / name), "--extra-vars", f"@{self.variables}", *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)

    def visitor(self, user: str, password: str) -> HubClient:
        """Return a browser in which a user has just signed in and whose server runs."""
        client = HubClient(self.url)
        client.sign_in(user, password)
        client.stop_server(user, 60)  # what a broken-off run has left
        client.start_server(user, {}, START_SECONDS)
        client.lab_page(user)  # brings the server's cookies
        return client


@pytest.fixture(scope="module")
def lab() -> Lab:
    given = os.environ.get("JHOK_BACKUP_SITE")
    if not given:
        pytest.fail("JHOK_BACKUP_SITE names no lab: molecule/backup sets it.", pytrace=False)
    return Lab(**json.loads(Path(given).read_text()))


def test_everything_comes_back_after_everything_was_lost(lab: Lab) -> None:
    passwords = {user: lab.password(user) for user in ("anna", "ben")}
    anna = lab.visitor("anna", passwords["anna"])
    lab.visitor("ben", passwords["ben"]).stop_server("ben", 60)
    for user in passwords:
        home = f"{lab.homes}/{user}"
        lab.on_machine(f"rm -rf {home}/kept")
        lab.on_machine(f"install -d -o $(stat -c %u {home}) -g $(stat -c %g {home}) {home}/kept")
        lab.on_machine(f"python3 - fill {home}/kept", CONTENT)
    before = {user: lab.facts(user) for user in passwords}
    writer = threading.Thread(target=write, args=[anna], daemon=True)
    writer.start()
    anna.run(
        "anna", "import pathlib, time\nwhile not pathlib.Path('~/log.txt').expanduser().exists(): time.sleep(1)", 60
    )

    done = lab.playbook("playbooks/backup.yml")
    assert done.returncode == 0, done.stdout
    assert "Snapshot " in done.stdout

    confirm = ["--extra-vars", json.dumps({"restore_confirm": lab.site})]
    for options, reason in ((["-e", "restore=all"], "restore_confirm"), (["-e", "restore=all", *confirm], "anna")):
        done = lab.playbook("playbooks/restore.yml", *options)
        assert done.returncode
        assert "Nothing has been touched" in done.stdout
        assert reason in done.stdout
    assert before == {user: lab.facts(user) for user in passwords}

    # The machine is lost, and made again by site.yml with the password that the control machine has kept.
    lost = f"{lab.homes}/anna {lab.homes}/ben {lab.database}* {lab.secrets} /var/lib/jhok/backup /etc/jhok/backup.json"
    lab.on_machine(f"rm -rf {lost}")
    done = lab.playbook("site.yml", "--tags", "jupyterhub,monitoring,backup", "--skip-tags", "summary")
    assert done.returncode == 0, done.stdout
    assert lab.password("anna") != passwords["anna"]
    done = lab.playbook("playbooks/restore.yml", "-e", "restore=all restore_stop_servers=true", *confirm)
    assert done.returncode == 0, done.stdout
    writer.join(60)
    assert not writer.is_alive()

    assert before == {user: lab.facts(user) for user in passwords}
    assert lab.password("anna") == passwords["anna"]
    lines = lab.on_machine(f"cat {lab.homes}/anna/log.txt").splitlines()
    assert lines
    assert lines[:-1] == [f"{number:08}" for number in range(len(lines) - 1)]
    for user, password in passwords.items():
        client = lab.visitor(user, password)
        said = client.run(user, "import pathlib; print(pathlib.Path.home().joinpath('kept/secret').read_text())", 60)
        assert said.strip() == "only for me"
        client.stop_server(user, 60)


def write(client: HubClient) -> None:
    """Write in a server until it is stopped, which is no failure."""
    with contextlib.suppress(HubError, requests.RequestException, websocket.WebSocketException, OSError):
        client.run("anna", WRITER, 900)


def test_a_file_comes_back_and_an_archive_is_made(lab: Lab) -> None:
    file = f"{lab.homes}/ben/kept/small/7/7.txt"
    lab.on_machine(f"echo spoilt > {file}")
    confirm = ["--extra-vars", json.dumps({"restore_confirm": lab.site, "archive_confirm": lab.site})]
    options = ["-e", "restore=file restore_user=ben restore_path=kept/small/7/7.txt", *confirm]
    done = lab.playbook("playbooks/restore.yml", *options)
    assert done.returncode == 0, done.stdout
    assert lab.on_machine(f"cat {file}") == "file 7\n"
    assert lab.on_machine(f"cat {file}.before-restore-*") == "spoilt\n"

    done = lab.playbook("playbooks/user_archive.yml", "-e", "user=ben")
    assert done.returncode
    assert "has not been touched" in done.stdout
    before = lab.facts("ben")
    done = lab.playbook("playbooks/user_archive.yml", "-e", "user=ben", *confirm)
    assert done.returncode == 0, done.stdout
    assert lab.on_machine(f"ls {lab.homes}").split().count("ben") == 0
    kept = "--acls --xattrs --xattrs-include='*' --numeric-owner --sparse"
    archive = f"$(ls {lab.homes}/../archive/ben-*.tar.zst)"
    lab.on_machine(f"tar --extract --zstd {kept} --file={archive} --directory={lab.homes}")
    assert lab.facts("ben") == before
