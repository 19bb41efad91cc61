"""Action plugin `jhok.lab.preflight`: reads the inventory and lets the pure rules judge it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.errors import AnsibleError
from ansible.inventory.helpers import sort_groups
from ansible.module_utils.common.yaml import yaml_load  # libyaml where there is one
from ansible.plugins.action import ActionBase
from ansible.template import Templar
from ansible.utils.vars import load_extra_vars
from ansible_collections.jhok.lab.plugins.module_utils.k8s import K8sError, connect
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight import (
    BUNDLE_DIR,
    BUNDLE_SOURCE,
    CONTROL,
    KUBECONFIG,
    READ,
    Problem,
    Site,
    judge,
    report,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight_cluster import judge_existing
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight_files import Scan, scan_inventory, scan_variables
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight_machine import judge_machines

if TYPE_CHECKING:
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.vars.hostvars import HostVars

ROLES = Path(__file__).resolve().parents[2] / "roles"
_SUBJECTS = {"static": "The inventory is", "existing": "The cluster is", "machine": "The machines are"}
_YAML = {".yml", ".yaml", ".json", ""}
_ALSO = {"ip", "ansible_host"}  # variables without a role's prefix that the rules read


@cache
def load_specs(roles: Path = ROLES) -> dict[str, dict[str, dict[str, Any]]]:
    """Return per role the options of all entry points of its argument specification (`main` wins)."""
    specs = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        entries = (yaml_load(path.read_text()) or {}).get("argument_specs") or {}
        order = sorted(entries, key=lambda entry: entry == "main")
        specs[path.parts[-3]] = {n: o for entry in order for n, o in (entries[entry].get("options") or {}).items()}
    return specs


def scan_sources(sources: list[str], loader: DataLoader) -> Scan:
    """Scan the files of inventory `sources` (files or directories), with group_vars and host_vars beside them."""
    scan = Scan()
    for source in map(Path, sources):
        base = source if source.is_dir() else source.parent
        files = sorted(p for p in source.iterdir() if p.is_file()) if source.is_dir() else [source]
        for path in files:
            if path.suffix in (".yml", ".yaml", ".json") and path.is_file():
                scan_inventory(scan, _shown(path), loader.get_text_file_contents(str(path)))
        for scope in ("group", "host"):
            for path in sorted(p for p in (base / f"{scope}_vars").rglob("*") if p.is_file() and p.suffix in _YAML):
                owner = path.relative_to(base / f"{scope}_vars").parts[0]
                owner = owner if (base / f"{scope}_vars" / owner).is_dir() else Path(owner).stem
                vaulted = path.read_bytes().startswith(b"$ANSIBLE_VAULT")
                text = loader.get_text_file_contents(str(path))
                scan_variables(scan, _shown(path), text, scope, owner, vaulted=vaulted)
    return scan


def _wiring(loader: DataLoader) -> tuple[set[str], set[str]]:
    """Return the names that the playbooks set for all hosts, and the words of the templates that make them."""
    path = ROLES.parent / "playbooks" / "group_vars" / "all.yml"
    text = loader.get_text_file_contents(str(path))
    scan = Scan()
    scan_variables(scan, str(path), text, "group", "all")
    return {d.name for d in scan.definitions}, set(re.findall(r"\w+", text))


def _shown(path: Path) -> str:
    """Return `path` relative to the working directory where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def collect(
    loader: DataLoader, inventory: InventoryManager, hostvars: HostVars, sources: list[str], roles: Path = ROLES
) -> Site:
    """Return the inventory as plain data.

    Args:
        loader: Ansible's data loader.
        inventory: Ansible's inventory: groups and hosts.
        hostvars: Ansible's hostvars.
        sources: paths of the inventory's sources.
        roles: folder of the roles whose argument specifications count.

    """
    specs = load_specs(roles)
    groups = {name: [host.name for host in group.get_hosts()] for name, group in inventory.groups.items()}
    site = Site(
        groups={name: hosts for name, hosts in groups.items() if name not in ("all", "ungrouped")},
        host_groups={
            name: [group.name for group in sort_groups(host.get_groups()) if group.name != "all"]
            for name, host in inventory.hosts.items()
        },
        extra_vars=set(load_extra_vars(loader)),
        specs=specs,
        scan=scan_sources(sources, loader),
    )
    site.derived, words = _wiring(loader)
    site.shared = words & set(site.options)
    # Resolving a template costs milliseconds: only what an admin has set, and what the rules read, is resolved.
    ports = {name for name in site.options if name.endswith("_port")}
    for host in sorted({CONTROL, *inventory.hosts}):
        raw = {**hostvars.raw_get(host), "hostvars": hostvars, "groups": groups}
        site.present[host] = set(raw)
        read = {n for n in {*READ, *ports} if host in site.concerned(site.role_of(n))}
        watched = {*read, *_ALSO, *site.extra_vars, *(d.name for d in site.scan.definitions)}
        names = sorted(watched & set(raw))
        templar = Templar(loader=loader, variables=raw)
        site.given[host] = {}
        for name in names:
            try:
                site.given[host][name] = _plain(templar.template(raw[name]))
            except AnsibleError as err:
                site.unresolved.append((host, name, _reason(err)))
    if site.value(BUNDLE_SOURCE) == "directory":
        site.carried = _carried(site, loader, hostvars)
    return site


