#!/usr/bin/python
"""Ansible module benchmark_series: what Prometheus takes for many users."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_series
short_description: Measures what Prometheus takes for users whom only figures know
version_added: 0.2.0
description:
  - Takes the figures of one pod, as the kubelet and the exporter tell them, and tells them of as many users as it is
    asked for. A Prometheus of its own, from the site's image, reads them as the site's own does, with its intervals,
    its choice of what is kept, and its rules. The site's own is not touched.
  - Runs on the control machine, where the image was built.
requirements: [kubernetes, podman]
attributes:
  check_mode:
    support: none
    description: It runs a container, so it is skipped in check mode.
options:
  kubeconfig:
    description: Kubeconfig of the cluster.
    type: path
    required: true
  namespace:
    description: Namespace of monitoring.
    type: str
    required: true
  node:
    description: Node that the pod runs on.
    type: str
    required: true
  pod:
    description: Name of the pod.
    type: str
    required: true
  exporter:
    description: All that the exporter tells.
    type: str
    required: true
  users:
    description: How many users there are to be.
    type: int
    default: 500
  pods_per_node:
    description: How many of them share a node.
    type: int
    default: 50
  image:
    description: Image with Prometheus, on this machine.
    type: str
    default: localhost/jhok/prometheus:latest
  settle:
    description: Seconds before it is measured, until rates are full.
    type: int
    default: 150
  seconds:
    description: Seconds over which it is measured.
    type: int
    default: 120
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: Measure Prometheus with five hundred users
  jhok.lab.benchmark_series:
    kubeconfig: artifacts/kubeconfig
    namespace: monitoring
    node: worker1
    pod: jhok-load-1
    exporter: "{{ exporter.content }}"
"""

RETURN = r"""
memory:
  description: Resident memory of Prometheus, in bytes.
  returned: success
  type: int
  sample: 209715200
cores:
  description: Share of one processor that it takes.
  returned: success
  type: float
  sample: 0.03
series:
  description: How many series it keeps.
  returned: success
  type: int
  sample: 22000
scrape:
  description: Seconds that the longest reading takes.
  returned: success
  type: float
  sample: 0.2
rules:
  description: Seconds that all rules take together.
  returned: success
  type: float
  sample: 0.05
"""

import contextlib
import http.server
import json
import random
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.jhok.lab.plugins.module_utils.images import podman_command
from ansible_collections.jhok.lab.plugins.module_utils.k8s import K8sError, connect

LINE = re.compile(r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)\{(?P<labels>.*)\} (?P<value>\S+)(?: \d+)?")
LIMITS = ("--ulimit=nofile=16384:16384", "--ulimit=nproc=32768:32768", "--pids-limit=0")
START_SECONDS = 60
HOME = 'jhok_home_bytes{{user="{0}"}} {1}\njhok_home_files{{user="{0}"}} {1}\n'

Line = tuple[str, str, float]  # name, labels, value


def lines_of(text: str, pod: str) -> list[Line]:
    """Return what is told of a pod."""
    found = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if match and f'pod="{pod}"' in match["labels"]:
            found.append((match["name"], match["labels"], float(match["value"])))
    return found


def told(lines: Sequence[Line], pod: str, others: Sequence[int], seconds: float) -> str:
    """Return what would be told of other pods, `seconds` after the beginning: counters rise, others vary."""
    text = []
    for number in others:
        for name, labels, value in lines:
            now = value + number * seconds if name.endswith("_total") else value * random.uniform(0.9, 1.1)  # noqa: S311
            text.append(f"{name}{{{labels.replace(pod, f'{pod}-{number}')}}} {now:.9g}\n")
    return "".join(text)


def scratch_config(config: dict[str, Any], port: int, nodes: int) -> dict[str, Any]:
    """Return the site's configuration with the generated figures as its only targets."""
    kept = []
    for job in config["scrape_configs"]:
        name = job["job_name"]
        if name not in ("cadvisor", "exporter", "node"):
            continue
        paths = [f"/cadvisor/{number}" for number in range(nodes)] if name == "cadvisor" else [f"/{name}"]
        chosen = {key: job[key] for key in ("metric_relabel_configs",) if key in job}
        targets = [
            {
                "targets": [f"127.0.0.1:{port}"],
                "labels": {"__metrics_path__": path, "node": path[1:], "instance": path[1:]},
            }
            for path in paths
        ]
        kept.append({"job_name": name, **chosen, "static_configs": targets})
    own = {"job_name": "prometheus", "static_configs": [{"targets": ["PROMETHEUS"]}]}
    return {"global": config["global"], "rule_files": config["rule_files"], "scrape_configs": [*kept, own]}


