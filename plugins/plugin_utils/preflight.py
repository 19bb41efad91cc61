"""The rules by which an inventory is judged before any machine is touched. Pure: plain data in, problems out.

`judge` looks at the whole inventory and returns every problem at once. Reading the inventory is the business of action
plugin `jhok.lab.preflight`; the rules for machines, which need facts, are in `preflight_machine`.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ansible_collections.jhok.lab.plugins.plugin_utils.alertmanager import RECEIVERS, receiver_faults
from ansible_collections.jhok.lab.plugins.plugin_utils.hub import GITHUB_NAME, USERNAME_PATTERN, VERIFY_USER
from ansible_collections.jhok.lab.plugins.plugin_utils.podnet import PRIVATE_CIDRS
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight_files import Definition, Scan
from ansible_collections.jhok.lab.plugins.plugin_utils.preflight_values import (
    HIDDEN,
    Fault,
    faults,
    has_secret,
    is_secret,
    nearest,
    show,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.rules import OWN_RULES, own_rule_faults
from ansible_collections.jhok.lab.plugins.plugin_utils.versions import NEWEST, RELEASES, release_of

CONTROL = "localhost"  # the control machine, where everything that speaks to the Kubernetes API runs

# Names that an option once had: {old name: (new name, version that renamed it)}.
RENAMED: dict[str, tuple[str, str]] = {}

# Names of options that are there no more: {name: (version that dropped it, what decides instead)}.
_BY_THE_TABLE = "the table of versions decides, by bundle_kubernetes_version"
GONE: dict[str, tuple[str, str]] = {
    "bundle_crictl_version": ("0.1.0", _BY_THE_TABLE),
    "bundle_cni_version": ("0.1.0", _BY_THE_TABLE),
}

# Values that an option once had: {(option, value): (what became of it, what to do)}.
WITHDRAWN: dict[tuple[str, str], tuple[str, str]] = {
    ("bundle_source", "debian"): (
        "it built Kubernetes 1.20 from Debian's source, which has got no updates since 2022, and is gone",
        "set bundle_source: modules (built on the control machine from Go modules), or upstream or directory",
    ),
}

# Groups that mean something, ours and kubespray's. `lab` holds machines that playbooks/lab_up.yml makes.
GROUPS = ("kube_control_plane", "kube_node", "nfs_server", "lab", "k8s_cluster", "etcd")
LOAD_USERS = "jhok-load-"  # how the names begin that playbooks/benchmark.yml makes up
_MACHINE_GROUPS = ("kube_control_plane", "kube_node", "nfs_server")

# On which hosts a role's variables count: groups, or the control machine.
ROLE_HOSTS: dict[str, tuple[str, ...]] = {
    "nfs_server": ("nfs_server",),
    "node": ("kube_control_plane", "kube_node"),
    "registry": ("kube_control_plane",),
    "kubernetes": ("kube_control_plane", "kube_node"),
}

# The variables of other roles that the rules across roles speak of (a test holds them against the argument specs).
LAB_NETWORK = "site_lab_network"
POD_CIDR = "kubernetes_pod_cidr"
SERVICE_CIDR = "kubernetes_service_cidr"
MANAGE = "kubernetes_manage"
KUBECONFIG = "kubernetes_kubeconfig"
IMAGES = "jupyterhub_images"
HOMES = ("storage_nfs_server", "storage_nfs_path")
PODS_ON_CONTROL_PLANE = "kubernetes_schedule_on_control_plane"
KUBELET_CONFIG = "kubernetes_kubelet_config"
NODE_PORTS = ("jupyterhub_node_port", "monitoring_node_port")
AUTH = "jupyterhub_auth"
GITHUB_APP = ("jupyterhub_github_client_id", "jupyterhub_github_client_secret")
GITHUB_URL = "jupyterhub_github_url"
GITHUB_CALLBACK = "jupyterhub_github_callback_url"
GITHUB_CA = "jupyterhub_github_ca"
GITHUB_PROXY = "jupyterhub_github_proxy"
GITHUB_ORGANIZATIONS = "jupyterhub_github_organizations"
GITHUB_TEAMS = "jupyterhub_github_teams"
USER_LISTS = ("jupyterhub_users", "jupyterhub_admins")
UIDS, RENAMED_USERS = "jupyterhub_uids", "jupyterhub_renamed_users"
RUNTIMES, DEFAULT_RUNTIME = "node_runtimes", "node_default_runtime"
GUARD_PORTS, GUARD_POD_PORTS = "node_guard_ports", "node_guard_pod_ports"
GUARD, CIDR_LISTS = "node_guard", ("node_guard_allowed_cidrs", "jupyterhub_user_allowed_cidrs")
ENVIRONMENTS, SIZES, GPUS = "jupyterhub_environments", "jupyterhub_sizes", "jupyterhub_gpus"
IMAGES_CATALOGUE, IMAGES_EXTRA = "images_catalogue", "images_extra"
HUB_URL = "jupyterhub_url"
URLS = (HUB_URL, "jupyterhub_dashboards_url")
NOTICE = "jupyterhub_notice"
IDLE_TIMEOUT, MAX_AGE = "jupyterhub_idle_timeout", "jupyterhub_max_age"
STOP_WARNING, CHECK_INTERVAL = "jupyterhub_stop_warning", "jupyterhub_idle_check_interval"
MONITORING, MONITORING_IMAGES, MONITORING_URL = "monitoring_enabled", "monitoring_images", "monitoring_url"
MONITORING_NODE, MONITORING_PATH = "monitoring_node", "monitoring_storage_path"
PAGE, PANELS, DASHBOARDS = "monitoring_ui", "monitoring_panels", "monitoring_dashboards"
GRAFANA = ("monitoring_grafana_image", "monitoring_grafana_archive", "monitoring_grafana_deb")
RETENTION_DAYS, RETENTION_GB = "monitoring_retention_days", "monitoring_retention_gb"
EXTRA_METRICS = "monitoring_extra_metrics"
# What a number of monitoring's may be, and what it would mean otherwise.
RANGES: dict[str, tuple[float, float, str]] = {
    "monitoring_scrape_interval": (5, 30, "rates are worked out over two minutes, and need four figures in them"),
    RETENTION_DAYS: (1, 3650, "nothing could be looked up, or no disk could hold it"),
    RETENTION_GB: (1, 10000, "Prometheus needs some room to work"),
    "monitoring_homes_interval": (60, 86400, "measuring would never end, or be no news"),
    "monitoring_backup_max_age_days": (1, 365, "there would always be an alert, or never one"),
    "monitoring_traffic_budget_gb": (0, math.inf, "nobody's traffic is below it; 0 is no limit"),
}
BACKUP, BACKUP_ENVIRONMENT = "backup_repository", "backup_environment"
BACKUP_SCHEDULE, BACKUP_KEEP, BACKUP_EXCLUDE = "backup_schedule", "backup_keep", "backup_exclude"
BACKUP_SAME_DISK, BACKUP_AGE = "backup_allow_same_disk", "backup_max_age_days"
NFS_PATH = "nfs_server_path"
QUOTA, QUOTAS = "storage_quota", "storage_quotas"
BUNDLE_SOURCE = "bundle_source"
BUNDLE_DIR = "bundle_dir"
BUNDLE_VERSION = "bundle_kubernetes_version"
READ = (
    LAB_NETWORK,
    POD_CIDR,
    SERVICE_CIDR,
    MANAGE,
    PODS_ON_CONTROL_PLANE,
    KUBELET_CONFIG,
    BUNDLE_SOURCE,
    BUNDLE_DIR,
    BUNDLE_VERSION,
    *NODE_PORTS,
    NOTICE,
    IDLE_TIMEOUT,
    MAX_AGE,
    STOP_WARNING,
    CHECK_INTERVAL,
    *URLS,
    AUTH,
    *GITHUB_APP,
    GITHUB_URL,
    GITHUB_CALLBACK,
    GITHUB_CA,
    GITHUB_PROXY,
    GITHUB_ORGANIZATIONS,
    GITHUB_TEAMS,
    *USER_LISTS,
    UIDS,
    RENAMED_USERS,
    RUNTIMES,
    DEFAULT_RUNTIME,
    GUARD_PORTS,
    GUARD_POD_PORTS,
    *CIDR_LISTS,
    ENVIRONMENTS,
    SIZES,
    GPUS,
    IMAGES_CATALOGUE,
    IMAGES_EXTRA,
    MONITORING,
    MONITORING_URL,
    MONITORING_NODE,
    MONITORING_PATH,
    PAGE,
    *GRAFANA,
    PANELS,
    DASHBOARDS,
    EXTRA_METRICS,
    OWN_RULES,
    RECEIVERS,
    *RANGES,
    BACKUP,
    BACKUP_ENVIRONMENT,
    BACKUP_SCHEDULE,
    BACKUP_KEEP,
    BACKUP_EXCLUDE,
    BACKUP_SAME_DISK,
    BACKUP_AGE,
    NFS_PATH,
    QUOTA,
    QUOTAS,
)

_NODE_PORT_RANGE = range(30000, 32768)
_TAKEN_PORTS = {
    22: "ssh",
    111: "rpcbind (NFS)",
    2049: "NFS",
    2379: "etcd",
    2380: "etcd",
    5000: "the site's registry",
    5001: "the site's registry (write side)",
    5002: "the site's registry (metrics)",
    6443: "the Kubernetes API",
    9100: "the node exporter",
    10250: "the kubelet",
}
_NODE_PREFIX = 24  # each machine gets a /24 of the pod network
_SERVICE_PREFIX = 28  # DNS has the tenth address of the service network

_NOTICE_LENGTH = 1000  # characters; a page has to have room for more than that
_SHORTEST_LIMIT = 60  # seconds

_LEAST_UID, _LARGEST_UID, _NOBODY = 500, 2**31 - 1, 65534  # below, a server would have no name for its user

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ORGANIZATION = r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}"
_TEAM = rf"{_ORGANIZATION}:[a-z0-9][a-z0-9._-]*"  # both as in the team's address
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_USER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)([KMGT])")
_REFERENCE = re.compile(r"\S+@sha256:[0-9a-f]{64}")
_NO_ENVIRONMENTS = {"hub", "proxy", "prometheus", "exporter", "dashboards", "grafana"}  # images, but not to work in
_MOST_GPUS = 16  # of one machine, as the largest of today have them
_NOTICE_DAYS = 60  # how long before a release's end of life a site hears of it
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
# What restic can reach; `rclone:` needs a program that role backup does not install.
_REPOSITORY = re.compile(r"(sftp|rest|s3|b2|azure|gs|swift):\S+")
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")
_CALENDAR = re.compile(r"[A-Za-z0-9*:.,/~ _+-]+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESTICS_OWN = {"RESTIC_REPOSITORY", "RESTIC_PASSWORD", "RESTIC_CACHE_DIR", "RESTIC_PROGRESS_FPS"}
_SECRET_NAME = re.compile(r"(secret|passw(or)?d|token|_pass)$")


@dataclass(frozen=True)
class Problem:
    """One thing to put right.

    Attributes:
        where: file and line, `extra vars`, or the host.
        name: variable, host or group.
        value: as shown to people; empty when there is none.
        what: what is wrong.
        do: what to do.
        warning: worth saying, no reason to stop.

    """

    where: str
    name: str
    value: str
    what: str
    do: str
    warning: bool = False

    def __str__(self) -> str:
        value = f" = {self.value}" if self.value else ""
        return f"{self.where}: {self.name}{value}\n   {self.what}.\n   To do: {self.do}."


@dataclass
class Site:
    """An inventory as plain data.

    Attributes:
        groups: hosts of every group of the inventory, without `all` and `ungrouped`.
        host_groups: groups of every host, in rising precedence.
        given: per host, and for `localhost`, values of the variables that the inventory or the command line sets, and
            of those in `READ`; templates are resolved.
        present: per host, and for `localhost`, the names of all variables.
        derived: names that the playbooks' own group_vars set.
        shared: options that those are derived from, so that every machine and the control machine must see one value.
        unresolved: (host, variable, reason) of each value whose template cannot be resolved.
        extra_vars: names given on the command line.
        specs: per role, the options of its argument specification.
        scan: where things are set.
        carried: version of the Kubernetes in the bundle that was carried here (source `directory`); empty as long as
            there is none.

    """

    groups: dict[str, list[str]] = field(default_factory=dict)
    host_groups: dict[str, list[str]] = field(default_factory=dict)
    given: dict[str, dict[str, Any]] = field(default_factory=dict)
    present: dict[str, set[str]] = field(default_factory=dict)
    derived: set[str] = field(default_factory=set)
    shared: set[str] = field(default_factory=set)
    unresolved: list[tuple[str, str, str]] = field(default_factory=list)
    extra_vars: set[str] = field(default_factory=set)
    specs: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    scan: Scan = field(default_factory=Scan)
    carried: str = ""

    @property
    def machines(self) -> list[str]:
        """The hosts of the inventory, sorted."""
        return sorted(self.host_groups)

    @property
    def options(self) -> dict[str, dict[str, Any]]:
        """Every option of every role."""
        return {name: option for options in self.specs.values() for name, option in options.items()}

    def role_of(self, name: str) -> str | None:
        """Return the role whose prefix `name` bears; `site_…` belongs to preflight."""
        roles = [role for role in self.specs if name.startswith(f"{role}_")]
        return max(roles, key=len) if roles else "preflight" if name.startswith("site_") else None

    def concerned(self, role: str | None) -> list[str]:
        """Return the hosts on which a role's variables count."""
        groups = ROLE_HOSTS.get(role or "")
        if groups is None:
            return [CONTROL]
        return [host for group in groups for host in self.groups.get(group, [])]

    def value(self, name: str) -> Any:  # noqa: ANN401 - any type that a variable may have
        """Return a variable's value for the whole site: that of the first host concerned, else the default.

        None where nobody sets it and its default is a template, which only the role can resolve.
        """
        for host in [*self.concerned(self.role_of(name)), CONTROL]:
            if name in self.given.get(host, {}):
                return self.given[host][name]
        default = self.options.get(name, {}).get("default")
        return None if "{{" in str(default) else default

    def definition(self, name: str, host: str = CONTROL) -> Definition | None:
        """Return where in the inventory's files `name` is set for `host`."""
        return self.scan.locate(name, host, self.host_groups.get(host, []))

    def is_set(self, name: str) -> bool:
        """Return whether the inventory or the command line sets `name` for the whole site."""
        return name in self.extra_vars or self.definition(name) is not None

    def where(self, name: str, host: str | None = None) -> str:
        """Return the place that an admin looks at for `name` on `host` (default: the first host concerned)."""
        if name in self.extra_vars:
            return "extra vars"
        hosts = [host] if host else [*self.concerned(self.role_of(name)), CONTROL]
        found = next((d for d in (self.definition(name, h) for h in hosts) if d), None)
        return found.where if found else f"host {host}" if host and host != CONTROL else "defaults"

    def problem(self, name: str, what: str, do: str, host: str | None = None) -> Problem:
        """Return a problem of variable `name` with its place and value filled in."""
        value = self.given.get(host, {}).get(name) if host else self.value(name)
        return Problem(self.where(name, host), name, show(value, secret=self._hides(name)), what, do)

    def _hides(self, name: str) -> bool:
        return is_secret(self.options.get(name, {})) or bool(_SECRET_NAME.search(name))


