"""The registry as role registry configures it, filled by jhok.lab.registry_push. Needs docker-registry and skopeo."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError
from ansible_collections.jhok.lab.plugins.modules import registry_push
from ansible_collections.jhok.lab.plugins.modules.registry_probe import Registry

pytestmark = pytest.mark.integration

TEMPLATE = Path(__file__).parents[2] / "roles/registry/templates/config.yml.j2"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def make_layout(path: Path, name: str) -> dict[str, Any]:
    """Write an OCI layout with one image without layers; return its entry as in the bundle's manifest."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def blob(value: object) -> dict[str, Any]:
        content = json.dumps(value).encode()
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    config = {"architecture": "amd64", "os": "linux", "config": {"Labels": {"name": name}}}
    config["rootfs"] = {"type": "layers", "diff_ids": []}
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(config)}
    manifest = blob({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": []})
    index = path / "index.json"
    known = json.loads(index.read_text())["manifests"] if index.exists() else []
    entry = {"mediaType": OCI_MANIFEST, **manifest, "annotations": {"org.opencontainers.image.ref.name": name}}
    index.write_text(json.dumps({"schemaVersion": 2, "manifests": [*known, entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    repository, _, tag = name.partition(":")
    return {"name": repository, "tag": tag, "layout_ref": name, "digest": manifest["digest"]}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[str, str, str]]:
    """Run both instances over one directory; return their URLs, read-only first, and the address of its metrics."""
    program = shutil.which("docker-registry")
    assert program, "install the packages docker-registry and skopeo"
    environment = jinja2.Environment(autoescape=False)
    environment.filters["to_json"] = json.dumps
    template = environment.from_string(TEMPLATE.read_text())
    urls, processes = [], []
    metrics = f"127.0.0.1:{free_port()}"
    for readonly in (True, False):
        address = f"127.0.0.1:{free_port()}"
        config = tmp_path / f"readonly-{readonly}.yml"
        item = {"address": address, "readonly": readonly, **({"metrics": metrics} if readonly else {})}
        config.write_text(template.render(item=item, registry_storage_dir=str(tmp_path / "storage")))
        with config.with_suffix(".log").open("w") as log:
            processes.append(subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log))
        urls.append(f"http://{address}")
    yield urls[0], urls[1], metrics
    for process in processes:
        process.terminate()
        process.wait()


@pytest.fixture
def push(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401
    """Return the module as a function."""

    def run(url: str, images: list[dict[str, Any]], check: bool = False, timeout: int = 20) -> dict[str, Any]:
        arguments = {"url": url, "layout": str(tmp_path / "layout"), "images": images, "timeout": timeout}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            registry_push.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


def test_push(tmp_path: Path, registry: tuple[str, str, str], push: Any) -> None:  # noqa: ANN401
    pull_url, push_url, metrics = registry
    one, two = (make_layout(tmp_path / "layout", name) for name in ("jhok/hub:1", "kubernetes/pause:3.2"))
    assert push(push_url, [one])["pushed"] == ["jhok/hub:1"]
    check = push(push_url, [one, two], check=True)
    assert (check["changed"], check["pushed"]) == (True, ["kubernetes/pause:3.2"])
    assert push(push_url, [one, two])["pushed"] == ["kubernetes/pause:3.2"]
    assert not push(push_url, [one, two])["changed"]

    # The read-only instance serves what was pushed, by tag and by digest, and takes nothing.
    for reference in ("1", one["digest"]):
        request = urllib.request.Request(f"{pull_url}/v2/jhok/hub/manifests/{reference}")
        request.add_header("Accept", OCI_MANIFEST)
        with OPENER.open(request) as answer:
            assert hashlib.sha256(answer.read()).hexdigest() == one["digest"].removeprefix("sha256:")
    upload = urllib.request.Request(f"{pull_url}/v2/jhok/hub/blobs/uploads/", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        OPENER.open(upload)
    assert refused.value.code == 405
    refused.value.close()
    assert "Push of jhok/hub:2" in push(pull_url, [one | {"tag": "2"}])["msg"]

    # It tells how it is used, at an address of its own only.
    assert re.fullmatch(r"\d+ values", Registry(metrics, timeout=5).tells(metrics))
    with pytest.raises(ProbeError, match="404"):
        Registry(metrics, timeout=5).tells(pull_url.removeprefix("http://"))

    # A tag that moved is pushed again; a layout that is not the bundle's is told.
    shutil.rmtree(tmp_path / "layout")
    moved = make_layout(tmp_path / "layout", "jhok/hub:2") | {"tag": "1"}
    assert push(push_url, [moved])["pushed"] == ["jhok/hub:1"]
    result = push(push_url, [moved | {"digest": "sha256:" + "0" * 64}])
    assert result["failed"]
    assert "is not the bundle's" in result["msg"]


def test_registry_that_does_not_answer(push: Any) -> None:  # noqa: ANN401
    image = {"name": "jhok/hub", "tag": "1", "layout_ref": "jhok/hub:1", "digest": "sha256:" + "a" * 64}
    url = f"http://127.0.0.1:{free_port()}"
    assert push(url, [image], check=True)["pushed"] == ["jhok/hub:1"]
    result = push(url, [image], timeout=0)
    assert result["failed"]
    assert f"No answer from registry {url}" in result["msg"]
