"""The dashboards, as values: what each panel asks Prometheus, and how the answer is to be read. Pure functions.

`perses.py` and `grafana.py` draw them. Every query answers on a healthy, quiet site too: where nothing is a legal
answer, a 0 stands in for it. What a site has not (GPUs, quotas, homes of its own) is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.rules import CERTIFICATE_DAYS, DISKS, quotas_in_use

LEVELS = OK, WARNING, CRITICAL = ("ok", "warning", "critical")  # of a threshold or a word
KINDS = ("timeseries", "stat", "gauge", "bar", "table")
# ratio: 0 to 1, shown as percent; bytes are counted in powers of 1000.
UNITS = (
    "number", "cores", "ratio", "percent", "bytes", "bytes/s", "seconds", "requests/s", "operations/s", "celsius",
    "watts",
)  # fmt: skip
COLUMNS = 24  # of a dashboard's grid

NOBODY = "no one"  # stands in for users where there are none
_TOTALS = {"user": "all users", "namespace": "all namespaces", "node": "all machines"}  # in the label's column
DAY = 86400  # seconds
GB = 10**9  # bytes

_DRIVES = 'device!~"(?:loop|ram|zram|sr|dm-|md).*"'  # the last two: what lies on them is counted at the drives below
_SIGN_INS = "jupyterhub_login_duration_seconds_count"
_STARTS = "jupyterhub_server_spawn_duration_seconds"
_REQUESTS = "jupyterhub_request_duration_seconds"
# A page that follows a server's start is open for as long as the start takes, and health checks are no people.
_PEOPLE = 'handler!~".*(?:SpawnProgressAPI|HealthCheck|Metrics)Handler"'


@dataclass(frozen=True)
class Query:
    """One question to Prometheus.

    Attributes:
        expr: PromQL; `$node` and `$user` stand for what the dashboard's variable has.
        legend: name of each line, with labels in double braces; of a table's column. Empty: all labels.
        unit: of a table's column, where it is not the panel's.

    """

    expr: str
    legend: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Threshold:
    """From this value on, a figure has this level."""

    value: float
    level: str


@dataclass(frozen=True)
class Word:
    """What is shown in place of a value, and its level."""

    value: float
    text: str
    level: str


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        queries: a gauge has one only.
        unit: one of UNITS.
        kind: one of KINDS; `bar` compares the last values of series, `table` has a column for each query.
        description: shown with the title.
        width: of COLUMNS.
        height: in units of the grid, about 35 pixels.
        level: below the first threshold.
        thresholds: by rising value; a table's are for all its figures, since Perses tells no columns apart.
        words: for a stat.
        columns: label and heading of a table's first columns.
        ascending: whether a table's first figures are the smallest.
        stack: whether the areas of lines are stacked.
        maximum: of the axis or the gauge; None: by the values.

    """

    title: str
    queries: tuple[Query, ...]
    unit: str = "number"
    kind: str = "timeseries"
    description: str = ""
    width: int = 12
    height: int = 8
    level: str = OK
    thresholds: tuple[Threshold, ...] = ()
    words: tuple[Word, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
    ascending: bool = False
    stack: bool = False
    maximum: float | None = None


@dataclass(frozen=True)
class Row:
    """Panels under one heading, laid out from left to right."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice of values of a label, several at a time; at first all.

    Attributes:
        name: of the variable and the label.
        title: what people see.
        metric: whose series have the label.

    """

    name: str
    title: str
    metric: str


@dataclass(frozen=True)
class Dashboard:
    """One page of panels.

    Attributes:
        uid: its address.
        title: its heading.
        description: one sentence for the list of dashboards.
        rows: its panels.
        variables: choices at its top.
        duration: how far back it looks at first, as Prometheus writes durations.
        refresh: how often it asks anew, likewise.

    """

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    duration: str = "6h"
    refresh: str = "30s"


NODE = Variable("node", "Machine", "node_uname_info")
USER = Variable("user", "User", "jhok:user_pod:info")


def site_dashboards(settings: Mapping[str, Any]) -> list[Dashboard]:
    """Return the site's dashboards; the first is home.

    Args:
        settings: `dashboards` (uids, in their order), `panels` (the site's own: `dashboard`, `title`, `query`, and by
            choice `row`, `legend`, `unit`, `kind`), `gpus`, `nfs_kernel` (the NFS server is the kernel's),
            `nfs_address` (empty: no NFS server is asked), `manage_kubernetes`, `traffic_budget_gb` (per user and day;
            0: none); and by choice `homes_measured` (the NFS server is a machine of ours;
            default: there is an `nfs_address`) and `quotas` (default: no).

    Raises:
        ValueError: monitoring_dashboards or monitoring_panels name what there is not; its text is fit for people.

    """
    known: dict[str, Callable[[Mapping[str, Any]], Dashboard]] = {
        "overview": _overview, "hub": _hub, "users": _users, "nodes": _nodes, "homes": _homes, "traffic": _traffic,
        "gpu": _gpu,
    }  # fmt: skip
    wanted: list[str] = settings["dashboards"]
    for uid in wanted:
        if uid not in known:
            raise ValueError(f"monitoring_dashboards: {uid!r} is no dashboard: choose from {', '.join(known)}")
        if wanted.count(uid) > 1:
            raise ValueError(f"monitoring_dashboards: {uid!r} is named twice: name it once")
    if not wanted:
        raise ValueError("monitoring_dashboards: is empty: name at least one, as overview")
    there = {"gpu": settings["gpus"], "homes": bool(settings["nfs_address"])}
    shown = [known[uid](settings) for uid in wanted if there.get(uid, True)]
    for number, panel in enumerate(settings["panels"]):
        where = f"monitoring_panels[{number}]"
        uids = [dashboard.uid for dashboard in shown]
        if panel["dashboard"] not in uids:
            raise ValueError(
                f"{where}.dashboard: {panel['dashboard']!r} is no dashboard of this site: choose from {', '.join(uids)}"
            )
        index = uids.index(panel["dashboard"])
        shown[index] = _with_panel(shown[index], panel.get("row") or "Our own", _own_panel(where, panel))
    return shown


def _own_panel(where: str, own: Mapping[str, Any]) -> Panel:
    """Return a panel of the site's own. Raises ValueError that begins with `where`."""
    for key in ("title", "query"):
        if not str(own.get(key) or "").strip():
            raise ValueError(f"{where}.{key}: is empty: " + ("name the panel" if key == "title" else "write PromQL"))
    for key, choices, default in (("kind", KINDS, "timeseries"), ("unit", UNITS, "number")):
        if own.get(key, default) not in choices:
            raise ValueError(f"{where}.{key}: {own[key]!r} is unknown: choose from {', '.join(choices)}")
    return Panel(
        own["title"],
        (Query(own["query"], own.get("legend", "")),),
        own.get("unit", "number"),
        own.get("kind", "timeseries"),
        f"This site's own panel: {own['query']}",
    )


def _with_panel(dashboard: Dashboard, row: str, panel: Panel) -> Dashboard:
    """Return a dashboard with one more panel, in the row of that title or a new one."""
    rows = list(dashboard.rows)
    titles = [each.title for each in rows]
    if row not in titles:
        rows.append(Row(row, (panel,)))
    else:
        index = titles.index(row)
        rows[index] = Row(row, (*rows[index].panels, panel))
    return dataclasses.replace(dashboard, rows=tuple(rows))


def _or_zero(expression: str) -> str:
    """Return a query that is 0 where the expression, which has no labels, has no answer."""
    return f"{expression} or vector(0)"


def _or_nobody(expression: str, label: str = "user", stand_in: str = NOBODY) -> str:
    """Return a query that tells 0 for a stand-in where the expression has no answer at all."""
    return f'{expression} or on () label_replace(vector(0), "{label}", "{stand_in}", "", "")'


def _top(expression: str, label: str = "user") -> str:
    """Return a query for the 20 largest: with more, no legend is readable."""
    return _or_nobody(f"topk(20, {expression})", label)


def _quantile(share: float, metric: str, matchers: str, window: str) -> str:
    """Return a query for a quantile of a histogram, 0 where nothing was measured."""
    selected = f"{metric}_bucket{{{matchers}}}" if matchers else f"{metric}_bucket"
    # Without any measurement the quantile is NaN, which no comparison lets pass.
    return _or_zero(f"histogram_quantile({share}, sum by (le) (rate({selected}[{window}]))) >= 0")


def _sign_in(status: str) -> str:
    """Return the matcher of sign-ins that ended so; JupyterHub gives its enumeration's name along."""
    return f'status=~"(?:LoginStatus[.])?{status}"'


def _used(free: str, size: str, by: str, matchers: str = "") -> str:
    """Return a query for the largest share in use, by a label."""
    chosen = f"{{{matchers}}}" if matchers else ""
    grouped = f"max by ({by}) " if by else "max"
    return f"{grouped}(1 - {free}{chosen} / {size}{chosen})"


def _fullness(warning: float = 0.8, critical: float = 0.9) -> tuple[Threshold, ...]:
    return (Threshold(warning, WARNING), Threshold(critical, CRITICAL))


def _count_of_trouble(level: str = CRITICAL) -> tuple[Threshold, ...]:
    return (Threshold(1, level),)


_UP = (Word(0, "down", CRITICAL), Word(1, "up", OK))

_USERS_CPU = "user:cpu_usage_cores:rate2m"
_USERS_MEMORY = "user:memory_working_set_bytes:sum"


def _machine_cpu(matchers: str, by: str) -> str:
    """Return a query for the share of processors in use."""
    chosen = f",{matchers}" if matchers else ""
    grouped = f"avg by ({by}) " if by else "avg"
    # A processor that waits for a disk could work.
    idle = f'sum by (node, cpu) (rate(node_cpu_seconds_total{{mode=~"idle|iowait"{chosen}}}[2m]))'
    return f"clamp_min(1 - {grouped}({idle}), 0)"


def _overview(settings: Mapping[str, Any]) -> Dashboard:
    load = [
        Panel(
            "Processors",
            (Query(_machine_cpu("", "node"), "{{node}}"),),
            "ratio",
            description="Share of each machine's processors in use.",
            maximum=1,
        ),
        Panel(
            "Memory",
            (Query(_used("node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes", "node"), "{{node}}"),),
            "ratio",
            description="Share of each machine's memory that is not free for programs.",
            maximum=1,
        ),
    ]
    gauges = [
        Panel(
            "Processors in use",
            (Query(_machine_cpu("", ""), "all machines"),),
            "ratio",
            "gauge",
            "Share of all machines' processors in use now.",
            8,
            6,
            thresholds=_fullness(0.85, 0.95),
            maximum=1,
        ),
        Panel(
            "Memory in use",
            (
                Query(
                    "1 - sum(node_memory_MemAvailable_bytes) / sum(node_memory_MemTotal_bytes)",
                    "all machines",
                ),
            ),
            "ratio",
            "gauge",
            "Share of all machines' memory that is not free for programs.",
            8,
            6,
            thresholds=_fullness(),
            maximum=1,
        ),
        Panel(
            "Fullest disk",
            (Query(_used("node_filesystem_avail_bytes", "node_filesystem_size_bytes", "", DISKS), "fullest"),),
            "ratio",
            "gauge",
            "How full the fullest disk of any machine is. At 85 % Kubernetes deletes images, at 90 % it stops pods.",
            8,
            6,
            thresholds=_fullness(),
            maximum=1,
        ),
    ]
    if _homes_measured(settings):
        gauges.append(_homes_gauge())
        gauges = [dataclasses.replace(gauge, width=6) for gauge in gauges]
    return Dashboard(
        "overview",
        "Lab overview",
        "Is all well, and is there room left?",
        (
            Row(
                "State",
                (
                    Panel(
                        "Alerts",
                        (Query(_or_zero('count(ALERTS{alertstate="firing"})'), "firing"),),
                        kind="stat",
                        description="Alerts that are firing now. The start page lists them.",
                        width=5,
                        height=4,
                        thresholds=_count_of_trouble(),
                    ),
                    Panel(
                        "Hub",
                        (Query(_or_zero('min(up{job=~"hub|proxy"})'), "hub"),),
                        kind="stat",
                        description="Whether the hub and its proxy answer.",
                        width=5,
                        height=4,
                        words=_UP,
                    ),
                    Panel(
                        "Nodes not ready",
                        (
                            Query(
                                _or_zero('count(kube_node_status_condition{condition="Ready",status="true"} == 0)'),
                                "not ready",
                            ),
                        ),
                        kind="stat",
                        description="Nodes that Kubernetes starts no servers on, since it does not hear of them.",
                        width=5,
                        height=4,
                        thresholds=_count_of_trouble(),
                    ),
                    Panel(
                        "Silent targets",
                        (Query(_or_zero("count(up == 0)"), "silent"),),
                        kind="stat",
                        description="What Prometheus asks without getting an answer. Panels that need it are blind.",
                        width=5,
                        height=4,
                        thresholds=_count_of_trouble(WARNING),
                    ),
                    Panel(
                        "Servers running",
                        (Query(_or_zero("max(jhok_hub_servers)"), "servers"),),
                        kind="stat",
                        description="Users' servers that run now.",
                        width=4,
                        height=4,
                    ),
                ),
            ),
            Row("Room", tuple(gauges)),
            Row(
                "Last 24 hours",
                (
                    Panel(
                        "Servers over the day",
                        (Query(_or_zero("max(jhok_hub_servers)"), "servers"),),
                        description="Users' servers, as the hub counts them.",
                    ),
                    Panel(
                        "Network traffic of users' servers",
                        (
                            Query(_or_zero("sum(user:network_receive_bytes:rate2m)"), "received"),
                            Query(_or_zero("sum(user:network_transmit_bytes:rate2m)"), "sent"),
                        ),
                        "bytes/s",
                        description="Bytes per second that all users' servers receive and send.",
                    ),
                    *load,
                ),
            ),
        ),
        duration="24h",
    )


def _hub(_settings: Mapping[str, Any]) -> Dashboard:
    def per_hour(metric: str, matchers: str = "") -> str:
        chosen = f"{{{matchers}}}" if matchers else ""
        return _or_zero(f"round(sum(increase({metric}{chosen}[1h])))")

    return Dashboard(
        "hub",
        "Hub",
        "Users, starts and stops of servers, and how quickly the hub answers.",
        (
            Row(
                "Now",
                (
                    Panel(
                        "Servers running",
                        (Query(_or_zero("max(jhok_hub_servers)"), "servers"),),
                        kind="stat",
                        description="Users' servers that run now.",
                        width=6,
                        height=4,
                    ),
                    Panel(
                        "Users active within a day",
                        (Query(_or_zero('max(jupyterhub_active_users{period="24h"})'), "users"),),
                        kind="stat",
                        description="Users who did something within the last 24 hours. The hub counts once an hour.",
                        width=6,
                        height=4,
                    ),
                    Panel(
                        "Failed starts within a day",
                        (Query(_or_zero(f'round(sum(increase({_STARTS}_count{{status!="success"}}[1d])))'), "failed"),),
                        kind="stat",
                        description="Starts of servers that came to nothing within the last 24 hours.",
                        width=6,
                        height=4,
                        thresholds=(Threshold(1, WARNING), Threshold(10, CRITICAL)),
                    ),
                    Panel(
                        "Failed sign-ins within a day",
                        (
                            Query(
                                _or_zero(f"round(sum(increase({_SIGN_INS}{{{_sign_in('failure')}}}[1d])))"),
                                "failed",
                            ),
                        ),
                        kind="stat",
                        description="Wrong passwords and refused accounts within the last 24 hours.",
                        width=6,
                        height=4,
                        thresholds=(Threshold(50, WARNING),),
                    ),
                ),
            ),
            Row(
                "Servers",
                (
                    Panel(
                        "Users",
                        (
                            Query(_or_zero("max(jhok_hub_servers)"), "with a running server"),
                            Query(_or_zero('max(jupyterhub_active_users{period="24h"})'), "active within a day"),
                            Query(_or_zero('max(jupyterhub_active_users{period="7d"})'), "active within a week"),
                            Query(_or_zero("max(jupyterhub_total_users)"), "known"),
                        ),
                        description="Users by how lately they did something.",
                    ),
                    Panel(
                        "Starts and stops per hour",
                        (
                            Query(per_hour(f"{_STARTS}_count", 'status="success"'), "started"),
                            Query(per_hour(f"{_STARTS}_count", 'status!="success"'), "failed to start"),
                            Query(per_hour("jupyterhub_server_stop_seconds_count"), "stopped"),
                        ),
                        description="Servers within the hour before each moment. Stopped ones: by their users, or "
                        "culled after not having been used.",
                    ),
                    Panel(
                        "Time to start",
                        (
                            Query(_quantile(0.5, _STARTS, 'status="success"', "1h"), "half are quicker than"),
                            Query(_quantile(0.95, _STARTS, 'status="success"', "1h"), "95 % are quicker than"),
                        ),
                        "seconds",
                        description="From the click to the server's answer, of the starts within the hour before each "
                        "moment; 0 where there were none.",
                    ),
                    Panel(
                        "Sign-ins per hour",
                        (
                            Query(per_hour(_SIGN_INS, _sign_in("success")), "signed in"),
                            Query(per_hour(_SIGN_INS, _sign_in("failure")), "refused"),
                        ),
                        description="Sign-ins at the hub's page within the hour before each moment.",
                    ),
                ),
            ),
            Row(
                "How the hub is",
                (
                    Panel(
                        "Time to answer",
                        (
                            Query(_quantile(0.5, _REQUESTS, _PEOPLE, "2m"), "half are quicker than"),
                            Query(_quantile(0.99, _REQUESTS, _PEOPLE, "2m"), "99 % are quicker than"),
                        ),
                        "seconds",
                        description="How long the hub takes for a page or an API call, without health checks.",
                    ),
                    Panel(
                        "Requests to the hub",
                        (
                            Query(
                                _or_nobody(f"sum by (code) (rate({_REQUESTS}_count[2m]))", "code", "none"), "{{code}}"
                            ),
                        ),
                        "requests/s",
                        description="Requests by the status they were answered with; 5xx are the hub's own failures.",
                    ),
                    Panel(
                        "Requests through the proxy",
                        (
                            Query(_or_zero("sum(rate(requests_web[2m]))"), "pages"),
                            Query(_or_zero("sum(rate(requests_ws[2m]))"), "websockets opened"),
                        ),
                        "requests/s",
                        description="What browsers ask of the hub and of users' servers.",
                    ),
                    Panel(
                        "Memory of the hub and its proxy",
                        (Query('max by (job) (process_resident_memory_bytes{job=~"hub|proxy"})', "{{job}}"),),
                        "bytes",
                        description="Memory that the two processes hold.",
                    ),
                ),
            ),
        ),
        duration="24h",
    )


def _users(settings: Mapping[str, Any]) -> Dashboard:
    chosen = '{user=~"$user"}'
    limits = (
        'sum by (user) (kube_pod_container_resource_limits{resource="memory"}'
        " * on (namespace, pod) group_left (user) jhok:user_pod:info)"
    )
    # Who has a home but no server is in the table with zeros.
    everybody = f"max by (user) (jhok_home_bytes{chosen})" if _homes_measured(settings) else f"{_USERS_MEMORY}{chosen}"

    def column(expression: str, legend: str, unit: str) -> Query:
        return Query(_or_nobody(f"{expression} or 0 * {everybody}"), legend, unit)

    columns = [
        column(f"{_USERS_CPU}{chosen}", "CPU (cores)", "cores"),
        column(f"{_USERS_MEMORY}{chosen}", "Memory", "bytes"),
        column(f"{_USERS_MEMORY}{chosen} / on (user) {limits}", "Of its limit", "ratio"),
        column(f"user:network_receive_bytes:increase1d{chosen}", "Received in 24 h", "bytes"),
        column(f"user:network_transmit_bytes:increase1d{chosen}", "Sent in 24 h", "bytes"),
    ]
    rows = [
        Row(
            "Use of processors and memory",
            (
                Panel(
                    "CPU",
                    (Query(_top(f"{_USERS_CPU}{chosen}"), "{{user}}"),),
                    "cores",
                    description="Processor cores that each user's server keeps busy; the 20 largest at each moment.",
                ),
                Panel(
                    "Memory",
                    (Query(_top(f"{_USERS_MEMORY}{chosen}"), "{{user}}"),),
                    "bytes",
                    description="Memory that each user's server cannot do without; the 20 largest at each moment.",
                ),
            ),
        ),
        Row(
            "Network",
            (
                Panel(
                    "Received",
                    (Query(_top(f"user:network_receive_bytes:rate2m{chosen}"), "{{user}}"),),
                    "bytes/s",
                    description="Bytes per second that each user's server receives; the 20 largest at each moment.",
                ),
                Panel(
                    "Sent",
                    (Query(_top(f"user:network_transmit_bytes:rate2m{chosen}"), "{{user}}"),),
                    "bytes/s",
                    description="Bytes per second that each user's server sends; the 20 largest at each moment.",
                ),
            ),
        ),
    ]
    if _homes_measured(settings):
        columns.append(Query(_or_nobody(f"max by (user) (jhok_home_bytes{chosen})"), "Home", "bytes"))
        homes = [
            Panel(
                "Largest homes",
                (Query(_top(f"max by (user) (jhok_home_bytes{chosen})"), "{{user}}"),),
                "bytes",
                "bar",
                "Disk space that each home takes; the 20 largest.",
                height=10,
            )
        ]
        if settings.get("quotas"):
            columns += _quota_columns(chosen)
            own, shared = quotas_in_use(chosen.strip("{}"))
            named = f'label_join(label_replace({shared}, "how", "(shared)", "", ""), "user", " ", "shared", "how")'
            homes.append(
                Panel(
                    "Homes by share of the quota",
                    (Query(_top(f"{own} or max by (user) ({named})"), "{{user}}"),),
                    "ratio",
                    "bar",
                    "How much of its quota each home takes; the 20 fullest. Homes that share a quota are one.",
                    height=10,
                )
            )
        rows.append(Row("Homes", tuple(homes)))
    table = Panel(
        "Users",
        tuple(columns),
        "number",
        "table",
        "Users' servers and homes now, and their traffic within the last 24 hours.",
        COLUMNS,
        10,
        columns=(("user", "User"),),
    )
    return Dashboard(
        "users",
        "Users",
        "Who uses how much: processors, memory, network and home.",
        (Row("Now", (table,)), *rows),
        (USER,),
    )


def _nodes(settings: Mapping[str, Any]) -> Dashboard:
    chosen = 'node=~"$node"'
    cpu = _machine_cpu(chosen, "node")
    memory = _used("node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes", "node", chosen)
    disk = _used("node_filesystem_avail_bytes", "node_filesystem_size_bytes", "node", f"{DISKS},{chosen}")
    running = 'on (namespace, pod) group_left () (kube_pod_status_phase{phase="Running"} == 1)'

    def promised(resource: str) -> str:
        requests = f'kube_pod_container_resource_requests{{resource="{resource}",{chosen}}}'
        capacity = f'kube_node_status_allocatable{{resource="{resource}",{chosen}}}'
        return f"sum by (node) ({requests} * {running}) / on (node) max by (node) ({capacity})"

    rows = [
        Row(
            "Now",
            (
                Panel(
                    "Machines",
                    (
                        Query(cpu, "CPU", "ratio"),
                        Query(memory, "Memory", "ratio"),
                        Query(disk, "Fullest disk", "ratio"),
                        Query(f"max by (node) (node_load5{{{chosen}}})", "Load (5 min)"),
                        Query(f"sum by (node) (kube_pod_info{{{chosen}}} * {running})", "Pods"),
                        Query(f"time() - max by (node) (node_boot_time_seconds{{{chosen}}})", "Up for", "seconds"),
                    ),
                    kind="table",
                    description="Each machine now. Load is how many programs want a processor.",
                    width=COLUMNS,
                    height=6,
                    columns=(("node", "Machine"),),
                ),
            ),
        ),
        Row(
            "Load",
            (
                Panel(
                    "CPU",
                    (Query(cpu, "{{node}}"),),
                    "ratio",
                    description="Share of the processors in use.",
                    maximum=1,
                ),
                Panel(
                    "Memory",
                    (Query(memory, "{{node}}"),),
                    "ratio",
                    description="Share of the memory that is not free for programs.",
                    maximum=1,
                ),
                Panel(
                    "Promised to pods",
                    (Query(promised("cpu"), "{{node}} CPU"), Query(promised("memory"), "{{node}} memory")),
                    "ratio",
                    description="Share of a node that running pods have asked for. At 100 % no further server starts "
                    "there, however idle the node is.",
                    maximum=1,
                ),
                Panel(
                    "Network",
                    (
                        Query(f"node:network_receive_bytes:rate2m{{{chosen}}}", "{{node}} received"),
                        Query(f"node:network_transmit_bytes:rate2m{{{chosen}}}", "{{node}} sent"),
                    ),
                    "bytes/s",
                    description="Bytes per second through the machines' own network cards.",
                ),
            ),
        ),
        Row(
            "Disks",
            (
                Panel(
                    "Disk space in use",
                    (
                        Query(
                            _used(
                                "node_filesystem_avail_bytes",
                                "node_filesystem_size_bytes",
                                "node, mountpoint",
                                f"{DISKS},{chosen}",
                            ),
                            "{{node}} {{mountpoint}}",
                        ),
                    ),
                    "ratio",
                    description="How full each file system is.",
                    maximum=1,
                ),
                Panel(
                    "Disk traffic",
                    (
                        Query(
                            f"sum by (node) (rate(node_disk_read_bytes_total{{{_DRIVES},{chosen}}}[2m]))",
                            "{{node}} read",
                        ),
                        Query(
                            f"sum by (node) (rate(node_disk_written_bytes_total{{{_DRIVES},{chosen}}}[2m]))",
                            "{{node}} written",
                        ),
                    ),
                    "bytes/s",
                    description="Bytes per second that the drives read and write.",
                ),
            ),
        ),
    ]
    cluster = [
        Panel(
            "Containers that restarted within a day",
            (
                Query(
                    _or_nobody(
                        "topk(20, round(sum by (namespace, pod) "
                        "(increase(kube_pod_container_status_restarts_total[1d]))) > 0)",
                        "pod",
                        "none",
                    ),
                    "Restarts",
                ),
            ),
            kind="table",
            description="Pods whose containers ended and were started anew within the last 24 hours.",
            thresholds=(Threshold(1, WARNING), Threshold(5, CRITICAL)),
            columns=(("namespace", "Namespace"), ("pod", "Pod")),
        ),
        Panel(
            "Time the API server takes",
            (
                Query(
                    _or_nobody(
                        'sum by (verb) (rate(apiserver_request_duration_seconds_sum{verb!~"WATCH|CONNECT"}[2m]))'
                        ' / (sum by (verb) (rate(apiserver_request_duration_seconds_count{verb!~"WATCH|CONNECT"}[2m]))'
                        " > 0)",
                        "verb",
                        "none",
                    ),
                    "{{verb}}",
                ),
            ),
            "seconds",
            description="Mean time of a request by what it does, without watches.",
        ),
    ]
    if settings["manage_kubernetes"]:
        cluster += [
            Panel(
                "Time etcd takes to write",
                (
                    Query(_quantile(0.5, "etcd_disk_wal_fsync_duration_seconds", "", "2m"), "half are quicker than"),
                    Query(_quantile(0.99, "etcd_disk_wal_fsync_duration_seconds", "", "2m"), "99 % are quicker than"),
                ),
                "seconds",
                description="How long the disk of Kubernetes' database takes to keep a change. Above 10 ms at 99 % it "
                "is too slow.",
            ),
            Panel(
                "Certificates expire in",
                (
                    Query(
                        "min by (node, certificate) (jhok_certificate_expiry_timestamp_seconds) - time()",
                        "Expires in",
                        "seconds",
                    ),
                ),
                "seconds",
                "table",
                "Time until each certificate of the control plane is no longer valid, the next one first.",
                level=CRITICAL,
                thresholds=(Threshold(7 * DAY, WARNING), Threshold(CERTIFICATE_DAYS * DAY, OK)),
                columns=(("node", "Machine"), ("certificate", "Certificate")),
                ascending=True,
            ),
        ]
    rows.append(Row("Kubernetes", tuple(cluster)))
    return Dashboard(
        "nodes",
        "Nodes",
        "The machines: processors, memory, disks, network, and Kubernetes on them.",
        tuple(rows),
        (NODE,),
    )


def _homes_measured(settings: Mapping[str, Any]) -> bool:
    """Tell whether the homes lie on a machine of ours, which tells their sizes."""
    return bool(settings.get("homes_measured", settings["nfs_address"]))


def _quota_columns(chosen: str = "") -> list[Query]:
    """Return columns on each home's quota; one that is shared is the same for all who share it."""
    share = f"max by (user) (jhok_home_quota_used_bytes{chosen} / jhok_home_quota_bytes)"
    return [
        Query(_or_nobody(f"max by (user) (jhok_home_quota_bytes{chosen})"), "Quota", "bytes"),
        Query(_or_nobody(share), "Quota in use", "ratio"),
    ]


def _homes_gauge() -> Panel:
    return Panel(
        "Homes' disk",
        (Query(_used("jhok_homes_filesystem_avail_bytes", "jhok_homes_filesystem_size_bytes", ""), "homes"),),
        "ratio",
        "gauge",
        "How full the disk with all homes is.",
        6,
        6,
        thresholds=_fullness(),
        maximum=1,
    )


def _homes(settings: Mapping[str, Any]) -> Dashboard:
    server = [
        Panel(
            "NFS server",
            (Query("min(jhok_nfs_up)", "NFS"),),
            kind="stat",
            description="Whether the NFS server answers.",
            width=6,
            height=6,
            words=_UP,
        ),
    ]
    speed = [Query("max by (server) (jhok_nfs_response_seconds)", "empty request to {{server}}")]
    rows = []
    if _homes_measured(settings):
        speed.append(Query("max by (node) (jhok_homes_write_seconds)", "4 KiB written on {{node}}"))
        free = "jhok_homes_filesystem_avail_bytes"
        server += [
            _homes_gauge(),
            Panel(
                "Full in",
                (
                    Query(
                        f"min(clamp_max({free} / clamp_min(-deriv({free}[1d]), 0), {365 * DAY}))",
                        "full in",
                    ),
                ),
                "seconds",
                "stat",
                "How long the homes' disk lasts if it goes on filling as within the last 24 hours; a year at most is "
                "foretold.",
                6,
                6,
                CRITICAL,
                (Threshold(3 * DAY, WARNING), Threshold(14 * DAY, OK)),
            ),
            Panel(
                "Sizes are from",
                (Query("time() - min(jhok_homes_scan_timestamp_seconds)", "ago"),),
                "seconds",
                "stat",
                "How long ago the homes were measured last.",
                6,
                6,
                thresholds=(Threshold(2 * 3600, WARNING), Threshold(DAY, CRITICAL)),
            ),
        ]
        rows.append(_homes_row(settings))
    operations = []
    if settings["nfs_kernel"]:
        operations.append(
            Panel(
                "NFS requests",
                (
                    Query(
                        _or_nobody(
                            "topk(10, sum by (method) (rate(node_nfsd_requests_total[2m])) > 0)", "method", "none"
                        ),
                        "{{method}}",
                    ),
                ),
                "requests/s",
                description="What nodes ask of the NFS server; the 10 most frequent at each moment.",
            )
        )
    return Dashboard(
        "homes",
        "Homes and NFS",
        "The homes' disk, who fills it, and how quickly it answers.",
        (
            Row("Now", tuple(server)),
            Row(
                "Speed",
                (
                    Panel(
                        "Time to answer",
                        tuple(speed),
                        "seconds",
                        description="How long the NFS server takes for a request without work, and its disk for a "
                        "small write. Above a quarter of a second people feel it.",
                        width=12 if operations else COLUMNS,
                    ),
                    *operations,
                ),
            ),
            *rows,
        ),
        duration="24h",
    )


def _homes_row(settings: Mapping[str, Any]) -> Row:
    """Return the panels of the homes' sizes."""
    size, free = "jhok_homes_filesystem_size_bytes", "jhok_homes_filesystem_avail_bytes"
    columns = [
        Query(_or_nobody("max by (user) (jhok_home_bytes)"), "Size", "bytes"),
        Query(
            _or_nobody("max by (user) (jhok_home_bytes - min_over_time(jhok_home_bytes[1d]))"),
            "Grown in 24 h",
            "bytes",
        ),
        Query(_or_nobody("max by (user) (jhok_home_files)"), "Files"),
    ]
    if settings.get("quotas"):
        columns[1:1] = _quota_columns()
    return Row(
        "Homes",
        (
            Panel(
                "Disk space",
                (
                    Query(f"max({size} - {free})", "in use"),
                    Query(f"max({size})", "size of the disk"),
                    Query(_or_zero("sum(max by (user) (jhok_home_bytes))"), "homes"),
                ),
                "bytes",
                description="The disk with all homes. What is in use besides homes is other data on the same disk.",
            ),
            Panel(
                "Largest homes",
                (Query(_top("max by (user) (jhok_home_bytes)"), "{{user}}"),),
                "bytes",
                description="Disk space that each home takes; the 20 largest at each moment.",
            ),
            Panel(
                "Homes",
                tuple(columns),
                kind="table",
                description="Each home: its size, what it has grown by since its smallest size within 24 hours, and "
                "how many files it has.",
                width=COLUMNS,
                height=10,
                columns=(("user", "User"),),
            ),
        ),
    )


def _traffic(settings: Mapping[str, Any]) -> Dashboard:
    chosen = '{user=~"$user"}'

    def day(label: str, direction: str, days_ago: int) -> str:
        back = f" offset {days_ago}d" if days_ago else ""
        return f"{label}:network_{direction}_bytes:increase1d{chosen if label == 'user' else ''}{back}"

    def with_total(label: str, each: str) -> str:
        total = _or_zero(f"sum({each})")
        return f'{each} or label_replace({total}, "{label}", "{_TOTALS[label]}", "", "")'

    def week(label: str, direction: str) -> str:
        # A label keeps the days apart; without it the first of two days would hide the second.
        days = [f'label_replace({day(label, direction, back)}, "day", "{back}", "", "")' for back in range(7)]
        return f"sum by ({label}) ({' or '.join(days)})"

    def by_day(label: str, what: str, direction: str, title: str, of: str) -> Panel:
        names = ["Last 24 h", "The day before", *(f"{back} days before" for back in range(2, 7))]
        return Panel(
            f"{title} by day{'' if label == 'user' else f' and {what}'}",
            (
                *(Query(with_total(label, day(label, direction, back)), name) for back, name in enumerate(names)),
                Query(with_total(label, week(label, direction)), "7 days"),
            ),
            "bytes",
            "table",
            f"Bytes {title.lower()} {of}, in days of 24 hours back from now.",
            COLUMNS,
            9,
            columns=((label, what.capitalize()),),
        )

    def rates(label: str, what: str, of: str) -> Panel:
        return Panel(
            f"Now, by {what}",
            (
                Query(f"{label}:network_receive_bytes:rate2m", f"{{{{{label}}}}} received"),
                Query(f"{label}:network_transmit_bytes:rate2m", f"{{{{{label}}}}} sent"),
            ),
            "bytes/s",
            description=f"Bytes per second {of}.",
            width=COLUMNS,
        )

    def stat(direction: str, title: str, window: str) -> Panel:
        name = "rate2m" if window == "now" else "increase1d"
        return Panel(
            f"{title} {window}",
            (Query(_or_zero(f"sum(user:network_{direction}_bytes:{name})"), title.lower()),),
            "bytes/s" if window == "now" else "bytes",
            "stat",
            f"What all users' servers {'receive' if direction == 'receive' else 'send'} "
            + ("per second." if window == "now" else "in the last 24 hours, those that have ended too."),
            6,
            4,
        )

    users = [
        Panel(
            "Received",
            (Query(_top(f"user:network_receive_bytes:rate2m{chosen}"), "{{user}}"),),
            "bytes/s",
            description="Bytes per second that each user's servers receive; the 20 largest at each moment.",
        ),
        Panel(
            "Sent",
            (Query(_top(f"user:network_transmit_bytes:rate2m{chosen}"), "{{user}}"),),
            "bytes/s",
            description="Bytes per second that each user's servers send; the 20 largest at each moment.",
        ),
        by_day("user", "user", "receive", "Received", "by each user's servers, ended ones too"),
        by_day("user", "user", "transmit", "Sent", "by each user's servers, ended ones too"),
    ]
    pods, cards = (
        "of all pods of a namespace that have a network of their own",
        "through the machines' own network cards",
    )
    budget = settings["traffic_budget_gb"]
    if budget > 0:
        both = f"({day('user', 'receive', 0)} + {day('user', 'transmit', 0)}) / {budget * GB:.0f}"
        users.append(
            Panel(
                f"Share of the budget of {budget:g} GB a day",
                (Query(_or_nobody(both), "Used", "ratio"),),
                "ratio",
                "table",
                "Received and sent within the last 24 hours, of what a user may have. Above 100 % there is an alert; "
                "nothing is cut off.",
                COLUMNS,
                thresholds=(Threshold(0.8, WARNING), Threshold(1, CRITICAL)),
                columns=(("user", "User"),),
            )
        )
    return Dashboard(
        "traffic",
        "Network traffic",
        "Who moves how much over the network: by user, namespace and machine, now and by day.",
        (
            Row(
                "All users",
                (
                    stat("receive", "Received", "now"),
                    stat("transmit", "Sent", "now"),
                    stat("receive", "Received", "within 24 hours"),
                    stat("transmit", "Sent", "within 24 hours"),
                ),
            ),
            Row("By user", tuple(users)),
            Row(
                "By namespace",
                (
                    rates("namespace", "namespace", pods),
                    by_day("namespace", "namespace", "receive", "Received", f"{pods}, ended ones too"),
                    by_day("namespace", "namespace", "transmit", "Sent", f"{pods}, ended ones too"),
                ),
            ),
            Row(
                "By machine",
                (
                    rates("node", "machine", cards),
                    by_day("node", "machine", "receive", "Received", cards),
                    by_day("node", "machine", "transmit", "Sent", cards),
                ),
            ),
        ),
        (USER,),
        duration="24h",
    )


def _gpu(_settings: Mapping[str, Any]) -> Dashboard:
    legend = "{{node}} {{gpu}}"
    granted = (
        'sum by (user) (kube_pod_container_resource_limits{resource="nvidia_com_gpu"}'
        " * on (namespace, pod) group_left (user) jhok:user_pod:info)"
    )
    of_gpu = "by (node, gpu, name)"
    return Dashboard(
        "gpu",
        "GPU",
        "The GPUs: how busy and how warm they are, and who has them.",
        (
            Row(
                "Now",
                (
                    Panel(
                        "GPUs",
                        (
                            Query(f"max {of_gpu} (jhok_gpu_utilization_ratio)", "Busy", "ratio"),
                            Query(f"max {of_gpu} (jhok_gpu_memory_used_bytes)", "Memory in use", "bytes"),
                            Query(f"max {of_gpu} (jhok_gpu_memory_total_bytes)", "Memory", "bytes"),
                            Query(f"max {of_gpu} (jhok_gpu_temperature_celsius)", "Temperature (°C)"),
                            Query(f"max {of_gpu} (jhok_gpu_power_watts)", "Power (W)"),
                        ),
                        kind="table",
                        description="Each GPU now.",
                        width=16,
                        columns=(("node", "Machine"), ("gpu", "GPU"), ("name", "Model")),
                    ),
                    Panel(
                        "GPUs by user",
                        (Query(_or_nobody(granted), "GPUs"),),
                        kind="table",
                        description="How many GPUs each user's server has been given.",
                        width=8,
                        columns=(("user", "User"),),
                    ),
                ),
            ),
            Row(
                "Over time",
                (
                    Panel(
                        "Busy",
                        (Query("max by (node, gpu) (jhok_gpu_utilization_ratio)", legend),),
                        "ratio",
                        description="Share of time in which a GPU computes.",
                        maximum=1,
                    ),
                    Panel(
                        "Memory in use",
                        (Query("max by (node, gpu) (jhok_gpu_memory_used_bytes)", legend),),
                        "bytes",
                        description="Memory of each GPU that programs hold.",
                    ),
                    Panel(
                        "Temperature",
                        (Query("max by (node, gpu) (jhok_gpu_temperature_celsius)", legend),),
                        "celsius",
                        description="Temperature of each GPU.",
                    ),
                    Panel(
                        "Power",
                        (Query("max by (node, gpu) (jhok_gpu_power_watts)", legend),),
                        "watts",
                        description="Power that each GPU draws.",
                    ),
                ),
            ),
        ),
    )


def placed(row: Row) -> list[tuple[Panel, int, int]]:
    """Return a row's panels with the place of each in it: from left, from top."""
    places = []
    x = y = tallest = 0
    for panel in row.panels:
        if x + panel.width > COLUMNS:
            x, y, tallest = 0, y + tallest, 0
        places.append((panel, x, y))
        x, tallest = x + panel.width, max(tallest, panel.height)
    return places


def dashboard_queries(dashboards: Sequence[Dashboard]) -> list[tuple[str, Query]]:
    """Return every query with `<uid>: <title of its panel>`."""
    return [
        (f"{dashboard.uid}: {panel.title}", query)
        for dashboard in dashboards
        for row in dashboard.rows
        for panel in row.panels
        for query in panel.queries
    ]