def judge(site: Site, today: date, renamed: Mapping[str, tuple[str, str]] | None = None) -> list[Problem]:
    """Return every problem of an inventory, warnings last, in the order of files and lines.

    Args:
        site: the inventory.
        today: the day on which it is judged.
        renamed: names that options once had; default: `RENAMED`.

    """
    table = RENAMED if renamed is None else renamed
    found = {problem: None for rule in _RULES for problem in rule(site)}
    found |= dict.fromkeys(_version_problems(site, today))
    found |= dict.fromkeys(_name_problems(site, table))
    return sorted(found, key=_order)


def report(problems: Iterable[Problem], heading: str) -> str:
    """Return the message that lists `problems` under `heading`."""
    lines = [f"{number}. {problem}" for number, problem in enumerate(problems, 1)]
    return "\n\n".join([heading, *lines])


def _order(problem: Problem) -> tuple[Any, ...]:
    path, _, line = problem.where.rpartition(":")
    number = int(line) if path and line.isdigit() else 0
    return problem.warning, path or line, number, problem.name, problem.what


def _file_problems(site: Site) -> Iterator[Problem]:
    for fault in site.scan.faults:
        yield Problem(fault.where, fault.key or "(file)", "", fault.what, fault.do)


def _group_problems(site: Site) -> Iterator[Problem]:
    managed = site.value(MANAGE) is not False
    for group, hosts in site.groups.items():
        guess = None if group in GROUPS else nearest(group, GROUPS, 0.8)
        if guess and not (site.groups.get(guess) and site.groups.get(group)):
            where = site.scan.groups.get(group, "inventory")
            yield Problem(where, group, ", ".join(hosts), "unknown group", f"rename it to {guess}")
    for group, least, most in (("kube_control_plane", 1, 1 if managed else 0), ("nfs_server", 0, 1)):
        hosts = site.groups.get(group, [])
        where = site.scan.groups.get(group, "inventory")
        if len(hosts) < least:
            do = "name the machine that shall run the Kubernetes control plane in it"
            yield Problem(where, f"group {group}", "", "it has no machine", do)
        elif most and len(hosts) > most:
            what = f"it has {len(hosts)} machines, and {most} is supported"
            yield Problem(where, f"group {group}", ", ".join(hosts), what, "keep one")
    if managed and not site.groups.get("kube_node") and site.value(PODS_ON_CONTROL_PLANE) is not True:
        do = f"name the workers in it (for a site with a single machine set {PODS_ON_CONTROL_PLANE}: true)"
        where = site.scan.groups.get("kube_node", "inventory")
        yield Problem(where, "group kube_node", "", "it has no machine, so no user's server could start", do)
    for host, groups in site.host_groups.items():
        if not set(groups) & set(_MACHINE_GROUPS):
            where = site.scan.hosts.get(host, "inventory")
            what = f"the machine is in none of the groups {', '.join(_MACHINE_GROUPS)}"
            yield Problem(where, host, "", what, "put it into one, or remove it")


