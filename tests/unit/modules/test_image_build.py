"""Module image_build as Ansible runs it, up to where a build would start (that is in tests/integration)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.jhok.lab.plugins.modules import image_build, image_info

ROOTFS = "suite: trixie\nvariant: minbase\ninclude: [tini]\n"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the module, in check mode unless told otherwise, and return what it says."""

    def run_module(check: bool = True, **params: object) -> dict[str, Any]:
        with patch_module_args({**params, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            image_build.main()
        return json.loads(capsys.readouterr().out)

    return run_module


@pytest.fixture(autouse=True)
def no_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which neither podman nor anything else is installed."""
    monkeypatch.setenv("PATH", str(tmp_path / "none"))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two images: `jhoktest-app` is built from `jhoktest-base`."""
    for name, file, text in (
        ("jhoktest-base", "rootfs.yml", ROOTFS),
        ("jhoktest-app", "Containerfile", "FROM localhost/jhok/jhoktest-base\nCOPY data /\n"),
        ("jhoktest-app", "data", "1\n"),
    ):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / file).write_text(text)
    return tmp_path


def key_of(run: Run, folders: Path, **params: object) -> str:
    return str(run(name="jhoktest-app", folder=str(folders / "jhoktest-app"), **params)["key"])


def test_check_mode_on_a_bare_machine_says_changed(run: Run, folders: Path) -> None:
    result = run(name="jhoktest-app", folder=str(folders / "jhoktest-app"))
    assert result["changed"] is True
    assert result["image"] == f"localhost/jhok/jhoktest-app:{result['key']}"
    assert result["image_id"] == ""
    assert result["seconds"] == 0
    assert result["diff"]["before"] == "localhost/jhok/jhoktest-app:latest: none\n"
    assert result["diff"]["after"] == f"localhost/jhok/jhoktest-app:latest: {result['key']}\n"


def test_without_podman_it_says_what_to_install(run: Run, folders: Path) -> None:
    result = run(check=False, name="jhoktest-app", folder=str(folders / "jhoktest-app"))
    assert result["failed"] is True
    expected = "podman, mmdebstrap not found" if os.geteuid() == 0 else "must run as root"
    assert expected in result["msg"]


def test_key_follows_the_folder_and_what_it_is_built_from(run: Run, folders: Path) -> None:
    first = key_of(run, folders)
    assert key_of(run, folders) == first
    (folders / "jhoktest-app" / "__pycache__").mkdir()
    (folders / "jhoktest-app" / "__pycache__" / "x.pyc").write_text("")
    assert key_of(run, folders) == first
    keys = {
        first,
        key_of(run, folders, epoch="2"),
        key_of(run, folders, target="x"),
        key_of(run, folders, build_args={"A": 1}),
    }
    (folders / "jhoktest-base" / "rootfs.yml").write_text(ROOTFS + "# changed\n")
    keys.add(key_of(run, folders))
    (folders / "jhoktest-app" / "data").chmod(0o755)
    keys.add(key_of(run, folders))
    (folders / "jhoktest-app" / "data").unlink()
    (folders / "jhoktest-app" / "data").symlink_to("/etc/hostname")
    keys.add(key_of(run, folders))
    assert len(keys) == 7


def test_key_follows_the_files_that_the_build_is_given(
    run: Run, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "a package.deb"
    package.write_text("one")
    image = {"name": "jhoktest-app", "folder": str(folders / "jhoktest-app"), "inputs": {"package": str(package)}}
    one = run(**image)["key"]
    assert one != key_of(run, folders)
    with patch_module_args({"images": [image]}), pytest.raises(SystemExit):
        image_info.main()
    assert json.loads(capsys.readouterr().out)["images"][0]["key"] == one
    package.write_text("two")
    assert run(**image)["key"] != one
    package.unlink()
    assert run(**image)["msg"].startswith(f"inputs.package: {package}: No such file or directory.")
    with patch_module_args({"images": [image | {"setting": "lab_package"}]}), pytest.raises(SystemExit):
        image_info.main()
    said = json.loads(capsys.readouterr().out)["msg"]
    assert said == f"lab_package: {package}: No such file or directory. Give a file on the control machine."
    assert "takes no path with a colon" in run(**(image | {"inputs": {"package": "/srv/a:b"}}))["msg"]
    assert "'Package' is not a name" in run(**(image | {"inputs": {"Package": str(package)}}))["msg"]


def test_mirrors_and_certificates_are_no_part_of_the_key(run: Run, folders: Path) -> None:
    assert key_of(run, folders) == key_of(
        run, folders, mirrors={"debian": "http://m.example.org/debian"}, ca_file="/none"
    )


def test_an_image_of_another_directory_builds_on_those_of_the_base_directory(
    run: Run, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "inventory" / "jhoktest-app"
    own.parent.mkdir()
    (folders / "jhoktest-app").rename(own)
    image = {"name": "jhoktest-app", "folder": str(own)}
    assert "has no folder of its own" in run(**image)["msg"]
    key = run(**image, base_dir=str(folders))["key"]
    with patch_module_args({"images": [image], "base_dir": str(folders)}), pytest.raises(SystemExit):
        image_info.main()
    assert json.loads(capsys.readouterr().out)["images"][0]["key"] == key
    (folders / "jhoktest-base" / "rootfs.yml").write_text(ROOTFS.replace("tini", "tmux"))
    assert run(**image, base_dir=str(folders))["key"] != key


@pytest.mark.parametrize(
    ("name", "folder", "says"),
    [
        ("Upper", "jhoktest-base", "name: 'Upper' is not an image name"),
        ("x", "absent", "absent: must hold either rootfs.yml or Containerfile; it holds none"),
        ("x", "both", "both: must hold either rootfs.yml or Containerfile; it holds ['rootfs.yml', 'Containerfile']"),
        ("x", "orphan", "orphan/Containerfile: names localhost/jhok/nobody, which has no folder of its own at"),
        ("x", "own", "own/Containerfile: names localhost/jhok/own, which has no folder of its own"),
    ],
)
def test_what_cannot_be_built_is_refused_in_check_mode_too(
    run: Run, folders: Path, name: str, folder: str, says: str
) -> None:
    for path, text in (
        ("both/rootfs.yml", ROOTFS),
        ("both/Containerfile", "FROM scratch\n"),
        ("orphan/Containerfile", "FROM localhost/jhok/nobody\n"),
        ("own/Containerfile", "FROM localhost/jhok/own\n"),
    ):
        (folders / path).parent.mkdir(exist_ok=True)
        (folders / path).write_text(text)
    result = run(name=name, folder=str(folders / folder))
    assert result["failed"] is True
    assert says in result["msg"]


def test_a_login_in_a_mirror_is_not_repeated(run: Run, folders: Path) -> None:
    mirrors = {"pypi": "https://u:s3cret@m.example.org/simple"}
    result = run(name="jhoktest-app", folder=str(folders / "jhoktest-app"), mirrors=mirrors)
    assert "s3cret" not in json.dumps(result)


def test_image_info_gives_the_key_of_the_build(folders: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"name": "jhoktest-app", "folder": str(folders / "jhoktest-app"), "target": "x"}
    with patch_module_args({"images": [asked], "epoch": "2"}), pytest.raises(SystemExit):
        image_info.main()
    result = json.loads(capsys.readouterr().out)
    key = key_of(run, folders, target="x", epoch="2")
    image = f"localhost/jhok/jhoktest-app:{key}"
    assert result["images"] == [{"name": "jhoktest-app", "image": image, "key": key, "present": False}]


def test_image_info_refuses_a_folder_that_gives_no_image(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        patch_module_args({"images": [{"name": "x", "folder": str(folders / "absent")}]}),
        pytest.raises(SystemExit),
    ):
        image_info.main()
    assert "must hold either rootfs.yml or Containerfile" in json.loads(capsys.readouterr().out)["msg"]


def test_documentation_names_every_option() -> None:
    documented = yaml.safe_load(image_build.DOCUMENTATION)["options"]
    assert set(documented) == {
        "name", "folder", "base_dir", "target", "build_args", "inputs", "epoch", "mirrors", "ca_file", "log_dir",
        "state",
    }  # fmt: skip
    assert set(documented["mirrors"]["suboptions"]) == set(image_build.MIRROR_KEYS)
    for task in yaml.safe_load(image_build.EXAMPLES):
        assert set(task["jhok.lab.image_build"]) <= set(documented)


@pytest.mark.parametrize(
    ("mirror", "expected"), [("", "https://a.example.org,off"), ("https://m.example.org", "https://m.example.org")]
)
def test_a_machine_without_go_says_in_its_environment_how_modules_are_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mirror: str, expected: str
) -> None:
    for name in image_build.images.GO_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GOPROXY", "https://a.example.org,off")
    monkeypatch.setenv("GONOSUMDB", "example.org")
    assert image_build.go_settings(mirror) == {"GOPROXY": expected, "GONOSUMDB": "example.org"}
