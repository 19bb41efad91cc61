from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils import grafana_provisioning as grafana

URL = "http://172.16.0.100:30759"
IMAGE = "registry.example.org/grafana/grafana:12.1.0@sha256:" + "a" * 64
SETTINGS = {
    "images": {"grafana": f"172.16.0.100:5000/jhok/grafana@sha256:{'b' * 64}"},
    "url": URL,
    "grafana_anonymous": False,
    "scrape_interval": 15,
}

# What Grafana's documentation says of provisioning files: keys and types.
DATA_SOURCE = {
    "name": str,
    "type": str,
    "access": str,
    "orgId": int,
    "uid": str,
    "url": str,
    "user": str,
    "database": str,
    "basicAuth": bool,
    "basicAuthUser": str,
    "withCredentials": bool,
    "isDefault": bool,
    "jsonData": dict,
    "secureJsonData": dict,
    "version": int,
    "editable": bool,
}
JSON_DATA = {
    "timeInterval": str,
    "httpMethod": str,
    "prometheusType": str,
    "prometheusVersion": str,
    "manageAlerts": bool,
    "timeout": str,
}
PROVIDER = {
    "name": str,
    "orgId": int,
    "folder": str,
    "folderUid": str,
    "type": str,
    "disableDeletion": bool,
    "updateIntervalSeconds": int,
    "allowUiUpdates": bool,
    "options": dict,
}
OPTIONS = {"path": str, "foldersFromFilesStructure": bool}


def check(found: dict[str, Any], known: dict[str, type], required: set[str]) -> None:
    assert required <= set(found)
    assert {key: type(value) for key, value in found.items()} == {key: known.get(key) for key in found}


def environment(**changed: object) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in grafana.grafana_container({**SETTINGS, **changed})["env"]}


def test_provisioning_is_as_documented() -> None:
    files = {path: yaml.safe_load(text) for path, text in grafana.grafana_provisioning(SETTINGS).items()}
    assert sorted(files) == ["dashboards/jhok.yaml", "datasources/prometheus.yaml"]
    sources, providers = files["datasources/prometheus.yaml"], files["dashboards/jhok.yaml"]
    check(sources, {"apiVersion": int, "prune": bool, "datasources": list}, {"apiVersion", "datasources"})
    check(providers, {"apiVersion": int, "providers": list}, {"apiVersion", "providers"})
    (source,), (provider,) = sources["datasources"], providers["providers"]
    check(source, DATA_SOURCE, {"name", "type", "access"})
    check(source["jsonData"], JSON_DATA, set())
    check(provider, PROVIDER, {"name", "type", "options"})
    check(provider["options"], OPTIONS, {"path"})
    assert (source["uid"], source["type"], source["access"]) == ("prometheus", "prometheus", "proxy")
    assert (source["url"], source["isDefault"], source["editable"]) == ("http://127.0.0.1:9790", True, False)
    assert source["jsonData"]["timeInterval"] == "15s"
    assert (source["orgId"], provider["orgId"]) == (1, 1)
    assert not provider["allowUiUpdates"]


