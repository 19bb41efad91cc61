"""Prometheus' rules: what it works out for the dashboards and what it alerts to. Pure functions.

docs/admin/runbooks.md has a section for each alert, under the alert's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from ansible_collections.jhok.lab.plugins.plugin_utils.prometheus import expected_targets

Rule = dict[str, Any]

OWN_RULES = "monitoring_rules"

_DAY = 86400  # seconds
_GB = 10**9  # bytes

# A machine that restarts is back within two minutes, a hub within one.
_MACHINE_GRACE, _HUB_GRACE = "3m", "2m"
# The kubelet evicts pods at 10 % of a disk, and deletes images at 15 % that only the site's registry can restore.
_DISK_FREE = 0.15
_HOMES_FREE = 0.1
_QUOTA_USED = 0.95
_PREDICT_FREE = 0.4  # with more than this free, nothing is predicted: one large download would be an alarm
_DISK_AHEAD, _HOMES_AHEAD = _DAY, 3 * _DAY
# An idle server on the lab's network answers within milliseconds; people feel a quarter of a second per file.
_NFS_SECONDS, _WRITE_SECONDS = 0.25, 1
_FAILED_STARTS = 3  # within 30 minutes, and at least this share of all:
_FAILED_SHARE = 0.2
CERTIFICATE_DAYS = 30

# Of a machine's file systems, those that fill up.
DISKS = (
    'fstype!~"tmpfs|ramfs|overlay|squashfs|iso9660|nfs.*|fuse.*",'
    'mountpoint!~"/(?:boot|run)(?:/.*)?|/var/lib/(?:kubelet|containerd)/.+"'
)
_PHYSICAL = 'device=~"(?:eth|en|em|ib|wl)[^.:]*"'  # neither bridges, nor VLANs and bonds, whose traffic these carry
_CONTAINERS = 'container!="",container!="POD"'
# What a full site or a limit of the admin's own turns away is no failure.
_STARTS = "jupyterhub_server_spawn_duration_seconds_count"
_TURNED_AWAY = 'reason!~"throttled|too-many-users|already-pending"'
_HUB_JOBS = ("hub", "proxy")

# One that has every rule, to know their names.
_SOME_SITE = {
    "url": "",
    "hub_namespace": "",
    "traffic_budget_gb": 1,
    "backup_max_age_days": 1,
    "quotas": True,
    "machines": {},
    "node": "",
    "manage_kubernetes": True,
}


def rules(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return Prometheus' rules file.

    Args:
        settings: `url` of the page, `hub_namespace`, `traffic_budget_gb` (per user and day; 0: none),
            `backup_max_age_days`, `rules` (the site's own groups), what `expected_targets` takes, and by choice
            `quotas` (homes have limits; default: no).

    Raises ValueError for what is wrong with the site's own groups in `own_rule_faults`' eyes.

    """
    for path, shown, what, do in own_rule_faults(settings["rules"]):
        raise ValueError(f"{path}{f' = {shown}' if shown else ''}: {what}. To do: {do}.")
    return {"groups": [*_groups(settings), *settings["rules"]]}


def rules_text(settings: Mapping[str, Any]) -> str:
    """Return rules.yml."""
    return yaml.safe_dump(rules(settings), sort_keys=False, width=1000, allow_unicode=True)


