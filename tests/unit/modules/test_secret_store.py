"""The module as Ansible runs it, on real files."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.jhok.lab.plugins.module_utils import secrets as store_lib
from ansible_collections.jhok.lab.plugins.modules import secret_store

COOKIE = {"name": "hub/cookie", "kind": "hex", "length": 64}
PASSWORD = {"name": "hub/password/demo", "kind": "alphanumeric", "length": 16, "announce": True}
HASH = {"name": "hub/password-hash/demo", "kind": "scrypt", "source": "hub/password/demo"}
ALL = [HASH, COOKIE, PASSWORD]  # the hash before its source: order must not matter


class Store:
    """Runs the module on one file."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys

    def __call__(self, check: bool = False, **args: object) -> dict[str, Any]:
        with (
            patch_module_args({"path": str(self.path), "_ansible_check_mode": check, **args}),
            pytest.raises(SystemExit),
        ):
            secret_store.main()
        result: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return result

    def records(self) -> dict[str, Any]:
        records: dict[str, Any] = json.loads(self.path.read_text())["secrets"]
        return records


@pytest.fixture
def store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Store:
    return Store(tmp_path / "jhok" / "secrets.json", capsys)


def scrypt_matches(password: str, encoded: str) -> bool:
    _scheme, n, r, p, salt, digest = encoded.split("$")
    made = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=int(n), r=int(r), p=int(p), dklen=32)
    return made.hex() == digest


def test_first_run_makes_and_second_keeps(store: Store) -> None:
    first = store(entries=ALL)
    assert first["changed"] is True
    assert sorted(first["created"]) == sorted(entry["name"] for entry in ALL)
    assert len(first["secrets"]["hub/cookie"]) == 64
    assert bytes.fromhex(first["secrets"]["hub/cookie"])
    assert len(first["secrets"]["hub/password/demo"]) == 16
    assert set(first["secrets"]["hub/password/demo"]) <= set(store_lib.ALPHANUMERIC)
    assert scrypt_matches(first["secrets"]["hub/password/demo"], first["secrets"]["hub/password-hash/demo"])
    inode = store.path.stat().st_ino

    second = store(entries=ALL)
    assert second["changed"] is False
    assert second["created"] == []
    assert second["secrets"] == first["secrets"]
    assert store.path.stat().st_ino == inode, "an unchanged store is not written"


def test_file_and_directory_are_the_owners_alone(store: Store) -> None:
    old = os.umask(0)
    try:
        store(entries=ALL)
    finally:
        os.umask(old)
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in store.path.parent.iterdir()] == ["secrets.json"], "nothing is left beside it"


def test_check_mode_on_a_bare_host_writes_nothing_and_says_so(store: Store) -> None:
    result = store(check=True, entries=ALL)
    assert result["changed"] is True
    assert result["secrets"]["hub/cookie"] == "would-create:hub/cookie"
    assert result["secrets"]["hub/password-hash/demo"] == "would-create:hub/password-hash/demo"
    assert store(check=True, announced=["hub/password/demo"])["changed"] is False
    assert not store.path.parent.exists()


def test_check_mode_reads_what_is_there(store: Store) -> None:
    real = store(entries=ALL)
    text = store.path.read_text()
    more = {"name": "hub/new", "kind": "hex"}
    result = store(check=True, entries=[*ALL, more])
    assert result["created"] == ["hub/new"]
    assert result["secrets"] == {**real["secrets"], "hub/new": "would-create:hub/new"}
    assert store.path.read_text() == text


def test_other_entries_stay(store: Store) -> None:
    first = store(entries=[COOKIE])
    second = store(entries=[PASSWORD])
    assert set(second["secrets"]) == {"hub/password/demo"}
    assert store.records()["hub/cookie"]["value"] == first["secrets"]["hub/cookie"]


def test_a_password_is_announced_once(store: Store) -> None:
    assert store(entries=ALL)["unannounced"] == ["hub/password/demo"]
    assert store(entries=ALL)["unannounced"] == ["hub/password/demo"], "a run that ended early told nobody"
    assert store(announced=["hub/password/demo"])["changed"] is True
    assert store(announced=["hub/password/demo"])["changed"] is False
    assert store(entries=ALL)["unannounced"] == []


def test_a_value_that_was_kept_elsewhere_is_taken_once(store: Store) -> None:
    kept = {**PASSWORD, "value": "kept-in-a-safe-place"}
    seen = store(check=True, entries=[kept])
    assert seen["secrets"] == {"hub/password/demo": "kept-in-a-safe-place"}
    first = store(entries=[kept])
    assert (first["changed"], first["unannounced"]) == (True, []), "who has kept it need not be told"
    assert first["secrets"] == {"hub/password/demo": "kept-in-a-safe-place"}
    assert store(entries=[kept])["changed"] is False
    assert store(entries=[{**kept, "value": ""}])["changed"] is False
    other = store(entries=[{**kept, "value": "another-one-of-somebody"}])
    assert other["failed"]
    assert "another value of `hub/password/demo`" in other["msg"]
    assert "another-one-of-somebody" not in other["msg"]
    assert store.records()["hub/password/demo"]["value"] == "kept-in-a-safe-place"


