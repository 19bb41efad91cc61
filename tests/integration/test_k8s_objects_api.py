"""Module k8s_objects and the API client against a real etcd and kube-apiserver."""

from __future__ import annotations

import base64
import copy
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.jhok.lab.plugins.module_utils import k8s
from ansible_collections.jhok.lab.plugins.module_utils.k8s import K8sError, connect
from ansible_collections.jhok.lab.plugins.modules import k8s_objects

if TYPE_CHECKING:
    from conftest import ApiServer

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
Obj = dict[str, Any]
Apply = Callable[..., Obj]


@pytest.fixture
def ns(request: pytest.FixtureRequest) -> str:
    """Return a name of its own for each test, for its namespace and its set."""
    name: str = request.node.name
    return name.removeprefix("test_").replace("_", "-").split("[")[0][:50].strip("-")


@pytest.fixture
def apply(api_server: ApiServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ns: str) -> Apply:
    """Return a function that calls the module in this process and returns its answer."""
    warnings: list[str] = []
    # In pytest Ansible takes this process for its control process, and would show warnings instead of returning them.
    monkeypatch.setattr(k8s_objects.AnsibleModule, "warn", lambda _, text: warnings.append(text))

    def call(objects: list[Obj] | None = None, *, check: bool = False, **params: object) -> Obj:
        arguments = {
            "kubeconfig": str(api_server.kubeconfig),
            "set": ns,
            "objects": objects or [],
            "wait": False,
            "_ansible_check_mode": check,
            "_ansible_diff": True,
        } | params
        warnings.clear()
        with patch_module_args(copy.deepcopy(arguments)), pytest.raises(SystemExit):
            k8s_objects.main()
        answer: Obj = json.loads(capsys.readouterr().out)
        return answer | {"warnings": list(warnings)}

    return call


def namespace(name: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def config_map(ns: str, name: str = "settings", **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": ns}, "data": data}


def secret(ns: str, name: str = "keys", **data: str) -> Obj:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": ns}, "stringData": data}


def claim(ns: str, name: str = "homes") -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": ns},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def deployment(ns: str, name: str = "hub", replicas: int = 1) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": ns},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "example.test/hub:1"}]},
            },
        },
    }


def actions(answer: Obj) -> dict[str, str]:
    return {f"{entry['kind']}/{entry['name']}": entry["action"] for entry in answer["objects"]}


def set_status(server: ApiServer, obj: Obj, status: Obj) -> None:
    """Write an object's status as its controller would."""
    resource = server.cluster.resource(obj["apiVersion"], obj["kind"])
    path = resource.path(obj["metadata"].get("namespace"), obj["metadata"]["name"])
    server.cluster._send(
        "PATCH", f"{path}/status", "write status", body={"status": status}, content_type="application/merge-patch+json"
    )


# Create, modify, delete


@pytest.mark.parametrize("check", [True, False], ids=["check", "real"])
def test_create(api_server: ApiServer, apply: Apply, ns: str, check: bool) -> None:
    ns = f"{ns}-{check}".lower()
    answer = apply([config_map(ns, a="1"), namespace(ns)], check=check)
    assert answer["changed"] is True
    assert actions(answer) == {f"Namespace/{ns}": "created", "ConfigMap/settings": "created"}
    assert answer["diff"]["before"] == ""
    assert "a: '1'" in answer["diff"]["after"]
    made = api_server.cluster.get("v1", "ConfigMap", "settings", ns)
    assert (made is None) is check
    if made:
        assert made["metadata"]["labels"] == {
            "jhok.lab/set": "create",
            "app.kubernetes.io/managed-by": "jhok.lab",
        }
        assert {entry["manager"] for entry in made["metadata"]["managedFields"]} == {"jhok.lab"}


