"""The user guide's shell commands, run in the image of users' servers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.guide import commands

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/jhok/singleuser:latest"


def run_in_image(blocks: list[str]) -> subprocess.CompletedProcess[str]:
    """Run blocks in a new container, in an empty home, as the user of the image."""
    podman = shutil.which("podman")
    if not podman:
        pytest.fail("podman is not installed: apt-get install podman.", pytrace=False)
    if subprocess.run([podman, "image", "exists", IMAGE], check=False).returncode:
        pytest.fail(f"There is no image {IMAGE}: let role images build it (make integration does).", pytrace=False)
    # crun refuses some machines' cgroup layout; the other runtime does on all.
    runtime = ["--runtime", "runc"] if shutil.which("runc") else []
    options = ["--network=none", "--cap-drop=all", "--security-opt=no-new-privileges", "--pids-limit=0"]
    options += ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
    options += ["--mount=type=tmpfs,destination=/home/ann,tmpfs-mode=0777", "--env=HOME=/home/ann"]
    options += [f"--volume={ROOT}/tests/lab/guide_check.py:/guide_check.py:ro", "--entrypoint=python3"]
    return subprocess.run(
        [podman, *runtime, "run", "--rm", "-i", *options, IMAGE, "/guide_check.py"],
        input=json.dumps(blocks),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_guides_commands_work_for_a_new_user() -> None:
    blocks = commands((ROOT / "docs/user-guide/guide.en.md").read_text())
    done = run_in_image(blocks)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * len(blocks)} of {2 * len(blocks)} passed" in done.stdout


def test_a_command_that_fails_is_seen() -> None:
    done = run_in_image(["echo fine", "cd /nowhere\necho never"])
    assert done.returncode == 1
    assert "2 of 4 passed" in done.stdout
    assert "never: exit status" in done.stdout
