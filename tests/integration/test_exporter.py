"""The exporter: metrics of a real API server, a server that speaks NFS's NULL call, and robots that judge messages."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
import yaml
from ansible_collections.jhok.lab.plugins.module_utils import images
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from conftest import ApiServer

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "images" / "exporter"
PROGRAMS = "localhost/jhok/prometheus:latest"
PODMAN = images.podman_command(Path("/sys/fs/cgroup/cgroup.controllers").exists(), shutil.which("runc") is not None)
LIMITS = ["--ulimit=nofile=16384:16384", "--ulimit=nproc=32768:32768", "--pids-limit=0"]
START_SECONDS = 30
NOTIFICATION = {
    "version": "4",
    "status": "firing",
    "receiver": "group",
    "truncatedAlerts": 0,
    "groupLabels": {"alertname": "NFSDown"},
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "NFSDown", "severity": "critical", "server": "192.0.2.10"},
            "annotations": {
                "summary": "The NFS server 192.0.2.10 gives no answer.",
                "runbook_url": "http://192.0.2.1:30759/site/runbooks.html#nfsdown",
            },
            "startsAt": "2026-11-24T05:00:12.345Z",
            "endsAt": "0001-01-01T00:00:00Z",
        }
    ],
}

Obj = dict[str, Any]
Metrics = dict[str, dict[frozenset[tuple[str, str]], float]]
Start = Callable[..., "Exporter"]


@dataclass
class Api:
    """The API server, for making objects."""

    host: str
    ca: Path
    token: str = "admin-token"

    def send(self, method: str, path: str, body: Obj, content_type: str = "application/json") -> None:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": content_type}
        answer = requests.request(
            method, self.host + path, data=json.dumps(body), headers=headers, verify=str(self.ca), timeout=30
        )
        assert answer.ok, answer.text

    def create(self, path: str, name: str, spec: Obj | None = None, status: Obj | None = None, **metadata: Obj) -> None:
        """Make an object in the collection at `path`, and give it a status as its owner would."""
        self.send("POST", path, {"metadata": {"name": name, **metadata}, "spec": spec or {}})
        if status:
            self.send("PATCH", f"{path}/{name}/status", {"status": status}, "application/merge-patch+json")


@dataclass
class Exporter:
    """The program."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def get(self) -> requests.Response:
        return requests.get(f"{self.url}/metrics", timeout=30)

    def metrics(self) -> Metrics:
        answer = self.get()
        assert answer.status_code == 200, answer.text
        found: Metrics = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                samples = found.setdefault(sample.name, {})
                labels = frozenset(sample.labels.items())
                assert labels not in samples
                samples[labels] = sample.value
        return found

    def relay(self, receiver: str, notification: object = NOTIFICATION) -> requests.Response:
        return requests.post(f"{self.url}/relay/{receiver}", json=notification, timeout=30)


