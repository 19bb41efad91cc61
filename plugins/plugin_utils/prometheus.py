"""Prometheus' configuration: what it reads, and what it keeps of it. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

PROMETHEUS, EXPORTER, SIGN_IN, ALERTMANAGER, GRAFANA = 9790, 9791, 9792, 9793, 9794  # ports of 127.0.0.1
WEB = 9759  # port of every address of the host: the page
NODE_EXPORTER = 9100
ETCD = 2381  # kubeadm has etcd tell its figures on 127.0.0.1 there
REGISTRY = 5002
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
SECRETS = "/etc/prometheus-secrets"  # a folder below /etc/prometheus would be in a read-only volume

# Jobs that tell far more than anybody asks for: of these only what some query names is kept.
TRIMMED = ("apiserver", "cadvisor", "etcd", "hub", "kubelet", "kubelet-probes", "kubelet-resource", "proxy", "registry")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def prometheus_config(settings: Mapping[str, Any], metrics: Iterable[str]) -> dict[str, Any]:
    """Return prometheus.yml.

    Args:
        settings: `scrape_interval` in seconds, `hub_namespace`, `machines` (address by name), `node`,
            `manage_kubernetes`, `extra_metrics`.
        metrics: names that queries ask for.

    Raises ValueError for a name in `extra_metrics` that is none.

    """
    for name in settings["extra_metrics"]:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"monitoring_extra_metrics: {name!r} is no name of a metric: use letters, digits, '_' and ':'"
            )
    kept = sorted({*metrics, *settings["extra_metrics"]})
    interval = f"{settings['scrape_interval']}s"
    return {
        "global": {
            "scrape_interval": interval,
            "scrape_timeout": f"{min(10, settings['scrape_interval'])}s",
            "evaluation_interval": interval,
        },
        "rule_files": ["/etc/prometheus/rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{ALERTMANAGER}"]}]}]},
        "scrape_configs": [_trimmed(job, kept) for job in _jobs(settings)],
    }


def expected_targets(settings: Mapping[str, Any], nodes: int) -> dict[str, int]:
    """Return how many targets each job has to have on a site with so many Kubernetes nodes."""
    jobs = _jobs(settings)
    return {
        job["job_name"]: sum(len(part["targets"]) for part in job["static_configs"])
        if "static_configs" in job
        else nodes
        for job in jobs
    }


def _jobs(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every job, in the order of its name."""
    services = f"{settings['hub_namespace']}.svc"
    own_node = {"node": settings["node"]}
    # The kubelets of an existing cluster may have signed their certificates themselves, as kubeadm leaves it.
    tls = {"ca_file": f"{ACCOUNT}/ca.crt"} if settings["manage_kubernetes"] else {"insecure_skip_verify": True}
    bearer = {"credentials_file": f"{ACCOUNT}/token"}
    jobs = [
        _static("prometheus", f"127.0.0.1:{PROMETHEUS}"),
        _static("alertmanager", f"127.0.0.1:{ALERTMANAGER}"),
        _static("exporter", f"127.0.0.1:{EXPORTER}"),
        _static(
            "hub",
            f"hub.{services}:8081",
            metrics_path="/hub/metrics",
            authorization={"credentials_file": f"{SECRETS}/hub-metrics-token"},
        ),
        _static("proxy", f"proxy-metrics.{services}:8002"),
        _static(
            "apiserver",
            "kubernetes.default.svc:443",
            scheme="https",
            authorization=bearer,
            tls_config={"ca_file": f"{ACCOUNT}/ca.crt"},
        ),
        _kubelet("kubelet", "/metrics", tls),
        _kubelet("cadvisor", "/metrics/cadvisor", tls),
        _kubelet("kubelet-resource", "/metrics/resource", tls),
        _kubelet("kubelet-probes", "/metrics/probes", tls),
        {
            "job_name": "node",
            "static_configs": [
                {"targets": [f"{address}:{NODE_EXPORTER}"], "labels": {"node": name}}
                for name, address in sorted(settings["machines"].items())
            ],
        },
    ]
    if settings["manage_kubernetes"]:
        jobs += [
            _static("etcd", f"127.0.0.1:{ETCD}", labels=own_node),
            _static("registry", f"127.0.0.1:{REGISTRY}", labels=own_node),
        ]
    return sorted(jobs, key=lambda job: str(job["job_name"]))


def _static(job: str, target: str, labels: dict[str, str] | None = None, **more: object) -> dict[str, Any]:
    return {
        "job_name": job,
        "static_configs": [{"targets": [target], **({"labels": labels} if labels else {})}],
        **more,
    }


def _kubelet(job: str, path: str, tls: dict[str, Any]) -> dict[str, Any]:
    """Return a job of every kubelet, by the address that its certificate names."""
    return {
        "job_name": job,
        "kubernetes_sd_configs": [{"role": "node"}],
        "scheme": "https",
        "metrics_path": path,
        "authorization": {"credentials_file": f"{ACCOUNT}/token"},
        "tls_config": tls,
        "relabel_configs": [{"source_labels": ["__meta_kubernetes_node_name"], "target_label": "node"}],
    }


def _trimmed(job: dict[str, Any], kept: list[str]) -> dict[str, Any]:
    """Return a job that keeps what queries ask for, of cAdvisor's cgroups those of pods, and each container once."""
    if job["job_name"] not in TRIMMED:
        return job
    rules: list[dict[str, Any]] = [{"source_labels": ["__name__"], "regex": "|".join(kept), "action": "keep"}]
    if job["job_name"] == "cadvisor":
        rules += [
            {"source_labels": ["pod"], "regex": "", "action": "drop"},
            # The pod's own cgroup and its sandbox; only network figures are kept by pod.
            {
                "source_labels": ["__name__", "container"],
                "regex": "container_(?:cpu|memory|fs|spec)_[^;]*;(?:POD)?",
                "action": "drop",
            },
        ]
    if job["job_name"] == "kubelet-resource":
        # cAdvisor tells of containers under the same names, and a sum would count them twice.
        rules.append({"source_labels": ["__name__"], "regex": "container_.*", "action": "drop"})
    return {**job, "metric_relabel_configs": rules}