def _host_problems(site: Site) -> Iterator[Problem]:
    for host in site.machines:
        where = site.scan.hosts.get(host, "inventory")
        if host == CONTROL:
            what = "this name means the control machine, it cannot be a machine of the site"
            yield Problem(where, host, "", what, "give the machine its own name (with ansible_connection: local)")
        elif len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
            what = "not a legal host name (RFC 1123: small letters, digits and hyphens, at most 63 between dots)"
            guess = re.sub(r"[^a-z0-9.-]+", "-", host.lower()).strip("-.")
            yield Problem(where, host, "", what, f"rename the machine, e.g. to {guess or 'node1'}")


def addresses(site: Site) -> dict[str, tuple[str, Any]]:
    """Return per machine the variable that gives its address in the lab's network (`ip`, else `ansible_host`)."""
    found = {}
    for host in site.machines:
        given = site.given.get(host, {})
        name = "ip" if "ip" in given else "ansible_host"
        found[host] = (name, given.get(name))
    return found


def _address_problems(site: Site) -> Iterator[Problem]:
    networks = _networks(site)
    seen: dict[Any, str] = {}
    for host, (name, value) in addresses(site).items():
        if any((host, name) == (h, n) for h, n, _reason in site.unresolved):
            continue
        try:
            address = ipaddress.ip_address(str(value))
        except ValueError:
            missing = value is None or name == "ansible_host"
            what = "the machine's address in the lab's network is not known" if missing else "not an IP address"
            do = "give it as ip: (for example ip: 172.16.0.101)" if missing else "give an address such as 172.16.0.101"
            where = site.scan.hosts.get(host, "inventory") if value is None else site.where(name, host)
            yield Problem(where, f"{name} of {host}", show(value) if value is not None else "", what, do)
            continue
        wrong = partial(Problem, site.where(name, host), f"{name} of {host}", str(address))
        if address in seen:
            yield wrong(f"{seen[address]} has the same address", "give each machine its own")
        seen.setdefault(address, host)
        if address.version == 6:
            yield wrong("IPv6 is not supported", "give the machine's IPv4 address")
        elif address.is_loopback or address.is_multicast or address.is_unspecified or address.is_reserved:
            yield wrong("no other machine can reach this address", "give the address in the lab's network")
        for network_name, network in networks.items():
            if network_name != LAB_NETWORK and address in network:
                yield wrong(f"the address lies in {network_name} ({network})", f"choose another {network_name}")
        lab = networks.get(LAB_NETWORK)
        if lab and address not in lab:
            yield wrong(f"the address is not in {LAB_NETWORK} ({lab})", "correct one of the two")
        elif lab and lab.prefixlen < 31 and address in (lab.network_address, lab.broadcast_address):
            kind = "network" if address == lab.network_address else "broadcast"
            yield wrong(f"it is the {kind} address of {LAB_NETWORK} ({lab})", "give the machine's own address")


def _networks(site: Site) -> dict[str, Any]:
    """Return the valid ones of the site's networks by variable."""
    found = {}
    for name in (LAB_NETWORK, POD_CIDR, SERVICE_CIDR):
        try:
            found[name] = ipaddress.IPv4Network(str(site.value(name)))
        except ValueError:
            continue
    return found


def _network_problems(site: Site) -> Iterator[Problem]:
    for name in (LAB_NETWORK, POD_CIDR, SERVICE_CIDR):
        value = site.value(name)
        if value in (None, "") or any(n == name for _host, n, _reason in site.unresolved):
            continue
        try:
            ipaddress.IPv4Network(str(value))
        except ValueError:
            try:
                loose = ipaddress.IPv4Network(str(value), strict=False)
                yield site.problem(name, "an address within a network, not the network itself", f"write {loose}")
            except ValueError:
                yield site.problem(name, "not an IPv4 network", "write it as address/length, e.g. 10.244.0.0/16")
    networks = _networks(site)
    names = list(networks)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            if networks[first].overlaps(networks[second]):
                what = f"it overlaps with {first} ({networks[first]})"
                yield site.problem(second, what, "choose networks that have no address in common")
    nodes = len({h for group in ("kube_control_plane", "kube_node") for h in site.groups.get(group, [])})
    pods = networks.get(POD_CIDR)
    if pods and (pods.prefixlen > _NODE_PREFIX or 2 ** (_NODE_PREFIX - pods.prefixlen) < nodes):
        need = _NODE_PREFIX - max(nodes - 1, 0).bit_length()
        what = f"too small: each of the {nodes} machines needs a /{_NODE_PREFIX} of it"
        yield site.problem(POD_CIDR, what, f"give a network of length /{need} or shorter, e.g. /16")
    services = networks.get(SERVICE_CIDR)
    if services and services.prefixlen > _SERVICE_PREFIX:
        yield site.problem(SERVICE_CIDR, "too small for the site's Services", "give a network such as 10.96.0.0/16")


