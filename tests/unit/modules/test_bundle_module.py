"""The module as Ansible runs it: real files, a real HTTP server."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.jhok.lab.plugins.modules import bundle


class Server(http.server.ThreadingHTTPServer):
    """Serves a directory, keeps what was asked, and can break connections."""

    def __init__(self, root: Path) -> None:
        self.asked: list[str] = []
        self.break_next = 0
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Logs into the server and cuts answers short when told so."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.server.break_next:
            self.server.break_next -= 1
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"half")
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Stay quiet."""


class Site:
    """A mirror and a bundle, and the module that fills one from the other."""

    def __init__(self, root: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
        self.web, self.path = root / "web", root / "bundle"
        self.server = server
        self._capsys = capsys

    def serve(self, name: str, content: bytes) -> dict[str, Any]:
        """Put a file on the mirror and return its entry for ``files``."""
        (self.web / name).write_bytes(content)
        path = f"bin/{name}"
        url = f"{self.server.url}/{name}"
        sha256 = hashlib.sha256(content).hexdigest()
        return {"name": name, "path": path, "version": "1", "origin": "mirror", "url": url, "sha256": sha256}

    def __call__(self, *files: dict[str, Any], check: bool = False, **args: object) -> dict[str, Any]:
        given = {"path": str(self.path), "section": "site", "files": list(files), "_ansible_check_mode": check, **args}
        with patch_module_args(given), pytest.raises(SystemExit):
            bundle.main()
        result: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return result

    def tree(self) -> dict[str, bytes]:
        """Return path → content of all files of the bundle."""
        return {str(p.relative_to(self.path)): p.read_bytes() for p in self.path.rglob("*") if p.is_file()}


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(bundle.time, "sleep", lambda _seconds: None)
    (tmp_path / "web").mkdir()
    server = Server(tmp_path / "web")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Site(tmp_path, server, capsys)
    server.shutdown()
    server.server_close()
    thread.join()


def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def test_download_is_recorded_and_not_repeated(site: Site) -> None:
    wanted = site.serve("kubeadm", b"program")
    first = site(wanted)
    assert first["changed"]
    assert first["changes"] == ["bin/kubeadm"]
    assert (site.path / "bin/kubeadm").read_bytes() == b"program"
    assert (site.path / "bin/kubeadm").stat().st_mode & 0o777 == 0o755
    entry = json.loads((site.path / "manifest.json").read_text())["files"][0]
    assert entry["sha256"] == wanted["sha256"]
    assert first["diff"]["before"] == ""
    assert wanted["sha256"] in first["diff"]["after"]

    before, asked = site.tree(), list(site.server.asked)
    second = site(wanted)
    assert not second["changed"]
    assert second["manifest"] == first["manifest"]
    assert (site.tree(), site.server.asked) == (before, asked)


def test_check_mode_says_the_same_and_writes_nothing(site: Site) -> None:
    wanted = site.serve("kubeadm", b"program")
    result = site(wanted, check=True)
    assert (result["changed"], result["changes"]) == (True, ["bin/kubeadm"])
    assert not site.path.exists()
    assert site.server.asked == []
    site(wanted)
    assert not site(wanted, check=True)["changed"]
    before = site.tree()
    assert site(check=True)["changes"] == ["removed bin/kubeadm"]
    assert site.tree() == before


def test_altered_file_is_refused_and_leaves_nothing(site: Site) -> None:
    wanted = site.serve("kubeadm", b"program") | {"sha256": "0" * 64, "setting": "bundle_upstream_files_mirror"}
    result = site(wanted)
    assert result["failed"]
    assert wanted["url"] in result["msg"]
    assert "bundle_upstream_files_mirror" in result["msg"]
    assert "bin/kubeadm" not in site.tree()
    assert "manifest.json" not in site.tree()


def test_missing_file_names_url_and_setting(site: Site) -> None:
    wanted = site.serve("kubeadm", b"program") | {"url": f"{site.server.url}/v9/kubeadm", "setting": "some_mirror"}
    result = site(wanted)
    assert result["failed"]
    assert f"{site.server.url}/v9/kubeadm answered 404" in result["msg"]
    assert "some_mirror" in result["msg"]
    assert site.server.asked == ["/v9/kubeadm"], "a file that is not there is asked for once"


def test_published_sum_is_used_when_none_is_pinned(site: Site) -> None:
    wanted = site.serve("kubeadm", b"program")
    site.serve("kubeadm.sha256", wanted.pop("sha256").encode() + b"  kubeadm\n")
    assert site(wanted)["changed"]
    assert not site(wanted)["changed"]
    site.serve("kubelet.sha256", b"0" * 64)
    wrong = site.serve("kubelet", b"other")
    del wrong["sha256"]
    assert "expected 0000" in site(wrong)["msg"]


def test_broken_connection_is_tried_again(site: Site) -> None:
    wanted = site.serve("kubeadm", b"program")
    site.server.break_next = 2
    assert site(wanted)["changed"]
    assert (site.path / "bin/kubeadm").read_bytes() == b"program"
    assert len(site.server.asked) == 3


def test_interrupted_run_is_continued(site: Site) -> None:
    first, second = site.serve("kubeadm", b"one"), site.serve("kubelet", b"two")
    site.server.asked.clear()
    assert site(first, second | {"sha256": "0" * 64})["failed"]
    (site.path / ".partial").mkdir()
    (site.path / ".partial/file").write_bytes(b"half of a file")
    result = site(first, second)
    assert result["changes"] == ["bin/kubelet"]
    assert site.server.asked.count("/kubeadm") == 1
    assert not (site.path / ".partial").exists()


@pytest.mark.parametrize("damage", ["missing", "short", "no record"])
def test_damage_is_repaired(site: Site, damage: str) -> None:
    wanted = site.serve("kubeadm", b"program")
    manifest = site(wanted)["manifest"]
    if damage == "missing":
        (site.path / "bin/kubeadm").unlink()
    elif damage == "short":
        (site.path / "bin/kubeadm").write_bytes(b"pro")
    else:
        (site.path / "sources.json").write_text("{")
    result = site(wanted)
    assert (result["changes"], result["manifest"]) == (["bin/kubeadm"], manifest)
    assert (site.path / "bin/kubeadm").read_bytes() == b"program"


def test_members_of_one_archive_are_one_download(site: Site) -> None:
    tar = site.serve("cni.tgz", archive(bridge=b"b", portmap=b"p"))
    members = [tar | {"name": n, "path": f"cni/{n}", "archive_member": n} for n in ("bridge", "portmap")]
    site(*members)
    assert (site.path / "cni/bridge").read_bytes() == b"b"
    assert (site.path / "cni/portmap").read_bytes() == b"p"
    assert site.server.asked == ["/cni.tgz"]
    absent = tar | {"path": "cni/vlan", "archive_member": "vlan"}
    assert "holds no file vlan" in site(*members, absent)["msg"]


def test_sections_do_not_touch_each_other(site: Site) -> None:
    kubernetes = {"section": "kubernetes", "source": "upstream", "kubernetes_version": "v1.34.4"}
    site(site.serve("kubeadm", b"program"), **kubernetes)
    result = site(site.serve("helper", b"helper"))
    assert [entry["path"] for entry in result["manifest"]["files"]] == ["bin/helper", "bin/kubeadm"]
    assert result["manifest"]["kubernetes_version"] == "v1.34.4"
    result = site()
    assert result["changes"] == ["removed bin/helper"]
    assert not (site.path / "bin/helper").exists()
    assert (site.path / "bin/kubeadm").exists()
    assert "twice" in site(site.serve("kubeadm", b"program"))["msg"]


def test_local_file_is_followed(site: Site) -> None:
    source = site.web / "program"
    source.write_text("one")
    wanted = {"name": "p", "path": "bin/p", "version": "1", "origin": "here", "src": str(source)}
    assert site(wanted)["changed"]
    assert not site(wanted)["changed"]
    source.write_text("three")
    assert site(wanted)["changes"] == ["bin/p"]
    assert (site.path / "bin/p").read_text() == "three"


def test_verified(site: Site) -> None:
    assert "no bundle" in site(state="verified")["msg"]
    made = site(site.serve("kubeadm", b"program"))
    result = site(state="verified")
    assert (result["changed"], result["manifest"]) == (False, made["manifest"])
    (site.path / "bin/kubeadm").write_bytes(b"PROGRAM")
    result = site(state="verified")
    assert result["failed"]
    assert "bin/kubeadm: SHA-256 sum differs" in result["msg"]


def test_images_without_podman_and_skopeo(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    image = {"name": "jhok/hub", "tag": "1", "from": "localhost/jhok/hub:latest", "origin": "here"}
    result = site(images=[image], check=True)
    assert result["images"] == {"jhok/hub": "sha256:" + "0" * 64}
    assert "podman is missing" in site(images=[image])["msg"]
    image["from"] = "docker://127.0.0.1:9/hub:1"
    assert "skopeo is missing" in site(images=[image])["msg"]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"section": None}, "section"),
        ({"section": "kubernetes"}, "source"),
        ({"files": [{"name": "a", "path": "b", "version": "1", "origin": "c"}]}, "image, src, url"),
        (
            {"files": [{"name": "a", "path": "../b", "version": "1", "origin": "c", "src": "/dev/null"}]},
            "relative path",
        ),
    ],
)
def test_refused_parameters(site: Site, args: dict[str, Any], why: str) -> None:
    result = site(**args)
    assert result["failed"]
    assert why in result["msg"]


def test_documentation_is_valid() -> None:
    options = yaml.safe_load(bundle.DOCUMENTATION)["options"]
    assert {"path", "state", "section", "files", "images", "kubeadm_registry"} <= set(options)
    for task in yaml.safe_load(bundle.EXAMPLES):
        assert set(task["jhok.lab.bundle"]) <= set(options)
