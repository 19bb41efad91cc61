from __future__ import annotations

import re
from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.prometheus import TRIMMED, expected_targets, prometheus_config

SETTINGS: dict[str, Any] = {
    "scrape_interval": 15,
    "hub_namespace": "hub",
    "machines": {"worker1": "172.16.0.101", "master": "172.16.0.100", "nas": "172.16.0.9"},
    "node": "master",
    "manage_kubernetes": True,
    "extra_metrics": ["go_goroutines"],
}


def jobs(**changes: object) -> dict[str, dict[str, Any]]:
    config = prometheus_config(SETTINGS | changes, {"container_cpu_usage_seconds_total", "up"})
    return {job["job_name"]: job for job in config["scrape_configs"]}


def kept(job: dict[str, Any], name: str, **labels: str) -> bool:
    """Say whether a series survives a job's rules, as Prometheus works them out."""
    values = {"__name__": name, **labels}
    for rule in job.get("metric_relabel_configs", []):
        text = ";".join(values.get(label, "") for label in rule["source_labels"])
        if bool(re.fullmatch(rule["regex"], text)) != (rule["action"] == "keep"):
            return False
    return True


def test_every_part_of_the_site_is_read() -> None:
    assert set(jobs()) == {
        *("alertmanager", "apiserver", "cadvisor", "etcd", "exporter", "hub", "kubelet", "kubelet-probes"),
        *("kubelet-resource", "node", "prometheus", "proxy", "registry"),
    }
    assert set(jobs()) - set(jobs(manage_kubernetes=False)) == {"etcd", "registry"}
    assert jobs()["hub"]["static_configs"] == [{"targets": ["hub.hub.svc:8081"]}]


def test_how_many_targets_a_site_has() -> None:
    found = expected_targets(SETTINGS, nodes=2)
    assert (found["node"], found["kubelet"], found["cadvisor"], found["etcd"]) == (3, 2, 2, 1)
    assert set(found) == set(jobs())


def test_a_machine_has_its_name_on_the_dashboards() -> None:
    parts = jobs()["node"]["static_configs"]
    assert parts[0] == {"targets": ["172.16.0.100:9100"], "labels": {"node": "master"}}


def test_what_nobody_asks_for_is_dropped() -> None:
    apiserver = jobs()["apiserver"]
    assert not kept(apiserver, "apiserver_request_duration_seconds_bucket")
    assert kept(apiserver, "go_goroutines")
    assert kept(jobs()["node"], "node_anything")
    assert [name for name, job in jobs().items() if "metric_relabel_configs" in job] == sorted(TRIMMED)


def test_of_cgroups_those_of_containers_are_kept() -> None:
    cadvisor = jobs(extra_metrics=["container_network_receive_bytes_total"])["cadvisor"]
    cpu, network = "container_cpu_usage_seconds_total", "container_network_receive_bytes_total"
    assert kept(cadvisor, cpu, pod="jupyter-ada", container="notebook")
    assert not kept(cadvisor, cpu, pod="jupyter-ada", container="POD")
    assert not kept(cadvisor, cpu, pod="jupyter-ada", container="")
    assert not kept(cadvisor, cpu, pod="", container="")
    assert kept(cadvisor, network, pod="jupyter-ada", container="POD")
    assert kept(cadvisor, network, pod="jupyter-ada", container="")


def test_a_container_is_told_of_once() -> None:
    """The kubelet does it twice, at two paths."""
    names = ["container_memory_working_set_bytes", "node_memory_working_set_bytes"]
    resource = jobs(extra_metrics=names)["kubelet-resource"]
    assert [kept(resource, name) for name in names] == [False, True]


@pytest.mark.parametrize("name", ["", "a b", "a|b", "9lives", "a{b='c'}"])
def test_an_extra_metric_that_is_none(name: str) -> None:
    with pytest.raises(ValueError, match=r"monitoring_extra_metrics: .* is no name of a metric"):
        jobs(extra_metrics=[name])


@pytest.mark.parametrize(("interval", "timeout"), [(5, "5s"), (15, "10s"), (30, "10s")])
def test_a_target_has_no_longer_than_the_interval(interval: int, timeout: str) -> None:
    config = prometheus_config(SETTINGS | {"scrape_interval": interval}, set())
    assert (config["global"]["scrape_interval"], config["global"]["scrape_timeout"]) == (f"{interval}s", timeout)


@pytest.mark.parametrize(
    ("manage", "tls"),
    [
        (True, {"ca_file": "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"}),
        (False, {"insecure_skip_verify": True}),
    ],
)
def test_kubelets_of_our_own_cluster_are_known_by_their_certificates(manage: bool, tls: dict[str, object]) -> None:
    names = ("kubelet", "cadvisor", "kubelet-resource", "kubelet-probes")
    assert {name: jobs(manage_kubernetes=manage)[name]["tls_config"] for name in names} == dict.fromkeys(names, tls)
