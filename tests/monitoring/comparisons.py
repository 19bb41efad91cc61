"""What each panel has to show, learnt in another way, and how far off it may be, with the reason.

A panel's queries are judged in their order. Prometheus' own word is taken for what was before the activity only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import linear_regression

from activity import BURNER, FILL, MOVER
from ansible_collections.jhok.lab.plugins.plugin_utils.rules import rules
from facts import Ends, Facts, in_of, out_of
from lab import Visitor

DAY, YEAR = 86400, 365 * 86400
RECEIVED, SENT = 0, 1
SPAWN_EDGES = (0, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 120, 180, 300, 600)  # of the hub's histogram, in seconds


@dataclass(frozen=True)
class Band:
    """Where a figure has to be; `told` is what the other way says."""

    told: float
    low: float
    high: float


Key = str | tuple[str, ...]
Bands = Mapping[Key, Band]


@dataclass(frozen=True)
class Case:
    """The lab at one moment, and Prometheus' answers of before the activity."""

    facts: Facts
    visitor: Visitor

    def before(self, expression: str, label: str) -> dict[str, float]:
        """Return what was told, by a label, before the users did anything: theirs of an earlier run within the day."""
        found = self.visitor.query(expression, self.facts.activity.before)
        return {labels.get(label, ""): value for labels, value in found}


@dataclass(frozen=True)
class Check:
    """How a panel is judged: its series by `labels`, each query by a function; why it may be off so far.

    `whole`: the functions tell of all that there is, so that a query which tells of more is wrong.
    """

    labels: tuple[str, ...]
    why: str
    bands: tuple[Callable[[Case], Bands], ...]
    whole: bool = False


def judged(
    found: Sequence[tuple[Mapping[str, str], float]], labels: tuple[str, ...], bands: Bands, whole: bool
) -> Iterator[str]:
    """Yield what is wrong with the answer to a query."""
    values: dict[Key, float] = {}
    for metric, value in found:
        names = tuple(metric[label] for label in labels if label in metric)
        key: Key = "".join(names) if len(names) < 2 else names
        if key in values:
            yield f"{key}: is told twice, as {values[key]:.6g} and {value:.6g}"
        values[key] = value
    for key, band in bands.items():
        told = values.get(key)
        if told is None:
            yield f"{key}: is not there, only {sorted(map(str, values))}"
        elif not band.low <= told <= band.high:
            yield f"{key}: shows {told:.6g}, is {band.told:.6g} ({band.low:.6g} to {band.high:.6g})"
    if whole or not labels:
        yield from (f"{key}: is told, and nobody knows of it" for key in values if key not in bands)
    if not bands:
        yield "the other way told nothing"


def about(value: float, share: float = 0.0, plus: float = 0.0) -> Band:
    """Return a band of `share` of a figure and `plus` to both sides."""
    width = abs(value) * share + plus
    return Band(value, value - width, value + width)


def exactly(value: float) -> Band:
    return Band(value, value, value)


def between(low: float, high: float, told: float | None = None) -> Band:
    return Band(low if told is None else told, low, high)


def around(ends: tuple[float, float], share: float = 0.0, plus: float = 0.0) -> Band:
    """Return a band around a range of figures."""
    low, high = ends
    return Band((low + high) / 2, low * (1 - share) - plus, high * (1 + share) + plus)


