"""Broken inventories: each is refused with the right message, and before any machine is touched."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible.utils.vars import load_extra_vars
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.jhok.lab.plugins.action.preflight import collect, load_specs
from ansible_collections.jhok.lab.plugins.plugin_utils import preflight
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight import Problem, judge

ROOT = Path(__file__).resolve().parents[2]
TABLE = yaml.safe_load((Path(__file__).parent / "inventories" / "broken.yml").read_text())
RENAMED = {"jupyterhub_port": ("jupyterhub_node_port", "0.2.0")}
VAULT_PASSWORD = b"open sesame"
TODAY = datetime.date(2026, 11, 28)


def materialise(directory: Path, case: dict[str, Any]) -> Path:
    """Write the case's inventory into `directory` and return its hosts.yml."""
    hosts = case.get("hosts", TABLE["base"]["hosts"])
    if "swap" in case:
        old, new = case["swap"]
        assert old in hosts, f"{case['id']}: nothing to replace"
        hosts = hosts.replace(old, new)
    variables = case.get("all", TABLE["base"]["all"]) + case.get("add", "")
    files = {"hosts.yml": hosts, "group_vars/all.yml": variables, **case.get("files", {})}
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text.endswith("\n") else text + "\n")
    return directory / "hosts.yml"


def judge_inventory(
    hosts: Path,
    extra: dict[str, str] | None = None,
    renamed: dict[str, tuple[str, str]] | None = None,
    today: datetime.date = TODAY,
) -> list[Problem]:
    """Judge an inventory as action plugin preflight does, in this process."""
    loader = DataLoader()
    loader.set_basedir(str(ROOT / "playbooks"))
    inventory = InventoryManager(loader=loader, sources=[str(hosts)])
    load_extra_vars.extra_vars = dict(extra or {}) or {"ansible_check_mode": False}
    variables = VariableManager(loader=loader, inventory=inventory, version_info=None)
    site = collect(loader, inventory, HostVars(inventory, variables, loader), [str(hosts)])
    return judge(site, today, renamed)


def run_site(hosts: Path, directory: Path, playbook: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook with an ssh that leaves a mark when it is called."""
    ssh = directory / "ssh"
    ssh.write_text(f"#!/bin/sh\ntouch {directory}/touched\nexit 255\n")
    ssh.chmod(0o755)
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(hosts), str(playbook), *options]
    environment = {**os.environ, "ANSIBLE_SSH_EXECUTABLE": str(ssh), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def static_play(directory: Path) -> Path:
    """Write a playbook of site.yml's first play, beside the wiring of the real one."""
    first = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text())[0]
    assert first["hosts"] == "localhost"
    directory = directory / "play"
    directory.mkdir()
    (directory / "group_vars").symlink_to(ROOT / "playbooks" / "group_vars")
    path = directory / "static.yml"
    path.write_text(json.dumps([first]))
    return path


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["id"])
def test_broken_inventory_is_refused(case: dict[str, Any], tmp_path: Path) -> None:
    hosts = materialise(tmp_path, case)
    renamed = RENAMED if case.get("renamed") else None
    found = [str(p) for p in judge_inventory(hosts, case.get("extra"), renamed, case.get("today", TODAY))]
    rest = list(found)
    for pieces in case["expect"]:
        match = next((p for p in rest if all(str(piece) in p for piece in pieces)), None)
        assert match, f"no message has {pieces} in:\n" + "\n".join(found)
        rest.remove(match)
    assert not rest, "not expected:\n" + "\n".join(rest)


def test_the_table_is_big_enough() -> None:
    ids = [case["id"] for case in TABLE["cases"]]
    assert len(ids) >= 40
    assert len(set(ids)) == len(ids)


def test_the_base_is_fine(tmp_path: Path) -> None:
    assert judge_inventory(materialise(tmp_path, {})) == []