@pytest.mark.parametrize("check", [True, False], ids=["check", "real"])
def test_modify(api_server: ApiServer, apply: Apply, ns: str, check: bool) -> None:
    apply([namespace(ns), config_map(ns, a="1", b="2"), config_map(ns, "other", a="1")])
    answer = apply([namespace(ns), config_map(ns, a="changed"), config_map(ns, "other", a="1")], check=check)
    assert actions(answer) == {
        f"Namespace/{ns}": "unchanged",
        "ConfigMap/settings": "configured",
        "ConfigMap/other": "unchanged",
    }
    kept = api_server.cluster.get("v1", "ConfigMap", "settings", ns)
    assert kept is not None
    assert kept["data"] == ({"a": "1", "b": "2"} if check else {"a": "changed"})
    before, after = (yaml.safe_load(answer["diff"][side]) for side in ("before", "after"))
    assert before.pop("data") == {"a": "1", "b": "2"}
    assert after.pop("data") == {"a": "changed"}
    assert before == after, "the diff shows something that did not change"


@pytest.mark.parametrize("check", [True, False], ids=["check", "real"])
def test_prune(api_server: ApiServer, apply: Apply, ns: str, check: bool) -> None:
    apply([namespace(ns), config_map(ns), config_map(ns, "left"), claim(ns)], secrets=[secret(ns, a="hidden")])
    foreign = config_map(ns, "foreign")
    api_server.cluster.apply(foreign)
    answer = apply([config_map(ns)], check=check)
    assert actions(answer) == {"ConfigMap/settings": "unchanged", "ConfigMap/left": "pruned", "Secret/keys": "pruned"}
    assert answer["changed"] is True
    assert "name: left" in answer["diff"]["before"]
    assert "name: left" not in answer["diff"]["after"]
    assert "hidden" not in json.dumps(answer)
    assert len(answer["warnings"]) == 1
    assert f"Namespace {ns}, PersistentVolumeClaim {ns}/homes" in answer["warnings"][0]
    gone = [("ConfigMap", "left"), ("Secret", "keys")]
    kept = [("ConfigMap", "settings"), ("ConfigMap", "foreign"), ("PersistentVolumeClaim", "homes")]
    for kind, name in kept + (gone if check else []):
        assert api_server.cluster.get("v1", kind, name, ns), f"{kind} {name} was deleted"
    for kind, name in [] if check else gone:
        assert api_server.cluster.get("v1", kind, name, ns) is None, f"{kind} {name} is still there"
    assert apply([config_map(ns)])["changed"] is check


@pytest.mark.parametrize("check", [True, False], ids=["check", "real"])
def test_absent(api_server: ApiServer, apply: Apply, ns: str, check: bool) -> None:
    apply([namespace(ns), config_map(ns), deployment(ns)])
    api_server.cluster.apply(config_map(ns, "foreign"))
    answer = apply([config_map(ns, "foreign")], state="absent", check=check, wait=True, timeout=20)
    assert actions(answer) == {"ConfigMap/settings": "pruned", "Deployment/hub": "pruned"}
    assert any("foreign does not belong to set" in warning for warning in answer["warnings"])
    assert api_server.cluster.get("v1", "ConfigMap", "foreign", ns)
    assert api_server.cluster.get("v1", "Namespace", ns)
    assert (api_server.cluster.get("v1", "ConfigMap", "settings", ns) is None) is not check
    if not check:
        assert apply([], state="absent")["changed"] is False


def test_absent_deletes_a_claim_that_is_listed(api_server: ApiServer, apply: Apply, ns: str) -> None:
    apply([namespace(ns), claim(ns)])
    api_server.cluster._send(  # no controller takes the finalizer off here
        "PATCH",
        f"/api/v1/namespaces/{ns}/persistentvolumeclaims/homes",
        "patch",
        body={"metadata": {"finalizers": None}},
        content_type="application/merge-patch+json",
    )
    assert actions(apply([claim(ns)], state="absent")) == {"PersistentVolumeClaim/homes": "pruned"}
    assert api_server.cluster.get("v1", "PersistentVolumeClaim", "homes", ns) is None