def wide(seconds: list[float], times: float = 20, plus: float = 0.1) -> Band:
    """Return a band for a time that depends on who asks and when: from our fastest answer by `times` to our slowest."""
    ordered = sorted(seconds)
    return Band(ordered[len(ordered) // 2], ordered[0] / times, ordered[-1] * times + plus)


def one(band: Band) -> Bands:
    """Return the band of a query that has one answer."""
    return {"": band}


def each(figures: Mapping[Key, float], share: float = 0.0, plus: float = 0.0) -> Bands:
    """Return a band around each figure."""
    return {key: about(value, share, plus) for key, value in figures.items()}


def around_each(figures: Mapping[Key, Ends], share: float = 0.0, plus: float = 0.0) -> Bands:
    """Return a band around each range of figures."""
    return {key: around(ends, share, plus) for key, ends in figures.items()}


# ------------------------------------------------------------------ what several panels show


def processors(case: Case) -> Bands:
    return around_each(case.facts.processors, plus=0.06)


def memory(case: Case) -> Bands:
    return around_each(case.facts.memory, plus=0.02)


def mean_of(figures: Mapping[str, Ends]) -> Ends:
    return sum_of(figures, len(figures))


def sum_of(figures: Mapping[str, Ends], divided_by: int = 1) -> Ends:
    least, largest = (sum(ends[end] for ends in figures.values()) / divided_by for end in (0, 1))
    return least, largest


def fullest_disk(case: Case) -> Bands:
    return each(case.facts.fullest, plus=0.01)


def homes_disk(case: Case) -> Bands:
    size, free = case.facts.homes_disk
    return one(about(1 - free / size, plus=0.01))


def servers(case: Case) -> Bands:
    return one(exactly(case.facts.servers))


def users_cpu(case: Case) -> Bands:
    return around_each(case.facts.user_rate(lambda figures: figures["cpu"]), 0.12, 0.03)


def users_memory(case: Case) -> Bands:
    return {user: around(ends, 0.1, 5e6) for user, ends in case.facts.user_range("memory").items()}


def users_share_of_limit(case: Case) -> Bands:
    limits = case.facts.limits()
    return {
        user: around((low / limits[user], high / limits[user]), 0.1, 0.01)
        for user, (low, high) in case.facts.user_range("memory").items()
    }


def running_pods(case: Case) -> Bands:
    facts = case.facts
    return {node: between(count, count + len(facts.replaced(node))) for node, count in facts.running().items()}


def promised(resource: str) -> Callable[[Case], Bands]:
    return lambda case: {node: around(ends, plus=0.001) for node, ends in case.facts.promised(resource).items()}


def drives_rate(direction: str) -> Callable[[Case], Bands]:
    return lambda case: around_each(case.facts.drive_rate(direction), 0.1, 0.1e6)


def users_rate(direction: int) -> Callable[[Case], Bands]:
    return lambda case: around_each(case.facts.user_rate(lambda figures: figures["network"][direction]), 0.15, 2000)


def all_users_rate(direction: int) -> Callable[[Case], Bands]:
    def bands(case: Case) -> Bands:
        rates = case.facts.user_rate(lambda figures: figures["network"][direction])
        return one(around(sum_of(rates), 0.15, 4000))

    return bands


def day_metric(label: str, direction: int) -> str:
    return f"{label}:network_{'receive' if direction == RECEIVED else 'transmit'}_bytes:increase1d"


def recorded(case: Case, name: str) -> str:
    """Return what a recording rule asks. Its last figure may be two minutes old, in which machines move a lot."""
    groups = rules(case.facts.site.settings)["groups"]
    [expression] = [rule["expr"] for group in groups for rule in group["rules"] if rule.get("record") == name]
    return str(expression)


def traffic_of_day(case: Case, label: str, direction: int) -> dict[str, tuple[float, float]]:
    """Return what each user's pods, namespace or machine has moved within the day: the least and the most.

    The figure is worked out every two minutes, from counters of up to 20 seconds before. What was moved a day ago may
    have left it since the activity began.
    """
    facts = case.facts
    name = day_metric(label, direction)
    before = case.before(recorded(case, name), label)
    made = case.visitor.value(f"max(timestamp({name}))", facts.now)
    span = max(made - facts.activity.before, 1)
    fastest = f"max_over_time({name.replace('increase1d', 'rate2m')}[{span + 120:.0f}s])"
    left = {labels[label]: value * span for labels, value in case.visitor.query(fastest, made - DAY)}
    moved = {
        "user": lambda moment: {user: facts.moved(user, direction, moment) for user in (BURNER, MOVER)},
        "namespace": lambda moment: facts.namespace_moved(direction, moment),
        "node": lambda moment: facts.machine_moved((in_of, out_of)[direction], moment),
    }[label]
    early, late = moved(made - 20), moved(made + 5)
    return {key: (before.get(key, 0) + early[key] - left.get(key, 0), before.get(key, 0) + late[key]) for key in early}


def by_day(label: str, direction: int, plus: float = 3e6) -> Callable[[Case], Bands]:
    return lambda case: {key: around(ends, 0.05, plus) for key, ends in traffic_of_day(case, label, direction).items()}


def users_day(direction: int) -> Callable[[Case], Bands]:
    return by_day("user", direction)


def all_users_day(direction: int) -> Callable[[Case], Bands]:
    def bands(case: Case) -> Bands:
        ours = traffic_of_day(case, "user", direction)
        others = sum(
            value
            for labels, value in case.visitor.query(day_metric("user", direction), case.facts.now)
            if labels["user"] not in ours
        )
        ends = (sum(low for low, _ in ours.values()) + others, sum(high for _, high in ours.values()) + others)
        return one(around(ends, 0.05, 6e6))

    return bands


def days(label: str, direction: int, plus: float) -> tuple[Callable[[Case], Bands], ...]:
    """Return the bands of today, of six days before and of all seven, of which there is no record but Prometheus'."""

    def earlier(back: int) -> Callable[[Case], Bands]:
        return lambda case: total(told(case, label, direction, back), 1)

    def week(case: Case) -> Bands:
        today = by_day(label, direction, plus)(case)
        sums: dict[str, float] = {}
        for back in range(1, 7):
            for key, value in told(case, label, direction, back).items():
                sums[key] = sums.get(key, 0) + value
        return {
            key: Band(band.told + sums.get(key, 0), band.low + sums.get(key, 0), band.high + sums.get(key, 0))
            for key, band in today.items()
        }

    def total(figures: Mapping[str, float], plus: float) -> Bands:
        return {f"all {PLURALS[label]}": about(sum(figures.values()), plus=plus), **each(figures, plus=plus)}

    return (by_day(label, direction, plus), *(earlier(back) for back in range(1, 7)), week)


PLURALS = {"user": "users", "namespace": "namespaces", "node": "machines"}


def told(case: Case, label: str, direction: int, back: int) -> dict[str, float]:
    """Return what Prometheus itself said that many days ago."""
    found = case.visitor.query(day_metric(label, direction), case.facts.now - back * DAY)
    return {labels[label]: value for labels, value in found}


def budget(case: Case) -> Bands:
    received, sent = (traffic_of_day(case, "user", direction) for direction in (RECEIVED, SENT))
    whole = case.facts.site.settings["traffic_budget_gb"] * 1e9
    return {
        user: around(tuple((received[user][end] + sent[user][end]) / whole for end in (0, 1)), 0.05, 6e6 / whole)
        for user in received
    }


def homes(case: Case) -> Bands:
    return each(case.facts.homes, 0.02, 2e6)


def namespaces_rate(direction: int) -> Callable[[Case], Bands]:
    return lambda case: around_each(case.facts.namespace_rate(direction), 0.15, 5000)


def machines_rate(direction: int) -> Callable[[Case], Bands]:
    read = (in_of, out_of)[direction]
    return lambda case: around_each(case.facts.machine_rate(read), 0.15, 20000)


def counted(what: Callable[[Facts], int], query: str) -> Callable[[Case], Bands]:
    """Return the band of a count of the last hour or day: what the hub's log tells, and what was before this hub."""

    def bands(case: Case) -> Bands:
        said = what(case.facts)
        began = case.facts.component("hub").status.start_time.timestamp()
        earlier = case.visitor.value(query, began)
        return one(between(said, said + earlier))

    return bands


def known_users(low: Callable[[Facts], int]) -> Callable[[Case], Bands]:
    return lambda case: one(between(low(case.facts), len(case.facts.users)))


def start_times(case: Case) -> Bands:
    said = case.facts.seconds_said("start")
    below = max(edge for edge in SPAWN_EDGES if edge <= min(said))
    above = min(edge for edge in SPAWN_EDGES if edge >= max(said))
    return one(between(below, above, max(said)))


def starts_and_stops() -> tuple[Callable[[Case], Bands], ...]:
    hour = "round(sum(increase(jupyterhub_server_{}[1h])))"
    return (
        counted(
            lambda facts: len(facts.seconds_said("start")),
            hour.format('spawn_duration_seconds_count{status="success"}'),
        ),
        counted(lambda _facts: 0, hour.format('spawn_duration_seconds_count{status!="success"}')),
        counted(lambda facts: len(facts.seconds_said("stop")), hour.format("stop_seconds_count")),
    )


def sign_ins(hours: str) -> tuple[Callable[[Case], Bands], ...]:
    count = f'round(sum(increase(jupyterhub_login_duration_seconds_count{{status=~".*%s"}}[{hours}])))'
    return (
        counted(lambda facts: facts.log.count("User logged in: "), count % "success"),
        counted(lambda facts: facts.log.count("Failed login for "), count % "failure"),
    )


def full_in(case: Case) -> Bands:
    """Return when the disk is full by the line through all figures of the day, each of which is df's."""
    found = case.visitor.api("query", query="jhok_homes_filesystem_avail_bytes[1d]", time=case.facts.now)["result"]
    points = [(float(moment), float(value)) for moment, value in found[0]["values"]]
    assert abs(points[-1][1] / case.facts.homes_disk[1] - 1) < 0.01, "the free space is not df's"
    moments, values = zip(*points, strict=True)
    slope = linear_regression([moment - moments[0] for moment in moments], values).slope
    return one(about(min(values[-1] / -slope, YEAR) if slope < 0 else YEAR, 0.05))


def sizes_age(case: Case) -> Bands:
    site = case.facts.site
    changed = float(site.run(site.nfs_server, f"stat -c %.3Y {site.textfiles}/jhok_homes.prom"))
    newest = max(case.facts.now - changed, 0)
    return one(between(max(newest - 2, 0), newest + site.homes_interval + 3 * site.settings["scrape_interval"], newest))


def restarts(case: Case) -> Bands:
    """Return the pods that restarted since there is monitoring: within the day, no more than at all."""
    found = case.facts.restarts()
    return {name: between(0, count) for name, count in found.items()} or {"none": exactly(0)}


def asked_rate(case: Case) -> Band:
    """Return the band of the hub's requests: those of ours that were answered, and some of probes and pages."""
    least, largest = case.facts.asked_rate()
    return Band(largest, 0.9 * least, largest + 10)


def requests_by_code(case: Case) -> Bands:
    return {"200": asked_rate(case)}


def api_times(case: Case) -> Bands:
    return {"LIST": wide(case.facts.api_seconds())}


def etcd_times(case: Case) -> Bands:
    return one(wide(case.facts.writes(case.facts.site.node, "/var/lib/etcd")))


def nfs_times(case: Case) -> Bands:
    return {case.facts.site.settings["nfs_address"]: wide(case.facts.nfs_seconds())}


def write_times(case: Case) -> Bands:
    site = case.facts.site
    return {site.nfs_server: wide(case.facts.writes(site.nfs_server, f"{site.homes}/.."))}


def grown(_case: Case) -> Bands:
    return {BURNER: about(FILL, 0.03, 3e6), MOVER: between(0, 50e6)}


RATE = "cAdvisor reads a pod's counters every 10 to 15 s, so its two minutes are not quite ours"
LAGGING = f"{RATE}; what a pod has moved before it is first seen does not count"
BETWEEN = "the figures are some seconds apart"
BUCKETS = "a quantile is guessed between the edges of a histogram; how long an answer takes depends on who asks"
HOURLY = "the hub counts its active users when it starts and once an hour"
LOG = "the hub's log begins with the hub; before it, the count of then stands for itself"

PANELS: dict[str, Check] = {
    # Lab overview
    "overview: Alerts": Check((), "Alertmanager's own count", (lambda case: one(exactly(case.facts.alerts)),)),
    "overview: Hub": Check((), "it answers us", (lambda case: one(exactly(1)) if case.facts.asked() else {},)),
    "overview: Nodes not ready": Check((), "", (lambda case: one(exactly(case.facts.not_ready)),)),
    "overview: Silent targets": Check(
        (), "every unit runs and answers", (lambda case: one(exactly(case.facts.silent)),)
    ),
    "overview: Servers running": Check((), "the hub's API", (servers,)),
    "overview: Processors in use": Check(
        (), BETWEEN, (lambda case: one(around(mean_of(case.facts.processors), plus=0.06)),)
    ),
    "overview: Memory in use": Check((), BETWEEN, (lambda case: one(around(mean_of(case.facts.memory), plus=0.02)),)),
    "overview: Fullest disk": Check((), BETWEEN, (lambda case: one(about(max(case.facts.disks.values()), plus=0.01)),)),
    "overview: Homes' disk": Check((), BETWEEN, (homes_disk,)),
    "overview: Servers over the day": Check((), "the hub's API", (servers,)),
    "overview: Network traffic of users' servers": Check((), RATE, (all_users_rate(RECEIVED), all_users_rate(SENT))),
    "overview: Processors": Check(("node",), BETWEEN, (processors,), whole=True),
    "overview: Memory": Check(("node",), BETWEEN, (memory,), whole=True),
    # Hub
    "hub: Servers running": Check((), "the hub's API", (servers,)),
    "hub: Users active within a day": Check((), HOURLY, (known_users(lambda _facts: 0),)),
    "hub: Failed starts within a day": Check(
        (),
        LOG,
        (
            counted(
                lambda _facts: 0,
                'round(sum(increase(jupyterhub_server_spawn_duration_seconds_count{status!="success"}[1d])))',
            ),
        ),
    ),
    "hub: Failed sign-ins within a day": Check((), LOG, (sign_ins("1d")[1],)),
    "hub: Users": Check(
        (),
        HOURLY,
        (
            servers,
            known_users(lambda _facts: 0),
            known_users(lambda _facts: 0),
            lambda case: one(exactly(len(case.facts.users))),
        ),
    ),
    "hub: Starts and stops per hour": Check((), LOG, starts_and_stops()),
    "hub: Time to start": Check((), BUCKETS, (start_times, start_times)),
    "hub: Sign-ins per hour": Check((), LOG, sign_ins("1h")),
    "hub: Time to answer": Check((), BUCKETS, (lambda case: one(wide(case.facts.asked())),) * 2),
    "hub: Requests to the hub": Check(("code",), "ours, and those of probes and pages", (requests_by_code,)),
    "hub: Requests through the proxy": Check(
        (),
        "ours, and those of pages; kernels open their websockets at the beginning",
        (
            lambda case: one(asked_rate(case)),
            lambda _case: one(between(0, 2)),
        ),
    ),
    "hub: Memory of the hub and its proxy": Check(
        ("job",),
        "the largest process of the pod",
        (lambda case: {name: around(case.facts.largest_process(name), 0.05) for name in ("hub", "proxy")},),
    ),
    # Users
    "users: Users": Check(
        ("user",),
        LAGGING,
        (
            users_cpu,
            users_memory,
            users_share_of_limit,
            users_day(RECEIVED),
            users_day(SENT),
            homes,
        ),
    ),
    "users: CPU": Check(("user",), RATE, (users_cpu,), whole=True),
    "users: Memory": Check(("user",), RATE, (users_memory,), whole=True),
    "users: Received": Check(("user",), RATE, (users_rate(RECEIVED),), whole=True),
    "users: Sent": Check(("user",), RATE, (users_rate(SENT),), whole=True),
    "users: Largest homes": Check(("user",), BETWEEN, (homes,), whole=True),
    # Nodes
    "nodes: Machines": Check(
        ("node",),
        BETWEEN,
        (
            processors,
            memory,
            fullest_disk,
            lambda case: around_each(case.facts.machine_range(lambda sample: sample["load5"]), plus=0.3),
            running_pods,
            lambda case: each(case.facts.up_for, plus=10),
        ),
    ),
    "nodes: CPU": Check(("node",), BETWEEN, (processors,), whole=True),
    "nodes: Memory": Check(("node",), BETWEEN, (memory,), whole=True),
    "nodes: Promised to pods": Check(
        ("node",),
        "Kubernetes rounds to thousandths; a pod of monitoring that was replaced counts for five minutes",
        (
            promised("cpu"),
            promised("memory"),
        ),
    ),
    "nodes: Network": Check(("node",), BETWEEN, (machines_rate(RECEIVED), machines_rate(SENT)), whole=True),
    "nodes: Disk space in use": Check(
        ("node", "mountpoint"), BETWEEN, (lambda case: each(case.facts.disks, plus=0.01),)
    ),
    "nodes: Disk traffic": Check(
        ("node",),
        "what is read or written comes in bursts, which one of two windows has and the other has not",
        (
            drives_rate("read"),
            drives_rate("written"),
        ),
    ),
    "nodes: Containers that restarted within a day": Check(("pod",), "Kubernetes counts them since ever", (restarts,)),
    "nodes: Time the API server takes": Check(("verb",), BUCKETS, (api_times,)),
    "nodes: Time etcd takes to write": Check((), BUCKETS, (etcd_times, etcd_times)),
    "nodes: Certificates expire in": Check(
        ("node", "certificate"), "whole seconds", (lambda case: each(case.facts.certificates, plus=2),), whole=True
    ),
    # Homes and NFS
    "homes: NFS server": Check(
        (), "servers write into their homes", (lambda case: one(exactly(1)) if case.facts.homes[BURNER] > FILL else {},)
    ),
    "homes: Homes' disk": Check((), BETWEEN, (homes_disk,)),
    "homes: Full in": Check((), "the same line, drawn through the same points by us", (full_in,)),
    "homes: Sizes are from": Check((), "the file's age, measured again every some seconds", (sizes_age,)),
    "homes: Time to answer": Check(("server", "node"), "no two requests take as long", (nfs_times, write_times)),
    "homes: Disk space": Check(
        (),
        BETWEEN,
        (
            lambda case: one(about(case.facts.homes_disk[0] - case.facts.homes_disk[1], 0.02)),
            lambda case: one(exactly(case.facts.homes_disk[0])),
            lambda case: one(about(sum(case.facts.homes.values()), 0.02, 2e6)),
        ),
    ),
    "homes: Largest homes": Check(("user",), BETWEEN, (homes,), whole=True),
    "homes: Homes": Check(("user",), BETWEEN, (homes, grown, lambda case: each(case.facts.files, 0.02, 5))),
    "homes: Inodes of homes": Check(("user",), BETWEEN, (lambda case: each(case.facts.files, 0.02, 5),), whole=True),
    # Network traffic
    "traffic: Received now": Check((), RATE, (all_users_rate(RECEIVED),)),
    "traffic: Sent now": Check((), RATE, (all_users_rate(SENT),)),
    "traffic: Received within 24 hours": Check((), LAGGING, (all_users_day(RECEIVED),)),
    "traffic: Sent within 24 hours": Check((), LAGGING, (all_users_day(SENT),)),
    "traffic: Received": Check(("user",), RATE, (users_rate(RECEIVED),), whole=True),
    "traffic: Sent": Check(("user",), RATE, (users_rate(SENT),), whole=True),
    **{
        f"traffic: {title} by day{of}": Check((label,), f"{LAGGING}; of earlier days there is no other record", found)
        for label, of, plus in (("user", "", 3e6), ("namespace", " and namespace", 5e6), ("node", " and machine", 10e6))
        for title, direction in (("Received", RECEIVED), ("Sent", SENT))
        for found in (days(label, direction, plus),)
    },
    "traffic: Share of the budget of 0.2 GB a day": Check(("user",), LAGGING, (budget,)),
    "traffic: Now, by namespace": Check(
        ("namespace",), RATE, (namespaces_rate(RECEIVED), namespaces_rate(SENT)), whole=True
    ),
    "traffic: Now, by machine": Check(("node",), BETWEEN, (machines_rate(RECEIVED), machines_rate(SENT)), whole=True),
}
