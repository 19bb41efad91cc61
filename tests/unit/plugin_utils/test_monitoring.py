from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils.monitoring import (
    MonitoringSettings,
    monitoring_objects,
    monitoring_secret_entries,
    monitoring_secrets,
    used_metrics,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "monitoring"
FILES = {"sign_in.py": "# who somebody is\n", "runbooks.md": "# Runbooks\n\n## NodeDown\n\nLook.\n"}
SECRETS = {entry["name"]: f"value of {entry['name']}" for entry in monitoring_secret_entries()}
DEMO: MonitoringSettings = yaml.safe_load((GOLDEN / "demo-settings.yml").read_text())
LAB: MonitoringSettings = yaml.safe_load((GOLDEN / "lab-settings.yml").read_text())


def objects(settings: MonitoringSettings, **changed: str) -> list[dict[str, Any]]:
    return monitoring_objects(settings, FILES, SECRETS | changed)


def pod(found: list[dict[str, Any]]) -> dict[str, Any]:
    [deployment] = [o for o in found if o["kind"] == "Deployment"]
    template: dict[str, Any] = deployment["spec"]["template"]
    return template


def checksum(found: list[dict[str, Any]]) -> str:
    return str(pod(found)["metadata"]["annotations"]["jhok.lab/checksum"])


def containers(settings: MonitoringSettings) -> dict[str, dict[str, Any]]:
    return {container["name"]: container for container in pod(objects(settings))["spec"]["containers"]}


@pytest.mark.parametrize(("name", "settings"), [("demo", DEMO), ("lab", LAB)])
def test_whole_objects(name: str, settings: MonitoringSettings) -> None:
    """Of files and secrets the names: their contents have tests of their own."""
    found = [*objects(settings), *monitoring_secrets(settings, SECRETS)]
    for shown in found:
        if "data" in shown:
            shown["data"] = sorted(shown["data"])
    pod(found)["metadata"]["annotations"] = {}
    text = yaml.safe_dump_all(found, sort_keys=False, explicit_start=True)
    golden = GOLDEN / f"{name}.yml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text(), "see the difference; UPDATE_GOLDEN=1 writes the file anew"


@pytest.mark.parametrize("settings", [DEMO, LAB])
def test_only_the_secret_holds_secrets(settings: MonitoringSettings) -> None:
    text = json.dumps(objects(settings))
    for value in [*SECRETS.values(), "receivers-secret"]:
        assert value not in text
        assert base64.b64encode(value.encode()).decode() not in text
    [secret] = monitoring_secrets(LAB, SECRETS)
    assert b"receivers-secret" in base64.b64decode(secret["data"]["alertmanager.yml"])


@pytest.mark.parametrize("settings", [DEMO, LAB])
def test_nothing_but_the_page_listens_to_others(settings: MonitoringSettings) -> None:
    for name, container in containers(settings).items():
        listening = [
            argument for argument in container.get("args", []) if "listen" in argument and "cluster" not in argument
        ]
        assert all("=127.0.0.1:" in argument for argument in listening), name
        assert container["readinessProbe"]["httpGet"]["host"] == "127.0.0.1"
    assert "--cluster.listen-address=" in containers(settings)["alertmanager"]["args"]


def test_the_api_servers_token_is_for_those_who_need_it() -> None:
    assert pod(objects(DEMO))["spec"]["automountServiceAccountToken"] is False
    having = [
        name
        for name, container in containers(DEMO).items()
        if "account" in [mount["name"] for mount in container["volumeMounts"]]
    ]
    assert having == ["prometheus", "exporter"]


def test_every_container_is_locked_down() -> None:
    for settings in (DEMO, LAB):
        for name, container in containers(settings).items():
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert "memory" in container["resources"]["limits"]


def test_each_secret_is_mounted_where_it_is_used() -> None:
    spec = pod(objects(DEMO))["spec"]
    secret = {
        volume["name"]
        for volume in spec["volumes"]
        if "secret" in volume or any("secret" in source for source in volume.get("projected", {}).get("sources", []))
    }
    assert secret == {"hub-token", "alertmanager", "exporter", "sign-in"}
    for volume in secret:
        [_] = [c for c in spec["containers"] if volume in [mount["name"] for mount in c["volumeMounts"]]]


def test_a_changed_secret_or_rule_restarts_and_a_changed_runbook_does_not() -> None:
    before = checksum(objects(DEMO))
    assert checksum(objects(DEMO)) == before
    assert checksum(objects(DEMO, **{"monitoring/password": "another"})) != before
    assert checksum(objects({**DEMO, "traffic_budget_gb": 5.0})) != before
    other = monitoring_objects(DEMO, FILES | {"runbooks.md": "# Runbooks\n"}, SECRETS)
    assert checksum(other) == before
    assert other != objects(DEMO)


def test_who_needs_no_sign_in_has_no_service_for_it() -> None:
    assert "sign-in" in containers({**DEMO, "access": "password"})
    assert "sign-in" not in containers({**DEMO, "access": "open"})
    assert "sign-in" not in containers(LAB)
    assert "grafana" in containers(LAB)


def test_what_a_sites_own_rules_and_panels_ask_for_is_kept() -> None:
    assert {"our_queue_length", "our_queue_limit"} <= used_metrics(LAB)
    assert not {name for name in used_metrics(DEMO) if name.startswith("our_")}
    [config] = [o for o in objects(LAB) if (o["kind"], o["metadata"]["name"]) == ("ConfigMap", "prometheus")]
    kept = yaml.safe_load(config["data"]["prometheus.yml"])["scrape_configs"]
    [regex] = [job["metric_relabel_configs"][0]["regex"] for job in kept if job["job_name"] == "apiserver"]
    assert {"our_queue_length", "go_goroutines"} <= set(regex.split("|"))


def test_a_missing_secret_is_no_empty_one() -> None:
    with pytest.raises(KeyError, match="monitoring/password"):
        monitoring_secrets(DEMO, {name: value for name, value in SECRETS.items() if name != "monitoring/password"})
