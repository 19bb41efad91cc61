"""Kubernetes objects of role `storage`: the namespace, the homes' volume and the hub database's volume."""

from __future__ import annotations

from typing import Any, TypedDict

Object = dict[str, Any]

HOMES = "homes"
HUB_DB = "hub-db"


class StorageSettings(TypedDict):
    """The role's public variables without their prefix.

    namespace: where the claims live.
    nfs_server, nfs_path: address of the NFS server, absolute path of its export.
    nfs_mount_options: mount options of the export on the nodes.
    homes_size: capacity shown for the homes' volume, a Kubernetes quantity; NFS enforces nothing by it.
    hub_db_node: name of the node that holds the hub's database.
    hub_db_path: host directory made by tasks/directories.yml; the volume is its subdirectory `db`.
    """

    namespace: str
    nfs_server: str
    nfs_path: str
    nfs_mount_options: list[str]
    homes_size: str
    hub_db_node: str
    hub_db_path: str


def storage_objects(settings: StorageSettings) -> list[Object]:
    """Return the namespace, and volume and claim of the homes and of the hub's database."""
    namespace = settings["namespace"]
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": namespace,
                # Users' pods run here: the API server refuses a pod that is root, has capabilities or sees its node.
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        },
        _volume(
            HOMES,
            namespace,
            settings["homes_size"],
            "ReadWriteMany",
            {
                "nfs": {"server": settings["nfs_server"], "path": settings["nfs_path"]},
                "mountOptions": settings["nfs_mount_options"],
            },
        ),
        _claim(HOMES, namespace, "ReadWriteMany"),
        _volume(
            HUB_DB,
            namespace,
            "1Gi",
            "ReadWriteOnce",
            {
                "local": {"path": f"{settings['hub_db_path'].rstrip('/')}/db"},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {
                                        "key": "kubernetes.io/hostname",
                                        "operator": "In",
                                        "values": [settings["hub_db_node"]],
                                    }
                                ]
                            }
                        ]
                    }
                },
            },
        ),
        _claim(HUB_DB, namespace, "ReadWriteOnce"),
    ]


def _volume(name: str, namespace: str, size: str, access_mode: str, source: Object) -> Object:
    """Return a volume that only the claim of the same name in `namespace` can bind."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": [access_mode],
            "persistentVolumeReclaimPolicy": "Retain",
            "volumeMode": "Filesystem",
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name},
            **source,
        },
    }


def _claim(name: str, namespace: str, access_mode: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": [access_mode],
            "storageClassName": "",
            "volumeName": name,
            "volumeMode": "Filesystem",
            # Always the least size: a claim's request cannot be changed later, a volume's capacity can.
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