def own_rule_faults(groups: object) -> Iterator[tuple[str, str, str, str]]:
    """Yield (path, shown value, what is wrong, what to do) where the site's own groups are not as a reader needs them.

    The rest is promtool's to judge, in its own words.
    """
    ours = _groups(_SOME_SITE)
    seen = {group["name"] for group in ours}
    names = {rule.get("alert") or rule["record"] for group in ours for rule in group["rules"]}
    for number, group in enumerate(groups if isinstance(groups, list) else []):
        path = f"{OWN_RULES}[{number}]"
        name, listed = (group.get("name"), group.get("rules")) if isinstance(group, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(listed, list):
            yield path, "", "not a group of rules", "write a mapping with name: and rules:, a list"
            continue
        if name in seen:
            yield f"{path}.name", name, "there is a group of that name already", "give it another name"
        seen.add(name)
        for index, rule in enumerate(listed):
            kinds = [rule[kind] for kind in ("alert", "record") if kind in rule] if isinstance(rule, dict) else []
            if len(kinds) != 1 or not isinstance(rule.get("expr"), str):
                what, do = "not a rule", "write a mapping with alert: or record:, and expr: as text"
                yield f"{path}.rules[{index}]", "", what, do
            elif kinds[0] in names:
                what = "the product has a rule of that name"
                yield f"{path}.rules[{index}]", str(kinds[0]), what, "give it another name"


def _groups(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the groups of the product."""
    return [
        {"name": "jhok-users", "rules": list(_use())},
        {"name": "jhok-traffic-by-day", "interval": "2m", "rules": list(_traffic_by_day())},
        {"name": "jhok-alerts", "rules": list(_alerts(settings))},
    ]


def _record(name: str, expression: str) -> Rule:
    return {"record": name, "expr": expression}


def _use() -> Iterator[Rule]:
    """Yield who uses how much now."""
    yield _record(
        "jhok:user_pod:info",
        'max by (namespace, pod, user) (label_replace(kube_pod_annotations{annotation_hub_jupyter_org_username!=""}, '
        '"user", "$1", "annotation_hub_jupyter_org_username", "(.+)"))',
    )
    # A pod in its node's network tells the node's own traffic.
    yield _record(
        "jhok:host_network_pod:info",
        'max by (namespace, pod) (label_replace(kube_pod_info{pod_ip!=""}, "address", "$1", "pod_ip", "(.+)") '
        'and on (namespace, pod, address) label_replace(kube_pod_info, "address", "$1", "host_ip", "(.+)"))',
    )
    of_user = "on (namespace, pod) group_left (user) jhok:user_pod:info"
    yield _record(
        "user:cpu_usage_cores:rate2m",
        f"sum by (user) (rate(container_cpu_usage_seconds_total{{{_CONTAINERS}}}[2m]) * {of_user})",
    )
    yield _record(
        "user:memory_working_set_bytes:sum",
        f"sum by (user) (container_memory_working_set_bytes{{{_CONTAINERS}}} * {of_user})",
    )
    for direction in ("receive", "transmit"):
        rate = f'rate(container_network_{direction}_bytes_total{{interface="eth0"}}[2m])'
        yield _record(f"user:network_{direction}_bytes:rate2m", f"sum by (user) ({rate} * {of_user})")
        yield _record(
            f"namespace:network_{direction}_bytes:rate2m",
            f"sum by (namespace) ({rate} unless on (namespace, pod) jhok:host_network_pod:info)",
        )
        yield _record(
            f"node:network_{direction}_bytes:rate2m",
            f"sum by (node) (rate(node_network_{direction}_bytes_total{{{_PHYSICAL}}}[2m]))",
        )


def _traffic_by_day() -> Iterator[Rule]:
    """Yield the traffic of the last 24 hours; pods that have ended meanwhile count."""
    for direction in ("receive", "transmit"):
        of_pods = f'increase(container_network_{direction}_bytes_total{{interface="eth0"}}[1d])'
        yield _record(
            f"user:network_{direction}_bytes:increase1d",
            f"sum by (user) ({of_pods} * on (namespace, pod) group_left (user) last_over_time(jhok:user_pod:info[1d]))",
        )
        yield _record(
            f"namespace:network_{direction}_bytes:increase1d",
            f"sum by (namespace) ({of_pods} unless on (namespace, pod) last_over_time(jhok:host_network_pod:info[1d]))",
        )
        yield _record(
            f"node:network_{direction}_bytes:increase1d",
            f"sum by (node) (increase(node_network_{direction}_bytes_total{{{_PHYSICAL}}}[1d]))",
        )


def _alerts(settings: Mapping[str, Any]) -> Iterator[Rule]:
    def alert(
        name: str, severity: str, expression: str, summary: str, description: str, wait: str | None = None
    ) -> Rule:
        annotations = {
            "summary": summary,
            "description": description,
            "runbook_url": f"{settings['url']}/site/runbooks.html#{name.lower()}",
        }
        return {
            "alert": name,
            "expr": expression,
            **({"for": wait} if wait else {}),
            "labels": {"severity": severity},
            "annotations": annotations,
        }

    yield alert(
        "NodeDown",
        "critical",
        'min by (node) (up{job=~"kubelet|node",node!=""} '
        'or kube_node_status_condition{condition="Ready",status="true"}) == 0',
        "Machine {{ $labels.node }} is down",
        "The kubelet or the node exporter of {{ $labels.node }} has not answered for more than 3 minutes, or "
        "Kubernetes calls the machine not ready. Servers on it are lost or cannot be reached.",
        _MACHINE_GRACE,
    )
    yield alert(
        "NodeDiskFilling",
        "warning",
        _filling(
            f"node_filesystem_avail_bytes{{{DISKS}}}",
            f"node_filesystem_size_bytes{{{DISKS}}}",
            _DISK_FREE,
            (6, _DISK_AHEAD),
        ),
        "The disk of {{ $labels.node }} at {{ $labels.mountpoint }} is filling up",
        "{{ $value | humanizePercentage }} of {{ $labels.mountpoint }} on {{ $labels.node }} ({{ $labels.device }}) is "
        f"free: less than {_DISK_FREE:.0%}, or as the last 6 hours went, it is full within 24 hours. "
        "At 10 % the kubelet stops users' servers there.",
        "10m",
    )
    yield alert(
        "HomesFilling",
        "warning",
        _filling(
            "jhok_homes_filesystem_avail_bytes",
            "jhok_homes_filesystem_size_bytes",
            _HOMES_FREE,
            (24, _HOMES_AHEAD),
        ),
        "The homes' disk on {{ $labels.node }} is filling up",
        "{{ $value | humanizePercentage }} of the file system with all homes is free: less than "
        f"{_HOMES_FREE:.0%}, or as the last day went, it is full within 3 days. Then nobody can save work.",
        "10m",
    )
    if settings.get("quotas"):
        whose = "{{ if $labels.shared }}group {{ $labels.shared }}{{ else }}{{ $labels.user }}{{ end }}"
        yield alert(
            "HomeNearlyFull",
            "warning",
            f"({' or '.join(quotas_in_use())}) > {_QUOTA_USED}",
            f"The home of {whose} is nearly full",
            f"The home of {whose} takes "
            "{{ $value | humanizePercentage }} of its quota. When it is full, nothing more can be saved in it.",
            "30m",
        )
    yield alert(
        "NFSDown",
        "critical",
        "jhok_nfs_up == 0",
        "The NFS server {{ $labels.server }} does not answer",
        "The NFS server {{ $labels.server }} has answered no request for more than a minute. Servers that use their "
        "home hang until it is back; nothing is lost.",
        "1m",
    )
    yield alert(
        "NFSSlow",
        "warning",
        f"avg_over_time(jhok_nfs_response_seconds[10m]) > {_NFS_SECONDS} "
        f"or avg_over_time(jhok_homes_write_seconds[10m]) > {_WRITE_SECONDS}",
        "The homes are slow",
        "Within the last 10 minutes {{ if $labels.server }}a request to the NFS server {{ $labels.server }}{{ else }}"
        "a small write beside the homes on {{ $labels.node }}{{ end }} took {{ $value | humanizeDuration }} on "
        f"average; more than {_NFS_SECONDS:g} s for a request or {_WRITE_SECONDS:g} s for a write is felt.",
        "5m",
    )
    yield alert(
        "HubDown",
        "critical",
        'min by (job) (up{job=~"hub|proxy"}) == 0 or absent(up{job="hub"}) or absent(up{job="proxy"})',
        "JupyterHub's {{ $labels.job }} does not answer",
        "JupyterHub's {{ $labels.job }} has not answered Prometheus for more than 2 minutes. Without the hub nobody "
        "can sign in or start a server, but open ones go on; without the proxy nobody reaches anything.",
        _HUB_GRACE,
    )
    failed = f'sum(increase({_STARTS}{{status!="success",{_TURNED_AWAY}}}[30m]))'
    # increase() comes out a little above or below whole numbers.
    yield alert(
        "SpawnFailing",
        "warning",
        f"{failed} > {_FAILED_STARTS - 0.5} and {failed} > {_FAILED_SHARE} * "
        f"sum(increase({_STARTS}{{{_TURNED_AWAY}}}[30m]))",
        "Servers fail to start",
        'About {{ $value | printf "%.0f" }} starts of servers failed within 30 minutes, at least '
        f"{_FAILED_SHARE:.0%} of all.",
    )
    pods = f'jhok:user_pod:info{{namespace="{settings["hub_namespace"]}"}}'
    yield alert(
        "PodWatchStuck",
        "warning",
        f'abs(sum(jhok_hub_pods) - (count({pods}) or vector(0))) > 0 and on () up{{job="exporter"}} == 1',
        "The hub does not see what becomes of servers",
        "For 15 minutes the number of users' pods that the hub knows has differed from Kubernetes' by {{ $value }}. "
        "Servers that run fine look stopped or cannot be started, or ended ones look alive.",
        "15m",
    )
    yield alert(
        "CertificateExpiring",
        "warning",
        f"jhok_certificate_expiry_timestamp_seconds - time() < {CERTIFICATE_DAYS * _DAY}",
        "Certificate {{ $labels.certificate }} on {{ $labels.node }} expires",
        "Certificate {{ $labels.certificate }} on {{ $labels.node }} "
        "{{ if lt $value 0.0 }}has expired.{{ else }}expires in {{ $value | humanizeDuration }}.{{ end }}",
        "1h",
    )
    days = settings["backup_max_age_days"]
    yield alert(
        "BackupTooOld",
        "warning",
        f"time() - max(jhok_backup_last_success_timestamp_seconds) > {days * _DAY}",
        f"There has been no good backup for more than {days} days",
        "The last good backup is {{ $value | humanizeDuration }} old.",
        "30m",
    )
    if settings["traffic_budget_gb"] > 0:
        budget = f"{settings['traffic_budget_gb']:g}"
        yield alert(
            "UserOverTrafficBudget",
            "warning",
            "user:network_receive_bytes:increase1d + user:network_transmit_bytes:increase1d "
            f"> {settings['traffic_budget_gb'] * _GB:.0f}",
            f"{{{{ $labels.user }}}} had more traffic than {budget} GB within 24 hours",
            "The servers of {{ $labels.user }} received and sent {{ $value | humanize }}B within the last 24 hours; "
            f"the budget is {budget} GB. Nothing has been cut off.",
        )
    yield alert(
        "AlertsNotDelivered",
        "warning",
        "sum by (integration) (increase(alertmanager_notifications_failed_total[15m])) > 0.5",
        "Nobody is told of alerts by {{ $labels.integration }}",
        'Within the last 15 minutes Alertmanager gave up {{ $value | printf "%.0f" }} messages to receivers of type '
        "{{ $labels.integration }}.",
    )
    # The proxy and the hub have an alert of their own, a machine that answers nothing at all too.
    vanished = [f'absent(up{{job="{job}"}})' for job in sorted(expected_targets(settings, 1)) if job not in _HUB_JOBS]
    yield alert(
        "TargetMissing",
        "warning",
        f'up{{job!~"{"|".join(_HUB_JOBS)}"}} == 0 unless on (node) (max by (node) (up{{node!=""}}) == 0) '
        f"or {' or '.join(vanished)}",
        "Prometheus gets no figures of {{ $labels.job }}{{ if $labels.node }} on {{ $labels.node }}{{ end }}",
        "{{ if $labels.instance }}{{ $labels.instance }} ({{ $labels.job }}) has not answered{{ else }}There has been "
        "nothing to ask for {{ $labels.job }}{{ end }} for more than 5 minutes. Panels and alerts that need it are "
        "blind.",
        "5m",
    )


def quotas_in_use(matchers: str = "") -> tuple[str, str]:
    """Return queries for the share in use of each quota: of one home's, by `user`, and of several homes', by `shared`.

    `matchers` choose among the homes.
    """
    used = "jhok_home_quota_used_bytes"
    chosen = f",{matchers}" if matchers else ""
    return (
        f'max by (user) ({used}{{shared=""{chosen}}} / jhok_home_quota_bytes)',
        f'max by (shared) ({used}{{shared!=""{chosen}}} / jhok_home_quota_bytes)',
    )


def _filling(free: str, size: str, least: float, ahead: tuple[int, int]) -> str:
    """Return the share that is free where that is below `least`, or foreseen to be none.

    `ahead` is over how many hours the trend is taken (there has to be half of them, so that what one installation
    writes is no trend), and how many seconds ahead it is followed.
    """
    hours, seconds = ahead
    return (
        f"{free} / {size} < {least} or {free} / {size} < {_PREDICT_FREE} "
        f"and predict_linear({free}[{hours}h], {seconds}) < 0 and {free} offset {hours // 2}h"
    )
