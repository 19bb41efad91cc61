"""Kubernetes objects of role `monitoring`: pure functions of its settings, its files and its secrets."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypedDict

import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils.alertmanager import alertmanager_config, relay_receivers
from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import site_dashboards
from ansible_collections.jhok.lab.plugins.plugin_utils.grafana import grafana_files
from ansible_collections.jhok.lab.plugins.plugin_utils.grafana_provisioning import SECRETS as GRAFANA_SECRETS
from ansible_collections.jhok.lab.plugins.plugin_utils.grafana_provisioning import (
    grafana_container,
    grafana_provisioning,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.hub import CONTROL_PLANE_LABELS
from ansible_collections.jhok.lab.plugins.plugin_utils.monitoring_web import sign_in_settings, web_files
from ansible_collections.jhok.lab.plugins.plugin_utils.perses import perses_files
from ansible_collections.jhok.lab.plugins.plugin_utils.prometheus import (
    ACCOUNT,
    ALERTMANAGER,
    EXPORTER,
    PROMETHEUS,
    SECRETS,
    SIGN_IN,
    WEB,
    prometheus_config,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.promql import metric_names
from ansible_collections.jhok.lab.plugins.plugin_utils.rules import rules, rules_text
from ansible_collections.jhok.lab.plugins.plugin_utils.runbooks import runbooks_html

Object = dict[str, Any]

NAME = "monitoring"
UID = 65534
PREFIX = "monitoring/"  # of the secrets of our own in the control plane host's store
HUB_METRICS_TOKEN, DASHBOARDS_TOKEN = "jupyterhub/metrics-token", "jupyterhub/dashboards-token"
PASSWORD, COOKIE_SECRET = f"{PREFIX}password", f"{PREFIX}cookie-secret"
DATA = ("prometheus", "alertmanager")  # directories of the volume that belong to UID


class MonitoringSettings(TypedDict):
    """The role's public variables that shape objects, without their prefix; see its argument specification.

    Besides them `ui` is what runs, `perses` or `grafana`, `gpus` is whether there are any, and `machines` has the
    address of each machine by name.
    """

    namespace: str
    hub_namespace: str
    node: str
    machines: dict[str, str]
    manage_kubernetes: bool
    nfs_address: str
    nfs_kernel: bool
    homes_measured: bool
    images: dict[str, str]
    site_name: str
    node_port: int
    url: str
    hub_url: str
    ui: str
    access: str
    grafana_image: str
    grafana_archive: str
    grafana_deb: str
    grafana_anonymous: bool
    storage_path: str
    retention_days: int
    retention_gb: int
    scrape_interval: int
    extra_metrics: list[str]
    dashboards: list[str]
    panels: list[Object]
    gpus: bool
    quotas: bool
    rules: list[Object]
    receivers: list[Object]
    traffic_budget_gb: float
    backup_max_age_days: int
    prometheus_resources: Object


def monitoring_secret_entries() -> list[Object]:
    """Return the entries that module `jhok.lab.secret_store` has to keep; the two tokens are the hub's too."""
    return [
        {"name": HUB_METRICS_TOKEN, "kind": "hex", "length": 64},
        {"name": DASHBOARDS_TOKEN, "kind": "hex", "length": 64},
        {"name": PASSWORD, "kind": "alphanumeric", "length": 20, "announce": True},
        {"name": COOKIE_SECRET, "kind": "hex", "length": 64},
    ]


def used_metrics(settings: MonitoringSettings) -> set[str]:
    """Return the names of all metrics that a dashboard or a rule asks for."""
    queries = [
        query.expr
        for dashboard in site_dashboards(settings)
        for row in dashboard.rows
        for panel in row.panels
        for query in panel.queries
    ]
    queries += [variable.metric for dashboard in site_dashboards(settings) for variable in dashboard.variables]
    queries += [rule["expr"] for group in rules(settings)["groups"] for rule in group["rules"]]
    return {name for query in queries for name in metric_names(query)}


def prometheus_text(settings: MonitoringSettings) -> str:
    """Return prometheus.yml, which keeps what dashboards and rules ask for."""
    return _yaml(prometheus_config(settings, used_metrics(settings)))