def _port_problems(site: Site) -> Iterator[Problem]:
    seen: dict[int, str] = {}
    for name, option in sorted(site.options.items()):
        port = site.value(name)
        if not name.endswith("_port") or option.get("type") != "int" or isinstance(port, bool):
            continue
        if not str(port).isdigit():
            continue  # the type's own message says so
        port = int(port)
        if name in NODE_PORTS and port not in _NODE_PORT_RANGE:
            low, high = _NODE_PORT_RANGE[0], _NODE_PORT_RANGE[-1]
            what = f"Kubernetes gives out ports from {low} to {high} only"
            yield site.problem(name, what, "choose a port in that range, e.g. 30080")
        elif not 0 < port < 65536:
            yield site.problem(name, "not a port", "choose one from 1 to 65535")
        if port in _TAKEN_PORTS and port != option.get("default"):
            yield site.problem(name, f"the port belongs to {_TAKEN_PORTS[port]}", "choose another port")
        if port in seen:
            yield site.problem(name, f"{seen[port]} has the same port", "choose another port")
        seen.setdefault(port, name)
    yield from _runtime_problems(site)
    nothing = {
        GUARD_PORTS: ("it closes nothing", "set node_guard: false"),
        GUARD_POD_PORTS: ("the site's own pods could not speak to each other", "name their ports, too"),
    }
    for name, (what, otherwise) in nothing.items():
        ports = site.value(name)
        if ports == []:
            yield site.problem(name, what, f"remove it for the usual ports, or {otherwise}")
        for number, port in enumerate(ports if isinstance(ports, list) else []):
            where, item = site.where(name), f"{name}[{number}]"
            if name == GUARD_PORTS and str(port) == "6443":
                what = "pods need Kubernetes' API, which asks who they are"
                yield Problem(where, item, show(port), what, "remove it")
            elif str(port).isdigit() and not 0 < int(port) < 65536:
                yield Problem(where, item, show(port), "not a port", "choose one from 1 to 65535")


def _runtime_problems(site: Site) -> Iterator[Problem]:
    """Judge containerd's runtimes on each node, whose groups may differ in them."""
    found = set()
    for host in site.concerned("node"):
        runtimes, default = (
            site.given.get(host, {}).get(name, site.options.get(name, {}).get("default"))
            for name in (RUNTIMES, DEFAULT_RUNTIME)
        )
        if isinstance(runtimes, dict) and default is not None and default not in {"runc", *runtimes}:
            known = ", ".join(["runc", *sorted(runtimes)])
            do = f"name one of {known}, or add it to {RUNTIMES}"
            found.add(Problem(site.where(DEFAULT_RUNTIME, host), DEFAULT_RUNTIME, show(default), "no such runtime", do))
    yield from found


def _value_problems(site: Site) -> Iterator[Problem]:
    for host in [CONTROL, *site.machines]:
        for name, option in site.options.items():
            # Values that nobody set are ours: the tests judge them, not every admin.
            if name in site.given.get(host, {}) and (site.definition(name, host) or name in site.extra_vars):
                value = site.given[host][name]
                withdrawn = WITHDRAWN.get((name, value)) if isinstance(value, str) else None
                if withdrawn:
                    yield Problem(site.where(name, host), name, value, *withdrawn)
                    continue
                for path, shown, what, do in faults(name, value, option):
                    yield Problem(site.where(name, host), path, shown, what, do)
                for path, shown, what, do in _repetitions(name, value, option):
                    yield Problem(site.where(name, host), path, shown, what, do)


def _required_problems(site: Site) -> Iterator[Problem]:
    for role, options in site.specs.items():
        if role in ("bundle", "node", "registry", "kubernetes") and site.value(MANAGE) is False:
            continue
        for name, option in options.items():
            for host in site.concerned(role):
                if option.get("required") and name not in site.present.get(host, set()):
                    what = f"role {role} needs it, and it is not set for {host}"
                    yield Problem("inventory", name, "", what, "set it in group_vars/all.yml")