def test_second_run_changes_nothing(api_server: ApiServer, apply: Apply, ns: str) -> None:
    objects = [namespace(ns), config_map(ns, a="1"), deployment(ns), claim(ns)]
    secrets = [secret(ns, a="x-secret")]
    apply(objects, secrets=secrets)
    kinds = [("v1", "ConfigMap", "settings"), ("apps/v1", "Deployment", "hub"), ("v1", "Secret", "keys")]

    def versions() -> list[str]:
        found = [api_server.cluster.get(version, kind, name, ns) for version, kind, name in kinds]
        return [obj["metadata"]["resourceVersion"] for obj in found if obj]

    before = versions()
    for check in (True, False):
        answer = apply(objects, secrets=secrets, check=check)
        assert answer["changed"] is False
        assert set(actions(answer).values()) == {"unchanged"}
        assert (answer["diff"]["before"], answer["diff"]["after"]) == ("", "")
    assert versions() == before


def test_twenty_objects_unchanged_in_a_second(apply: Apply, ns: str) -> None:
    objects = [namespace(ns)] + [config_map(ns, f"settings-{number}", a="1") for number in range(19)]
    apply(objects)
    start = time.process_time()
    answer = apply(objects)
    assert answer["changed"] is False
    assert time.process_time() - start < 1, "seconds of CPU, which do not depend on what else the machine does"


def test_removed_secret_key_is_removed(api_server: ApiServer, apply: Apply, ns: str) -> None:
    apply([namespace(ns)], secrets=[secret(ns, a="first-value", b="second-value")])
    answer = apply([namespace(ns)], secrets=[secret(ns, a="first-value")])
    assert actions(answer)["Secret/keys"] == "configured"
    kept = api_server.cluster.get("v1", "Secret", "keys", ns)
    assert kept is not None
    assert list(kept["data"]) == ["a"]


# What else bears on the same objects


def test_fields_of_others(api_server: ApiServer, apply: Apply, ns: str) -> None:
    apply([namespace(ns), deployment(ns, replicas=1)])
    api_server.cluster._send(
        "PATCH",
        f"/apis/apps/v1/namespaces/{ns}/deployments/hub?fieldManager=somebody",
        "scale",
        body={"spec": {"replicas": 3}},
        content_type="application/merge-patch+json",
    )
    answer = apply([namespace(ns), deployment(ns, replicas=1)], force_conflicts=False)
    assert answer["failed"]
    assert ".spec.replicas" in answer["msg"]
    assert "somebody" in answer["msg"]
    assert "force_conflicts" in answer["msg"]
    answer = apply([namespace(ns), deployment(ns, replicas=1)])
    assert actions(answer)["Deployment/hub"] == "configured"
    assert "replicas: 3" in answer["diff"]["before"]


def test_an_object_belongs_to_one_set_and_a_namespace_to_many(apply: Apply, ns: str) -> None:
    apply([namespace(ns), config_map(ns)])
    answer = apply([namespace(ns), config_map(ns, "mine")], set="other")
    assert actions(answer) == {f"Namespace/{ns}": "unchanged", "ConfigMap/mine": "created"}
    assert apply([namespace(ns), config_map(ns)])["changed"] is False
    answer = apply([namespace(ns), config_map(ns), config_map(ns, "mine")], set="other")
    assert answer["failed"]
    assert f"settings belongs to set {ns}" in answer["msg"]


