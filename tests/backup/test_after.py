"""On another lab, which is empty: restore, find all as it was, go on working."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lost_site import USERS, Lab


@pytest.fixture(scope="module")
def kept(lab: Lab) -> dict[str, Any]:
    """What there was before."""
    return dict(json.loads(Path(lab.kept).read_text()))


def test_everything_comes_back_after_everything_was_lost(lab: Lab, kept: dict[str, Any]) -> None:
    assert "anna" not in lab.on_machine(f"ls {lab.homes}").split()
    assert all(lab.password(user) != kept["passwords"][user] for user in USERS)
    # Somebody is too fast.
    anna = lab.visitor("anna", lab.password("anna"))
    assert anna.run("anna", "import os; print(os.path.exists(os.path.expanduser('~/kept')))", 60).strip() == "False"

    done = lab.playbook("playbooks/restore.yml", "-e", "restore=all restore_stop_servers=true", *lab.confirmed())
    assert done.returncode == 0, done.stdout

    assert {user: lab.facts(user) for user in USERS} == kept["facts"]
    assert {user: lab.password(user) for user in USERS} == kept["passwords"]
    lines = lab.on_machine(f"cat {lab.homes}/anna/log.txt").splitlines()
    assert lines
    assert lines[:-1] == [f"{number:08}" for number in range(len(lines) - 1)]
    for user, password in kept["passwords"].items():
        client = lab.visitor(user, password)
        said = client.run(user, "import pathlib; print(pathlib.Path.home().joinpath('kept/secret').read_text())", 60)
        assert said.strip() == "only for me"
        client.stop_server(user, 60)


def test_a_file_comes_back_and_an_archive_is_made(lab: Lab) -> None:
    file = f"{lab.homes}/ben/kept/small/7/7.txt"
    lab.on_machine(f"echo spoilt > {file}")
    options = ["-e", "restore=file restore_user=ben restore_path=kept/small/7/7.txt", *lab.confirmed()]
    done = lab.playbook("playbooks/restore.yml", *options)
    assert done.returncode == 0, done.stdout
    assert lab.on_machine(f"cat {file}") == "file 7\n"
    assert lab.on_machine(f"cat {file}.before-restore-*") == "spoilt\n"

    done = lab.playbook("playbooks/user_archive.yml", "-e", "user=ben")
    assert done.returncode
    assert "has not been touched" in done.stdout
    before = lab.facts("ben")
    done = lab.playbook("playbooks/user_archive.yml", "-e", "user=ben", *lab.confirmed())
    assert done.returncode == 0, done.stdout
    assert lab.on_machine(f"ls {lab.homes}").split().count("ben") == 0
    kept = "--acls --xattrs --xattrs-include='*' --numeric-owner --sparse"
    archive = f"$(ls {lab.homes}/../archive/ben-*.tar.zst)"
    lab.on_machine(f"tar --extract --zstd {kept} --file={archive} --directory={lab.homes}")
    assert lab.facts("ben") == before