@pytest.mark.parametrize(
    "change",
    [
        {
            "swap": ["    nfs_server:\n      hosts:\n        master:\n", ""],
            "add": "storage_nfs_server: 172.16.7.9\nstorage_nfs_path: /export\n",
        },
        {
            "add": "kubernetes_manage: false\nkubernetes_kubeconfig: /root/.kube/config\n"
            "jupyterhub_images: {hub: r.example.org/hub@sha256:0, proxy: r.example.org/p, singleuser: s, scipy: t}\n"
            "monitoring_images: {prometheus: r.example.org/prometheus, exporter: e, dashboards: d, hub: h}\n"
        },
        {
            "add": "jupyterhub_auth: github\njupyterhub_github_client_id: Iv1.0\n"
            "jupyterhub_github_client_secret: '{{ \"s\" * 40 }}'\njupyterhub_admins: [Octo-Cat, '007']\n"
            "jupyterhub_github_url: https://github.example.org/\njupyterhub_github_teams: [Physics:laser_lab]\n"
        },
        {
            "add": "jupyterhub_auth: github\njupyterhub_github_client_id: Iv1.0\n"
            "jupyterhub_github_client_secret: '{{ \"s\" * 40 }}'\njupyterhub_admins: [carol]\n"
            "jupyterhub_github_proxy: http://10.1.2.3:3128\njupyterhub_user_allowed_cidrs: [10.1.0.0/16]\n"
        },
        {"add": "jupyterhub_auth: native\njupyterhub_admins: [carol]\n"},
        {"add": "monitoring_enabled: false\nmonitoring_ui: grafana\nmonitoring_scrape_interval: 0\n"},
        {"add": "storage_nfs_server: nas.example.org\njupyterhub_address: hub.example.org\nsite_epoch: 2026-11\n"},
        {"add": "bundle_source: upstream\nbundle_kubernetes_version: 1.36\n"},
        {"add": "bundle_source: upstream\nbundle_kubernetes_version: v1.37.2\n"},
        {
            "add": "bundle_source: directory\nbundle_dir: '{{ hostvars.master.inventory_dir }}/bundle'\n"
            "bundle_kubernetes_version: '1.20'\n",
            "files": {"bundle/manifest.json": '{"kubernetes_version": "v1.37.0"}'},
        },
        {"add": "bundle_source: directory\n"},
    ],
    ids=[
        "homes elsewhere",
        "existing cluster",
        "GitHub",
        "GitHub behind a proxy",
        "sign-up",
        "no monitoring",
        "overrides of what is shared",
        "a minor release that YAML takes for a number",
        "a full version",
        "a bundle that was carried here, of an earlier patch",
        "a bundle that is not there yet",
    ],
)
def test_what_a_site_may_do_otherwise_is_fine(change: dict[str, Any], tmp_path: Path) -> None:
    assert judge_inventory(materialise(tmp_path, change)) == []


@pytest.mark.parametrize(
    ("name", "warnings"),
    # The example has a stand-in for the secret, which whoever edits it has to encrypt.
    [("example", [("jupyterhub_github_client_secret", "a secret in plain text")]), ("demo", [])],
)
def test_our_own_inventories_are_fine(name: str, warnings: list[tuple[str, str]]) -> None:
    found = judge_inventory(ROOT / "inventory" / name / "hosts.yml")
    assert [(problem.name, problem.what) for problem in found if problem.warning] == warnings
    assert [problem for problem in found if not problem.warning] == []


def test_the_rules_speak_of_variables_that_exist() -> None:
    options = {name for role in load_specs().values() for name in role}
    assert set(preflight.READ) <= options
    assert {preflight.KUBECONFIG, preflight.IMAGES, *preflight.HOMES} <= options
    assert not {*preflight.RENAMED, *preflight.GONE} & options
    assert {new for new, _version in preflight.RENAMED.values()} <= options
    assert set(preflight.ROLE_HOSTS) <= set(load_specs())


def test_a_secret_in_plain_text_is_a_warning_without_its_value(tmp_path: Path) -> None:
    case = {"add": 'ansible_become_password: hunter2\nmy_token: \'{{ lookup("env", "TOKEN") }}\'\n'}
    (problem,) = judge_inventory(materialise(tmp_path, case))
    assert problem.warning
    assert "all.yml:3: ansible_become_password" in str(problem)
    assert "ansible-vault" in str(problem)
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize("port", ["3128", "none"])
def test_a_proxys_login_is_a_secret(port: str, tmp_path: Path) -> None:
    case = {**next(case for case in TABLE["cases"] if case["id"] == "github-proxy-scheme")}
    case["add"] = f"jupyterhub_users: [a]\njupyterhub_github_proxy: http://lab:hunter2@proxy.example.org:{port}"
    found = judge_inventory(materialise(tmp_path, case))
    texts = [str(problem) for problem in found if problem.warning]
    assert len(texts) == 1
    assert "all.yml:5: jupyterhub_github_proxy = (hidden)\n   a secret in plain text" in texts[0]
    assert [problem.value for problem in found if not problem.warning] == ([] if port == "3128" else ["(hidden)"])
    assert not [problem for problem in found if "hunter2" in str(problem)]


def test_a_vaulted_secret_is_no_warning(tmp_path: Path) -> None:
    text = VaultLib([("default", VaultSecret(VAULT_PASSWORD))]).encrypt("hunter2").decode()
    value = "!vault |\n" + textwrap.indent(text, "  ")
    hosts = materialise(tmp_path, {"add": f"ansible_become_password: {value}"})
    password = tmp_path / "password"
    password.write_bytes(VAULT_PASSWORD)
    result = run_site(hosts, tmp_path, static_play(tmp_path), "--vault-password-file", str(password))
    assert result.returncode == 0, result.stdout
    assert "plain text" not in result.stdout + result.stderr
    assert "hunter2" not in result.stdout + result.stderr


