"""The collection as people get it: from a clone, and installed from an archive that was built from it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
INVENTORY = ROOT / "inventory" / "example" / "hosts.yml"
DEPENDENCIES = sorted(yaml.safe_load((ROOT / "galaxy.yml").read_text())["dependencies"])


def run(*command: str, cwd: Path, collections: Path | None = None) -> str:
    """Run one of Ansible's programs and return what it prints; without settings of the caller's own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    if collections:
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(collections)
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=cwd, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive of the collection, built from a clone as a release is."""
    directory = tmp_path_factory.mktemp("archive")
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(
        ["tar", "--null", "-T", "-", "--ignore-failed-read", "-cf", str(directory / "tree.tar")],
        cwd=ROOT,
        input=files,
        check=True,
        capture_output=True,
    )
    clone = directory / "clone"
    with tarfile.open(directory / "tree.tar") as tree:
        tree.extractall(clone, filter="tar")
    # What lies about in a clone that has been worked with.
    for name in (
        ".venv/bin/python",
        ".cache/x",
        "inventory/demo/artifacts/kubeconfig",
        "inventory/example/artifacts/key",
        "molecule/inventory/artifacts/kubeconfig",
    ):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text("secret")
    run("ansible-galaxy", "collection", "build", "--output-path", str(directory), cwd=clone)
    return next(directory.glob("jhok-lab-*.tar.gz"))


@pytest.fixture(scope="module")
def installed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory with the installed collection; its dependencies come with the ansible package."""
    directory = tmp_path_factory.mktemp("installed")
    run(
        "ansible-galaxy",
        "collection",
        "install",
        "--offline",
        "--no-deps",
        "-p",
        str(directory),
        str(archive),
        cwd=directory,
    )
    return directory


def test_archive_holds_the_product_and_nothing_else(archive: Path) -> None:
    with tarfile.open(archive) as content:
        names = content.getnames()
    tops = {name.split("/")[0] for name in names}
    assert {"roles", "plugins", "playbooks", "images", "meta", "docs", "LICENSE", "MANIFEST.json"} <= tops
    assert not {".venv", ".cache", ".git", "collections", ".ansible"} & tops
    assert [name for name in names if "/artifacts/" in name or name.endswith((".pyc", ".tar.gz"))] == []
    assert [name for name in names if name.startswith(("inventory/demo", "molecule/inventory"))] == []


def test_dependencies_are_in_the_ansible_package() -> None:
    listed = json.loads(run("ansible-galaxy", "collection", "list", "--format", "json", cwd=ROOT))
    assert [name for name in DEPENDENCIES if not any(name in found for found in listed.values())] == []


def test_installed_collection_has_its_playbook(installed: Path) -> None:
    listed = run(
        "ansible-playbook", "jhok.lab.site", "--list-tasks", "-i", str(INVENTORY), cwd=installed, collections=installed
    )
    assert "jhok.lab.jupyterhub" in listed or "jupyterhub :" in listed


@pytest.mark.parametrize("inventory", ["example", "demo"])
def test_clone_has_its_playbook(inventory: str) -> None:
    hosts = ROOT / "inventory" / inventory / "hosts.yml"
    listed = run("ansible-playbook", "site.yml", "--list-tasks", "-i", str(hosts), cwd=ROOT)
    assert "jupyterhub :" in listed


@pytest.mark.parametrize("kind", ["module", "filter"])
def test_plugins_are_documented_where_they_are_installed(kind: str, installed: Path) -> None:
    listed = run("ansible-doc", "-t", kind, "-l", "-j", "jhok.lab", cwd=installed, collections=installed)
    names = sorted(json.loads(listed))
    assert names
    shown = run("ansible-doc", "-t", kind, "-j", *names, cwd=installed, collections=installed)
    documents: dict[str, Any] = json.loads(shown)
    assert sorted(documents) == names
    assert [name for name, document in documents.items() if not document.get("examples")] == []
    if kind == "module":  # what it shares with others comes from a documentation fragment
        assert {"url", "service_token", "user"} <= set(documents["jhok.lab.hub_journey"]["doc"]["options"])
