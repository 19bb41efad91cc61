#!/usr/bin/python
"""Ansible module jhok.lab.image_build: build a container image from a folder, when its inputs have changed."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_build
short_description: Build a container image from a folder of this collection
version_added: 0.1.0
author: The jhok.lab authors (@jhok)
description:
  - Builds C(localhost/jhok/<name>:<key>) with podman on the control machine and tags it C(latest). The key is the hash
    of all that goes into the image; an image whose key exists is not built again.
  - A folder holds either C(rootfs.yml) (C(suite), C(variant), C(include); made by mmdebstrap) or a C(Containerfile).
  - Images C(localhost/jhok/<folder>) that a Containerfile names are built first, from the folder's neighbours or from
    O(base_dir).
  - Mirrors, proxies, logins and CA certificates come from the machine's own configuration of apt, pip, npm, Go and the
    environment. A build sees them in C(/run/build) only; none of them becomes part of an image, its history or a log.
requirements:
  - root
  - podman
  - mmdebstrap
options:
  name:
    description: Name of the image below C(localhost/jhok/).
    type: str
    required: true
  folder:
    description: The folder that the image is built from; also the context of the build.
    type: path
    required: true
  base_dir:
    description: Directory of the images that this one is built from and that are not beside its folder.
    type: path
  target:
    description: Stage of the Containerfile to build; the last one when not given.
    type: str
    default: ""
  build_args:
    description: Values for the Containerfile's C(ARG) lines. They are visible in the image's history, so no secrets.
    type: dict
    default: {}
  inputs:
    description:
      - Files of this machine that the build finds as C(/run/build/inputs/<name>), by name, for what is in no registry.
      - The SHA-256 sum of each is a build argument of its name. The Containerfile has to declare it (C(ARG <name>))
        above the step that reads the file, so that another file is another step.
    type: dict
    default: {}
  epoch:
    description: Free text, part of the key of this image and all it is built from. Change it to rebuild with the
      newest packages.
    type: str
    default: ""
  mirrors:
    description: Addresses to use instead of what the machine's configuration says. They may hold a login.
    type: dict
    default: {}
    suboptions:
      debian:
        description: Debian's archive.
        type: str
      debian_security:
        description: Debian's security archive.
        type: str
      pypi:
        description: Python package index (the "simple" address).
        type: str
      npm:
        description: npm registry.
        type: str
      go:
        description: Go module proxy, in the form of E(GOPROXY).
        type: str
  ca_file:
    description: Bundle of the CA certificates that downloads are checked with. Empty means the default.
    type: path
    default: /etc/ssl/certs/ca-certificates.crt
  log_dir:
    description: Directory of the build logs, C(<name>-<key>.log). Default C(log) in E(JHOK_CACHE_DIR), which defaults
      to C(~/.cache/jhok-lab).
    type: path
  state:
    description: The image is there.
    type: str
    choices: [present]
    default: present
attributes:
  check_mode:
    description: Says C(changed) when the image would be built; needs neither podman nor root.
    support: full
  diff_mode:
    description: Shows the image's key before and after.
    support: full
"""

EXAMPLES = r"""
- name: Build the hub's image
  jhok.lab.image_build:
    name: hub
    folder: images/hub
  become: true
  register: hub

- name: Build one stage, from a mirror of our own
  jhok.lab.image_build:
    name: kubernetes-1.37/kube-apiserver
    folder: images/kubernetes
    target: kube-apiserver
    build_args: {minor: "1.37"}
    epoch: "2026-11"
    mirrors:
      debian: http://mirror.example.org/debian
      debian_security: http://mirror.example.org/debian-security
  become: true
"""

