from __future__ import annotations

import base64
import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils import hub
from ansible_collections.jhok.lab.plugins.plugin_utils.hub import (
    HubSettings,
    hub_objects,
    hub_secret_entries,
    hub_secrets,
)

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "unit" / "golden" / "hub"
FILES = {"jupyterhub_config.py": b"# the hub's configuration\n", "static/icon.png": b"\x89PNG"}

DEMO: HubSettings = yaml.safe_load((GOLDEN / "demo-settings.yml").read_text())
LAB: HubSettings = yaml.safe_load((GOLDEN / "lab-settings.yml").read_text())


def secrets(settings: HubSettings) -> dict[str, str]:
    entries = hub_secret_entries(settings["users"], settings["admins"], settings["auth"])
    names = [*(entry["name"] for entry in entries), "jupyterhub/github-client-secret", "jupyterhub/github-proxy"]
    return {name: f"value of {name}" for name in names}


def objects(settings: HubSettings) -> list[dict[str, Any]]:
    return hub_objects(settings, FILES, secrets(settings))


def find(found: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    [one] = [o for o in found if (o["kind"], o["metadata"]["name"]) == (kind, name)]
    return one


def checksum(found: list[dict[str, Any]], name: str) -> str:
    return str(find(found, "Deployment", name)["spec"]["template"]["metadata"]["annotations"]["jhok.lab/checksum"])


@pytest.mark.parametrize(("name", "settings"), [("demo", DEMO), ("lab", LAB)])
def test_whole_objects(name: str, settings: HubSettings) -> None:
    found = [*objects(settings), *hub_secrets(settings, secrets(settings))]
    text = yaml.safe_dump_all(found, sort_keys=False, explicit_start=True)
    golden = GOLDEN / f"{name}.yml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text(), "see the difference; UPDATE_GOLDEN=1 writes the file anew"


def test_only_the_secret_holds_secrets() -> None:
    text = json.dumps(objects(LAB))
    for value in secrets(LAB).values():
        assert value not in text
        assert base64.b64encode(value.encode()).decode() not in text


def test_the_hub_gets_hashes_and_no_password() -> None:
    [secret] = hub_secrets(LAB, secrets(LAB))
    texts = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert sorted(json.loads(texts["passwords.json"])) == ["ann", "jhok-verify", "root.admin", "zoe"]
    assert json.loads(texts["passwords.json"])["ann"] == "value of jupyterhub/password-hash/ann"
    assert not [text for text in texts.values() if "jupyterhub/password/" in text]


def test_github_needs_its_secrets_and_no_passwords() -> None:
    settings: HubSettings = {**LAB, "auth": "github", "users": ["Octo-Cat"]}
    assert not [entry for entry in hub_secret_entries(["Octo-Cat"], [], "github") if "password" in entry["name"]]
    [secret] = hub_secrets(settings, secrets(settings))
    assert "passwords.json" not in secret["data"]
    pod = find(objects(settings), "Deployment", "hub")["spec"]["template"]["spec"]
    sources = pod["volumes"][0]["projected"]["sources"]
    [files] = [source["secret"]["items"] for source in sources if "secret" in source]
    for name in ("github-client-secret", "github-proxy"):
        assert base64.b64decode(secret["data"][name]) == f"value of jupyterhub/{name}".encode()
        assert f"value of jupyterhub/{name}" not in json.dumps(objects(settings))
        assert {"key": name, "path": f"secrets/{name}"} in files


@pytest.mark.parametrize("auth", ["password", "native"])
def test_entries_are_announced_to_people_only(auth: str) -> None:
    entries = {entry["name"]: entry for entry in hub_secret_entries(["demo"], ["boss"], auth)}
    assert [n for n, e in entries.items() if e.get("announce")] == [
        "jupyterhub/password/boss",
        "jupyterhub/password/demo",
    ]
    assert entries["jupyterhub/password-hash/jhok-verify"]["source"] == "jupyterhub/password/jhok-verify"


def test_the_hub_finds_its_files_where_they_lay(tmp_path: Path) -> None:
    for path, content in FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "hub.pyc").write_bytes(b"of the control machine's Python")
    found = hub_objects(DEMO, hub.hub_files(str(tmp_path)), secrets(DEMO))
    config_map = find(found, "ConfigMap", "hub")
    pod = find(found, "Deployment", "hub")["spec"]["template"]["spec"]
    items = {i["path"]: i["key"] for i in pod["volumes"][0]["projected"]["sources"][0]["configMap"]["items"]}
    assert items.keys() == {*FILES, "settings.json"}
    assert config_map["data"][items["jupyterhub_config.py"]].encode() == FILES["jupyterhub_config.py"]
    assert base64.b64decode(config_map["binaryData"][items["static/icon.png"]]) == FILES["static/icon.png"]
    assert len(config_map["data"]) + len(config_map["binaryData"]) == len(items)