@pytest.mark.parametrize("id_", ["group-node-misspelt", "many", "not-yaml"])
def test_site_yml_refuses_before_any_machine_is_touched(id_: str, tmp_path: Path) -> None:
    case = next(case for case in TABLE["cases"] if case["id"] == id_)
    result = run_site(materialise(tmp_path, case), tmp_path, ROOT / "site.yml")
    assert result.returncode != 0
    assert "No machine has been touched" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    for pieces in case["expect"]:
        assert all(str(piece) in result.stdout for piece in pieces), result.stdout
    assert not (tmp_path / "touched").exists()


def test_a_carried_bundle_is_found_where_it_lies_by_default(tmp_path: Path) -> None:
    case = {
        "add": "bundle_source: directory\nsite_cache_dir: '{{ hostvars.master.inventory_dir }}/cache'\n",
        "files": {"cache/bundle/directory/manifest.json": '{"kubernetes_version": "v1.20.2"}'},
    }
    result = run_site(materialise(tmp_path, case), tmp_path, static_play(tmp_path))
    assert result.returncode != 0
    assert "holds Kubernetes v1.20.2, which is not supported" in result.stdout


def existing_site(directory: Path, server: str) -> Path:
    """Write an inventory of an existing cluster whose API server is at `server`, and its kubeconfig."""
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "a", "cluster": {"server": server}}],
        "users": [{"name": "a", "user": {"token": "t"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "current-context": "a",
    }
    add = (
        f"kubernetes_manage: false\nkubernetes_kubeconfig: {directory}/kubeconfig\nmonitoring_enabled: false\n"
        "jupyterhub_images: {hub: r.example.org/hub@sha256:0, proxy: r.example.org/p, singleuser: s, scipy: t}\n"
    )
    return materialise(directory, {"add": add, "files": {"kubeconfig": json.dumps(kubeconfig)}})


@pytest.fixture
def api_of_version() -> Iterator[Callable[[str], str]]:
    """Return a function that answers as the API server of a release would, which no test could run, and says where."""
    servers = []

    def serve(version: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == "/version", "nothing else may be asked"
                major, minor = version.removeprefix("v").split(".")[:2]
                body = json.dumps({"major": major, "minor": f"{minor}+", "gitVersion": version}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_site_yml_refuses_an_old_cluster_before_any_machine_is_touched(
    options: tuple[str, ...], tmp_path: Path, api_of_version: Callable[[str], str]
) -> None:
    hosts = existing_site(tmp_path, api_of_version("v1.33.7"))
    result = run_site(hosts, tmp_path, ROOT / "site.yml", *options)
    assert result.returncode != 0
    assert "No machine has been touched" in result.stdout
    assert "the cluster runs v1.33.7" in result.stdout
    assert "all.yml:4: kubernetes_kubeconfig" in result.stdout
    assert not (tmp_path / "touched").exists()


def test_a_new_cluster_of_somebody_else_passes(tmp_path: Path, api_of_version: Callable[[str], str]) -> None:
    hosts = existing_site(tmp_path, api_of_version("v1.34.1"))
    result = run_site(hosts, tmp_path, static_play(tmp_path))
    assert result.returncode == 0, result.stdout
    assert "changed=0" in result.stdout


@pytest.mark.parametrize("kubeconfig", [True, False])
def test_an_existing_cluster_that_cannot_be_asked_is_refused(kubeconfig: bool, tmp_path: Path) -> None:
    hosts = existing_site(tmp_path, "http://127.0.0.1:1")
    if not kubeconfig:
        (tmp_path / "kubeconfig").unlink()
    result = run_site(hosts, tmp_path, static_play(tmp_path))
    assert result.returncode != 0
    assert "its version cannot be asked" in result.stdout
    assert ("http://127.0.0.1:1 cannot be reached" if kubeconfig else "there is no file") in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_the_mark_is_left_when_a_machine_is_touched(tmp_path: Path) -> None:
    """The proof above is worth nothing if a touched machine left no mark."""
    playbook = tmp_path / "touch.yml"
    playbook.write_text("- {hosts: gpu1, gather_facts: false, tasks: [{ansible.builtin.ping: }]}\n")
    run_site(materialise(tmp_path, {}), tmp_path, playbook)
    assert (tmp_path / "touched").exists()


@pytest.mark.parametrize("options", [(), ("--check",)])
def test_the_example_passes_the_static_part(options: tuple[str, ...], tmp_path: Path) -> None:
    result = run_site(ROOT / "inventory/example/hosts.yml", tmp_path, static_play(tmp_path), *options)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "changed=0" in result.stdout
    assert not (tmp_path / "touched").exists()