def _repetitions(name: str, value: object, option: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield the items of a list that are there twice: equal items, or mappings of the same `name`."""
    if option.get("type") != "list" or not isinstance(value, list):
        return
    seen: dict[str, int] = {}
    for number, item in enumerate(value):
        key = item.get("name") if isinstance(item, dict) else item
        if not isinstance(key, (str, int)):
            continue
        if str(key) in seen:
            shown = show(key, secret=bool(option.get("no_log")))
            yield f"{name}[{number}]", shown, f"the list has it already at [{seen[str(key)]}]", "remove one of the two"
        seen.setdefault(str(key), number)


def _name_problems(site: Site, renamed: Mapping[str, tuple[str, str]]) -> Iterator[Problem]:
    """Judge the names that the inventory's files and the command line set."""
    known = site.options
    places = [(d.name, d.where) for d in site.scan.definitions] + [(n, "extra vars") for n in sorted(site.extra_vars)]
    for name, where in places:
        if name in GONE:  # no secret among them
            version, instead = GONE[name]
            value = next((show(given[name]) for given in site.given.values() if name in given), "")
            yield Problem(where, name, value, f"it is gone since version {version}: {instead}", "remove it")
            continue
        if name in known or name in site.derived or name.startswith("ansible_"):
            continue
        value = next((show(v[name], secret=_may_be_secret(name, known)) for v in site.given.values() if name in v), "")
        if name in renamed:
            new, version = renamed[name]
            yield Problem(where, name, value, f"the name is gone since version {version}", f"rename it to {new}")
            continue
        role = site.role_of(name)
        # Without a role's prefix only a name that is all but a known one is taken for a slip.
        guess = nearest(name, known, 0.75 if role else 0.9)
        if role:
            do = f"rename it to {guess}" if guess else "remove it (docs/admin/variables.md has all names)"
            yield Problem(where, name, value, f"role {role} has no such variable", do)
        elif guess:
            yield Problem(where, name, value, "unknown variable", f"rename it to {guess}")


def _shared_problems(site: Site) -> Iterator[Problem]:
    """Judge what roles share: what the playbooks derive cannot be set, what they derive it from counts for all."""
    places = [(d.name, d.where) for d in site.scan.definitions] + [(n, "extra vars") for n in sorted(site.extra_vars)]
    for name, where in places:
        if name in site.derived:
            what = "the playbooks derive its value, so that what is set here has no effect, or not on all machines"
            yield Problem(where, name, "", what, "remove it; docs/admin/variables.md has the variables that can be set")
    control = {name for role, options in site.specs.items() if role not in ROLE_HOSTS for name in options}
    for found in site.scan.definitions:
        everywhere = (found.scope, found.owner) == ("group", "all") or found.name in site.extra_vars
        if found.name in site.shared | control and not everywhere:
            what = f"it is set for {found.scope} {found.owner} only, and the control machine needs it too"
            yield Problem(found.where, found.name, "", what, "set it in group_vars/all.yml")


def _may_be_secret(name: str, known: Mapping[str, dict[str, Any]]) -> bool:
    """Return whether the value of an unknown variable had better not be shown."""
    guess = nearest(name, known, 0.6)
    return bool(_SECRET_NAME.search(name)) or guess is None or is_secret(known[guess])


def _user_problems(site: Site) -> Iterator[Problem]:
    github = site.value(AUTH) == "github"
    for name in USER_LISTS:
        value = site.value(name)
        for number, item in enumerate(value if isinstance(value, list) else []):
            user = item.get("name") if isinstance(item, dict) else item
            if isinstance(user, (int, float)):
                what = "YAML takes the name for a number or a truth value"
                yield Problem(site.where(name), f"{name}[{number}]", show(user), what, "put it in quotes")
            elif isinstance(user, str) and not (GITHUB_NAME if github else USERNAME_PATTERN).fullmatch(user):
                what = (
                    "not a name that GitHub gives (letters, digits, single hyphens; at most 39)"
                    if github
                    else "not a legal user name (a-z, 0-9 and inside . _ -; at most 64)"
                )
                yield Problem(site.where(name), f"{name}[{number}]", show(user), what, "correct the name")
            elif isinstance(user, str) and user.lower() == VERIFY_USER:
                what = "the name is reserved for playbooks/verify.yml, which signs in by it"
                yield Problem(site.where(name), f"{name}[{number}]", show(user), what, "remove it")
            elif isinstance(user, str) and user.lower().startswith(LOAD_USERS):
                what = "such names are reserved for playbooks/benchmark.yml, which removes their homes"
                yield Problem(site.where(name), f"{name}[{number}]", show(user), what, "give another name")


def _home_problems(site: Site) -> Iterator[Problem]:
    """Judge whose home is which, and whose number is which."""
    uids, renamed = (_mapping(site.value(name)) for name in (UIDS, RENAMED_USERS))
    for variable, names in ((UIDS, [*uids]), (RENAMED_USERS, [*renamed, *renamed.values()])):
        for name in names:
            if not isinstance(name, str) or not USERNAME_PATTERN.fullmatch(name):
                what = "not a home's name, which is that of its user in small letters"
                yield Problem(site.where(variable), variable, show(name), what, "correct the name")
    owners: dict[object, str] = {}
    for name, uid in uids.items():
        path, where = f"{UIDS}.{name}", site.where(UIDS)
        if not isinstance(uid, int) or isinstance(uid, bool) or not _LEAST_UID <= uid <= _LARGEST_UID or uid == _NOBODY:
            do = f"write a number from {_LEAST_UID} to {_LARGEST_UID}, but not {_NOBODY} (nobody)"
            yield Problem(where, path, show(uid), "not a number that a user's server can run as", do)
        elif uid in owners:
            what = f"{owners[uid]} has this number already, so each could read the other's files"
            yield Problem(where, path, show(uid), what, "give each home a number of its own")
        owners.setdefault(uid, str(name))
    people = {str(name).lower() for variable in USER_LISTS for name in _items(site.value(variable))}
    takers: dict[object, str] = {}
    for now, before in renamed.items():
        path, where = f"{RENAMED_USERS}.{now}", site.where(RENAMED_USERS)
        if before in takers or before == now:
            what = "it is the same name" if before == now else f"{takers[before]} has this home already"
            yield Problem(where, path, show(before), what, "name the account's earlier name, each only once")
        elif before in people and before not in renamed:
            what = f"{before} may sign in too ({' or '.join(USER_LISTS)}), and a home has one owner"
            yield Problem(where, path, show(before), what, "remove the earlier name there, or this line")
        takers.setdefault(before, str(now))


def _sign_in_problems(site: Site) -> Iterator[Problem]:
    auth = site.value(AUTH)
    if auth == "native" and not site.value("jupyterhub_admins"):
        do = "name an admin in jupyterhub_admins"
        yield site.problem(AUTH, "there is no admin who could approve those who sign up", do)
    if auth != "github":
        return
    for name in GITHUB_APP:
        if not site.value(name):
            what = f"{AUTH} is github, and the OAuth app that is registered there is not known"
            yield site.problem(name, what, "register one (docs/admin/sign-in.md) and set this")
    if not any(site.value(name) for name in (*USER_LISTS, GITHUB_ORGANIZATIONS, GITHUB_TEAMS)):
        what = "nobody could sign in: GitHub has a hundred million accounts, and none is named here"
        do = f"set {' or '.join((*USER_LISTS, GITHUB_ORGANIZATIONS, GITHUB_TEAMS))}"
        yield site.problem(AUTH, what, do)
    if not re.fullmatch(r"https?://[^/\s?#@]+/?", str(site.value(GITHUB_URL))):
        do = "write it as https://github.com or https://github.example.org"
        yield site.problem(GITHUB_URL, "not the address of GitHub or of a GitHub Enterprise server", do)
    callback = site.value(GITHUB_CALLBACK)  # None: the default, which is right
    if callback is not None and not re.fullmatch(r"https?://[^/\s?#@]+/hub/oauth_callback", str(callback)):
        do = "write it as http://172.16.0.100:30080/hub/oauth_callback, with the address that people open"
        yield site.problem(GITHUB_CALLBACK, "GitHub would send people to an address at which the hub is not", do)
    certificates = site.value(GITHUB_CA)
    if certificates and "-----BEGIN CERTIFICATE-----" not in str(certificates):
        do = "write the CA's certificates as text (PEM), for example {{ lookup('file', '/etc/ssl/lab-ca.pem') }}"
        yield site.problem(GITHUB_CA, "not a certificate", do)
    yield from _proxy_problems(site)
    for name, pattern, form in (
        (GITHUB_ORGANIZATIONS, _ORGANIZATION, "the name in the organization's address, and teams into " + GITHUB_TEAMS),
        (GITHUB_TEAMS, _TEAM, "organization:team, both as in the team's address"),
    ):
        value = site.value(name)
        for number, item in enumerate(value if isinstance(value, list) else []):
            if isinstance(item, str) and not re.fullmatch(pattern, item):
                what = f"not the name of a GitHub {'team' if name == GITHUB_TEAMS else 'organization'}"
                yield Problem(site.where(name), f"{name}[{number}]", show(item), what, f"write {form}")


def _proxy_problems(site: Site) -> Iterator[Problem]:
    """Judge the HTTP proxy between the hub and GitHub; nothing is shown of one that has a login."""
    given = str(site.value(GITHUB_PROXY) or "").strip()
    if not given:
        return
    shown = HIDDEN if _has_login(given) else show(given)
    wrong = partial(Problem, site.where(GITHUB_PROXY), GITHUB_PROXY, shown)
    do = "write it as http://proxy.example.org:3128, special characters of a password as %40 (@), %2F (/) and so on"
    try:
        parts = urlsplit(given)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        yield wrong("not the address of an HTTP proxy", do)
        return
    rest = parts.path.strip("/") or parts.query or parts.fragment or re.search(r"\s", given)
    if parts.scheme != "http" or not _HOST.fullmatch(host) or rest:
        yield wrong("not the address of an HTTP proxy", do)
    elif not port:
        yield wrong("its port is missing", "add it, for example :3128")
    elif host == "localhost" or host.startswith("127."):
        yield wrong("to the hub this is its own pod", "give the address by which other machines reach the proxy")
    elif _is_closed(site, host):
        what = "the nodes' guard keeps the hub's pod, like all others, from private networks"
        yield wrong(what, f"add {host}/32 to {CIDR_LISTS[1]}")
    if str(site.value(GITHUB_URL)).startswith("http:"):
        what = f"a proxy is asked for encrypted connections only, and {GITHUB_URL} is none"
        yield wrong(what, "write that as https://…, or remove this")


def _has_login(proxy: object) -> bool:
    return "@" in str(proxy)


def _is_closed(site: Site, host: str) -> bool:
    """Return whether the nodes' guard keeps pods from an address; of names nothing is known."""
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        return False
    if (
        site.value(MANAGE) is False
        or site.value(GUARD) is False
        or host in (str(a) for _, a in addresses(site).values())
    ):
        return False
    allowed = next((cidrs for cidrs in map(site.value, CIDR_LISTS) if isinstance(cidrs, list)), [])

    def within(cidrs: Iterable[object]) -> bool:
        with suppress(ValueError):  # judged elsewhere
            return any(address in ipaddress.ip_network(str(cidr)) for cidr in cidrs)
        return True

    return within(PRIVATE_CIDRS) and not within(allowed)


def _combination_problems(site: Site) -> Iterator[Problem]:
    # Roles have defaults for these, but only for a cluster and an NFS server of ours.
    if site.value(MANAGE) is False:
        if not site.is_set(KUBECONFIG):
            what = "an existing cluster needs its kubeconfig"
            yield site.problem(MANAGE, what, f"set {KUBECONFIG} to the path of an administrator's kubeconfig")
        if not site.is_set(IMAGES):
            what = "an existing cluster has no registry of ours, from which its nodes could pull the hub's images"
            do = f"push them to a registry that the nodes reach, and set {IMAGES}: {{hub: …, proxy: …, singleuser: …}}"
            yield site.problem(MANAGE, what, do)
    if not site.groups.get("nfs_server"):
        missing = " and ".join(name for name in HOMES if not site.is_set(name))
        if missing:
            where = site.scan.groups.get("nfs_server", "inventory")
            what = "it has no machine, so the homes are on an NFS server of your own, which is not known"
            yield Problem(
                where, "group nfs_server", "", what, f"set {missing}, or name the machine that shall export homes"
            )
    for name in CIDR_LISTS:
        cidrs = site.value(name)
        for cidr in cidrs if isinstance(cidrs, list) else []:
            try:
                ipaddress.ip_network(str(cidr))
            except ValueError:
                yield site.problem(name, f"{cidr} is no network", "write it as address/length, e.g. 192.168.7.0/24")


def wanted_version(site: Site) -> str:
    """Return the version of Kubernetes that the bundle has or will have, as `v1.37.2`; empty when that is not known."""
    if site.value(BUNDLE_SOURCE) == "directory":
        return site.carried
    try:
        return f"v{release_of(_asked_version(site)).kubernetes}"
    except ValueError:
        return ""


def supported_versions() -> str:
    """Return the minor releases of the table as an inventory writes them, each with its version."""
    return " or ".join(f'"{minor}" (v{release.kubernetes})' for minor, release in RELEASES.items())


def _asked_version(site: Site) -> str:
    given = site.value(BUNDLE_VERSION)
    return NEWEST if given is None else str(given)


def _version_problems(site: Site, today: date) -> Iterator[Problem]:
    """Judge which Kubernetes the bundle is to have, or has, and how long that gets updates."""
    carried = site.value(BUNDLE_SOURCE) == "directory"
    asked = site.carried.rpartition(".")[0] if carried else _asked_version(site)
    if site.value(MANAGE) is False or not asked or isinstance(site.value(BUNDLE_VERSION), (bool, dict, list)):
        return
    try:
        release = release_of(asked)
    except ValueError:
        if carried:
            what = f"the bundle in {BUNDLE_DIR} holds Kubernetes {site.carried}, which is not supported"
            do = f"carry one here that this version of the collection has assembled, with {supported_versions()}"
            yield site.problem(BUNDLE_SOURCE, what, do)
        else:
            do = f"write {supported_versions()}, in quotes, or remove it"
            yield site.problem(BUNDLE_VERSION, "not a supported version of Kubernetes", do)
        return
    if (release.end_of_life - today).days > _NOTICE_DAYS:
        return
    ends = "has had no updates since" if today > release.end_of_life else "gets no updates after"
    newer = f'"{NEWEST}" (v{RELEASES[NEWEST].kubernetes})'
    if release.minor == NEWEST:
        do = "take a newer version of this collection, which has newer releases"
    else:
        take = f"carry a bundle of {newer} here" if carried else f"set {BUNDLE_VERSION}: {newer}"
        do = f"for a new site {take}; to upgrade one that runs, wait for playbooks/upgrade.yml of a later collection"
    what = f"Kubernetes {release.minor} {ends} {release.end_of_life}"
    yield replace(version_problem(site, wanted_version(site), what, do), warning=True)


def version_problem(site: Site, version: str, what: str, do: str) -> Problem:
    """Return a problem of the bundle's version, at the variable that decides it."""
    if site.value(BUNDLE_SOURCE) == "directory":
        return Problem(site.where(BUNDLE_SOURCE), BUNDLE_SOURCE, f"directory ({version})", what, do)
    return Problem(site.where(BUNDLE_VERSION), BUNDLE_VERSION, version, what, do)


def _choice_problems(site: Site) -> Iterator[Problem]:
    """Judge what people choose from before a server starts."""
    for name in (ENVIRONMENTS, SIZES, GPUS):
        items = _mappings(site.value(name))
        if not items and name != GPUS and site.value(name) is not None:
            yield site.problem(name, "there is nothing to choose, so nobody could start a server", "name at least one")
        for number, item in items:
            label = item.get("name")
            if isinstance(label, str) and not _LABEL.fullmatch(label):
                what = "not a name that the hub can keep"
                do = "write 1 to 63 of a-z, 0-9 and -, first and last a letter or digit; people see the title"
                yield Problem(site.where(name), f"{name}[{number}].name", show(label), what, do)
        defaults = [number for number, item in items if item.get("default") is True]
        for number in defaults[1:]:
            what = f"{name}[{defaults[0]}] is the default already"
            yield Problem(site.where(name), f"{name}[{number}].default", "true", what, "leave one of the two")
    yield from _environment_problems(site)
    yield from _size_problems(site)
    for number, gpu in _mappings(site.value(GPUS)):
        most = gpu.get("max", 1)
        if isinstance(most, int) and not 1 <= most <= _MOST_GPUS:
            what, do = "not a number of GPUs that one machine has", f"write 1 to {_MOST_GPUS}"
            yield Problem(site.where(GPUS), f"{GPUS}[{number}].max", show(most), what, do)


def _environment_problems(site: Site) -> Iterator[Problem]:
    images = site.value(IMAGES)
    if isinstance(images, dict):
        for name in ("hub", "proxy"):
            if name not in images:
                do = f"add {name}: and its reference by digest"
                yield Problem(site.where(IMAGES), f"{IMAGES}.{name}", "", "it is missing", do)
        known = {str(name) for name in images} - _NO_ENVIRONMENTS
    else:
        shipped = [item for _, item in _mappings(site.value(IMAGES_CATALOGUE)) if item.get("ship")]
        extra = site.value(IMAGES_EXTRA)
        known = {str(item.get("name")) for item in shipped} - _NO_ENVIRONMENTS
        known |= {str(name) for name in (extra if isinstance(extra, list) else [])}
    for number, item in _mappings(site.value(ENVIRONMENTS)):
        image = item.get("image")
        if isinstance(image, str) and image not in known and not _REFERENCE.fullmatch(image):
            what = f"no image of the site has this name: there is {', '.join(sorted(known)) or 'none'}"
            do = f"name one of these, add your own to {IMAGES_EXTRA}, or give a reference by digest (…@sha256:…)"
            yield Problem(site.where(ENVIRONMENTS), f"{ENVIRONMENTS}[{number}].image", image, what, do)
        for limit in ("idle_timeout", "max_age"):
            value = item.get(limit)
            if isinstance(value, int) and value != 0 and value < _SHORTEST_LIMIT:
                what = f"servers would be stopped while they start: {_SHORTEST_LIMIT} seconds are the least"
                do = "write a longer time in seconds, or 0 for no limit"
                yield Problem(site.where(ENVIRONMENTS), f"{ENVIRONMENTS}[{number}].{limit}", show(value), what, do)


def _size_problems(site: Site) -> Iterator[Problem]:
    for number, size in _mappings(site.value(SIZES)):
        path = f"{SIZES}[{number}]"
        for key in ("memory_guarantee", "memory_limit"):
            if size.get(key) is not None and memory_bytes(size[key]) is None:
                do = "write a number with K, M, G or T, e.g. 4G"
                yield Problem(site.where(SIZES), f"{path}.{key}", show(size[key]), "not an amount of memory", do)
        pairs = (
            ("memory", memory_bytes(size.get("memory_guarantee")), memory_bytes(size.get("memory_limit"))),
            ("cpu", number_of(size.get("cpu_guarantee")), number_of(size.get("cpu_limit"))),
        )
        for what, least, most in pairs:
            if least and most and least > most:  # a limit of 0 is none
                guarantee, limit = f"{what}_guarantee", f"{what}_limit"
                fault = f"it is more than {limit} ({show(size[limit])}), so no server could start"
                yield Problem(site.where(SIZES), f"{path}.{guarantee}", show(size[guarantee]), fault, "lower it")


def _quota_problems(site: Site) -> Iterator[Problem]:
    """Judge how large homes may become; whether the server can enforce it, only the server knows."""
    default, quotas = site.value(QUOTA), _mappings(site.value(QUOTAS))
    given = [(QUOTA, default)] if default else []
    given += [(f"{QUOTAS}[{number}].size", quota["size"]) for number, quota in quotas if "size" in quota]
    for path, size in given:
        if isinstance(size, (str, int, float)) and not memory_bytes(size):
            what, do = "not a size of a home", "write a number with K, M, G or T, e.g. 20G"
            yield Problem(site.where(path.partition("[")[0]), path, show(size), what, do)
    seen: dict[str, str] = {}
    for number, quota in quotas:
        users = quota.get("users")
        for position, user in enumerate(users if isinstance(users, list) else []):
            path = f"{QUOTAS}[{number}].users[{position}]"
            if not isinstance(user, str) or not _USER_NAME.fullmatch(user):
                what, do = "not the name of a user", "write the name that the hub shows, in quotes where it is a number"
                yield Problem(site.where(QUOTAS), path, show(user), what, do)
            elif user.lower() in seen:
                what = f"{seen[user.lower()]} has the user already, and a home has one limit"
                yield Problem(site.where(QUOTAS), path, show(user), what, "remove one of the two")
            else:
                seen[user.lower()] = path
    if given and not site.groups.get("nfs_server"):
        what = "no machine is in group nfs_server, and only the homes' server can limit them"
        do = "put the server into that group, or remove this and set quotas on your server by its own means"
        yield site.problem(QUOTA if default else QUOTAS, what, do)


def memory_bytes(value: object) -> float | None:
    """Return the bytes of an amount of memory as KubeSpawner takes it (`512M`, `4G`), or None when it is none."""
    match = _MEMORY.fullmatch(str(value))
    return float(match[1]) * 1024 ** ("KMGT".index(match[2]) + 1) if match else None


def number_of(value: object) -> float | None:
    """Return a number, or None for anything else."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _mappings(value: object) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the mappings of a list with their numbers; what is none has a message of its type's."""
    return [(n, item) for n, item in enumerate(value if isinstance(value, list) else []) if isinstance(item, dict)]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _stop_problems(site: Site) -> Iterator[Problem]:
    """Judge when users' servers are stopped. Shorter than a minute, a server could be gone before its page is open."""
    for name in (IDLE_TIMEOUT, MAX_AGE):
        value = site.value(name)
        if isinstance(value, int) and value != 0 and value < _SHORTEST_LIMIT:
            what = f"servers would be stopped while they start: {_SHORTEST_LIMIT} seconds are the least"
            yield site.problem(name, what, "write a longer time in seconds, or 0 for no limit")
    interval = site.value(CHECK_INTERVAL)
    if isinstance(interval, int) and interval < 1:
        yield site.problem(CHECK_INTERVAL, "servers would never be looked at", "write 1 or more seconds")
    warning, age = site.value(STOP_WARNING), site.value(MAX_AGE)
    if isinstance(warning, int) and isinstance(age, int) and age >= _SHORTEST_LIMIT and not 0 <= warning < age:
        what = f"it does not lie within {MAX_AGE} ({age})"
        yield site.problem(STOP_WARNING, what, "write how many seconds before a server's end its user is told")


def _page_problems(site: Site) -> Iterator[Problem]:
    """Judge what people see on the hub's pages."""
    for name in URLS:
        value = site.value(name)
        if not isinstance(value, str) or not value:
            continue
        parts = _web_address(value)
        if not parts:
            what = "not an address that a browser opens"
            yield site.problem(name, what, "write it whole, e.g. http://172.16.0.100:30759/ or https://hub.example.org")
        elif name == HUB_URL and (parts.path or parts.query or parts.fragment):
            what = "the hub's own address ends with its host and port"
            yield site.problem(name, what, f"write {parts.scheme}://{parts.netloc}")
    notice = site.value(NOTICE)
    if isinstance(notice, str) and len(notice) > _NOTICE_LENGTH:
        what = f"it has {len(notice)} characters, and every page shows it: {_NOTICE_LENGTH} are allowed"
        yield site.problem(NOTICE, what, "shorten it, and link or name the place that has the rest")


def _monitoring_problems(site: Site) -> Iterator[Problem]:
    """Judge what monitoring is asked for; PromQL is judged by Prometheus' own tools later."""
    if site.value(MONITORING) is False:
        return
    for name, (low, high, what) in RANGES.items():
        value = number_of(site.value(name))
        if value is not None and not low <= value <= high:
            do = f"write {low:g} or more" if high == math.inf else f"write a number from {low:g} to {high:g}"
            yield site.problem(name, what, do)
    if site.value(MANAGE) is False and not site.is_set(MONITORING_IMAGES):
        what = "an existing cluster has no registry of ours, from which its nodes could pull monitoring's images"
        do = f"push them to a registry that the nodes reach and set {MONITORING_IMAGES}, or set {MONITORING}: false"
        yield site.problem(MANAGE, what, do)
    page, images = site.value(PAGE), site.value(MONITORING_IMAGES)
    given = [name for name in GRAFANA if site.value(name)]
    if page != "perses" and len(given) > 1:
        what = f"{given[0]} is given too, and Grafana runs from one image"
        yield site.problem(given[1], what, "leave one of them")
    if page == "grafana" and not given and not (isinstance(images, dict) and images.get("grafana")):
        what = "Grafana is in no package registry, and no source of it is given"
        yield site.problem(PAGE, what, f"set {', '.join(GRAFANA[:-1])} or {GRAFANA[-1]}, or {PAGE}: perses")
    url = site.value(MONITORING_URL)
    parts = _web_address(url) if isinstance(url, str) else None
    if isinstance(url, str) and (not parts or parts.path or parts.query or parts.fragment):
        what = "not the address of the dashboards as a browser opens it"
        yield site.problem(MONITORING_URL, what, "write it as http://172.16.0.100:30759, without a slash at the end")
    metrics = site.value(EXTRA_METRICS)
    for number, name in enumerate(metrics if isinstance(metrics, list) else []):
        if isinstance(name, str) and not _METRIC.fullmatch(name):
            what, do = "not the name of a metric", "use letters, digits, _ and :, without labels"
            yield Problem(site.where(EXTRA_METRICS), f"{EXTRA_METRICS}[{number}]", show(name), what, do)
    dashboards = site.value(DASHBOARDS)
    if dashboards == []:
        yield site.problem(DASHBOARDS, "the page would be empty", "name at least one, e.g. overview")
    yield from _foreign_faults(site, PANELS, _panel_faults(site))
    yield from _foreign_faults(site, OWN_RULES, own_rule_faults(site.value(OWN_RULES)))
    yield from _foreign_faults(site, RECEIVERS, receiver_faults(site.value(RECEIVERS)))


def _panel_faults(site: Site) -> Iterator[Fault]:
    dashboards = site.value(DASHBOARDS)
    for number, panel in _mappings(site.value(PANELS)):
        path, dashboard = f"{PANELS}[{number}]", panel.get("dashboard")
        if isinstance(dashboards, list) and dashboard not in dashboards:
            what, do = f"{DASHBOARDS} has no such dashboard", "add it there, or choose another"
            yield f"{path}.dashboard", show(dashboard), what, do
        for key in ("title", "query"):
            if not str(panel.get(key) or "").strip():
                yield f"{path}.{key}", "", "it is empty", f"give the panel a {key}"


def _foreign_faults(site: Site, name: str, found: Iterable[Fault]) -> Iterator[Problem]:
    """Yield faults that somebody else found in a variable, but for what its type already says of the same place."""
    option = site.options.get(name, {})
    said = {
        path for path, *_ in (*faults(name, site.value(name), option), *_repetitions(name, site.value(name), option))
    }
    for path, shown, what, do in found:
        if path not in said and path.rpartition(".")[0] not in said:
            yield Problem(site.where(name), path, shown, what, do)


def _web_address(text: str) -> SplitResult | None:
    """Return the parts of an http or https address with a host and no credentials; None for anything else."""
    try:
        parts = urlsplit(text)
        _ = parts.port  # ValueError when it is none
    except ValueError:
        return None
    fine = (
        parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and not re.search(r"\s", text)
    )
    return parts if fine else None


def _backup_problems(site: Site) -> Iterator[Problem]:
    """Judge where backups go, when, and what is kept."""
    yield from _repository_problems(site)
    schedule = site.value(BACKUP_SCHEDULE)
    if isinstance(schedule, str) and not _CALENDAR.fullmatch(schedule):
        do = "write it like *-*-* 03:00:00 or Mon..Fri 22:30 (man systemd.time, Calendar Events)"
        yield site.problem(BACKUP_SCHEDULE, "systemd's calendar has no such characters", do)
    keep = site.value(BACKUP_KEEP)
    numbers = [value for value in keep.values() if number_of(value) is not None] if isinstance(keep, dict) else []
    for key, value in keep.items() if isinstance(keep, dict) else ():
        if (number_of(value) or 0) < 0:
            yield Problem(
                site.where(BACKUP_KEEP), f"{BACKUP_KEEP}.{key}", show(value), "not a number", "write 0 or more"
            )
    if isinstance(keep, dict) and len(numbers) == len(keep) and sum(numbers) <= 0:
        what = "after two days no backup would be left"
        yield site.problem(BACKUP_KEEP, what, "keep some days, weeks or months, e.g. {daily: 7, weekly: 4, monthly: 6}")
    excluded = site.value(BACKUP_EXCLUDE)
    for number, pattern in enumerate(excluded if isinstance(excluded, list) else []):
        if isinstance(pattern, str) and (not pattern.strip("/* ") or pattern.startswith(("/", "~")) or "\n" in pattern):
            what = "not a pattern relative to a home, or one that leaves out everything"
            do = "write it like .cache or **/node_modules"
            yield Problem(site.where(BACKUP_EXCLUDE), f"{BACKUP_EXCLUDE}[{number}]", show(pattern), what, do)
    days = number_of(site.value(BACKUP_AGE))
    if days is not None and not 1 <= days <= 365:
        what, do = "every backup would be too old, or none", "write a number from 1 to 365"
        yield site.problem(BACKUP_AGE, what, do)


def _repository_problems(site: Site) -> Iterator[Problem]:
    given = site.value(BACKUP)
    environment = site.value(BACKUP_ENVIRONMENT)
    for name, value in environment.items() if isinstance(environment, dict) else ():
        path = f"{BACKUP_ENVIRONMENT}.{name}"
        if not _VARIABLE.fullmatch(str(name)) or name in _RESTICS_OWN:
            what = "restic gets this one from the role" if name in _RESTICS_OWN else "not the name of a variable"
            yield Problem(site.where(BACKUP_ENVIRONMENT), path, HIDDEN, what, "remove it, or correct the name")
        elif isinstance(value, (dict, list)) or value in (None, ""):
            yield Problem(site.where(BACKUP_ENVIRONMENT), path, HIDDEN, "not a text", "write the variable's value")
    if not isinstance(given, str) or not given:
        return
    wrong = partial(Problem, site.where(BACKUP), BACKUP, show(_CREDENTIALS.sub("…@", given)))
    if not given.startswith("/"):
        if not _REPOSITORY.fullmatch(given):
            do = "write an absolute path, or sftp:user@host:/path, rest:https://host/path, s3:https://host/bucket"
            yield wrong("neither an absolute path nor an address of restic's", do)
        return
    path, homes = (f"/{given.strip('/')}/", f"/{str(site.value(NFS_PATH)).strip('/')}/")
    inside = path.startswith(homes) and bool(site.groups.get("nfs_server"))
    if inside and (path.startswith(f"{homes}homes/") or site.value(BACKUP_SAME_DISK) is not True):
        what = f"it lies in {NFS_PATH} ({site.value(NFS_PATH)}), and would be lost with the homes"
        yield wrong(
            what, f"name another disk or machine; to put up with that, one beside homes and {BACKUP_SAME_DISK}: true"
        )


def _secret_problems(site: Site) -> Iterator[Problem]:
    for host in [CONTROL, *site.machines]:
        for name, value in site.given.get(host, {}).items():
            found = site.definition(name, host)
            plain = found and not found.vaulted and not found.templated and name not in site.extra_vars
            if name == GITHUB_PROXY and not _has_login(value):
                continue
            by_name = name not in site.options and bool(_SECRET_NAME.search(name)) and isinstance(value, str)
            if found and plain and (by_name or has_secret(value, site.options.get(name, {}))):
                what, do = "a secret in plain text", "encrypt it: ansible-vault encrypt_string"
                yield Problem(found.where, name, HIDDEN, what, do, warning=True)


def _template_problems(site: Site) -> Iterator[Problem]:
    """Judge values of the inventory whose template cannot be resolved.

    What the playbooks derive may not be there yet (the bundle's manifest, for example) and is left to them.
    """
    for host, name, reason in site.unresolved:
        concerned = site.role_of(name) is None or host in site.concerned(site.role_of(name))
        if concerned and (site.definition(name, host) or name in site.extra_vars):
            do = "define what it refers to, or correct the template"
            yield Problem(site.where(name, host), name, "", f"its template cannot be resolved: {reason}", do)


_RULES: tuple[Callable[[Site], Iterator[Problem]], ...] = (
    _file_problems,
    _group_problems,
    _host_problems,
    _address_problems,
    _network_problems,
    _port_problems,
    _value_problems,
    _required_problems,
    _shared_problems,
    _user_problems,
    _home_problems,
    _sign_in_problems,
    _combination_problems,
    _choice_problems,
    _stop_problems,
    _quota_problems,
    _page_problems,
    _monitoring_problems,
    _backup_problems,
    _secret_problems,
    _template_problems,
)
