"""Order, comparison, redaction and judgement of plain objects."""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.module_utils.k8s_sets import (
    READY,
    Change,
    Crash,
    Ident,
    crashes_of,
    diagnose,
    diff_of,
    ident_of,
    judge,
    normalise,
    pod_selector,
    prepare,
    problems_of,
    redacted,
    secret_values,
    stages_of,
    to_yaml,
)

Obj = dict[str, Any]


def obj(
    kind: str,
    name: str = "a",
    api_version: str = "v1",
    namespace: str | None = "lab",
    metadata: Obj | None = None,
    **rest: object,
) -> Obj:
    named = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api_version, "kind": kind, "metadata": named | (metadata or {})} | rest


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# Parameters


@pytest.mark.parametrize(
    ("name", "objects", "secrets", "problem"),
    [
        ("-x", [], [], "set: '-x' cannot be"),
        ("x" * 64, [], [], "cannot be a label's value"),
        ("x", [{"kind": "Pod", "metadata": {"name": "a"}}], [], "objects[0] has no apiVersion."),
        ("x", [{"apiVersion": "v1", "kind": "Pod", "metadata": None}], [], "objects[0] has no metadata.name."),
        ("x", [obj("Secret")], [], "Secret lab/a stands in objects"),
        ("x", [], [obj("ConfigMap")], "ConfigMap lab/a is no Secret"),
        ("x", [obj("ConfigMap"), obj("ConfigMap")], [], "objects[1]: ConfigMap lab/a is already in objects[0]."),
    ],
)
def test_problems(name: str, objects: list[Obj], secrets: list[Obj], problem: str) -> None:
    problems = problems_of(name, objects, secrets)
    assert len(problems) == 1
    assert problem in problems[0]


def test_no_problems() -> None:
    objects = [obj("ConfigMap"), obj("ConfigMap", namespace="other"), obj("Secret", api_version="bitnami.com/v1")]
    assert problems_of("jupyterhub", objects, [obj("Secret")]) == []


def test_prepare_labels_a_copy() -> None:
    given = obj("ConfigMap", metadata={"labels": {"app": "hub"}})
    kept = copy.deepcopy(given)
    assert prepare(given, "x")["metadata"]["labels"] == {
        "app": "hub",
        "jhok.lab/set": "x",
        "app.kubernetes.io/managed-by": "jhok.lab",
    }
    assert given == kept


def test_prepare_encodes_string_data() -> None:
    prepared = prepare(obj("Secret", stringData={"a": "é", "n": 1}, data={"b": b64("x")}), "x")
    assert prepared["data"] == {"a": b64("é"), "n": b64("1"), "b": b64("x")}
    assert "stringData" not in prepared


def test_secret_values() -> None:
    secrets = [obj("Secret", stringData={"a": "plain", "empty": ""}, data={"b": b64("coded"), "c": "/w=="})]
    assert secret_values(secrets) == {"plain", b64("plain"), "coded", b64("coded"), "/w=="}


# Order


def test_stages() -> None:
    kinds = ["Deployment", "Service", "PersistentVolumeClaim", "ConfigMap", "Namespace", "RoleBinding", "Gadget"]
    kinds += ["CustomResourceDefinition", "PersistentVolume", "Role", "ServiceAccount", "Secret", "ClusterRole"]
    stages = [{entry["kind"] for entry in stage} for stage in stages_of(obj(kind) for kind in kinds)]
    assert stages == [
        {"Namespace"},
        {
            "ClusterRole",
            "ConfigMap",
            "CustomResourceDefinition",
            "PersistentVolume",
            "Role",
            "Secret",
            "ServiceAccount",
        },
        {"PersistentVolumeClaim", "RoleBinding", "Service"},
        {"Deployment", "Gadget"},
    ]


def test_ident_ignores_the_version() -> None:
    ident = ident_of(obj("CronJob", api_version="batch/v1beta1"))
    assert ident == ident_of(obj("CronJob", api_version="batch/v1")) == Ident("batch", "CronJob", "lab", "a")
    assert str(ident) == "CronJob lab/a"
    assert str(ident_of(obj("Namespace", "lab", namespace=None))) == "Namespace lab"


# Comparison


def served(**rest: object) -> Obj:
    metadata = {
        "uid": "1",
        "resourceVersion": "7",
        "generation": 1,
        "creationTimestamp": "now",
        "managedFields": [{}],
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    }
    return obj("ConfigMap", metadata=metadata, status={"x": 1}) | rest


def test_normalise() -> None:
    given = served(data={"a": "1"})
    kept = copy.deepcopy(given)
    assert normalise(given) == obj("ConfigMap", data={"a": "1"})
    assert given == kept
    given["metadata"]["annotations"]["mine"] = "x"
    assert normalise(given)["metadata"]["annotations"] == {"mine": "x"}


