"""Kubernetes objects of role `jupyterhub`: pure functions of its settings and secrets."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from ansible_collections.jhok.lab.plugins.plugin_utils.podnet import PRIVATE_CIDRS

Object = dict[str, Any]

VERIFY_USER = "jhok-verify"
USERNAME_PATTERN = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")  # as in jupyterhub_config.py
GITHUB_NAME = re.compile(r"(?=.{1,39}\Z)[A-Za-z0-9](?:-?[A-Za-z0-9])*(?:_[A-Za-z0-9]+)?")  # _: managed users
PREFIX = "jupyterhub/"  # of the hub's secrets in the control plane host's store
HUB_UID = 1000
PROXY_UID = 65534
CONFIG_DIR = "/etc/jupyterhub"
GUIDE_DIR = "/srv/guide"

# Key in the Kubernetes Secret (and file name in the hub) -> kind in the store; all have 64 characters.
HUB_SECRETS = {
    "cookie-secret": "hex",
    "crypt-key": "hex",
    "dashboards-token": "hex",
    "metrics-token": "hex",
    "proxy-auth-token": "alphanumeric",
    "verify-token": "hex",
}
GITHUB_SECRETS, PASSWORDS = ("github-client-secret", "github-proxy"), "passwords.json"  # as the sign-in needs them
CONTROL_PLANE_LABELS = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
CPU_GUARANTEE, GPU_RESOURCE = 0.1, "nvidia.com/gpu"  # of a size and a GPU type that say nothing of it
METADATA_CIDR = "169.254.169.254/32"


class HubSettings(TypedDict):
    """The role's public variables that shape objects, without their prefix.

    namespace: made by role `storage`, which also makes the two claims.
    site_name: shown on the sign-in page.
    notice, contact: plain text that people see; may be empty.
    dashboards_url: linked for people, who are known there by their sign-in at the hub; may be empty.
    dashboards_viewers: `users` or `admins`.
    scraper_cidrs: networks from which the proxy's figures may be read.
    url: where people reach the hub, without a slash at the end.
    images: references by name: `hub`, `proxy` and those that environments name.
    node_port: port of every node on which the hub is reached.
    auth: `password`, `native` (who signed up besides the users, once an admin has approved them) or `github`.
    github: `url`, `client_id`, `callback_url`, `ca` (PEM), `organizations`, `teams` (`org:team`); not the secrets.
    users, admins: names that may sign in; admins need not be listed twice.
    uids: user numbers of homes; every other home's follows from its name.
    renamed_users: earlier names, by the names that the accounts have now.
    home_usage: whether servers see what the NFS server says of their home.
    environments, sizes, gpus: what people choose from, as the role's argument specification describes it.
    start_timeout, http_timeout, idle_timeout, max_age, stop_warning, idle_check_interval: seconds.
    concurrent_spawns: servers that may start at the same time.
    active_servers: servers that may run at the same time; 0 is no limit.
    load_users: names of users whom a load run of playbooks/benchmark.yml may make and remove.
    user_allowed_cidrs: private networks that users' servers may reach (on our own cluster by role `node`'s guard).
    hub_resources, proxy_resources: `requests` and `limits` of the containers.
    """

    namespace: str
    site_name: str
    notice: str
    contact: str
    dashboards_url: str
    dashboards_viewers: str
    scraper_cidrs: list[str]
    url: str
    images: dict[str, str]
    node_port: int
    auth: str
    github: Object
    users: list[str]
    admins: list[str]
    uids: dict[str, int]
    renamed_users: dict[str, str]
    home_usage: bool
    environments: list[Object]
    sizes: list[Object]
    gpus: list[Object]
    start_timeout: int
    http_timeout: int
    idle_timeout: int
    max_age: int
    stop_warning: int
    idle_check_interval: int
    concurrent_spawns: int
    active_servers: int
    load_users: list[str]
    user_allowed_cidrs: list[str]
    homes_claim: str
    db_claim: str
    hub_resources: Object
    proxy_resources: Object


# What jupyterhub_config.py reads from settings.json besides environments, sizes and GPU types.
CONFIG_KEYS = (
    "namespace",
    "site_name",
    "notice",
    "contact",
    "dashboards_url",
    "dashboards_viewers",
    "url",
    "auth",
    "github",
    "users",
    "admins",
    "uids",
    "renamed_users",
    "home_usage",
    "start_timeout",
    "http_timeout",
    "idle_timeout",
    "max_age",
    "stop_warning",
    "idle_check_interval",
    "concurrent_spawns",
    "active_servers",
    "load_users",
    "homes_claim",
)


def hub_people(users: list[str], admins: list[str], auth: str) -> list[str]:
    """Return everybody who has a generated password, the verify user last; none with GitHub.

    Raises ValueError for a name that cannot be one.
    """
    if auth == "github":
        return []
    for variable, names in (("jupyterhub_users", users), ("jupyterhub_admins", admins)):
        for name in names:
            if not USERNAME_PATTERN.fullmatch(name):
                raise ValueError(
                    f"{variable}: {name!r} cannot be a user's name, since it is also the home's: use 1 to 64 of a-z, "
                    "0-9, '.', '_' and '-', first and last a letter or digit"
                )
            if name == VERIFY_USER:
                raise ValueError(f"{variable}: {name!r} is reserved for playbooks/verify.yml: choose another name")
    return [*sorted({*users, *admins}), VERIFY_USER]


def hub_secret_entries(users: list[str], admins: list[str], auth: str) -> list[Object]:
    """Return the entries that module `jhok.lab.secret_store` has to keep for the hub."""
    entries: list[Object] = [
        {"name": PREFIX + name, "kind": kind, "length": 64} for name, kind in sorted(HUB_SECRETS.items())
    ]
    for name in hub_people(users, admins, auth):
        password = f"{PREFIX}password/{name}"
        entries += [
            {"name": password, "kind": "alphanumeric", "length": 16, "announce": name != VERIFY_USER},
            {"name": f"{PREFIX}password-hash/{name}", "kind": "scrypt", "source": password},
        ]
    return entries


def hub_secrets(settings: HubSettings, secrets: Mapping[str, str]) -> list[Object]:
    """Return the hub's Secret.

    `secrets` are the store's values by name, with GitHub also those of the inventory (`GITHUB_SECRETS`) under the same
    prefix. Raises KeyError for one that is missing.
    """
    data = {name: secrets[PREFIX + name] for name in HUB_SECRETS}
    if settings["auth"] == "github":
        data |= {name: secrets[PREFIX + name] for name in GITHUB_SECRETS}
    else:
        people = hub_people(settings["users"], settings["admins"], settings["auth"])
        hashes = {name: secrets[f"{PREFIX}password-hash/{name}"] for name in people}
        data[PASSWORDS] = json.dumps(hashes, indent=2, sort_keys=True) + "\n"
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in sorted(data.items())}
    return [{"apiVersion": "v1", "kind": "Secret", **_metadata(settings, "hub"), "type": "Opaque", "data": encoded}]


def hub_config(settings: HubSettings) -> str:
    """Return settings.json, the part of the settings that the hub itself reads."""
    values = dict(settings)
    chosen = {key: values[key] for key in CONFIG_KEYS}
    offer = server_choices(settings)
    for environment in offer["environments"]:
        environment["image"] = image_reference(settings["images"], environment["image"])
    return json.dumps({**chosen, **offer}, indent=2, sort_keys=True) + "\n"


def server_choices(settings: Mapping[str, Any]) -> dict[str, list[Object]]:
    """Return `environments`, `sizes` and `gpus` of the settings with every default filled in.

    One environment and one size are the default: the first of those that say so, else the first.
    """
    limits = ("idle_timeout", "max_age")
    environments = [
        {
            **{key: value for key, value in item.items() if key not in limits},
            "title": item.get("title") or item["name"],
            "description": item.get("description") or "",
            **{key: int(item[key]) for key in limits if item.get(key) is not None},
        }
        for item in settings["environments"]
    ]
    sizes = [
        {
            "name": item["name"],
            "title": item.get("title") or item["name"],
            "cpu_guarantee": float(item.get("cpu_guarantee", CPU_GUARANTEE)),
            "cpu_limit": float(item.get("cpu_limit", 0)),
            "memory_guarantee": item.get("memory_guarantee") or item["memory_limit"],
            "memory_limit": item["memory_limit"],
            "default": item.get("default"),
        }
        for item in settings["sizes"]
    ]
    gpus = [
        {
            "name": item["name"],
            "title": item.get("title") or item["name"],
            "resource": item.get("resource") or GPU_RESOURCE,
            "max": int(item.get("max", 1)),
            "node_selector": item.get("node_selector") or {},
        }
        for item in settings["gpus"]
    ]
    for items in (environments, sizes):
        default = next((item for item in items if item.get("default")), items[0])
        for item in items:
            item["default"] = item is default
    return {"environments": environments, "sizes": sizes, "gpus": gpus}


def image_reference(images: Mapping[str, str], name: str) -> str:
    """Return the reference of an environment's image: a name in `images`, or a reference already.

    Empty when no image is known, as in a check run without a bundle. Raises ValueError for an unknown one.
    """
    if "@" in name or name in images:
        return images.get(name, name)
    if any(images.values()):
        raise ValueError(f"jupyterhub_environments: there is no image {name!r}, only {', '.join(sorted(images))}")
    return ""


def hub_files(directory: str) -> dict[str, bytes]:
    """Return the files that the hub reads, by their path below `directory`."""
    root = Path(directory)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.parent.name != "__pycache__"
    }


def hub_objects(settings: HubSettings, files: Mapping[str, bytes], secrets: Mapping[str, str]) -> list[Object]:
    """Return every object of the hub and its proxy but the Secret.

    `files` are the hub's own by their path below /etc/jupyterhub. Of `secrets` only a digest gets in, so that a change
    restarts pods.
    """
    files = {**files, "settings.json": hub_config(settings).encode()}
    config_map = _config_map(settings, files)
    secret_data = hub_secrets(settings, secrets)[0]["data"]
    return [
        *_service_account(settings),
        config_map,
        _hub_deployment(settings, sorted(files), _digest([config_map, secret_data])),
        _proxy_deployment(settings, _digest(secret_data["proxy-auth-token"])),
        _service(settings, "hub", "hub", {"name": "http", "port": 8081, "targetPort": "http"}),
        _service(settings, "proxy-api", "proxy", {"name": "api", "port": 8001, "targetPort": "api"}),
        _service(settings, "proxy-metrics", "proxy", {"name": "metrics", "port": 8002, "targetPort": "metrics"}),
        _service(
            settings,
            "proxy-public",
            "proxy",
            {"name": "http", "port": 80, "targetPort": "http", "nodePort": settings["node_port"]},
        ),
        _image_puller(settings),
        *_network_policies(settings),
    ]


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _labels(component: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "jupyterhub", "app.kubernetes.io/component": component}


def _metadata(settings: HubSettings, name: str, component: str | None = None) -> Object:
    return {"metadata": {"name": name, "namespace": settings["namespace"], "labels": _labels(component or name)}}


def _service_account(settings: HubSettings) -> list[Object]:
    """Return the hub's account with the rights that KubeSpawner uses and no others."""
    group = "rbac.authorization.k8s.io"
    read = ["get", "list", "watch"]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", **_metadata(settings, "hub")},
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            **_metadata(settings, "hub"),
            "rules": [
                {"apiGroups": [""], "resources": ["pods"], "verbs": [*read, "create", "delete"]},
                {"apiGroups": [""], "resources": ["events"], "verbs": read},
            ],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            **_metadata(settings, "hub"),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "hub"},
            "subjects": [{"kind": "ServiceAccount", "name": "hub", "namespace": settings["namespace"]}],
        },
    ]