def alertmanager_text(settings: MonitoringSettings) -> str:
    """Return alertmanager.yml, which holds secrets: the addresses of receivers."""
    return _yaml(alertmanager_config(settings))


def monitoring_secrets(settings: MonitoringSettings, secrets: Mapping[str, str]) -> list[Object]:
    """Return monitoring's Secret. Raises KeyError for a value of the store that is missing."""
    data = {
        "hub-metrics-token": secrets[HUB_METRICS_TOKEN],
        "dashboards-token": secrets[DASHBOARDS_TOKEN],
        "password": secrets[PASSWORD],
        "cookie-secret": secrets[COOKIE_SECRET],
        "alertmanager.yml": alertmanager_text(settings),
        "receivers.json": json.dumps(relay_receivers(settings), indent=2, sort_keys=True) + "\n",
    }
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in sorted(data.items())}
    return [{"apiVersion": "v1", "kind": "Secret", **_metadata(settings, NAME), "type": "Opaque", "data": encoded}]


def monitoring_objects(
    settings: MonitoringSettings, files: Mapping[str, str], secrets: Mapping[str, str]
) -> list[Object]:
    """Return every object of monitoring but the Secret.

    `files` are the texts `sign_in.py` and `runbooks.md`. Of `secrets` only a digest gets in, so that a change restarts
    the pod; a changed dashboard or runbook reaches it within a minute or two without a restart.
    """
    web = web_files(settings)
    sign_in = json.dumps(sign_in_settings(settings), indent=2) + "\n"
    config = {
        "prometheus": {"prometheus.yml": prometheus_text(settings), "rules.yml": rules_text(settings)},
        "web": {"nginx.conf": web["nginx.conf"]},
        "sign-in": {
            "sign_in.py": files["sign_in.py"],
            "settings.json": sign_in,
        },
    }
    if settings["ui"] == "grafana":
        config["grafana"] = grafana_provisioning(settings)
    site = {"settings.json": web["settings.json"], "runbooks.html": runbooks_html(files["runbooks.md"], settings)}
    dashboards = grafana_files(settings) if settings["ui"] == "grafana" else perses_files(settings)
    checksum = _digest([config, monitoring_secrets(settings, secrets)])
    return [
        _namespace(settings),
        *_volume(settings),
        *_account(settings),
        *(_config_map(settings, name, data) for name, data in config.items()),
        _config_map(settings, "site", site),
        _config_map(settings, "dashboards", dashboards),
        _deployment(settings, checksum, config.get("grafana", {})),
        {
            "apiVersion": "v1",
            "kind": "Service",
            **_metadata(settings, "dashboards"),
            "spec": {
                "type": "NodePort",
                "selector": _labels(),
                "ports": [
                    {
                        "name": "http",
                        "protocol": "TCP",
                        "port": 80,
                        "targetPort": WEB,
                        "nodePort": settings["node_port"],
                    }
                ],
            },
        },
    ]


def _yaml(document: object) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=1000, allow_unicode=True)


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _labels() -> dict[str, str]:
    return {"app.kubernetes.io/name": NAME}


def _metadata(settings: MonitoringSettings, name: str) -> Object:
    return {"metadata": {"name": name, "namespace": settings["namespace"], "labels": _labels()}}


def _namespace(settings: MonitoringSettings) -> Object:
    # The pod uses its node's network, which no lower level of pod security allows.
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": settings["namespace"], "labels": labels}}


