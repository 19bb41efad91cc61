"""Grafana in the monitoring pod, where the site gives its image: whether it runs, its container and its provisioning.

What is set here exists in the configuration of Grafana 10 to 13; a release that does not know a setting ignores it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils.prometheus import GRAFANA, PROMETHEUS

Object = dict[str, Any]

UID = 472  # the user and group of Grafana's own image, and of images/grafana
DATA_SOURCE = "prometheus"  # uid; the dashboards name it
HOME = "overview"  # uid of the dashboard that is shown first

PROVISIONING_DIR = "/etc/grafana/provisioning"
SITE_DIR = "/srv/site"
DASHBOARDS_DIR = f"{SITE_DIR}/grafana"
DATA_DIR = "/var/lib/grafana"
SECRETS_DIR = "/etc/jhok-grafana/secrets"
SECRETS = ("password", "cookie-secret")  # files in SECRETS_DIR

#: Option → what it is, for people. A site gives one of them.
SOURCES = {
    "grafana_image": "an image in a registry",
    "grafana_archive": "an image's archive",
    "grafana_deb": "Grafana's Debian package",
}
_HOW = ", ".join(f"monitoring_{option}" for option in SOURCES)


def given_sources(settings: Mapping[str, Any]) -> list[str]:
    """Return the names, without prefix, of the settings that give Grafana's image.

    settings: `grafana_image`, `grafana_archive`, `grafana_deb` and `images` of role monitoring; each may be left out.
    """
    given = [option for option in SOURCES if settings.get(option)]
    # On a cluster that is not ours the image has its reference right away.
    return given or (["images"] if (settings.get("images") or {}).get("grafana") else [])


def chosen_ui(settings: Mapping[str, Any]) -> str:
    """Return which dashboards run, `grafana` or `perses`.

    settings: as for given_sources, and `ui`: `auto`, `grafana` or `perses`. Raises ValueError, its text being fit for
    people, when Grafana is asked for without an image, and when there is more than one.
    """
    given = given_sources(settings)
    if settings["ui"] == "perses":
        return "perses"
    if len(given) > 1:
        names = " and ".join(f"monitoring_{option}" for option in given)
        raise ValueError(f"{names} are both given, and Grafana runs from one image: leave one of them")
    if settings["ui"] == "grafana" and not given:
        raise ValueError(f"monitoring_ui is grafana, and nothing says where its image is: set one of {_HOW}")
    return "grafana" if given else "perses"


def ui_summary(settings: Mapping[str, Any]) -> str:
    """Return one line for people: which of the two shows the dashboards, and how to get the other.

    settings: as for chosen_ui. Raises ValueError as that does.
    """
    given = given_sources(settings)
    if chosen_ui(settings) == "grafana":
        setting = "monitoring_images" if given == ["images"] else f"monitoring_{given[0]}"
        return f"Grafana shows the dashboards, from {setting}. To have Perses instead, set monitoring_ui: perses"
    if given:
        return "Perses shows the dashboards, by monitoring_ui. To have Grafana instead, set monitoring_ui: auto"
    return f"Perses shows the dashboards. To have Grafana instead, set one of {_HOW}"


def grafana_images(settings: Mapping[str, Any]) -> list[Object]:
    """Return the entry of role images' catalogue that brings Grafana's image into the bundle; none for Perses.

    settings: as for chosen_ui, and `grafana_archive_sha256`, which may be left out. Raises ValueError as
    chosen_ui does.
    """
    given = given_sources(settings)
    if chosen_ui(settings) != "grafana" or given == ["images"]:
        return []
    value = settings[given[0]]
    how: Object = {
        "grafana_image": {"source": "copy", "ref": value},
        "grafana_archive": {
            "source": "archive",
            "archive": value,
            "sha256": settings.get("grafana_archive_sha256") or "",
        },
        "grafana_deb": {"source": "build", "inputs": {"grafana_deb": value}},
    }[given[0]]
    return [{"name": "grafana", **how, "ship": True, "setting": f"monitoring_{given[0]}"}]


def grafana_provisioning(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return path below PROVISIONING_DIR → text of Grafana's provisioning files.

    settings: `scrape_interval`, seconds.
    """
    data_source = {
        "name": "Prometheus",
        "uid": DATA_SOURCE,
        "type": "prometheus",
        "access": "proxy",  # asked by Grafana's server, since browsers do not reach it
        "orgId": 1,
        "url": f"http://127.0.0.1:{PROMETHEUS}",
        "isDefault": True,
        "editable": False,
        "jsonData": {
            "httpMethod": "POST",
            "prometheusType": "Prometheus",
            "timeInterval": f"{settings['scrape_interval']}s",
        },
    }
    provider = {
        "name": "jhok",
        "orgId": 1,
        "folder": "Lab",
        "folderUid": "jhok",
        "type": "file",
        "disableDeletion": False,  # a dashboard that is no longer wanted goes
        "allowUiUpdates": False,
        "updateIntervalSeconds": 30,
        "options": {"path": DASHBOARDS_DIR, "foldersFromFilesStructure": False},
    }
    files = {
        "datasources/prometheus.yaml": {"apiVersion": 1, "prune": True, "datasources": [data_source]},
        "dashboards/jhok.yaml": {"apiVersion": 1, "providers": [provider]},
    }
    return {path: yaml.safe_dump(content, sort_keys=False) for path, content in files.items()}