def _key(path: str) -> str:
    """Return the key of a file in a ConfigMap, which knows no folders."""
    return path.replace("/", "__")


def _config_map(settings: HubSettings, files: Mapping[str, bytes]) -> Object:
    data, binary = {}, {}
    for path, content in sorted(files.items()):
        try:
            data[_key(path)] = content.decode()
        except UnicodeDecodeError:
            binary[_key(path)] = base64.b64encode(content).decode()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        **_metadata(settings, "hub"),
        "data": data,
        **({"binaryData": binary} if binary else {}),
    }


def _probe(path: str, port: str, **times: int) -> Object:
    return {"httpGet": {"path": path, "port": port, "scheme": "HTTP"}, "timeoutSeconds": 3, **times}


def _port(name: str, number: int) -> Object:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _pod_template(
    name: str, annotations: dict[str, str], containers: Mapping[str, Object], uid: int, **pod: object
) -> Object:
    """Return the template of a pod with locked-down containers, by name."""
    return {
        "metadata": {"labels": _labels(name), "annotations": annotations},
        "spec": {
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": uid,
                "runAsGroup": uid,
                "fsGroup": uid,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": container_name,
                    "imagePullPolicy": "IfNotPresent",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    **container,
                }
                for container_name, container in containers.items()
            ],
            **pod,
        },
    }