@contextlib.contextmanager
def serving(pages: dict[str, Any]) -> Iterator[int]:
    """Serve pages (functions that return text, by path) on loopback; gives the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages[self.path]().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(image: str, directory: Path, port: int) -> Iterator[str]:
    """Run Prometheus with the configuration in `directory`; gives its address."""
    podman = podman_command(Path("/sys/fs/cgroup/cgroup.controllers").exists(), shutil.which("runc") is not None)
    options = ["--detach", "--network=host", "--read-only", *LIMITS]
    options += [f"--volume={directory}/etc:/etc/prometheus:ro", f"--volume={directory}/data:/prometheus"]
    arguments = ["prometheus", "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
    command = [*podman, "run", *options, image, *arguments, f"--web.listen-address=127.0.0.1:{port}"]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/-/ready"):  # noqa: S310
                break
            if time.monotonic() > deadline:
                raise OSError(f"Prometheus was not ready after {START_SECONDS} s")
            time.sleep(0.5)
        yield url
    finally:
        subprocess.run([*podman, "rm", "--force", "--time=0", name], check=False, capture_output=True)  # noqa: S603


def ask(url: str, expression: str) -> float:
    """Return the answer to a question that has one. Raises OSError when there is none."""
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{url}/api/v1/query?{query}") as answer:  # noqa: S310
        result = json.load(answer)["data"]["result"]
    if not result:
        raise OSError(f"no answer to {expression}")
    return float(result[0]["value"][1])


def measure(given: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Run it all. Raises K8sError, OSError, CalledProcessError."""
    cluster = connect(given["kubeconfig"])
    found = cluster.get("v1", "ConfigMap", "prometheus", given["namespace"])
    if not found:
        raise OSError(f"there is no ConfigMap prometheus in namespace {given['namespace']}: run site.yml first")
    pod, users, per_node = given["pod"], given["users"], given["pods_per_node"]
    cadvisor = lines_of(cluster.raw(f"/api/v1/nodes/{given['node']}/proxy/metrics/cadvisor"), pod)
    exporter = lines_of(given["exporter"], pod)
    if not cadvisor or not exporter:
        raise OSError(f"nothing is told of pod {pod} on {given['node']}")
    groups = [range(begin, min(begin + per_node, users)) for begin in range(0, users, per_node)]
    begin = time.monotonic()

    def page(lines: Sequence[Line], others: Sequence[int]) -> Any:  # noqa: ANN401
        return lambda: told(lines, pod, others, time.monotonic() - begin)

    pages = {f"/cadvisor/{number}": page(cadvisor, group) for number, group in enumerate(groups)}
    pages["/exporter"] = page(exporter, range(users))
    pages["/node"] = lambda: "".join(HOME.format(f"{pod}-{number}", number * 1e6) for number in range(users))
    port = free_port()
    with serving(pages) as served:
        config = scratch_config(yaml.safe_load(found["data"]["prometheus.yml"]), served, len(groups))
        for name in ("etc", "data"):
            (directory / name).mkdir()
        text = yaml.safe_dump(config).replace("PROMETHEUS", f"127.0.0.1:{port}")
        (directory / "etc/prometheus.yml").write_text(text)
        (directory / "etc/rules.yml").write_text(found["data"]["rules.yml"])
        (directory / "data").chmod(0o777)  # its user is the image's
        directory.chmod(0o755)
        with running(given["image"], directory, port) as url:
            time.sleep(given["settle"])
            before = ask(url, "process_cpu_seconds_total")
            start = time.monotonic()
            time.sleep(given["seconds"])
            cores = (ask(url, "process_cpu_seconds_total") - before) / (time.monotonic() - start)
            return {
                "cores": round(cores, 4),
                "memory": int(ask(url, "process_resident_memory_bytes")),
                "series": int(ask(url, "prometheus_tsdb_head_series")),
                "scrape": round(ask(url, "max(scrape_duration_seconds)"), 3),
                "rules": round(ask(url, "sum(prometheus_rule_group_last_duration_seconds)"), 3),
            }


def main() -> None:
    """Measure and answer."""
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "namespace": {"type": "str", "required": True},
            "node": {"type": "str", "required": True},
            "pod": {"type": "str", "required": True},
            "exporter": {"type": "str", "required": True},
            "users": {"type": "int", "default": 500},
            "pods_per_node": {"type": "int", "default": 50},
            "image": {"type": "str", "default": "localhost/jhok/prometheus:latest"},
            "settle": {"type": "int", "default": 150},
            "seconds": {"type": "int", "default": 120},
        },
    )
    with tempfile.TemporaryDirectory(prefix="jhok-series-", ignore_cleanup_errors=True) as directory:
        try:
            figures = measure(module.params, Path(directory))
        except (K8sError, OSError) as error:
            module.fail_json(msg=str(error))
        except subprocess.CalledProcessError as error:
            module.fail_json(msg=f"The container did not start: {error.stderr.strip()}")
    module.exit_json(changed=False, **figures)


if __name__ == "__main__":
    main()