def test_a_changed_password_gets_a_new_hash(store: Store) -> None:
    before = store(entries=ALL)["secrets"]
    document = json.loads(store.path.read_text())
    document["secrets"]["hub/password/demo"]["value"] = "chosen by an admin"
    store.path.write_text(json.dumps(document))
    after = store(entries=ALL)
    assert after["created"] == ["hub/password-hash/demo"]
    assert scrypt_matches("chosen by an admin", after["secrets"]["hub/password-hash/demo"])
    assert after["secrets"]["hub/cookie"] == before["hub/cookie"]


def test_diff_has_names_and_no_values(store: Store) -> None:
    result = store(entries=ALL)
    assert result["diff"]["before"] == ""
    assert result["diff"]["after"].splitlines() == [
        "hub/cookie: hex",
        "hub/password-hash/demo: scrypt",
        "hub/password/demo: alphanumeric, not announced",
    ]
    for value in result["secrets"].values():
        assert value not in json.dumps(result["diff"])


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660])
def test_a_file_that_others_can_read_is_refused(store: Store, mode: int) -> None:
    value = store(entries=[COOKIE])["secrets"]["hub/cookie"]
    store.path.chmod(mode)
    result = store(entries=[COOKIE])
    assert result["failed"] is True
    assert f"{store.path}: has mode {mode:04o}" in result["msg"]
    assert f"chmod 0600 {store.path}" in result["msg"]
    assert value not in json.dumps(result)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not valid JSON"),
        ('{"format": 1, "secrets": {"hub/cookie": {"kind": "hex", "value": "topsecret"}', "is not valid JSON"),
        ("\udcff", "is not valid JSON"),
        ("[]", "is not a store of format 1"),
        ('{"format": 2, "secrets": {}}', "is not a store of format 1"),
        ('{"format": 1, "secrets": ["topsecret"]}', "has no mapping `secrets`"),
        ('{"format": 1, "secrets": {"a": "topsecret"}}', "holds a damaged record `a`"),
        ('{"format": 1, "secrets": {"a": {"kind": "hex", "value": ""}}}', "holds a damaged record `a`"),
    ],
)
def test_a_corrupt_file_is_refused_and_kept(store: Store, text: str, reason: str) -> None:
    store.path.parent.mkdir()
    store.path.touch(0o600)
    store.path.write_text(text, errors="surrogateescape")
    before = store.path.read_bytes()
    result = store(entries=[COOKIE])
    assert f"{store.path}: {reason}: restore it from a backup" in result["msg"]
    assert "topsecret" not in json.dumps(result)
    assert store.path.read_bytes() == before


def test_a_symlink_is_refused(store: Store, tmp_path: Path) -> None:
    store(entries=[COOKIE])
    store.path.rename(tmp_path / "elsewhere.json")
    store.path.symlink_to(tmp_path / "elsewhere.json")
    assert "must be a plain file" in store(entries=[COOKIE])["msg"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(store: Store) -> None:
    store(entries=[COOKIE])
    os.chown(store.path, 1234, 0)
    assert "belongs to uid 1234, not to uid 0" in store(entries=[COOKIE])["msg"]


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([COOKIE, COOKIE], "names a secret twice"),
        ([{"name": "../up", "kind": "hex"}], "is no name for a secret"),
        ([{"name": "a", "kind": "hex", "length": 8}], "can be guessed"),
        ([HASH], "`source` must name a generated entry"),
        ([{"name": "a", "kind": "scrypt"}], "`source` must name a generated entry"),
    ],
)
def test_entries_without_sense_are_refused(store: Store, entries: list[dict[str, Any]], reason: str) -> None:
    assert reason in store(entries=entries)["msg"]
    assert not store.path.exists()


def test_announcing_an_unknown_name_is_refused(store: Store) -> None:
    assert "does not hold" in store(announced=["hub/password/nobody"])["msg"]


def test_a_failed_write_leaves_the_old_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store(entries=[COOKIE])
    before = store.path.read_text()

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device", "secrets.json")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in store(entries=ALL)["msg"]
    assert store.path.read_text() == before
    assert [p.name for p in store.path.parent.iterdir()] == ["secrets.json"]


def test_runs_at_the_same_time_agree(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    entries = [store_lib.Entry(f"name{i}", "hex", 64) for i in range(20)]
    seen: list[dict[str, str]] = []

    def work() -> None:
        with secret_store.locked(tmp_path):
            outcome = store_lib.ensure(secret_store.read(path) or store_lib.empty(), entries, [])
            secret_store.write(path, store_lib.serialise(outcome.store))
            seen.append(outcome.values)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert all(values == seen[0] for values in seen)


def test_examples_are_what_the_module_takes(store: Store) -> None:
    tasks = yaml.safe_load(secret_store.EXAMPLES)
    for task in tasks:
        assert task["no_log"] is True
        assert "failed" not in store(**task["jhok.lab.secret_store"])