def _carried(site: Site, loader: DataLoader, hostvars: HostVars) -> str:
    """Return the version of the Kubernetes in the bundle directory; empty where there is none."""
    raw = {**hostvars.raw_get(CONTROL), "hostvars": hostvars}
    try:
        directory = site.given[CONTROL].get(BUNDLE_DIR) or Templar(loader=loader, variables=raw).template(
            raw.get("site_bundle_dir", "")
        )
        manifest = json.loads((Path(str(directory)).expanduser() / "manifest.json").read_text())
    except (AnsibleError, OSError, ValueError):
        return ""
    return str(manifest.get("kubernetes_version") or "") if isinstance(manifest, dict) else ""


def _cluster_version(kubeconfig: str) -> tuple[str, str]:
    """Return what the API server calls its version, and why there is none."""
    try:
        return connect(kubeconfig).version().text, ""
    except K8sError as err:
        there_is_none = f"there is no file {kubeconfig} on the control machine"
        return "", there_is_none if err.reason == "no-kubeconfig" else str(err)
    except (ValueError, KeyError) as err:
        return "", f"what answers there is no API server ({err})"


def _today() -> date:
    return datetime.now(tz=UTC).date()


def _plain(value: object) -> object:
    """Return `value` as plain Python: Ansible's own containers and tagged scalars converted."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value


def _reason(err: AnsibleError) -> str:
    """Return the core of a template error in one line."""
    text = re.sub(r"\s+", " ", str(err)).strip().rstrip(".")
    return text.removeprefix("Error while resolving value: ")


class ActionModule(ActionBase):  # type: ignore[misc]
    """Judges the inventory (`stage: static`), an existing cluster (`existing`) or the machines (`machine`)."""

    _requires_connection = False
    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; fails with every problem in one message."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _spec, args = self.validate_argument_spec(
            {
                "stage": {"type": "str", "choices": ["static", "existing", "machine"], "default": "static"},
                "machines": {"type": "dict", "default": {}},
                "limits": {"type": "dict", "default": {}},
            }
        )
        hostvars = variables["hostvars"]
        inventory = hostvars._inventory  # an action has no other way to it
        sources = [str(s) for s in variables.get("ansible_inventory_sources") or []]
        site = collect(self._loader, inventory, hostvars, sources)
        if args["stage"] == "machine":
            problems = judge_machines(site, args["machines"], args["limits"])
        elif args["stage"] == "existing":
            problems = judge_existing(site, *_cluster_version(str(site.value(KUBECONFIG))))
        else:
            problems = judge(site, _today())
        return {**result, "changed": False, **_outcome(problems, args["stage"])}


def _outcome(problems: list[Problem], stage: str) -> dict[str, Any]:
    """Return the result's fields for `problems`."""
    warnings = [str(p) for p in problems if p.warning]
    errors = [p for p in problems if not p.warning]
    if not errors:
        return {"warnings": warnings, "msg": f"{_SUBJECTS[stage]} fine."}
    number = f"{len(errors)} problem{'s' if len(errors) > 1 else ''}"
    untouched = "Nothing has been changed on them." if stage == "machine" else "No machine has been touched."
    heading = f"{_SUBJECTS[stage].rpartition(' ')[0]} {'have' if stage == 'machine' else 'has'} {number}. {untouched}"
    return {"failed": True, "warnings": warnings, "msg": report(errors, heading)}