def _deployment(
    settings: HubSettings, name: str, annotations: dict[str, str], container: Object, uid: int, **pod: object
) -> Object:
    """Return a Deployment of one locked-down pod that may also run on the control plane."""
    tolerations = [{"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in CONTROL_PLANE_LABELS]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        **_metadata(settings, name),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 3,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": _labels(name)},
            "template": _pod_template(name, annotations, {name: container}, uid, tolerations=tolerations, **pod),
        },
    }


def _image_puller(settings: HubSettings) -> Object:
    """Return a DaemonSet that keeps the environments' images on every node, so that nobody's first start waits."""
    containers = {
        environment["name"]: {
            "image": image_reference(settings["images"], environment["image"]),
            "command": ["sleep", "infinity"],
            "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"cpu": "50m", "memory": "32Mi"}},
        }
        for environment in settings["environments"]
    }
    name = "image-puller"
    template = _pod_template(
        name, {}, containers, PROXY_UID, automountServiceAccountToken=False, terminationGracePeriodSeconds=1
    )
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        **_metadata(settings, name),
        "spec": {
            "selector": {"matchLabels": _labels(name)},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": template,
        },
    }


def _hub_deployment(settings: HubSettings, paths: list[str], checksum: str) -> Object:
    """Return the hub. Its database's volume decides on which node it runs."""
    container = {
        "image": settings["images"]["hub"],
        "args": ["jupyterhub", "--config", f"{CONFIG_DIR}/jupyterhub_config.py"],
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}],  # noqa: S108
        "workingDir": "/srv/jupyterhub",
        "ports": [_port("http", 8081)],
        "resources": settings["hub_resources"],
        # The database may be upgraded and many servers looked at before the hub answers.
        "livenessProbe": _probe("/hub/health", "http", initialDelaySeconds=300, periodSeconds=10, failureThreshold=30),
        "readinessProbe": _probe("/hub/health", "http", periodSeconds=2, failureThreshold=1000),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
            {"name": "database", "mountPath": "/srv/jupyterhub"},
            {"name": "guide", "mountPath": GUIDE_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
        ],
    }
    secret_names = [*sorted(HUB_SECRETS), *(GITHUB_SECRETS if settings["auth"] == "github" else [PASSWORDS])]
    volumes = [
        {
            "name": "config",
            "projected": {
                "defaultMode": 0o440,
                "sources": [
                    {"configMap": {"name": "hub", "items": [{"key": _key(path), "path": path} for path in paths]}},
                    {
                        "secret": {
                            "name": "hub",
                            "items": [{"key": name, "path": f"secrets/{name}"} for name in secret_names],
                        }
                    },
                ],
            },
        },
        {"name": "database", "persistentVolumeClaim": {"claimName": settings["db_claim"]}},
        # Of its own: a changed guide reaches the hub within a minute or two, without a restart.
        {"name": "guide", "configMap": {"name": "hub-guide", "optional": True}},
        {"name": "tmp", "emptyDir": {}},
    ]
    return _deployment(
        settings,
        "hub",
        {"jhok.lab/checksum": checksum},
        container,
        HUB_UID,
        serviceAccountName="hub",
        volumes=volumes,
    )