RETURN = r"""
image:
  description: Reference of the image in the storage of root's podman.
  type: str
  returned: always
  sample: localhost/jhok/hub:0f3b5c8d9e21a764
key:
  description: Hash of all that goes into the image.
  type: str
  returned: always
  sample: 0f3b5c8d9e21a764
image_id:
  description: The image's id; empty in check mode when it is not built yet.
  type: str
  returned: always
seconds:
  description: How long building took, with the images it is built from; 0 when nothing was built.
  type: float
  returned: always
log:
  description: Path of the build's log.
  type: str
  returned: when the image was built
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.jhok.lab.plugins.module_utils import image_folders, images
from ansible_collections.jhok.lab.plugins.module_utils.image_folders import output_of, read_text

# One build at a time on a machine. Root's alone, and gone with a reboot, since logins may lie in it during a build.
BUILD_DIR = Path("/run/jhok-build")
LOCK = Path("/run/lock/jhok-image-build.lock")
LOG_TAIL = 40
CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
MIRROR_KEYS = ("debian", "debian_security", "pypi", "npm", "go")


class BuildFailedError(Exception):
    """A build's command failed."""

    def __init__(self, message: str, log: Path) -> None:
        super().__init__(message)
        self.log = log


def machine_settings(mirrors: Mapping[str, str | None]) -> images.Settings:
    """Return how this machine reaches its mirrors; `mirrors` wins over what the machine's configuration says."""
    indextargets = output_of(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"])
    debian, security = images.debian_mirrors(indextargets, read_text)
    if mirrors.get("debian"):
        security = ""
    pip_list = output_of([sys.executable, "-m", "pip", "config", "list"]) or output_of(["pip3", "config", "list"])
    pip = images.pip_options(pip_list)
    pypi = pip.get("index-url") or os.environ.get("PIP_INDEX_URL", "")
    npmrc = Path(os.environ.get("NPM_CONFIG_USERCONFIG", "~/.npmrc")).expanduser()
    npm_lines = [os.path.expandvars(line.strip()) for line in read_text(npmrc).splitlines()]
    npm = output_of(["npm", "config", "get", "registry"]).strip() or os.environ.get("NPM_CONFIG_REGISTRY", "")
    for line in npm_lines:
        if not npm and line.startswith("registry"):
            npm = line.partition("=")[2].strip()
    go = go_settings(mirrors.get("go") or "")
    auth_files = [Path("/etc/apt/auth.conf"), *sorted(Path("/etc/apt/auth.conf.d").glob("*.conf"))]
    proxies = {}
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        value = os.environ.get(name) or os.environ.get(name.upper())
        if value:
            proxies[name] = value
    return images.Settings(
        debian=mirrors.get("debian") or debian,
        debian_security=mirrors.get("debian_security") or security,
        # An index or registry in files of this machine is of no use inside a build.
        pypi=mirrors.get("pypi") or (pypi if pypi.startswith("http") else ""),
        npm=mirrors.get("npm") or (npm if npm.startswith("http") else ""),
        apt_options=images.apt_options(output_of(["apt-config", "dump"])),
        apt_auth="\n".join(read_text(path) for path in auth_files),
        pip_timeout=pip.get("timeout") or pip.get("default-timeout", ""),
        trusted_hosts=pip.get("trusted-host", ""),
        npm_auth=[line for line in npm_lines if line.startswith("//")],
        proxies=proxies,
        go=go,
    )


def go_settings(mirror: str) -> dict[str, str]:
    """Return the go command's settings on this machine; `mirror`, when given, is the proxy to use."""
    try:
        known = json.loads(output_of(["go", "env", "-json", *images.GO_SETTINGS]))
    except ValueError:  # no Go here: what it would be told
        known = {name: os.environ.get(name, "") for name in images.GO_SETTINGS}
    known["GOPROXY"] = images.go_proxies(mirror or known["GOPROXY"])
    return {name: value for name, value in known.items() if value}


class Builder:
    """Builds images in the storage of root's podman."""

    def __init__(self, module: AnsibleModule, log_dir: Path) -> None:
        self.module = module
        self.log_dir = log_dir
        self.epoch: str = module.params["epoch"]
        base_dir = module.params["base_dir"]
        self.base = Path(base_dir).resolve() if base_dir else None
        self.ca_file = Path(module.params["ca_file"] or CA_FILE)
        unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        self.podman = images.podman_command(unified, shutil.which("runc") is not None)
        self.log: Path | None = None
        self._lock_fd: int | None = None
        self._settings: images.Settings | None = None

    # -- building

    def ensure(
        self,
        name: str,
        folder: Path,
        target: str = "",
        build_args: Mapping[str, str] | None = None,
        inputs: Mapping[str, str] | None = None,
    ) -> None:
        """Build the image, and first those it is built from, when it is not there; tag it latest."""
        key = image_folders.content_key(folder, self.epoch, target, build_args, self.base)
        tagged, latest = images.reference(name, key), images.reference(name, "latest")
        image_id, tags = image_folders.find(tagged)
        if latest in tags:
            return
        if not image_id:
            containerfile = image_folders.containerfile(folder, self.base)
            for parent in images.parents(containerfile):
                self.ensure(parent, image_folders.parent_folder(folder, parent, self.base))
            self.log = self.log_dir / f"{name.replace('/', '-')}-{key}.log"
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.log.unlink(missing_ok=True)
            if containerfile:
                self._build(name, key, folder, containerfile, target, build_args or {}, inputs or {})
            else:
                self._make_rootfs(name, key, folder)
        self._run(["podman", "tag", tagged, latest])

    def _make_rootfs(self, name: str, key: str, folder: Path) -> None:
        path = folder / "rootfs.yml"
        rootfs = images.check_rootfs(yaml.safe_load(read_text(path)), str(path))
        settings = self._settings_of_machine()
        if settings.debian and not settings.debian_security:
            self.module.warn(
                f"no Debian security mirror is known, so {name} lacks security updates: set mirrors.debian_security"
            )
        with self._build_dir(str(BUILD_DIR)), tempfile.TemporaryDirectory(prefix="jhok-", dir="/var/tmp") as scratch:
            tar = f"{scratch}/rootfs.tar"
            self._run(images.mmdebstrap_command(rootfs, settings, str(BUILD_DIR), tar), TMPDIR=scratch)
            self._run(images.import_command(name, key, tar))

    def _build(
        self,
        name: str,
        key: str,
        folder: Path,
        containerfile: str,
        target: str,
        build_args: Mapping[str, str],
        inputs: Mapping[str, str],
    ) -> None:
        keys = image_folders.parent_keys(folder, self.epoch, self.base)
        with self._build_dir(images.BUILD_MOUNT):
            (BUILD_DIR / images.INPUTS).mkdir()
            for given in inputs:  # what the files are mounted over
                (BUILD_DIR / images.INPUTS / given).touch()
            pinned = BUILD_DIR / "Containerfile"
            pinned.write_text(images.pin_parents(containerfile, keys), encoding="utf-8")
            self._run(
                images.build_command(
                    self.podman,
                    name,
                    key,
                    folder=str(folder),
                    containerfile=str(pinned),
                    target=target,
                    build_args=build_args,
                    inputs=inputs,
                    build_dir=str(BUILD_DIR),
                )
            )

    def _settings_of_machine(self) -> images.Settings:
        if self._settings is None:
            self._settings = machine_settings(self.module.params["mirrors"])
        return self._settings

    @contextlib.contextmanager
    def _build_dir(self, mount: str) -> Iterator[None]:
        """Hold the directory with the machine's settings while a build runs. `mount`: the path it is seen at."""
        if not self.ca_file.is_file():
            raise images.ImageError(
                f"ca_file: {self.ca_file} does not exist; install ca-certificates or name another file"
            )
        shutil.rmtree(BUILD_DIR, ignore_errors=True)  # of a run that was killed
        BUILD_DIR.mkdir(mode=0o700)
        try:
            shutil.copyfile(self.ca_file, BUILD_DIR / "ca.crt")
            for name, text in images.build_files(self._settings_of_machine(), mount).items():
                (BUILD_DIR / name).write_text(text, encoding="utf-8")
            yield
        finally:
            shutil.rmtree(BUILD_DIR, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Wait until no other build runs on this machine.

        A command inherits the lock, so that one which outlives a killed run is waited for as well.
        """
        with LOCK.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._lock_fd = file.fileno()
            yield

    def _run(self, command: Sequence[str], **environment: str) -> None:
        """Run `command`, its redacted output going to the log; raise BuildFailedError when it fails."""
        log = self.log or Path(os.devnull)
        hidden = images.secrets(self._settings_of_machine())
        with log.open("a", encoding="utf-8") as out:
            out.write(images.redact(f"+ {' '.join(command)}\n", hidden))
            with subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env={**os.environ, **environment},
                pass_fds=[] if self._lock_fd is None else [self._lock_fd],
            ) as process:
                for line in process.stdout or ():
                    out.write(images.redact(line, hidden))
        if process.returncode:
            tail = "".join(read_text(log).splitlines(keepends=True)[-LOG_TAIL:])
            raise BuildFailedError(
                f"{command[0]} failed with exit status {process.returncode}. Full log: {log}\nIts last lines:\n{tail}",
                log,
            )


def check_tools(module: AnsibleModule) -> None:
    """Fail when this machine cannot build, saying what to do."""
    if os.geteuid() != 0:
        module.fail_json(msg="image_build must run as root (mmdebstrap, podman): set become: true on the task")
    missing = [tool for tool in ("podman", "mmdebstrap") if not shutil.which(tool)]
    if missing:
        module.fail_json(msg=f"{', '.join(missing)} not found; install it with apt, or run role jhok.lab.images")


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do what the module's parameters ask for and return its result."""
    params = module.params
    name = images.check_name(params["name"])
    folder = Path(params["folder"]).resolve()
    inputs = {str(key): str(Path(value).resolve()) for key, value in params["inputs"].items()}
    build_args = {str(key): str(value) for key, value in params["build_args"].items()}
    build_args |= image_folders.input_sums(inputs)
    cache = Path(os.environ.get("JHOK_CACHE_DIR", "~/.cache/jhok-lab")).expanduser()
    builder = Builder(module, Path(params["log_dir"] or cache / "log"))
    key = image_folders.content_key(folder, builder.epoch, params["target"], build_args, builder.base)
    tagged, latest = images.reference(name, key), images.reference(name, "latest")
    image_id, tags = image_folders.find(tagged)
    result: dict[str, Any] = {"image": tagged, "key": key, "image_id": image_id, "seconds": 0.0}
    result["changed"] = latest not in tags
    if result["changed"]:
        label = f'{{{{index .Labels "{images.KEY_LABEL}"}}}}'
        before = output_of(["podman", "image", "inspect", "--format", label, latest]).strip()
        result["diff"] = {"before": f"{latest}: {before or 'none'}\n", "after": f"{latest}: {key}\n"}
    if result["changed"] and not module.check_mode:
        check_tools(module)
        with builder.lock():
            start = time.monotonic()
            builder.ensure(name, folder, params["target"], build_args, inputs)
        if builder.log:
            result.update(seconds=round(time.monotonic() - start, 1), log=str(builder.log))
        result["image_id"] = image_folders.find(tagged)[0]
    return result


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "folder": {"type": "path", "required": True},
            "base_dir": {"type": "path"},
            "target": {"type": "str", "default": ""},
            "build_args": {"type": "dict", "default": {}},
            "inputs": {"type": "dict", "default": {}},
            "epoch": {"type": "str", "default": ""},
            "mirrors": {
                "type": "dict",
                "default": {},
                "options": {key: {"type": "str", "no_log": True} for key in MIRROR_KEYS},
            },
            "ca_file": {"type": "path", "default": CA_FILE},
            "log_dir": {"type": "path"},
            "state": {"type": "str", "choices": ["present"], "default": "present"},
        },
        supports_check_mode=True,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the files with logins are removed
    try:
        result = run(module)
    except images.ImageError as error:
        module.fail_json(msg=str(error))
    except BuildFailedError as error:
        module.fail_json(msg=str(error), log=str(error.log))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