def test_action() -> None:
    ident = ident_of(obj("ConfigMap"))
    old, same, new = served(data={"a": "1"}), served(data={"a": "1"}), served(data={"a": "2"})
    same["metadata"]["resourceVersion"] = "8"
    assert Change(ident, None, old).action == "created"
    assert Change(ident, old, None).action == "pruned"
    assert Change(ident, old, same).action == "unchanged"
    assert Change(ident, old, new).action == "configured", "a dry-run keeps the resourceVersion"


def test_redacted() -> None:
    before = obj("Secret", data={"same": b64("1"), "changed": b64("2"), "gone": b64("3")})
    after = obj("Secret", data={"same": b64("1"), "changed": b64("x"), "new": b64("4")})
    old, new = redacted(before, after)
    assert old is not None
    assert new is not None
    assert old["data"] == {"same": "<redacted>", "changed": "<redacted>", "gone": "<redacted>"}
    assert new["data"] == {"same": "<redacted>", "changed": "<redacted, changed>", "new": "<redacted>"}
    assert before["data"]["same"] == b64("1"), "the object itself was changed"
    assert redacted(None, obj("ConfigMap", data={"a": "1"})) == (None, obj("ConfigMap", data={"a": "1"}))


def test_diff() -> None:
    old, new = obj("ConfigMap", data={"f": "1\n2\n"}), obj("ConfigMap", data={"f": "1\n3\n"})
    space = obj("Namespace", "lab", namespace=None)
    changes = [
        Change(ident_of(old), old, new),
        Change(ident_of(obj("Pod")), obj("Pod"), obj("Pod")),
        Change(ident_of(space), None, space),
    ]
    diff = diff_of(changes, "x")
    config_map = "# ConfigMap lab/a\napiVersion: v1\ndata:\n  f: |\n    1\n    {}\nkind: ConfigMap\nmetadata:\n"
    config_map += "  name: a\n  namespace: lab\n"
    assert diff["before"] == config_map.format("2")
    namespace = "# Namespace lab\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: lab\n---\n"
    assert diff["after"] == namespace + config_map.format("3")
    assert diff_of(reversed(changes), "x") == diff


def test_yaml_reads_back() -> None:
    shared = ["x"]
    value = {"a": "1\n2", "b": "yes", "c": "#!/bin/sh\n  x \n", "d": shared, "e": shared, "f": "é"}
    assert yaml.safe_load(to_yaml(value)) == value
    assert "&" not in to_yaml(value)


# Readiness


def workload(kind: str, spec: Obj | None = None, status: Obj | None = None, generation: int = 2) -> Obj:
    groups = {"Job": "batch/v1", "Pod": "v1", "PersistentVolume": "v1", "PersistentVolumeClaim": "v1"}
    return obj(
        kind,
        api_version=groups.get(kind, "apps/v1"),
        metadata={"generation": generation, "uid": "u"},
        spec=spec or {},
        status=status or {},
    )