def of(metrics: Metrics, name: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """Return the samples of a metric that have these labels, without them."""
    return [
        (dict(found - frozenset(labels.items())), value)
        for found, value in metrics.get(name, {}).items()
        if frozenset(labels.items()) <= found
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def api(api_server: ApiServer) -> Api:
    cluster = yaml.safe_load(api_server.kubeconfig.read_text())["clusters"][0]["cluster"]
    return Api(cluster["server"], Path(cluster["certificate-authority"]))


@pytest.fixture
def start(api: Api, tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts the exporter with a service account as in a pod."""
    account = tmp_path / "account"
    account.mkdir()
    (account / "ca.crt").write_text(api.ca.read_text())
    with ExitStack() as stack:

        def run(token: str = "admin-token", api_port: int = urlsplit(api.host).port or 443, **more: str) -> Exporter:
            (account / "token").write_text(token)
            port = free_port()
            log = tmp_path / "exporter.log"
            environment = {
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(IMAGE),
                "KUBERNETES_SERVICE_HOST": "127.0.0.1",
                "KUBERNETES_SERVICE_PORT": str(api_port),
                **more,
            }
            options = [
                f"--listen=127.0.0.1:{port}",
                f"--service-account={account}",
                f"--receivers={tmp_path}/receivers",
            ]
            process = subprocess.Popen(
                [sys.executable, "-m", "jhok_exporter", *options],
                env=environment,
                stderr=stack.enter_context(log.open("w")),
                text=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            exporter = Exporter(f"http://127.0.0.1:{port}", process, log)
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    assert requests.get(f"{exporter.url}/healthz", timeout=5).text == "ok\n"
                    return exporter
                except requests.ConnectionError:
                    assert process.poll() is None, log.read_text()
                    assert time.monotonic() < deadline, log.read_text()
                    time.sleep(0.1)

        yield run


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# ------------------------------------------------------------------ the cluster


def test_pods_of_a_user(api: Api, start: Start) -> None:
    api.create("/api/v1/namespaces", "exporter-pods")
    pods = "/api/v1/namespaces/exporter-pods/pods"
    resources = {
        "requests": {"cpu": "100m", "memory": "512Mi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "2G", "nvidia.com/gpu": "1"},
    }
    api.create(
        pods,
        "jupyter-ada",
        annotations={"hub.jupyter.org/username": 'ada "the\\first"', "other": "x"},
        spec={
            "nodeName": "worker1",
            "containers": [{"name": "notebook", "image": "x", "resources": resources}],
            "automountServiceAccountToken": False,
        },
        status={
            "phase": "Running",
            "podIP": "10.244.1.7",
            "hostIP": "192.0.2.11",
            "containerStatuses": [
                {
                    "name": "notebook",
                    "ready": False,
                    "restartCount": 3,
                    "image": "x",
                    "imageID": "",
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                }
            ],
        },
    )
    api.create(pods, "plain", spec={"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]})
    metrics = start().metrics()

    at = {"namespace": "exporter-pods", "pod": "jupyter-ada"}
    ((info, one),) = of(metrics, "kube_pod_info", **at)
    assert (info.pop("uid"), one) != ("", 1)
    assert info == {"node": "worker1", "pod_ip": "10.244.1.7", "host_ip": "192.0.2.11"}
    assert of(metrics, "kube_pod_annotations", namespace="exporter-pods") == [
        ({"pod": "jupyter-ada", "annotation_hub_jupyter_org_username": 'ada "the\\first"'}, 1)
    ]
    phases = {labels["phase"]: value for labels, value in of(metrics, "kube_pod_status_phase", **at)}
    assert phases == {"Pending": 0, "Running": 1, "Succeeded": 0, "Failed": 0, "Unknown": 0}
    ((_, created),) = of(metrics, "kube_pod_created", **at)
    assert 0 <= time.time() - created < 600

    def resource(kind: str) -> dict[tuple[str, str], float]:
        samples = of(metrics, f"kube_pod_container_resource_{kind}", **at, container="notebook", node="worker1")
        return {(labels["resource"], labels["unit"]): value for labels, value in samples}

    gpu = {("nvidia_com_gpu", "integer"): 1}
    assert resource("requests") == {("cpu", "core"): 0.1, ("memory", "byte"): 512 * 2**20} | gpu
    assert resource("limits") == {("memory", "byte"): 2e9} | gpu
    at["container"] = "notebook"
    assert of(metrics, "kube_pod_container_status_restarts_total", **at) == [({}, 3)]
    assert of(metrics, "kube_pod_container_status_ready", **at) == [({}, 0)]
    assert of(metrics, "kube_pod_container_status_waiting_reason", **at) == [({"reason": "CrashLoopBackOff"}, 1)]
    assert of(metrics, "kube_pod_container_status_last_terminated_reason", **at) == [({"reason": "OOMKilled"}, 1)]
    ((plain, _),) = of(metrics, "kube_pod_info", namespace="exporter-pods", pod="plain")
    assert plain["node"] == plain["pod_ip"] == plain["host_ip"] == ""
    ((_, seconds),) = of(metrics, "jhok_exporter_collect_seconds")
    assert seconds > 0


def test_nodes_volumes_and_deployments(api: Api, start: Start) -> None:
    api.create(
        "/api/v1/nodes",
        "worker7",
        spec={"unschedulable": True},
        status={
            "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "DiskPressure", "status": "Unknown"},
            ],
            "capacity": {"cpu": "2", "memory": "8000Mi", "pods": "110", "ephemeral-storage": "40Gi"},
            "allocatable": {"cpu": "1900m", "memory": "7900Mi", "pods": "110", "ephemeral-storage": "36Gi"},
            "addresses": [{"type": "InternalIP", "address": "192.0.2.17"}, {"type": "Hostname", "address": "worker7"}],
        },
    )
    api.create("/api/v1/namespaces", "exporter-others")
    api.create(
        "/api/v1/persistentvolumes",
        "exporter-homes",
        spec={"capacity": {"storage": "1Ti"}, "accessModes": ["ReadWriteMany"], "nfs": {"server": "x", "path": "/x"}},
        status={"phase": "Bound"},
    )
    api.create(
        "/api/v1/namespaces/exporter-others/persistentvolumeclaims",
        "homes",
        spec={"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Ti"}}},
        status={"phase": "Lost"},
    )
    api.create(
        "/apis/apps/v1/namespaces/exporter-others/deployments",
        "proxy",
        spec={
            "replicas": 2,
            "selector": {"matchLabels": {"app": "proxy"}},
            "template": {
                "metadata": {"labels": {"app": "proxy"}},
                "spec": {"containers": [{"name": "a", "image": "x"}]},
            },
        },
        status={"replicas": 2, "readyReplicas": 2, "availableReplicas": 1},
    )
    metrics = start().metrics()

    ((info, one),) = of(metrics, "kube_node_info", node="worker7")
    assert (info["internal_ip"], one) == ("192.0.2.17", 1)
    assert of(metrics, "kube_node_spec_unschedulable", node="worker7") == [({}, 1)]
    conditions = {
        (labels["condition"], labels["status"])
        for labels, value in of(metrics, "kube_node_status_condition", node="worker7")
        if value == 1
    }
    assert conditions == {("Ready", "true"), ("DiskPressure", "unknown")}
    allocatable = {
        (labels["resource"], labels["unit"]): value
        for labels, value in of(metrics, "kube_node_status_allocatable", node="worker7")
    }
    assert allocatable == {
        ("cpu", "core"): 1.9,
        ("memory", "byte"): 7900 * 2**20,
        ("pods", "integer"): 110,
        ("ephemeral_storage", "byte"): 36 * 2**30,
    }
    assert of(metrics, "kube_node_status_capacity", node="worker7", resource="cpu") == [({"unit": "core"}, 2)]
    volume = of(metrics, "kube_persistentvolume_status_phase", persistentvolume="exporter-homes")
    assert [labels["phase"] for labels, value in volume if value == 1] == ["Bound"]
    claim = {"namespace": "exporter-others", "persistentvolumeclaim": "homes"}
    phases = of(metrics, "kube_persistentvolumeclaim_status_phase", **claim)
    assert [labels["phase"] for labels, value in phases if value == 1] == ["Lost"]
    assert of(metrics, "kube_persistentvolumeclaim_resource_requests_storage_bytes", **claim) == [({}, 2**40)]
    deployment = {"namespace": "exporter-others", "deployment": "proxy"}
    assert of(metrics, "kube_deployment_spec_replicas", **deployment) == [({}, 2)]
    assert of(metrics, "kube_deployment_status_replicas_available", **deployment) == [({}, 1)]


def test_more_pods_than_the_api_gives_at_once(api: Api, start: Start) -> None:
    api.create("/api/v1/namespaces", "exporter-many")
    for number in range(230):
        spec = {"containers": [{"name": "a", "image": "x"}]}
        api.create("/api/v1/namespaces/exporter-many/pods", f"pod-{number}", spec=spec)
    exporter = start()
    found = {labels["pod"] for labels, _ in of(exporter.metrics(), "kube_pod_info", namespace="exporter-many")}
    assert found == {f"pod-{number}" for number in range(230)}
    api.send("DELETE", "/api/v1/namespaces/exporter-many/pods", {"gracePeriodSeconds": 0})
    assert of(exporter.metrics(), "kube_pod_info", namespace="exporter-many") == []


def test_without_the_api_there_are_no_numbers(start: Start) -> None:
    answer = start(api_port=free_port()).get()
    assert answer.status_code == 500
    assert "Connection refused" in answer.text
    assert "kube_pod_info" not in answer.text


def test_without_rights_there_are_no_numbers(start: Start) -> None:
    exporter = start("nobody-token")
    answer = exporter.get()
    assert answer.status_code == 500
    assert 'cannot list resource \\"pods\\"' in answer.text.replace('\\\\"', '\\"')
    assert "pods" in exporter.log.read_text()


def test_other_paths_and_the_end(start: Start) -> None:
    exporter = start()
    assert requests.get(f"{exporter.url}/", timeout=5).status_code == 404
    assert requests.post(f"{exporter.url}/metrics", timeout=5).status_code == 404
    exporter.process.terminate()
    assert exporter.process.wait(timeout=30) == -15


# ------------------------------------------------------------------ NFS


@dataclass
class NfsServer:
    """Answers NFS's NULL call as nfsd does, for the versions that it serves.

    versions: what it serves; empty: it takes calls and never answers.
    """

    versions: tuple[int, ...]
    asked: list[tuple[int, ...]] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[int]:
        with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
            connections: list[socket.socket] = []

            def serve() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    connections.append(stack.enter_context(connection))
                    self.answer(connection)

            thread = threading.Thread(target=serve)
            thread.start()
            yield listener.getsockname()[1]
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()

    def answer(self, connection: socket.socket) -> None:
        (mark,) = struct.unpack(">I", connection.recv(4, socket.MSG_WAITALL))
        call = struct.unpack(">10I", connection.recv(mark & 0x7FFFFFFF, socket.MSG_WAITALL))
        self.asked.append(call[1:])
        if not self.versions:
            return
        version = call[4]
        # Accepted (0), no verifier (0, 0), then: success (0), or a mismatch (2) with the lowest and highest version.
        result = (0,) if version in self.versions else (2, min(self.versions), max(self.versions))
        reply = struct.pack(f">{5 + len(result)}I", call[0], 1, 0, 0, 0, *result)
        # In pieces, as TCP may bring it.
        for piece in (struct.pack(">I", 0x80000000 | len(reply)), reply[:7], reply[7:]):
            connection.sendall(piece)


@pytest.mark.parametrize(("versions", "asked"), [((4,), [4]), ((3, 4), [4]), ((3,), [4, 3])], ids=["4", "both", "3"])
def test_an_nfs_server_that_answers(start: Start, versions: tuple[int, ...], asked: list[int]) -> None:
    nfs = NfsServer(versions)
    with nfs.running() as port:
        metrics = start(NFS_SERVER="127.0.0.1", NFS_PORT=str(port)).metrics()
    # A call (0) of RPC's version 2 to program NFS, procedure 0, without credentials and verifier.
    assert nfs.asked == [(0, 2, 100003, version, 0, 0, 0, 0, 0) for version in asked]
    assert of(metrics, "jhok_nfs_up") == [({"server": "127.0.0.1"}, 1)]
    ((labels, seconds),) = of(metrics, "jhok_nfs_response_seconds")
    assert labels == {"server": "127.0.0.1"}
    assert 0 < seconds < 5
    assert of(metrics, "kube_pod_info") == of(start().metrics(), "kube_pod_info")


@pytest.mark.parametrize("versions", [(), (2,)], ids=["silent", "too-old"])
def test_an_nfs_server_of_no_use(start: Start, versions: tuple[int, ...]) -> None:
    with NfsServer(versions).running() as port:
        metrics = start(NFS_SERVER="127.0.0.1", NFS_PORT=str(port)).metrics()
    assert of(metrics, "jhok_nfs_up") == [({"server": "127.0.0.1"}, 0)]
    assert of(metrics, "jhok_nfs_response_seconds") == []
    assert of(metrics, "jhok_exporter_collect_seconds")


def test_no_nfs_server(start: Start) -> None:
    metrics = start(NFS_SERVER="127.0.0.1", NFS_PORT=str(free_port())).metrics()
    assert of(metrics, "jhok_nfs_up") == [({"server": "127.0.0.1"}, 0)]
    assert of(start().metrics(), "jhok_nfs_up") == []


# ------------------------------------------------------------------ relay


class Robot(BaseHTTPRequestHandler):
    """Plays the robots' part: takes a message as DingTalk and WeCom do, or says why not."""

    taken: list[Obj]

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/json"
        judge = {"/robot/send": self.dingtalk, "/cgi-bin/webhook/send": self.wecom}.get(address.path)
        if not judge:
            self.send_error(503, "busy with the-key")
            return
        answer = judge(query, message)
        if answer["errcode"] == 0:
            self.taken.append(message)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def dingtalk(self, query: dict[str, str], message: Obj) -> Obj:
        if query["access_token"] != "the-token":
            return {"errcode": 300005, "errmsg": f"token {query['access_token']} is not exist"}
        text = f"{query['timestamp']}\nSECthe-secret"
        command = ["openssl", "dgst", "-sha256", "-hmac", "SECthe-secret", "-binary"]
        signature = base64.b64encode(subprocess.check_output(command, input=text.encode())).decode()
        fresh = abs(time.time() * 1000 - int(query["timestamp"])) < 3600_000
        if query["sign"] != signature or not fresh:
            return {"errcode": 310000, "errmsg": "sign not match"}
        assert message["msgtype"] == "markdown"
        assert message["markdown"].keys() == {"title", "text"}
        return {"errcode": 0, "errmsg": "ok"}

    def wecom(self, query: dict[str, str], message: Obj) -> Obj:
        if query["key"] != "the-key":
            return {"errcode": 93000, "errmsg": "invalid webhook url"}
        if len(message["markdown"]["content"].encode()) > 4096:
            return {"errcode": 40058, "errmsg": "markdown.content exceed max length 4096"}
        return {"errcode": 0, "errmsg": "ok"}

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[list[Obj]]:
    """Run the robots, write the receivers that lead to them, and return what messages were taken."""

    class Own(Robot):
        taken: list[Obj] = []  # noqa: RUF012

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Own)) as port:
        base = f"http://127.0.0.1:{port}"
        dingtalk = f"{base}/robot/send?access_token=the-token"
        receivers = {
            "group": {"type": "dingtalk", "url": dingtalk, "secret": "SECthe-secret"},
            "wrong-secret": {"type": "dingtalk", "url": dingtalk, "secret": "SECanother"},
            "wrong-token": {"type": "dingtalk", "url": f"{base}/robot/send?access_token=my-token", "secret": "SECa"},
            "team": {"type": "wecom", "url": f"{base}/cgi-bin/webhook/send?key=the-key", "secret": ""},
            "busy": {"type": "wecom", "url": f"{base}/busy?key=the-key"},
            "gone": {"type": "wecom", "url": f"http://127.0.0.1:{free_port()}/cgi-bin/webhook/send?key=the-key"},
            "nowhere": {"type": "dingtalk", "url": "https://robot.invalid/send?access_token=the-token"},
        }
        (tmp_path / "receivers").write_text(json.dumps(receivers))
        yield Own.taken


def test_dingtalk_takes_a_signed_message(start: Start, robot: list[Obj]) -> None:
    answer = start().relay("group")
    assert (answer.status_code, answer.text) == (200, "sent\n")
    text = (
        "#### Firing: NFSDown\n\n**critical** The NFS server 192.0.2.10 gives no answer. (since 2026-11-24 05:00 UTC) "
        "[What to do](http://192.0.2.1:30759/site/runbooks.html#nfsdown)"
    )
    assert robot == [{"msgtype": "markdown", "markdown": {"title": "Firing: NFSDown", "text": text}}]


def test_wecom_takes_a_message_of_its_length(start: Start, robot: list[Obj]) -> None:
    (alert,) = NOTIFICATION["alerts"]  # type: ignore[misc]
    alerts = [alert | {"annotations": {"summary": f"主目录 {number} 将满"}} for number in range(200)]
    answer = start().relay("team", NOTIFICATION | {"alerts": alerts})
    assert answer.status_code == 200, answer.text
    (message,) = robot
    assert message["msgtype"] == "markdown"
    assert message["markdown"]["content"].startswith("#### Firing: NFSDown (200)\n\n**critical** 主目录 0 将满 (since")


@pytest.mark.parametrize(
    ("receiver", "status", "said"),
    [
        ("wrong-secret", 502, "errcode 310000: sign not match"),
        ("wrong-token", 502, "errcode 300005: token … is not exist"),
        ("busy", 502, "HTTP status 503"),
        ("gone", 502, "Connection refused"),
        ("nowhere", 502, "no answer"),
        ("unknown", 404, "there is no such receiver"),
    ],
)
def test_what_was_not_taken_is_said(start: Start, robot: list[Obj], receiver: str, status: int, said: str) -> None:
    exporter = start()
    answer = exporter.relay(receiver)
    assert answer.status_code == status
    assert said in answer.text
    log = exporter.log.read_text()
    assert f"relay {receiver}: " in log
    for hidden in ("the-token", "my-token", "the-key", "SEC"):
        assert hidden not in answer.text + log
    assert robot == []


@pytest.mark.usefixtures("robot")
@pytest.mark.parametrize("body", [b"", b"no JSON", b"{}", b"[]", b'{"status": "firing", "alerts": [{}]}'])
def test_what_is_no_notification(start: Start, body: bytes) -> None:
    answer = requests.post(f"{start().url}/relay/group", data=body, timeout=30)
    assert answer.status_code == (413 if not body else 400)


def test_a_new_address_needs_no_restart(start: Start, robot: list[Obj], tmp_path: Path) -> None:
    receivers = tmp_path / "receivers"
    right = receivers.read_text()
    receivers.unlink()
    exporter = start()
    assert exporter.relay("group").status_code == 404
    receivers.write_text("{")
    assert exporter.relay("group").status_code == 500
    receivers.write_text(right)
    assert exporter.relay("group").status_code == 200
    assert len(robot) == 1


def test_an_alert_comes_all_the_way(api: Api, start: Start, robot: list[Obj], tmp_path: Path) -> None:
    """Prometheus reads the exporter, and Alertmanager hands its alert to it: the programs of the image."""
    api.create("/api/v1/namespaces", "exporter-alerts")
    exporter = start(NFS_SERVER="127.0.0.1", NFS_PORT=str(free_port()))
    alertmanager = f"127.0.0.1:{free_port()}"
    target = exporter.url.removeprefix("http://")
    rule = {
        "alert": "NFSDown",
        "expr": 'jhok_nfs_up == 0 and on() kube_pod_info{namespace="exporter-alerts"}',
        "labels": {"severity": "critical"},
        "annotations": {"summary": "The NFS server {{ $labels.server }} gives no answer."},
    }
    files: Obj = {
        "prometheus.yml": {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["/etc/prometheus/rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": [{"job_name": "exporter", "static_configs": [{"targets": [target]}]}],
        },
        "rules.yml": {"groups": [{"name": "exporter", "rules": [rule]}]},
        "alertmanager.yml": {
            "route": {"receiver": "group", "group_wait": "1s"},
            "receivers": [{"name": "group", "webhook_configs": [{"url": f"{exporter.url}/relay/group"}]}],
        },
    }
    options = ["--detach", "--network=host", "--read-only", "--tmpfs=/data:mode=1777", "--cap-drop=all", *LIMITS]
    for name, content in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(content))
        (tmp_path / name).chmod(0o644)
        options.append(f"--volume={tmp_path / name}:/etc/prometheus/{name}:ro")
    commands = [
        ["prometheus", "--storage.tsdb.path=/data", f"--web.listen-address=127.0.0.1:{free_port()}"],
        ["prometheus-alertmanager", "--storage.path=/data", f"--web.listen-address={alertmanager}"],
    ]
    commands[0].append("--config.file=/etc/prometheus/prometheus.yml")
    commands[1] += ["--config.file=/etc/prometheus/alertmanager.yml", "--cluster.listen-address="]
    containers = []
    try:
        for command in commands:
            started = subprocess.check_output([*PODMAN, "run", *options, PROGRAMS, *command], text=True)
            containers.append(started.strip())
        api.create("/api/v1/namespaces/exporter-alerts/pods", "pod", spec={"containers": [{"name": "a", "image": "x"}]})
        deadline = time.monotonic() + 60
        while not robot:
            logs = [subprocess.getoutput(f"podman logs --tail 20 {container}") for container in containers]
            assert time.monotonic() < deadline, (*logs, exporter.log.read_text())
            time.sleep(0.2)
    finally:
        subprocess.run([*PODMAN, "rm", "--force", "--time=0", *containers], check=True, capture_output=True)
    assert robot[0]["markdown"]["title"] == "Firing: NFSDown"
    assert "**critical** The NFS server 127.0.0.1 gives no answer. (since 20" in robot[0]["markdown"]["text"]
