from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils.storage import StorageSettings, storage_objects

GOLDEN = Path(__file__).parents[1] / "golden" / "storage"

LAB: StorageSettings = {
    "namespace": "jupyterhub",
    "nfs_server": "172.16.0.100",
    "nfs_path": "/data/nfs",
    "nfs_mount_options": ["nfsvers=4", "hard", "noatime"],
    "homes_size": "1Ti",
    "hub_db_node": "master",
    "hub_db_path": "/var/lib/jhok/hub",
}
OTHER: StorageSettings = {
    "namespace": "hub",
    "nfs_server": "nas.example.org",
    "nfs_path": "/export/lab",
    "nfs_mount_options": ["nfsvers=3", "hard", "nolock"],
    "homes_size": "20Ti",
    "hub_db_node": "node7",
    "hub_db_path": "/srv/hub/",
}


def by_key(objects: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(o["kind"], o["metadata"]["name"]): o for o in objects}


@pytest.mark.parametrize(("name", "settings"), [("lab", LAB), ("other", OTHER)])
def test_whole_objects(name: str, settings: StorageSettings) -> None:
    text = yaml.safe_dump_all(storage_objects(settings), sort_keys=False, explicit_start=True)
    golden = GOLDEN / f"{name}.yml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text(), "see the difference; UPDATE_GOLDEN=1 writes the file anew"


@pytest.mark.parametrize("volume", ["homes", "hub-db"])
def test_volume_and_claim_are_made_for_one_another(volume: str) -> None:
    objects = by_key(storage_objects(OTHER))
    pv, pvc = objects["PersistentVolume", volume]["spec"], objects["PersistentVolumeClaim", volume]
    assert pv["claimRef"]["namespace"] == pvc["metadata"]["namespace"] == "hub"
    assert pv["claimRef"]["name"] == volume
    assert pvc["spec"]["volumeName"] == volume
    assert pv["accessModes"] == pvc["spec"]["accessModes"]
    assert "storageClassName" not in pv
    assert pvc["spec"]["storageClassName"] == "", "without it the cluster's default provisioner takes the claim"
    assert pv["persistentVolumeReclaimPolicy"] == "Retain"


def test_a_bigger_capacity_leaves_the_claim_alone() -> None:
    """A claim's request cannot be changed, so it must not follow the size."""
    bigger: StorageSettings = {**LAB, "homes_size": "9Ti"}
    before, after = by_key(storage_objects(LAB)), by_key(storage_objects(bigger))
    assert [key for key in before if before[key] != after[key]] == [("PersistentVolume", "homes")]


def test_the_database_is_never_on_nfs() -> None:
    spec = by_key(storage_objects(LAB))["PersistentVolume", "hub-db"]["spec"]
    assert "nfs" not in spec
    assert spec["local"] == {"path": "/var/lib/jhok/hub/db"}