def test_object_being_deleted_is_waited_for_and_made_again(api_server: ApiServer, apply: Apply, ns: str) -> None:
    held = config_map(ns)
    held["metadata"]["finalizers"] = ["jhok.lab/test"]
    apply([namespace(ns), held])
    api_server.cluster.delete("v1", "ConfigMap", "settings", ns)
    answer = apply([namespace(ns), config_map(ns)], timeout=0)
    assert "held by: jhok.lab/test" in answer["msg"]
    path = f"/api/v1/namespaces/{ns}/configmaps/settings"
    release = threading.Timer(
        0.3,
        lambda: api_server.cluster._send(
            "PATCH",
            path,
            "release",
            body={"metadata": {"finalizers": None}},
            content_type="application/merge-patch+json",
        ),
    )
    release.start()
    answer = apply([namespace(ns), config_map(ns)], timeout=20)
    release.join()
    assert actions(answer)["ConfigMap/settings"] == "created"


# Errors


def test_all_errors_are_told_and_nothing_is_pruned(api_server: ApiServer, apply: Apply, ns: str) -> None:
    apply([namespace(ns), config_map(ns, "left")])
    wrong = deployment(ns)
    wrong["spec"]["template"]["metadata"]["labels"] = {"app": "another"}
    unknown = {"apiVersion": "example.test/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": ns}}
    answer = apply([namespace(ns), wrong, unknown, config_map(ns, "Bad_Name"), config_map(ns)])
    assert answer["failed"]
    assert "spec.template.metadata.labels" in answer["msg"]
    assert "does not serve Widget in example.test/v1" in answer["msg"]
    assert "Bad_Name" in answer["msg"]
    assert actions(answer)["ConfigMap/settings"] == "created"
    assert api_server.cluster.get("v1", "ConfigMap", "left", ns)


def test_failed_namespace_hides_no_cause(apply: Apply, ns: str) -> None:
    broken = namespace(ns) | {"spec": {"finalizers": "wrong"}}
    answer = apply([broken, config_map(ns)])
    assert f"apply Namespace {ns}" in answer["msg"]
    assert "ConfigMap" not in answer["msg"]


def test_immutable_field(apply: Apply, ns: str) -> None:
    apply([namespace(ns), deployment(ns)])
    changed = deployment(ns)
    changed["spec"]["selector"]["matchLabels"] = changed["spec"]["template"]["metadata"]["labels"] = {"app": "b"}
    answer = apply([namespace(ns), changed])
    assert "spec.selector" in answer["msg"]
    assert "delete the object first" in answer["msg"]


def test_missing_namespace(apply: Apply, ns: str) -> None:
    assert "Create the namespace first" in apply([config_map(ns)])["msg"]


@pytest.mark.parametrize(
    ("context", "reason", "text"),
    [("stranger", "unauthorized", "Fetch the kubeconfig again"), ("nobody", "forbidden", "admin.conf")],
)
def test_refused_credentials(api_server: ApiServer, context: str, reason: str, text: str) -> None:
    with pytest.raises(K8sError, match=text) as caught:
        connect(api_server.kubeconfig, context).list("v1", "Secret")
    assert caught.value.reason == reason


def test_foreign_certificate(api_server: ApiServer, tmp_path: Path) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-days", "1"]
    subprocess.run([*make, "-keyout", tmp_path / "key", "-out", tmp_path / "crt"], check=True, capture_output=True)
    settings = yaml.safe_load(api_server.kubeconfig.read_text())
    settings["clusters"][0]["cluster"]["certificate-authority"] = str(tmp_path / "crt")
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(settings))
    with pytest.raises(K8sError, match="no trusted TLS connection") as caught:
        connect(tmp_path / "kubeconfig").version()
    assert caught.value.reason == "tls"


def test_no_cluster(api_server: ApiServer, apply: Apply, ns: str, tmp_path: Path) -> None:
    settings = yaml.safe_load(api_server.kubeconfig.read_text())
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{unused.getsockname()[1]}"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(settings))
        for path, text in (
            (tmp_path / "kubeconfig", "cannot be reached"),
            (tmp_path / "none", "does not exist"),
        ):
            assert text in apply([config_map(ns)], kubeconfig=str(path))["msg"]
            assert text in apply([config_map(ns)], kubeconfig=str(path), check=True)["msg"]
            assert apply([config_map(ns)], kubeconfig=str(path), unreachable_ok=True)["failed"]
            answer = apply([config_map(ns)], kubeconfig=str(path), check=True, unreachable_ok=True)
            assert actions(answer) == {"ConfigMap/settings": "created"}
            assert text in answer["warnings"][0]
            answer = apply([], kubeconfig=str(path), check=True, unreachable_ok=True, state="absent")
            assert answer["changed"] is False


