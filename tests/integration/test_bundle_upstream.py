"""Role bundle with source upstream: a real web server and a real registry that serve artifacts under upstream's names.

Needs ansible-playbook, docker-registry and skopeo; what lies outside the site is made here: the "kubeadm" is a script
that answers as kubeadm does.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from oci import make_layout, registry_of, skopeo

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
VERSION = "v1.37.2"  # its sums are not in the table: the published ones are asked for
PLUGINS = ("bandwidth", "bridge", "firewall", "host-local", "loopback", "portmap", "tuning")
IMAGES = ["kube-apiserver:v1.37.2", "coredns/coredns:v1.14.6", "pause:3.10.2"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Return host and port of an empty registry."""
    with registry_of(tmp_path) as address:
        yield address


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve upstream's files under their names and return URL and directory."""
    web = tmp_path / "web"

    def serve(path: str, content: bytes, sums: str = "") -> None:
        """Publish a file, and its sum beside it or as a line of the file of sums that is named."""
        (web / path).parent.mkdir(parents=True, exist_ok=True)
        (web / path).write_bytes(content)
        digest, name = hashlib.sha256(content).hexdigest(), Path(path).name
        if sums:
            listed = f"{'0' * 64}  another-{name}\n{digest}  {name}\n"
            (web / path).with_name(sums).write_text(listed)
        else:
            (web / f"{path}.sha256").write_text(f"{digest}\n")

    def archive(names: tuple[str, ...]) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for name in names:
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(name)
                tar.addfile(member, io.BytesIO(name.encode()))
        return stream.getvalue()

    lines = "\n".join(f"registry.k8s.io/{image}" for image in IMAGES)
    wanted = f'"config images list --kubernetes-version {VERSION} --image-repository registry.k8s.io"'
    kubeadm = f'#!/bin/sh\n[ "$*" = {wanted} ] || exit 64\ncat <<END\n{lines}\nEND\n'
    serve(f"{VERSION}/bin/linux/amd64/kubeadm", kubeadm.encode())
    serve(f"{VERSION}/bin/linux/amd64/kubelet", b"kubelet")
    serve(f"{VERSION}/bin/linux/amd64/kubectl", b"kubectl")
    tools = "kubernetes-sigs/cri-tools/releases/download/v1.37.0/crictl-v1.37.0-linux-amd64.tar.gz"
    serve(tools, archive(("crictl",)))
    plugins = "containernetworking/plugins/releases/download/v1.10.0/cni-plugins-linux-amd64-v1.10.0.tgz"
    serve(plugins, archive(PLUGINS))
    etcd = "etcd-io/etcd/releases/download/v3.7.0/etcd-v3.7.0-linux-amd64.tar.gz"
    names = ("etcd", "etcdctl", "etcdutl")
    serve(etcd, archive(tuple(f"etcd-v3.7.0-linux-amd64/{name}" for name in names)), "SHA256SUMS")
    containerd = "containerd/containerd/releases/download/v2.3.7/containerd-static-2.3.7-linux-amd64.tar.gz"
    programs = archive(("bin/containerd", "bin/containerd-shim-runc-v2", "bin/ctr", "bin/containerd-stress"))
    serve(containerd, programs, f"{Path(containerd).name}.sha256sum")
    serve("opencontainers/runc/releases/download/v1.5.3/runc.amd64", b"runc", "runc.sha256sum")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(web))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", web
    server.shutdown()
    server.server_close()
    thread.join()


