"""What people learn of the room that their home takes. The lab's kernel enforces no quotas: they are told, not held."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from lab import wait_for
from people import Person, Site

ROOT = Path(__file__).parents[2]
SAY = "import subprocess; print(subprocess.run(['home-usage'], capture_output=True, text=True, check=True).stdout)"


def test_a_terminal_begins_with_what_the_server_says(site: Site, ada: Person, linus: Person) -> None:
    """Each learns of the own home only, and nobody can write there."""
    site.run(site.nfs_server, "systemctl start jhok-quota")  # its timer would measure every 15 minutes
    for person in (ada, linus):
        said = wait_for("the server's word", lambda person=person: person.run(SAY), 90, 3)
        assert said.startswith("Your home has 0.0 of 1.0 GB in use."), said
    look = "import os; print(sorted(os.listdir('/run/jhok/home')))\ntry: open('/run/jhok/home/home.json', 'w')\n"
    assert ada.run(f"{look}except OSError as error: print(error.strerror)").splitlines() == [
        "['home.json']",
        "Read-only file system",
    ]


def test_what_the_server_cannot_enforce_is_refused() -> None:
    """Before anything is changed, and with the way out."""
    variables = ROOT / "molecule" / "homes" / "vars" / "site.yml"
    command = ["ansible-playbook", "site.yml", "--tags", "nfs_server", "--extra-vars", f"@{variables}"]
    done = subprocess.run(
        [*command, "--extra-vars", "storage_quota_mode=enforce"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode
    assert "storage_quota_mode: report" in " ".join(done.stdout.split())
    assert "changed=0" in done.stdout