def _volume(settings: MonitoringSettings) -> list[Object]:
    """Return volume and claim of the directory on the node that runs monitoring."""
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [settings["node"]]}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": settings["namespace"], "name": NAME}
    common = {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": NAME},
            "spec": {
                **common,
                "capacity": {"storage": f"{settings['retention_gb'] + 1}Gi"},
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": claim,
                "local": {"path": settings["storage_path"].rstrip("/")},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": NAME, "namespace": settings["namespace"]},
            "spec": {
                **common,
                "storageClassName": "",
                "volumeName": NAME,
                # Always the least size: a claim's request cannot be changed later, a volume's capacity can.
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
    ]


def _account(settings: MonitoringSettings) -> list[Object]:
    """Return the account of Prometheus and the exporter, which reads no Secrets and no logs and writes nothing."""
    group = "rbac.authorization.k8s.io"
    reading = ["get", "list", "watch"]
    role = {"apiGroup": group, "kind": "ClusterRole", "name": "jhok-monitoring"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", **_metadata(settings, NAME)},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "jhok-monitoring", "labels": _labels()},
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["nodes", "pods", "persistentvolumes", "persistentvolumeclaims"],
                    "verbs": reading,
                },
                {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": reading},
                {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
                {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
            ],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "jhok-monitoring", "labels": _labels()},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": settings["namespace"]}],
        },
    ]


def _config_map(settings: MonitoringSettings, name: str, data: Mapping[str, str]) -> Object:
    """Return a ConfigMap of files; a path's slashes are no part of a key."""
    keys = {path.replace("/", "__"): text for path, text in sorted(data.items())}
    return {"apiVersion": "v1", "kind": "ConfigMap", **_metadata(settings, name), "data": keys}


def _probe(port: int, path: str, **times: int) -> Object:
    # The kubelet asks on the pod's own machine, so that what listens on 127.0.0.1 is reached.
    return {
        "httpGet": {"host": "127.0.0.1", "port": port, "path": path, "scheme": "HTTP"},
        "timeoutSeconds": 3,
        **times,
    }


def _container(
    image: str, port: int, path: str, mounts: Mapping[str, str], memory: tuple[str, str], **more: object
) -> Object:
    """Return a locked-down container with its probes.

    `mounts` are paths by volume, `data/<folder>` being a folder of the disk; `memory` is what it is sure to have and
    what it may have.
    """
    volume_mounts = []
    for volume, target in mounts.items():
        name, _, folder = volume.partition("/")
        volume_mounts.append(
            {
                "name": name,
                "mountPath": target,
                **({"subPath": folder} if folder else {}),
                **({} if name in ("data", "tmp") else {"readOnly": True}),
            }
        )
    request, limit = memory
    return {
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "10m", "memory": request}, "limits": {"memory": limit}},
        "readinessProbe": _probe(port, path, periodSeconds=5),
        "livenessProbe": _probe(port, path, initialDelaySeconds=120, periodSeconds=30, failureThreshold=10),
        "volumeMounts": volume_mounts,
        **more,
    }


def _containers(settings: MonitoringSettings) -> dict[str, Object]:
    """Return what runs besides Grafana, by name."""
    images = settings["images"]
    containers = {
        "prometheus": _container(
            images["prometheus"],
            PROMETHEUS,
            "/-/ready",
            {
                "prometheus": "/etc/prometheus",
                "hub-token": SECRETS,
                "account": ACCOUNT,
                "data/prometheus": "/prometheus",
            },
            ("1Mi", "1Mi"),
            command=["prometheus"],
            args=[
                "--config.file=/etc/prometheus/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
                f"--storage.tsdb.retention.time={settings['retention_days']}d",
                f"--storage.tsdb.retention.size={settings['retention_gb']}GB",
                f"--web.listen-address=127.0.0.1:{PROMETHEUS}",
                f"--web.external-url={settings['url']}/",
                "--web.route-prefix=/",
                "--query.timeout=30s",
                "--query.max-concurrency=4",
                "--query.max-samples=10000000",
            ],
            resources=settings["prometheus_resources"],
        ),
        "alertmanager": _container(
            images["prometheus"],
            ALERTMANAGER,
            "/-/ready",
            {"alertmanager": "/etc/alertmanager", "data/alertmanager": "/alertmanager"},
            ("32Mi", "256Mi"),
            command=["prometheus-alertmanager"],
            args=[
                "--config.file=/etc/alertmanager/alertmanager.yml",
                "--storage.path=/alertmanager",
                f"--web.listen-address=127.0.0.1:{ALERTMANAGER}",
                f"--web.external-url={settings['url']}/",
                "--web.route-prefix=/",
                "--cluster.listen-address=",
            ],
        ),
        "exporter": _container(
            images["exporter"],
            EXPORTER,
            "/healthz",
            {"exporter": "/etc/jhok-exporter", "account": ACCOUNT},
            ("48Mi", "256Mi"),
            args=["python", "-m", "jhok_exporter", f"--listen=127.0.0.1:{EXPORTER}"],
            env=[{"name": "NFS_SERVER", "value": settings["nfs_address"]}],
        ),
        "web": _container(
            images["dashboards"],
            WEB,
            "/healthz",
            {"web": "/etc/jhok-web", "site": "/srv/site", "tmp": "/tmp"},  # noqa: S108
            ("16Mi", "128Mi"),
            args=["nginx", "-c", "/etc/jhok-web/nginx.conf"],
        ),
    }
    if settings["ui"] != "grafana" and settings["access"] != "open":
        containers["sign-in"] = _container(
            images["hub"],
            SIGN_IN,
            "/sign-in/healthz",
            {"sign-in": "/etc/jhok-sign-in"},
            ("48Mi", "256Mi"),
            args=["python", "/etc/jhok-sign-in/sign_in.py"],
        )
    return containers