def test_container_finds_what_the_settings_name() -> None:
    container = grafana.grafana_container(SETTINGS)
    assert container["image"] == SETTINGS["images"]["grafana"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
    values = environment()
    assert writable == {values["GF_PATHS_DATA"], values["GF_PATHS_LOGS"]}
    assert values["GF_PATHS_PLUGINS"].startswith(f"{values['GF_PATHS_DATA']}/")
    assert values["GF_PATHS_PROVISIONING"] in mounts
    assert values["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == "/srv/site/grafana/overview.json"
    assert "/srv/site" in mounts
    secret_files = {values[f"GF_SECURITY_{key}"] for key in ("ADMIN_PASSWORD", "SECRET_KEY")}
    (directory,) = (path for path, mount in mounts.items() if mount["name"] == "grafana-secrets")
    assert secret_files == {f"$__file{{{directory}/{name}}}" for name in grafana.SECRETS}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        listens = (values["GF_SERVER_HTTP_ADDR"], values["GF_SERVER_HTTP_PORT"])
        assert (asked["host"], str(asked["port"]), asked["path"]) == (*listens, "/api/health")
    assert container["securityContext"]["runAsUser"] == 472
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_every_value_is_text() -> None:
    for name, value in environment().items():
        assert name.startswith("GF_")
        assert isinstance(value, str)
        assert value not in ("", "True", "False", "None"), name


def test_people_sign_in_unless_anonymous() -> None:
    values = environment()
    assert (values["GF_AUTH_ANONYMOUS_ENABLED"], values["GF_USERS_ALLOW_SIGN_UP"]) == ("false", "false")
    values = environment(grafana_anonymous=True)
    assert (values["GF_AUTH_ANONYMOUS_ENABLED"], values["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("true", "Viewer")


@pytest.mark.parametrize(
    ("url", "root", "secure"),
    [(URL, f"{URL}/", "false"), ("https://lab.example.org/", "https://lab.example.org/", "true")],
)
def test_the_address_people_use(url: str, root: str, secure: str) -> None:
    values = environment(url=url)
    assert (values["GF_SERVER_ROOT_URL"], values["GF_SECURITY_COOKIE_SECURE"]) == (root, secure)


@pytest.mark.parametrize(
    ("ui", "sources", "chosen", "says"),
    [
        (
            "auto",
            {},
            "perses",
            "Perses shows the dashboards. To have Grafana instead, set one of monitoring_grafana_image, ",
        ),
        (
            "perses",
            {},
            "perses",
            "Perses shows the dashboards. To have Grafana instead, set one of monitoring_grafana_image, ",
        ),
        (
            "auto",
            {"grafana_image": IMAGE},
            "grafana",
            "Grafana shows the dashboards, from monitoring_grafana_image. To have Perses",
        ),
        (
            "grafana",
            {"grafana_deb": "/srv/g.deb"},
            "grafana",
            "Grafana shows the dashboards, from monitoring_grafana_deb. To have Perses",
        ),
        (
            "auto",
            {"images": {"grafana": IMAGE}},
            "grafana",
            "Grafana shows the dashboards, from monitoring_images. To have Perses",
        ),
        (
            "perses",
            {"grafana_archive": "/srv/g.tar"},
            "perses",
            "Perses shows the dashboards, by monitoring_ui. To have Grafana",
        ),
    ],
)
def test_which_of_the_two_runs(ui: str, sources: dict[str, Any], chosen: str, says: str) -> None:
    settings = {"ui": ui, "grafana_image": "", "grafana_archive": "", "grafana_deb": "", **sources}
    assert grafana.chosen_ui(settings) == chosen
    line = grafana.ui_summary(settings)
    assert line.startswith(says)
    assert "\n" not in line


def test_grafana_without_or_with_two_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^monitoring_ui is grafana, .* set one of monitoring_grafana_image, "):
        grafana.chosen_ui({"ui": "grafana", "grafana_image": ""})
    two = {"grafana_image": IMAGE, "grafana_deb": "/srv/g.deb"}
    for ui in ("auto", "grafana"):
        with pytest.raises(ValueError, match=r"^monitoring_grafana_image and monitoring_grafana_deb are both given"):
            grafana.chosen_ui({"ui": ui, **two})
    assert grafana.chosen_ui({"ui": "perses", **two}) == "perses"


@pytest.mark.parametrize(
    ("sources", "how"),
    [
        ({"grafana_image": IMAGE}, {"source": "copy", "ref": IMAGE}),
        (
            {"grafana_archive": "/srv/g.tar", "grafana_archive_sha256": "0f"},
            {"source": "archive", "archive": "/srv/g.tar", "sha256": "0f"},
        ),
        ({"grafana_deb": "/srv/g.deb"}, {"source": "build", "inputs": {"grafana_deb": "/srv/g.deb"}}),
    ],
)
def test_entry_of_the_catalogue(sources: dict[str, str], how: dict[str, Any]) -> None:
    setting = f"monitoring_{next(iter(sources))}"
    entry = {"name": "grafana", "ship": True, "setting": setting, **how}
    assert grafana.grafana_images({"ui": "auto", **sources}) == [entry]
    assert grafana.grafana_images({"ui": "perses", **sources}) == []


def test_nothing_is_fetched_for_perses_or_an_image_of_the_clusters_own() -> None:
    assert grafana.grafana_images({"ui": "auto"}) == []
    assert grafana.grafana_images({"ui": "auto", "images": {"grafana": IMAGE}}) == []
