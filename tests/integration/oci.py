"""A registry and images for tests: Debian's docker-registry, and OCI layouts made here. Needs skopeo too."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def registry_of(directory: Path) -> Iterator[str]:
    """Run docker-registry over `directory` on the loopback address; give its host and port."""
    program = shutil.which("docker-registry")
    assert program, "install the packages docker-registry and skopeo"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    config, log = directory / "registry.yml", directory / "registry.log"
    storage = {"filesystem": {"rootdirectory": str(directory / "registry")}}
    config.write_text(json.dumps({"version": 0.1, "storage": storage, "http": {"addr": address}}))
    with log.open("w") as out:
        process = subprocess.Popen([program, "serve", str(config)], stdout=out, stderr=out)
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + 30
        while True:
            try:
                opener.open(f"http://{address}/v2/").close()
                break
            except urllib.error.URLError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


def make_layout(path: Path, references: Sequence[str], files: Sequence[str] = ("hello",)) -> list[str]:
    """Write an OCI layout with one tiny image per reference, which is its label `name`.

    All are on the same gzip layers as upstream has them, one per name of `files`. Returns the layers' diff IDs.
    """
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, media_type: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    layers, diff_ids = [], []
    for name in files:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
        diff_ids.append("sha256:" + hashlib.sha256(stream.getvalue()).hexdigest())
        layers.append(blob(gzip.compress(stream.getvalue(), mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip"))
    manifests = []
    for reference in references:
        config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"name": reference}}}
        config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
        image = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers}
        image["config"] = blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json")
        manifests.append(
            blob(json.dumps(image).encode(), "application/vnd.oci.image.manifest.v1+json")
            | {"annotations": {"org.opencontainers.image.ref.name": reference}}
        )
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return diff_ids


def skopeo(*arguments: str | Path) -> str:
    """Return what skopeo prints, which has to succeed."""
    command = ["skopeo", "--insecure-policy", *map(str, arguments)]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