def play(tmp_path: Path, *arguments: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run role bundle on this machine."""
    playbook = tmp_path / "play.yml"
    if not (tmp_path / "group_vars").exists():
        (tmp_path / "group_vars").symlink_to(ROOT / "playbooks" / "group_vars")
    tasks = [{"ansible.builtin.include_role": {"name": "jhok.lab.bundle"}}]
    given = {"ansible_python_interpreter": sys.executable, "bundle_dir": str(tmp_path / "bundle"), **variables}
    playbook.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": given, "tasks": tasks}]))
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [str(program), "-i", "localhost,", "-c", "local", str(playbook), *arguments],
        cwd=ROOT,
        env=os.environ | {"no_proxy": "127.0.0.1", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_upstream(tmp_path: Path, mirror: tuple[str, Path], registry: str) -> None:
    url, web = mirror
    make_layout(tmp_path / "upstream", IMAGES)
    for image in IMAGES:
        source, target = f"oci:{tmp_path}/upstream:{image}", f"docker://{registry}/k8s/{image}"
        skopeo("copy", "-q", "--dest-tls-verify=false", "--format", "v2s2", source, target)
    variables = {
        "bundle_source": "upstream",
        "bundle_kubernetes_version": VERSION,
        "bundle_upstream_files_mirror": url,
        "bundle_upstream_github_mirror": url,
        "bundle_upstream_images_mirror": f"{registry}/k8s",
        "bundle_upstream_images_tls_verify": False,
    }
    kubelet = web / VERSION / "bin/linux/amd64/kubelet"
    bundle = tmp_path / "bundle"

    # A bare machine in check mode.
    run = play(tmp_path, "--check", **variables)
    assert run.returncode == 0, run.stdout + run.stderr
    assert not bundle.exists()

    # An altered file is refused, a missing one named with the variable to look at.
    kubelet.write_bytes(b"altered")
    run = play(tmp_path, **variables)
    assert run.returncode != 0
    assert f"{url}/{VERSION}/bin/linux/amd64/kubelet has SHA-256 sum" in run.stdout + run.stderr
    kubelet.unlink()
    run = play(tmp_path, **variables)
    assert run.returncode != 0
    assert "kubelet answered 404" in run.stdout + run.stderr
    assert "bundle_upstream_files_mirror" in run.stdout + run.stderr
    assert not (bundle / "manifest.json").exists()
    kubelet.write_bytes(b"kubelet")

    run = play(tmp_path, **variables)
    assert run.returncode == 0, run.stdout + run.stderr
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert (manifest["kubernetes_version"], manifest["source"]) == (VERSION, "upstream")
    assert (bundle / "bin/kubelet").read_bytes() == b"kubelet"
    assert (bundle / "cni/host-local").read_bytes() == b"host-local"
    assert (bundle / "bin/etcdutl").read_bytes() == b"etcd-v3.7.0-linux-amd64/etcdutl"
    assert (bundle / "bin/ctr").read_bytes() == b"bin/ctr"
    assert (bundle / "bin/runc").read_bytes() == b"runc"
    assert [f"{image['name']}:{image['tag']}" for image in manifest["images"]] == [
        "kubernetes/coredns:v1.14.6",
        "kubernetes/kube-apiserver:v1.37.2",
        "kubernetes/pause:3.10.2",
    ]
    assert len(list((bundle / "images/blobs/sha256").iterdir())) == 3 * 2 + 1, "the layer is shared"

    # Nothing changed: nothing is asked for (the mirror is empty by now).
    shutil.rmtree(web)
    run = play(tmp_path, **variables)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "changed=0" in run.stdout

    # Carried elsewhere it is whole, until a byte of it changes.
    carried = {"bundle_source": "directory", "bundle_dir": str(tmp_path / "carried")}
    shutil.copytree(bundle, tmp_path / "carried")
    run = play(tmp_path, **carried)
    assert run.returncode == 0, run.stdout + run.stderr
    blobs = tmp_path / "carried/images/blobs/sha256"
    image = json.loads((blobs / manifest["images"][0]["digest"].removeprefix("sha256:")).read_text())
    layer = blobs / image["layers"][0]["digest"].removeprefix("sha256:")
    layer.write_bytes(layer.read_bytes()[:-1] + b"!")
    run = play(tmp_path, **carried)
    assert run.returncode != 0
    assert f"{layer.name}: SHA-256 sum differs" in run.stdout + run.stderr
