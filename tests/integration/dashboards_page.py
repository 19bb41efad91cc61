"""The page of the dashboards of real processes on loopback: nginx and Prometheus in our images, and the sign-in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from ansible_collections.jhok.lab.plugins.module_utils import images
from ansible_collections.jhok.lab.plugins.plugin_utils.monitoring_web import sign_in_settings, web_files
from hub import free_port

ROOT = Path(__file__).parents[2]
PODMAN = images.podman_command(Path("/sys/fs/cgroup/cgroup.controllers").exists(), shutil.which("runc") is not None)
LIMITS = ["--ulimit=nofile=16384:16384", "--ulimit=nproc=32768:32768", "--pids-limit=0"]
DASHBOARDS, PROMETHEUS = "localhost/jhok/dashboards:latest", "localhost/jhok/prometheus:latest"
DEADLINE_SECONDS = 60

PASSWORD = "Dashboards-password-4711"
TOKEN = "fedcba9876543210fedcba9876543210"  # of the hub's service `dashboards`
SETTINGS: dict[str, Any] = {
    "ui": "perses",
    "access": "password",
    "site_name": "Physics <b>lab</b>",
    "url": "",
    "hub_url": "http://127.0.0.1:1",
    "hub_namespace": "jupyterhub",
    "scrape_interval": 1,
}


@dataclass
class Page:
    """A page that is served."""

    url: str
    directory: Path
    ports: dict[str, int] = field(default_factory=dict)
    containers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **options: Any) -> requests.Response:  # noqa: ANN401
        return requests.get(self.url + path, **{"timeout": 30, "allow_redirects": False, **options})

    def logs(self, name: str) -> str:
        done = subprocess.run([*PODMAN, "logs", self.containers[name]], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr


@contextmanager
def container(*arguments: str) -> Iterator[str]:
    """Run a container as the cluster does; it is gone at the end."""
    options = ["--detach", "--read-only", "--user=65534:65534", "--cap-drop=all", "--security-opt=no-new-privileges"]
    command = [*PODMAN, "run", *options, "--tmpfs=/tmp:mode=1777", *LIMITS, *arguments]
    name = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield name
    finally:
        subprocess.run([*PODMAN, "rm", "--force", "--time=0", name], check=True, capture_output=True)


@contextmanager
def running_page(
    directory: Path,
    settings: Mapping[str, Any],
    dashboards: Mapping[str, str],
    prometheus: Mapping[str, str] | None = None,
    hub_api_url: str = "http://127.0.0.1:1/hub/api",
    sign_in: bool = True,
) -> Iterator[Page]:
    """Serve the page.

    Args:
        directory: empty.
        settings: as for `web_files`; an empty `url` becomes one with a free port.
        dashboards: files below /site/dashboards.
        prometheus: its configuration's files; without any, none runs.
        hub_api_url: the hub's API, as the sign-in reaches it.
        sign_in: whether the sign-in runs.

    """
    names = {"9759": "web", "9790": "prometheus", "9792": "sign-in", "9794": "grafana"}
    ports = {name: free_port() for name in names.values()}
    url = settings["url"] or f"http://127.0.0.1:{ports['web']}"
    ports["web"] = int(url.rpartition(":")[2])
    settings = {**settings, "url": url}
    web = web_files(settings)
    conf = web["nginx.conf"].replace("listen 9759;", "listen 127.0.0.1:9759;")
    for number, name in names.items():
        conf = conf.replace(f"127.0.0.1:{number}", f"127.0.0.1:{ports[name]}")
    page = Page(url, directory, ports)
    files = {
        "web/nginx.conf": conf,
        "site/settings.json": web["settings.json"],
        "site/runbooks.html": "<!doctype html><title>Runbooks</title><h1>Runbooks</h1>",
        **{f"site/dashboards/{name}": text for name, text in dashboards.items()},
        **{f"prometheus/{name}": text for name, text in (prometheus or {}).items()},
        "sign-in/settings.json": json.dumps(
            sign_in_settings(settings) | {"port": ports["sign-in"], "hub_api_url": hub_api_url}
        ),
        "sign-in/secrets/password": PASSWORD,
        "sign-in/secrets/dashboards-token": TOKEN,
        "sign-in/secrets/cookie-secret": "0123456789abcdef" * 4,
        "sign-in/sign_in.py": (ROOT / "roles/monitoring/files/sign_in.py").read_text(),
    }
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (directory / "data").mkdir()
    (directory / "data").chmod(0o777)
    for parent in (directory, *directory.parents):  # the containers' user is another one
        if parent.name.startswith("pytest-"):
            parent.chmod(0o755)
    directory.chmod(0o755)
    with ExitStack() as stack:
        host = "--network=host"
        page.containers["web"] = stack.enter_context(
            container(host, f"-v={directory}/web:/etc/jhok-web:ro", f"-v={directory}/site:/srv/site:ro", DASHBOARDS)
        )
        if prometheus:
            page.containers["prometheus"] = stack.enter_context(
                container(
                    *(host, f"-v={directory}/prometheus:/etc/prometheus:ro", f"-v={directory}/data:/prometheus"),
                    *(PROMETHEUS, "prometheus", "--config.file=/etc/prometheus/prometheus.yml"),
                    *("--storage.tsdb.path=/prometheus", f"--web.listen-address=127.0.0.1:{ports['prometheus']}"),
                )
            )
        if sign_in:
            stack.enter_context(running_sign_in(directory / "sign-in"))
            wait_for(page, f"http://127.0.0.1:{ports['sign-in']}/sign-in/healthz")
        wait_for(page, f"http://127.0.0.1:{ports['web']}/healthz")
        if prometheus:
            wait_for(page, f"http://127.0.0.1:{ports['prometheus']}/-/ready")
        yield page


@contextmanager
def running_sign_in(directory: Path) -> Iterator[None]:
    """Run the sign-in service; its log is sign_in.log in `directory`."""
    with (directory / "sign_in.log").open("w") as log:
        service = subprocess.Popen([sys.executable, directory / "sign_in.py"], stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        service.terminate()
        service.wait()


def wait_for(page: Page, url: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            if requests.get(url, timeout=2).ok:
                return
        except requests.ConnectionError:
            pass
        assert time.monotonic() < deadline, f"{url}\n" + "\n".join(page.logs(name) for name in page.containers)
        time.sleep(0.1)
