from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError
from ansible_collections.jhok.lab.plugins.modules.hub_journey import schedulable
from ansible_collections.jhok.lab.plugins.modules.kube_probe import (
    UNKNOWN_NAME,
    Asker,
    judge_certificate,
    judge_name,
    judge_node,
    judge_pods,
    reachable_pod,
)


def node(ready: str = "True", **spec: object) -> dict[str, Any]:
    return {
        "metadata": {"name": "worker1"},
        "spec": spec,
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "worker1"}],
            "nodeInfo": {"kubeletVersion": "v1.20.2"},
        },
    }


def pod(name: str, ready: str = "True", phase: str = "Running", **spec: object) -> dict[str, Any]:
    status = {"phase": phase, "podIP": "10.244.1.2", "conditions": [{"type": "Ready", "status": ready}]}
    return {"metadata": {"name": name}, "spec": {"nodeName": "worker1", "containers": [{}], **spec}, "status": status}


def test_node_as_it_should_be() -> None:
    assert judge_node(node(), "10.0.0.1", "v1.20.2") == "ready, 10.0.0.1, v1.20.2"
    assert judge_node(node(), "", "") == "ready, 10.0.0.1, v1.20.2"
    assert judge_node(node(unschedulable=True), "", "").endswith("takes no new pods")


@pytest.mark.parametrize(
    ("found", "address", "version", "message"),
    [
        (None, "", "", "no such node"),
        (node("Unknown"), "", "", "not ready"),
        (node(), "10.0.0.2", "", "should be ready, 10.0.0.2"),
        (node(), "", "v1.35.0", "should be ready, v1.35.0"),
    ],
)
def test_node_that_is_not(found: dict[str, Any] | None, address: str, version: str, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        judge_node(found, address, version)


def test_pods_must_be_ready_and_there() -> None:
    assert judge_pods([pod("a"), pod("job", "False", "Succeeded")]) == "1 ready"
    with pytest.raises(ProbeError, match="not ready: b"):
        judge_pods([pod("a"), pod("b", "False")])
    with pytest.raises(ProbeError, match="there is no pod"):
        judge_pods([])


def test_certificate_must_last() -> None:
    now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    assert judge_certificate(now + datetime.timedelta(days=30), now, 30) == "30 days, until 2026-01-31"
    with pytest.raises(ProbeError, match="29 days"):
        judge_certificate(now + datetime.timedelta(days=29, hours=23), now, 30)


def test_names() -> None:
    assert judge_name("hub.jupyterhub", ["10.96.0.7"]) == "10.96.0.7"
    assert judge_name(UNKNOWN_NAME, "no such name") == "no such name"
    for name, answer in (
        ("hub.x", "no such name"),
        (UNKNOWN_NAME, ["10.96.0.7"]),
        (UNKNOWN_NAME, "[Errno -3] Temporary"),
    ):
        with pytest.raises(ProbeError):
            judge_name(name, answer)


def test_pod_to_connect_to_is_in_the_pod_network_and_listens() -> None:
    listening = [{"ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 8080}]}]
    pods = [
        pod("silent"),
        pod("host", hostNetwork=True, containers=listening),
        pod("starting", "False", containers=listening),
        pod("elsewhere", nodeName="master", containers=listening),
        pod("right", containers=listening),
    ]
    assert reachable_pod(pods, "worker1") == ("right", "10.244.1.2", 8080)
    assert reachable_pod(pods[:3], "worker1") is None


def test_nodes_for_users_servers() -> None:
    assert schedulable(node())
    assert schedulable(node(taints=[{"key": "a", "effect": "PreferNoSchedule"}]))
    assert not schedulable(node(taints=[{"key": "a", "effect": "NoSchedule"}]))
    assert not schedulable(node(unschedulable=True))
    assert not schedulable(node("Unknown"))


def test_without_a_kubeconfig_every_question_is_a_failed_line(tmp_path: Path) -> None:
    params = {
        "check": "hub",
        "kubeconfig": str(tmp_path / "none"),
        "api": True,
        "version": "",
        "certificate_days": 30,
        "nodes": {"worker1": "10.0.0.1"},
        "namespaces": ["kube-system"],
        "claims": ["jupyterhub/homes"],
        "asking_pod": {"namespace": "jupyterhub", "label_selector": "a=b"},
        "names": ["kubernetes.default"],
        "node_port": 30080,
        "timeout": 5,
    }
    asker = Asker(params)
    asker.go()
    assert [line["ok"] for line in asker.log.as_dicts()] == [False] * 10
    assert "does not exist" in asker.log.lines[0].got