def grafana_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return Grafana's settings as environment variables (GF_<section>_<key>); secrets stay in their files.

    settings: `url` and `grafana_anonymous` (whether people see the dashboards without signing in).
    """
    url = settings["url"].rstrip("/")
    values: dict[str, dict[str, object]] = {
        "server": {"http_addr": "127.0.0.1", "http_port": GRAFANA, "root_url": f"{url}/"},
        "paths": {
            "data": DATA_DIR,
            "plugins": f"{DATA_DIR}/plugins",
            "provisioning": PROVISIONING_DIR,
            "logs": "/tmp",  # noqa: S108 - the container's own; nothing is written there, since the log goes to the console
        },
        "log": {"mode": "console"},
        "security": {
            "admin_user": "admin",
            # Grafana reads these files itself, whichever image it comes in.
            "admin_password": f"$__file{{{SECRETS_DIR}/password}}",
            "secret_key": f"$__file{{{SECRETS_DIR}/cookie-secret}}",
            "disable_gravatar": True,
            "cookie_secure": urlsplit(url).scheme == "https",
            "cookie_samesite": "lax",
            "allow_embedding": False,
        },
        "users": {"allow_sign_up": False, "allow_org_create": False, "default_theme": "system"},
        "auth_anonymous": {
            "enabled": bool(settings["grafana_anonymous"]),
            "org_name": "Main Org.",  # what Grafana calls organization 1
            "org_role": "Viewer",
            "hide_version": True,
        },
        "dashboards": {"default_home_dashboard_path": f"{DASHBOARDS_DIR}/{HOME}.json"},
        # Alerts are Prometheus' and Alertmanager's.
        "unified_alerting": {"enabled": False},
        # Nothing is asked of the internet, which many labs do not have.
        "analytics": {
            "reporting_enabled": False,
            "check_for_updates": False,
            "check_for_plugin_updates": False,
            "feedback_links_enabled": False,
        },
        "news": {"news_feed_enabled": False},
        "plugins": {
            "plugin_admin_enabled": False,
            "preinstall_disabled": True,
            "preinstall_auto_update": False,
            "public_key_retrieval_disabled": True,
        },
        "snapshots": {"external_enabled": False},
    }
    return {
        f"GF_{section}_{key}".upper(): str(value).lower() if isinstance(value, bool) else str(value)
        for section, keys in values.items()
        for key, value in keys.items()
    }


def grafana_container(settings: Mapping[str, Any]) -> Object:
    """Return Grafana's container of the monitoring pod, without a name; it starts as its image says.

    settings: `images` (reference `grafana`), `url`, `grafana_anonymous`. The pod has the volumes `grafana`
    (provisioning files), `site` (dashboards in `grafana/`), `grafana-secrets` (files SECRETS), `data` (its `grafana/`
    belonging to UID) and `tmp`.
    """
    environment = grafana_settings(settings)
    probe = {
        "httpGet": {"host": "127.0.0.1", "port": GRAFANA, "path": "/api/health", "scheme": "HTTP"},
        "timeoutSeconds": 3,
    }
    return {
        "image": settings["images"]["grafana"],
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": name, "value": environment[name]} for name in sorted(environment)],
        "securityContext": {
            "runAsUser": UID,
            "runAsGroup": UID,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        # The first start makes the database.
        "startupProbe": {**probe, "periodSeconds": 2, "failureThreshold": 150},
        "readinessProbe": {**probe, "periodSeconds": 5},
        "livenessProbe": {**probe, "periodSeconds": 30, "failureThreshold": 10},
        "volumeMounts": [
            {"name": "grafana", "mountPath": PROVISIONING_DIR, "readOnly": True},
            {"name": "site", "mountPath": SITE_DIR, "readOnly": True},
            {"name": "grafana-secrets", "mountPath": SECRETS_DIR, "readOnly": True},
            {"name": "data", "mountPath": DATA_DIR, "subPath": "grafana"},
            {"name": "tmp", "mountPath": "/tmp", "subPath": "grafana"},  # noqa: S108
        ],
    }
