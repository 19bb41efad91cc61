"""The site that is lost and comes back, as molecule/backup tells of it."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient

ROOT = Path(__file__).parents[2]
CONTENT = ROOT / "tests/lab/home_content.py"
START_SECONDS = 180
USERS = ("anna", "ben")


@dataclass
class Lab:
    """What molecule/backup says of the lab."""

    url: str
    ssh: str  # to the machine of the homes, which is the control plane host
    homes: str
    secrets: str
    site: str
    variables: str  # file of the scenario's variables
    kept: str  # file for what is known of the site when it is lost

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

    def confirmed(self) -> list[str]:
        """Return the options that say yes to what cannot be taken back."""
        return ["--extra-vars", json.dumps({"restore_confirm": self.site, "archive_confirm": self.site})]

    def visitor(self, user: str, password: str) -> HubClient:
        """Return a browser in which a user has just signed in and whose server runs."""
        client = HubClient(self.url)
        client.sign_in(user, password)
        client.stop_server(user, 60)  # what a broken-off run has left
        client.start_server(user, {}, START_SECONDS)
        client.lab_page(user)  # brings the server's cookies
        return client