def test_a_changed_config_restarts_the_hub_and_spares_the_proxy() -> None:
    before, after = objects(DEMO), hub_objects(DEMO, {**FILES, "static/icon.png": b"\x89new"}, secrets(DEMO))
    assert checksum(before, "hub") != checksum(after, "hub")
    assert checksum(before, "proxy") == checksum(after, "proxy")


def test_a_changed_proxy_token_restarts_both() -> None:
    before = objects(DEMO)
    after = hub_objects(DEMO, FILES, {**secrets(DEMO), "jupyterhub/proxy-auth-token": "another"})
    assert checksum(before, "hub") != checksum(after, "hub")
    assert checksum(before, "proxy") != checksum(after, "proxy")


def test_the_same_settings_give_the_same_objects_and_are_left_alone() -> None:
    settings = copy.deepcopy(LAB)
    assert objects(settings) == objects(settings)
    assert settings == LAB


def test_the_hub_may_do_with_pods_what_kubespawner_does_and_nothing_else() -> None:
    rules = find(objects(DEMO), "Role", "hub")["rules"]
    granted = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    pods = {("pods", verb) for verb in ("get", "list", "watch", "create", "delete")}
    assert granted == pods | {("events", verb) for verb in ("get", "list", "watch")}


@pytest.mark.parametrize("name", ["hub", "proxy"])
def test_pods_are_locked_down(name: str) -> None:
    pod = find(objects(DEMO), "Deployment", name)["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == {"hub": 1000, "proxy": 65534}[name]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert {"livenessProbe", "readinessProbe"} <= container.keys()


def test_users_reach_the_metadata_address_by_no_rule() -> None:
    rules = find(objects(LAB), "NetworkPolicy", "singleuser-server")["spec"]["egress"]
    blocks = [to["ipBlock"] for rule in rules for to in rule.get("to", []) if "ipBlock" in to]
    assert blocks[0] == {
        "cidr": "0.0.0.0/0",
        "except": ["10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"],
    }
    assert [block["cidr"] for block in blocks[1:]] == ["172.16.0.0/24", "10.1.2.3/32"]


def test_a_services_selector_meets_its_pods() -> None:
    found = objects(DEMO)
    for service, deployment in (("hub", "hub"), ("proxy-api", "proxy"), ("proxy-public", "proxy")):
        template = find(found, "Deployment", deployment)["spec"]["template"]
        spec = find(found, "Service", service)["spec"]
        assert spec["selector"] == template["metadata"]["labels"]
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in spec["ports"]} <= ports


@pytest.mark.parametrize(
    "name", ["../etc", ".hidden", "Demo", "a/b", "", "a" * 65, "end-", "new\nline", "{x}", "jhok-verify"]
)
def test_names_that_cannot_be_a_home_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"jupyterhub_users: {name!r}")):
        hub_secret_entries([name], [], "password")
    with pytest.raises(ValueError, match="jupyterhub_admins"):
        hub_secret_entries([], [name], "native")


def test_settings_are_the_roles_variables() -> None:
    """vars/main.yml hands over each setting, under its variable's name."""
    variables = yaml.safe_load((ROOT / "roles" / "jupyterhub" / "vars" / "main.yml").read_text())[
        "__jupyterhub_settings"
    ]
    assert variables.keys() == HubSettings.__annotations__.keys() == DEMO.keys()
    github = {f"github_{key}": value for key, value in variables.pop("github").items()}
    for key, value in {**variables, **github}.items():
        assert re.fullmatch(rf"\{{\{{ jupyterhub_{key}( \| (bool|int|float))? \}}\}}", value)
    assert {f"github_{key}" for key in DEMO["github"]} == github.keys()
    assert set(hub.CONFIG_KEYS) <= DEMO.keys()