DONE = {"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "readyReplicas": 2}
DAEMONS = {"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}
DEADLINE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}


@pytest.mark.parametrize(
    ("given", "state", "reason"),
    [
        (obj("ConfigMap"), "ready", ""),
        (workload("Deployment", {"replicas": 2}, DONE), "ready", ""),
        (workload("Deployment", {"replicas": 0}, {"observedGeneration": 2}), "ready", ""),
        (workload("Deployment", {"replicas": 2}, DONE, generation=3), "waiting", "no controller"),
        (workload("Deployment"), "waiting", "no controller"),
        (
            workload("Deployment", {"replicas": 2}, DONE | {"updatedReplicas": 1}),
            "waiting",
            "1 of 2 pods are of the new",
        ),
        (workload("Deployment", {"replicas": 2}, DONE | {"replicas": 3}), "waiting", "1 pods of the old version"),
        (workload("Deployment", {"replicas": 2}, DONE | {"availableReplicas": 1}), "waiting", "1 of 2 pods are avail"),
        (workload("Deployment", {}, DONE | {"conditions": [DEADLINE]}), "failed", "timed out"),
        (workload("StatefulSet", {"replicas": 2}, DONE), "ready", ""),
        (workload("StatefulSet", {"replicas": 2}, DONE | {"readyReplicas": 0}), "waiting", "0 of 2 pods are ready"),
        (
            workload("StatefulSet", {"replicas": 2}, DONE | {"updateRevision": "b", "currentRevision": "a"}),
            "waiting",
            "of the new version",
        ),
        (
            workload(
                "StatefulSet",
                {"replicas": 2, "updateStrategy": {"type": "OnDelete"}},
                DONE | {"updateRevision": "b", "currentRevision": "a"},
            ),
            "ready",
            "",
        ),
        (workload("DaemonSet", {}, DAEMONS), "ready", ""),
        (workload("DaemonSet", {}, DAEMONS | {"updatedNumberScheduled": 1}), "waiting", "1 of 2 pods are of the new"),
        (workload("DaemonSet", {}, DAEMONS | {"numberAvailable": 0}), "waiting", "0 of 2 pods are available"),
        (workload("Job"), "waiting", "0 of 1 pods have succeeded"),
        (workload("Job", {"suspend": True}), "ready", ""),
        (workload("Job", {}, {"conditions": [{"type": "Complete", "status": "True"}]}), "ready", ""),
        (
            workload("Job", {}, {"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}]}),
            "failed",
            "DeadlineExceeded",
        ),
        (workload("Pod"), "waiting", "Pending"),
        (workload("Pod", {}, {"phase": "Running"}), "waiting", "not ready"),
        (workload("Pod", {}, {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}), "ready", ""),
        (workload("Pod", {}, {"phase": "Succeeded"}), "ready", ""),
        (workload("Pod", {}, {"phase": "Failed", "reason": "Evicted"}), "failed", "Evicted"),
        (workload("PersistentVolume"), "waiting", "no controller"),
        (workload("PersistentVolume", {}, {"phase": "Available"}), "ready", ""),
        (workload("PersistentVolumeClaim"), "waiting", "no PersistentVolume"),
        (workload("PersistentVolumeClaim", {}, {"phase": "Bound"}), "ready", ""),
        (workload("PersistentVolumeClaim", {}, {"phase": "Lost"}), "failed", "gone"),
        (None, "waiting", "does not exist"),
    ],
)
def test_judge(given: Obj | None, state: str, reason: str) -> None:
    judged = judge(given)
    assert judged.state == state
    assert reason in judged.reason
    assert (judged == READY) is (state == "ready")


def test_pod_selector() -> None:
    expressions = [
        {"key": "t", "operator": "In", "values": ["x", "y"]},
        {"key": "u", "operator": "NotIn", "values": ["z"]},
        {"key": "v", "operator": "Exists"},
        {"key": "w", "operator": "DoesNotExist"},
    ]
    selector = {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": expressions}
    assert pod_selector(workload("Deployment", {"selector": selector})) == "a=1,b=2,t in (x,y),u notin (z),v,!w"
    assert pod_selector(workload("PersistentVolumeClaim")) == ""


def container(state: Obj, last: Obj | None = None, ready: bool = False) -> Obj:
    return {"name": "main", "ready": ready, "state": state, "lastState": {"terminated": last} if last else {}}


def pod(name: str, *containers: Obj, conditions: list[Obj] | None = None) -> Obj:
    found = workload("Pod", {}, {"phase": "Pending", "containerStatuses": list(containers), "conditions": conditions})
    found["metadata"] |= {"name": name, "uid": name}
    return found


def event(uid: str, reason: str, message: str, stamp: str = "1") -> Obj:
    return {"involvedObject": {"uid": uid}, "reason": reason, "message": message, "lastTimestamp": stamp}


BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "in 10s"}}
OOM = {"reason": "OOMKilled", "exitCode": 137}


def test_crashes() -> None:
    pods = [
        pod("fine", container({"running": {}}, ready=True)),
        pod("recovered", container({"running": {}}, last=OOM, ready=True)),
        pod("backs-off", container(BACK_OFF, last=OOM)),
        pod("again", container({"running": {}}, last=OOM)),
        pod("ended", container({"terminated": {"exitCode": 1}})),
        pod("completed", container({"terminated": {"exitCode": 0}})),
    ]
    assert crashes_of(pods) == [
        Crash("backs-off", "main", previous=False),
        Crash("again", "main", previous=True),
        Crash("ended", "main", previous=False),
    ]


def test_diagnose() -> None:
    scheduling = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]
    pods = [
        pod("one", container(BACK_OFF, last=OOM)),
        pod("two", container(BACK_OFF, last=OOM)),
        pod("three", conditions=scheduling),
        pod("four", container({"waiting": {"reason": "ContainerCreating"}})),
        pod("five", container({"waiting": {"reason": "ContainerCreating"}})),
    ]
    events = [
        event("four", "FailedMount", "old", "1"),
        event("four", "FailedMount", "mount.nfs: timed out\n", "2"),
        event("u", "FailedCreate", "quota"),
    ]
    logs = {Crash("one", "main", previous=False): "\n".join(f"line {number}" for number in range(9))}
    assert diagnose(workload("Deployment", {"replicas": 5}, DONE), pods, events, logs) == [
        "Deployment lab/a: 2 of 5 pods are of the new version",
        "  FailedCreate: quota",
        "  pod one (and 1 more): container main: CrashLoopBackOff: in 10s (before that: OOMKilled, exit code 137)",
        "    | line 4",
        "    | line 5",
        "    | line 6",
        "    | line 7",
        "    | line 8",
        "  pod three: Unschedulable: 0/2 nodes",
        "  pod four: FailedMount: mount.nfs: timed out",
        "  pod five: its phase is Pending",
    ]


def test_diagnose_a_replica_failure() -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "message": "serviceaccount hub not found"}
    lines = diagnose(workload("Deployment", {}, {"observedGeneration": 2, "conditions": [failure]}))
    assert lines == ["Deployment lab/a: 0 of 1 pods are of the new version", "  serviceaccount hub not found"]