def test_secret_among_objects_is_refused(apply: Apply, ns: str) -> None:
    answer = apply([secret(ns, a="hidden-value")])
    assert "move it to parameter secrets" in answer["msg"]


# Kinds that the set itself defines


def definition(group: str) -> Obj:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"gadgets.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "Gadget", "plural": "gadgets"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def test_definition_and_its_objects_in_one_run(apply: Apply, ns: str) -> None:
    gadget = {"apiVersion": "jhok.test/v1", "kind": "Gadget", "metadata": {"name": "g", "namespace": ns}}
    objects = [gadget, definition("jhok.test"), namespace(ns)]
    assert actions(apply(objects, check=True))["Gadget/g"] == "created"
    assert actions(apply(objects, timeout=30))["Gadget/g"] == "created"
    assert apply(objects)["changed"] is False


# Waiting


def test_wait_ends_when_ready(api_server: ApiServer, apply: Apply, ns: str) -> None:
    apply([namespace(ns), deployment(ns)])
    ready = {
        "observedGeneration": 1,
        "replicas": 1,
        "updatedReplicas": 1,
        "availableReplicas": 1,
        "readyReplicas": 1,
    }
    controller = threading.Timer(0.5, lambda: set_status(api_server, deployment(ns), ready))
    controller.start()
    start = time.monotonic()
    answer = apply([namespace(ns), deployment(ns)], wait=True, timeout=30)
    assert time.monotonic() - start < 5
    assert "failed" not in answer
    controller.join()
    assert apply([namespace(ns), deployment(ns)], wait=True, timeout=0)["changed"] is False


def test_wait_says_why_not(api_server: ApiServer, apply: Apply, ns: str) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hub-1", "namespace": ns, "labels": {"app": "hub"}}}
    pod["spec"] = deployment(ns)["spec"]["template"]["spec"]
    api_server.cluster.apply(namespace(ns))
    api_server.cluster.apply(pod)
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "example.test/hub:1"'}
    entry = {
        "name": "main",
        "ready": False,
        "restartCount": 0,
        "image": "x",
        "imageID": "",
        "state": {"waiting": waiting},
    }
    set_status(api_server, pod, {"phase": "Pending", "containerStatuses": [entry]})
    answer = apply([namespace(ns), deployment(ns)], wait=True, timeout=0)
    assert answer["failed"]
    assert f"Deployment {ns}/hub is not ready after 0 s" in answer["msg"]
    assert 'pod hub-1: container main: ImagePullBackOff: Back-off pulling image "example.test/hub:1"' in answer["msg"]
    assert actions(answer)["Deployment/hub"] == "created"


def test_claims_are_bound_before_workloads(api_server: ApiServer, apply: Apply, ns: str) -> None:
    answer = apply([namespace(ns), claim(ns), deployment(ns)], wait=True, timeout=0)
    assert f"PersistentVolumeClaim {ns}/homes: no PersistentVolume is bound to it" in answer["msg"]
    assert "Deployment/hub" not in actions(answer)
    set_status(api_server, claim(ns), {"phase": "Bound"})
    answer = apply([namespace(ns), claim(ns), deployment(ns)], wait=True, timeout=0)
    assert actions(answer)["Deployment/hub"] == "created"


