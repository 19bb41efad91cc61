"""Module image_build with real podman and mmdebstrap, and what the images that are shipped can do.

Run as root. The first run builds what is not built yet (minutes); later ones take seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.jhok.lab.plugins.module_utils import image_folders, images
from ansible_collections.jhok.lab.plugins.modules import image_build

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

FOLDERS = Path(__file__).parents[2] / "images"
PODMAN = images.podman_command(Path("/sys/fs/cgroup/cgroup.controllers").exists(), shutil.which("runc") is not None)
LIMITS = ["--ulimit=nofile=16384:16384", "--ulimit=nproc=32768:32768", "--pids-limit=0"]


def podman(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PODMAN, *arguments], capture_output=True, text=True, check=check, timeout=300)


class Build:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, name: str, folder: Path, **params: object) -> dict[str, Any]:
        arguments = {"name": name, "folder": str(folder), **params}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            image_build.main()
        result: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return result


@pytest.fixture
def build(capsys: pytest.CaptureFixture[str]) -> Build:
    return Build(capsys)


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    """A folder of images of our own on top of the real base; what is built from them is removed afterwards."""
    shutil.copytree(FOLDERS / "debian-trixie", tmp_path / "debian-trixie")
    yield tmp_path
    listed = podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    ours = [item for item in listed if "/jhoktest-" in item]
    if ours:
        podman("image", "rm", *ours)


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_build_once_with_parents_then_again_when_something_changes(build: Build, folders: Path) -> None:
    write(folders / "jhoktest-base", Containerfile="FROM localhost/jhok/debian-trixie\nRUN echo 1 > /value\n")
    app = write(folders / "jhoktest-app", Containerfile="FROM localhost/jhok/jhoktest-base\nRUN cat /value\n")
    logs = folders / "log"

    first = build("jhoktest-app", app, log_dir=str(logs))
    assert first["changed"] is True, first
    shown = podman("image", "inspect", "--format", "{{.Id}} {{.Labels}}", "localhost/jhok/jhoktest-app").stdout
    assert shown.startswith(first["image_id"])
    assert f"jhok.lab/key:{first['key']}" in shown
    assert "localhost/jhok/jhoktest-app:latest" in image_folders.present()[first["image"]][1]
    again = build("jhoktest-app", app, log_dir=str(logs))
    assert (again["changed"], again["image_id"], again["seconds"]) == (False, first["image_id"], 0)

    write(folders / "jhoktest-base", Containerfile="FROM localhost/jhok/debian-trixie\nRUN echo 2 > /value\n")
    second = build("jhoktest-app", app, log_dir=str(logs))
    assert second["changed"] is True
    assert second["key"] != first["key"]
    assert "2" in (logs / f"jhoktest-app-{second['key']}.log").read_text().splitlines()

    write(folders / "jhoktest-base", Containerfile="FROM localhost/jhok/debian-trixie\nRUN echo 1 > /value\n")
    back = build("jhoktest-app", app, log_dir=str(logs))
    assert (back["changed"], back["image_id"]) == (True, first["image_id"])  # only the tag "latest" moved


def test_failure_shows_the_end_of_the_log_and_leaves_nothing(build: Build, folders: Path) -> None:
    text = "FROM localhost/jhok/debian-trixie\nRUN for i in $(seq 100); do echo line $i; done; exit 3\n"
    result = build("jhoktest-bad", write(folders / "jhoktest-bad", Containerfile=text), log_dir=str(folders / "log"))
    assert result["failed"] is True
    assert "line 100\n" in result["msg"]
    assert "line 40\n" not in result["msg"]
    assert "line 40\n" in Path(result["log"]).read_text()
    assert f"Full log: {result['log']}" in result["msg"]
    assert not image_build.BUILD_DIR.exists()
    assert podman("image", "exists", "localhost/jhok/jhoktest-bad", check=False).returncode == 1


def test_logins_reach_the_build_and_nothing_else(build: Build, folders: Path) -> None:
    text = (
        "FROM localhost/jhok/debian-trixie\n"
        'RUN . /run/build/env && test "$(stat -c %a /run/build)" = 700 '
        '&& echo "index $UV_DEFAULT_INDEX" && ! touch /run/build/x\n'
    )
    app = write(folders / "jhoktest-login", Containerfile=text)
    mirrors = {"pypi": "https://u:s3cret@mirror.example.org/simple"}
    result = build("jhoktest-login", app, mirrors=mirrors, log_dir=str(folders / "log"))
    assert result["changed"] is True, result
    log = Path(result["log"]).read_text()
    assert "index https://***@mirror.example.org/simple" in log
    inspected = podman("image", "inspect", result["image"]).stdout
    archive = folders / "image.tar"
    podman("save", "--quiet", "--output", str(archive), result["image"])
    assert "s3cret" not in log + inspected + podman("history", "--no-trunc", result["image"]).stdout
    assert b"s3cret" not in archive.read_bytes()
    assert not image_build.BUILD_DIR.exists()


# ---------------------------------------------------------------------------------------------- what is shipped


def inside(image: str, *command: str, options: tuple[str, ...] = (), check: bool = True) -> str:
    """Run `command` in `image` as the cluster does: no rights, no network, the root file system read-only."""
    arguments = ["--rm", "--network=none", "--read-only", "--cap-drop=all", "--security-opt=no-new-privileges"]
    result = podman("run", *LIMITS, *arguments, *options, image, *command, check=False)
    assert not check or result.returncode == 0, result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def shipped() -> dict[str, str]:
    """The references of the images of hub, proxy and user, built when they are not there."""
    references = {}
    code = (
        "import json, sys; from ansible.module_utils.testing import patch_module_args\n"
        f"from {image_build.__name__} import main\n"
        "with patch_module_args(json.load(sys.stdin)): main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(FOLDERS.parent / "collections")}
    for name in ("hub", "proxy", "singleuser"):
        params = json.dumps({"name": name, "folder": str(FOLDERS / name)})
        done = subprocess.run(
            [sys.executable, "-c", code], input=params, capture_output=True, text=True, check=False, env=environment
        )
        result = json.loads(done.stdout)
        assert "image" in result, result
        references[name] = result["image"]
    return references


@pytest.mark.parametrize("name", ["hub", "proxy", "singleuser"])
def test_no_program_gains_rights(shipped: dict[str, str], name: str) -> None:
    find = ["/", "-xdev", "-type", "f", "-perm", "/6000"]
    found = podman("run", "--rm", "--network=none", "--user=0", *LIMITS, "--entrypoint=find", shipped[name], *find)
    assert found.stdout == ""


def test_hub_runs_read_only(shipped: dict[str, str]) -> None:
    options = ("--tmpfs=/tmp", "--volume=/srv/jupyterhub")
    version = inside(shipped["hub"], "jupyterhub", "--version", options=options).strip()
    assert version.startswith("6.")
    inside(
        shipped["hub"], "python", "-c", "import kubespawner, oauthenticator, jupyterhub_idle_culler", options=options
    )
    who = inside(shipped["hub"], "sh", "-c", "id -u; pwd; touch x && ls", options=options)
    assert who.split() == ["1000", "/srv/jupyterhub", "x"]


def test_proxy_runs_read_only(shipped: dict[str, str]) -> None:
    assert inside(shipped["proxy"], "configurable-http-proxy", "--version").strip() == "5.3.0"
    assert inside(shipped["proxy"], "id", "-u").strip() == "65534"


HOME = (
    "--user=4242:4242",
    "--passwd=false",
    "--tmpfs=/home/ada:mode=0777,exec",
    "--tmpfs=/tmp",
    "--env=HOME=/home/ada",
    "--env=NB_USER=ada",
)


def test_user_server_runs_as_any_number_read_only(shipped: dict[str, str]) -> None:
    hub = inside(shipped["hub"], "jupyterhub", "--version").strip()
    assert inside(shipped["singleuser"], "jupyterhub-singleuser", "--version", options=HOME).strip() == hub
    assert inside(shipped["singleuser"], "sh", "-c", "id -u; pwd", options=HOME).split() == ["4242", "/home/ada"]


def test_user_has_a_name_where_the_root_file_system_can_be_written(shipped: dict[str, str]) -> None:
    assert inside(shipped["singleuser"], "whoami", options=(*HOME, "--read-only=false")).strip() == "ada"


def test_a_missing_home_is_named(shipped: dict[str, str]) -> None:
    said = inside(shipped["singleuser"], options=("--user=4242:4242", "--env=HOME=/home/nobody"), check=False)
    assert "the home /home/nobody is not there or not writable for uid 4242" in said


def test_a_kernel_runs_in_the_users_python(shipped: dict[str, str]) -> None:
    code = (
        "from jupyter_client.manager import start_new_kernel\n"
        "manager, client = start_new_kernel(kernel_name='python3')\n"
        "client.execute_interactive('import sys, ipywidgets; print(7, sys.prefix)')\n"
        "manager.shutdown_kernel(now=True)\n"
    )
    assert "7 /usr\n" in inside(shipped["singleuser"], "/opt/jupyter/bin/python", "-c", code, options=HOME)


def test_a_users_package_serves_the_user_and_cannot_break_the_server(shipped: dict[str, str]) -> None:
    script = (
        "set -e; site=$HOME/.local/lib/python3.13/site-packages; mkdir -p $site\n"
        'python -c "import site; print(site.ENABLE_USER_SITE)"; pip --version >/dev/null\n'
        # As bad as a package of the user can be: it replaces what the server imports, and runs at start.
        'for name in tornado jupyter_server traitlets; do echo "raise SystemExit(9)" > $site/$name.py; done\n'
        'echo "raise SystemExit(9)" > $site/sitecustomize.py; echo "raise SystemExit(9)" > $site/usercustomize.py\n'
        "echo value = 7 > $site/mine.py; mkdir -p $HOME/.local/bin\n"
        "for name in jupyterhub-singleuser jupyter; do printf '#!/bin/sh\\nexit 9\\n' > $HOME/.local/bin/$name; done\n"
        "chmod 755 $HOME/.local/bin/*\n"
        "jupyterhub-singleuser --version; rm $site/usercustomize.py $site/sitecustomize.py\n"
        'python -c "import mine; print(mine.value, mine.__file__)"\n'
    )
    said = inside(shipped["singleuser"], "sh", "-c", script, options=HOME).splitlines()
    assert said[0] == "True"
    assert said[1].startswith("6.")
    assert said[2] == "7 /home/ada/.local/lib/python3.13/site-packages/mine.py"