def _proxy_deployment(settings: HubSettings, checksum: str) -> Object:
    """Return the proxy, which changes only with its own image and token, so that users stay connected."""
    container = {
        "image": settings["images"]["proxy"],
        "args": [
            "configurable-http-proxy",
            "--ip=0.0.0.0",
            "--port=8000",
            "--api-ip=0.0.0.0",
            "--api-port=8001",
            "--metrics-ip=0.0.0.0",
            "--metrics-port=8002",
            "--default-target=http://hub:8081",
            "--error-target=http://hub:8081/hub/error",
        ],
        "env": [
            {
                "name": "CONFIGPROXY_AUTH_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": "hub", "key": "proxy-auth-token"}},
            }
        ],
        "ports": [_port("http", 8000), _port("api", 8001), _port("metrics", 8002)],
        "resources": settings["proxy_resources"],
        "livenessProbe": _probe("/_chp_healthz", "http", initialDelaySeconds=60, periodSeconds=10, failureThreshold=30),
        "readinessProbe": _probe("/_chp_healthz", "http", periodSeconds=2, failureThreshold=1000),
    }
    # Near the hub, so that a failed worker takes nothing along but the servers on it.
    preferred = [
        {"weight": 1, "preference": {"matchExpressions": [{"key": key, "operator": "Exists"}]}}
        for key in CONTROL_PLANE_LABELS
    ]
    return _deployment(
        settings,
        "proxy",
        {"jhok.lab/checksum": checksum},
        container,
        PROXY_UID,
        automountServiceAccountToken=False,
        affinity={"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}},
    )


def _service(settings: HubSettings, name: str, component: str, port: Object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        **_metadata(settings, name, component),
        "spec": {
            "type": "NodePort" if "nodePort" in port else "ClusterIP",
            "selector": _labels(component),
            "ports": [{"protocol": "TCP", **port}],
        },
    }


def _network_policies(settings: HubSettings) -> list[Object]:
    """Return who may speak to whom; a network plugin that knows no policies ignores them."""
    hub, proxy, user = (
        {"podSelector": {"matchLabels": _labels(component)}} for component in ("hub", "proxy", "singleuser-server")
    )
    dns = {"ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]}

    def ports(*numbers: int) -> list[Object]:
        return [{"protocol": "TCP", "port": number} for number in numbers]

    def world(*excluded: str) -> Object:
        return {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": list(excluded)}}]}

    def policy(component: str, ingress: list[Object], egress: list[Object]) -> Object:
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            **_metadata(settings, component),
            "spec": {
                "podSelector": {"matchLabels": _labels(component)},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": ingress,
                "egress": egress,
            },
        }

    allowed = [{"to": [{"ipBlock": {"cidr": cidr}}]} for cidr in settings["user_allowed_cidrs"]]
    scrapers = [{"ipBlock": {"cidr": cidr}} for cidr in settings["scraper_cidrs"]]
    return [
        # No policy can name the API server's address, and with some network plugins (Cilium) no network holds pods or
        # nodes.
        policy(
            "hub",
            [{"from": [proxy, user, *scrapers], "ports": ports(8081)}],
            [
                dns,
                {"to": [proxy], "ports": ports(8001)},
                {"to": [user], "ports": ports(8888)},
                {"ports": ports(443, 6443)},
                world(METADATA_CIDR),
            ],
        ),
        policy(
            "proxy",
            [
                {"ports": ports(8000)},
                {"from": [hub], "ports": ports(8001)},
                *([{"from": scrapers, "ports": ports(8002)}] if scrapers else []),
            ],
            [dns, {"to": [hub], "ports": ports(8081)}, {"to": [user], "ports": ports(8888)}],
        ),
        policy(
            "singleuser-server",
            [{"from": [hub, proxy], "ports": ports(8888)}],
            [dns, {"to": [hub], "ports": ports(8081)}, world(*PRIVATE_CIDRS), *allowed],
        ),
    ]