def test_failed_job_is_not_waited_for(api_server: ApiServer, apply: Apply, ns: str) -> None:
    job = deployment(ns) | {"apiVersion": "batch/v1", "kind": "Job"}
    job["spec"] = {"template": {"spec": job["spec"]["template"]["spec"] | {"restartPolicy": "Never"}}}
    apply([namespace(ns), job])
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "too many"}
    target = {**failed, "type": "FailureTarget"}  # as the controller manager sets it first
    started = "2026-01-01T00:00:00Z"
    set_status(api_server, job, {"conditions": [target, failed], "startTime": started})
    start = time.monotonic()
    answer = apply([namespace(ns), job], wait=True, timeout=60)
    assert time.monotonic() - start < 10
    assert f"Job {ns}/hub failed" in answer["msg"]
    assert "BackoffLimitExceeded: too many" in answer["msg"]


def test_unknown_api(api_server: ApiServer) -> None:
    assert api_server.cluster.has_api("apps/v1", "Deployment")
    assert not api_server.cluster.has_api("apps/v1", "Widget")
    assert not api_server.cluster.has_api("example.test/v1", "Widget")
    found = api_server.cluster.find("policy", "PodDisruptionBudget")
    assert found is not None
    with pytest.raises(K8sError, match=r"It serves apps/v1\."):
        api_server.cluster.resource("apps/v1beta1", "Deployment")
    assert api_server.cluster.version().major == 1
    assert k8s.FIELD_MANAGER == "jhok.lab"


# Through ansible-playbook

TOP_SECRET = "tOp-5ecret\nsecond l1ne\n"


def test_no_secret_in_any_output(api_server: ApiServer, ns: str, tmp_path: Path) -> None:
    """Run plays that create, change, fail on and prune a Secret, as loud as Ansible gets, and search all it wrote."""
    task: Obj = {
        "jhok.lab.k8s_objects": {
            "kubeconfig": str(api_server.kubeconfig),
            "set": ns,
            "wait": False,
            "objects": [namespace(ns), config_map(ns, a="visible")],
            "secrets": [secret(ns, key="{{ value }}", plain="v1-of-something")],
        }
    }
    broken = copy.deepcopy(task)
    broken["jhok.lab.k8s_objects"]["secrets"].append(secret(ns, "Bad_Name", key="{{ value }}"))
    unwanted = copy.deepcopy(task)
    unwanted["jhok.lab.k8s_objects"]["secrets"] = []
    refused = copy.deepcopy(task)
    refused["jhok.lab.k8s_objects"]["objects"].append({"kind": "ConfigMap", "metadata": {}})
    tasks = [
        task | {"check_mode": True},
        task,
        task | {"vars": {"value": f"{TOP_SECRET}changed"}},
        broken | {"ignore_errors": True},
        refused | {"ignore_errors": True},
        unwanted,
    ]
    play = [{"hosts": "localhost", "gather_facts": False, "vars_files": ["vars.yml"], "tasks": tasks}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    (tmp_path / "vars.yml").write_text(yaml.safe_dump({"value": TOP_SECRET}))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")} | {
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_LOG_PATH": str(tmp_path / "log"),
        "ANSIBLE_LOCAL_TEMP": str(tmp_path / "tmp"),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }
    playbook = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local"]
    run = subprocess.run(
        [
            *playbook,
            "-vvvv",
            "--diff",
            "-e",
            f"ansible_python_interpreter={sys.executable}",
            str(tmp_path / "play.yml"),
        ],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    output = run.stdout + run.stderr + (tmp_path / "log").read_text()
    assert run.returncode == 0, output
    assert "Bad_Name" in output
    assert "has no apiVersion, metadata.name" in output
    assert "<redacted, changed>" in output
    assert "visible" in output
    assert "apiVersion: v1" in output, "names were starred out that are no secret"
    for hidden in (TOP_SECRET, TOP_SECRET + "changed", "v1-of-something"):
        forms = [hidden, json.dumps(hidden)[1:-1], base64.b64encode(hidden.encode()).decode(), *hidden.splitlines()[:2]]
        for form in forms:
            assert form not in output