def _secret_volume(name: str, keys: Mapping[str, str]) -> Object:
    """Return a volume of the Secret's entries; each is mounted in one container only, which every user number reads."""
    items = [{"key": key, "path": path} for key, path in keys.items()]
    return {"name": name, "secret": {"secretName": NAME, "defaultMode": 0o444, "items": items}}


def _volumes(settings: MonitoringSettings) -> list[Object]:
    sign_in_secrets = [
        {"key": name, "path": f"secrets/{name}"} for name in ("dashboards-token", "password", "cookie-secret")
    ]
    dashboards = "grafana" if settings["ui"] == "grafana" else "dashboards"
    files = grafana_files(settings) if settings["ui"] == "grafana" else perses_files(settings)
    return [
        {"name": "data", "persistentVolumeClaim": {"claimName": NAME}},
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        {"name": "prometheus", "configMap": {"name": "prometheus"}},
        {"name": "web", "configMap": {"name": "web"}},
        _secret_volume("hub-token", {"hub-metrics-token": "hub-metrics-token"}),
        _secret_volume("alertmanager", {"alertmanager.yml": "alertmanager.yml"}),
        _secret_volume("exporter", {"receivers.json": "receivers.json"}),
        {
            "name": "sign-in",
            "projected": {
                "defaultMode": 0o444,
                "sources": [{"configMap": {"name": "sign-in"}}, {"secret": {"name": NAME, "items": sign_in_secrets}}],
            },
        },
        {
            "name": "site",
            "projected": {
                "sources": [
                    {"configMap": {"name": "site"}},
                    {
                        "configMap": {
                            "name": "dashboards",
                            "items": [{"key": name, "path": f"{dashboards}/{name}"} for name in sorted(files)],
                        }
                    },
                ]
            },
        },
        # The token of the account, for the two containers that speak to the API server.
        {
            "name": "account",
            "projected": {
                "defaultMode": 0o444,
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                ],
            },
        },
    ]


def _deployment(settings: MonitoringSettings, checksum: str, grafana: Mapping[str, str]) -> Object:
    containers = _containers(settings)
    volumes = _volumes(settings)
    if settings["ui"] == "grafana":
        containers["grafana"] = grafana_container(settings)
        volumes += [
            {
                "name": "grafana",
                "configMap": {
                    "name": "grafana",
                    "items": [{"key": path.replace("/", "__"), "path": path} for path in sorted(grafana)],
                },
            },
            _secret_volume("grafana-secrets", {name: name for name in GRAFANA_SECRETS}),
        ]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        **_metadata(settings, NAME),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": _labels()},
            "template": {
                "metadata": {"labels": _labels(), "annotations": {"jhok.lab/checksum": checksum}},
                "spec": {
                    "serviceAccountName": NAME,
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "hostNetwork": True,
                    "dnsPolicy": "ClusterFirstWithHostNet",
                    "tolerations": [
                        {"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in CONTROL_PLANE_LABELS
                    ],
                    "terminationGracePeriodSeconds": 60,  # Prometheus writes its last blocks
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": UID,
                        "runAsGroup": UID,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{"name": name, **container} for name, container in containers.items()],
                    "volumes": volumes,
                },
            },
        },
    }
