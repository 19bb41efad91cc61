#!/usr/bin/python
"""Ansible module benchmark_home: how much slower a home on NFS is than the disk of the machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_home
short_description: Measures what people do in their homes, and the same on the disk of the server's machine
version_added: 0.1.0
description:
  - Starts a server and does in it, in the home and in C(/tmp) by turns, what people do. 200 MB are written and read,
    10,000 small files made, listed, read and removed, a git repository of 2,000 files cloned, and a package of 1,000
    files installed by pip.
  - What is read has just been written, so the memory of the machine may hold it, as it does for people.
  - Removes the server and the user's record at the end. The home directory on the NFS server is not its business.
extends_documentation_fragment: [jhok.lab.hub, jhok.lab.hub.visitor]
options:
  rounds:
    description: How often each is done, in both places.
    type: int
    default: 3
  round_timeout:
    description: Seconds until all of it must be done once in both places.
    type: int
    default: 900
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: See what the NFS server costs
  jhok.lab.benchmark_home:
    url: http://172.16.0.100:30080
    password: "{{ secrets.verify_password }}"
    service_token: "{{ secrets.verify_token }}"
  register: home
"""

RETURN = r"""
home:
  description: Seconds that each kind of work took in the home, for each round.
  returned: success
  type: dict
  sample: {write 200 MB: [2.1], read 200 MB: [0.9], make 10000 files: [31.5]}
local:
  description: The same on the disk of the server's machine.
  returned: success
  type: dict
  sample: {write 200 MB: [0.4], read 200 MB: [0.1], make 10000 files: [0.5]}
"""

import json

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.jhok.lab.plugins.module_utils import hub_client
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubError

# What people do, as functions of the directory in which they do it. See `program`.
JOBS = r"""
import json, os, pathlib, shutil, subprocess, sys, tempfile, time, zipfile
def run(*command, **more):
    subprocess.run(command, check=True, capture_output=True, **more)
source = pathlib.Path(tempfile.mkdtemp())
repository = source / "repository"
repository.mkdir()
for number in range(COMMITTED):
    folder = repository / f"d{number // 100}"
    folder.mkdir(exist_ok=True)
    (folder / f"f{number}.py").write_text(f"# {number}\n" * 40)
identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "init.defaultBranch=main"]
run("git", *identity, "init", "-q", cwd=repository)
run("git", "add", "-A", cwd=repository)
run("git", *identity, "commit", "-qm", "first", cwd=repository)
wheel = source / "thousand-1.0-py3-none-any.whl"
with zipfile.ZipFile(wheel, "w") as archive:
    for number in range(PACKAGED):
        archive.writestr(f"thousand/m{number}.py", f"x = {number}\n" * 20)
    archive.writestr("thousand-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thousand\nVersion: 1.0\n")
    archive.writestr("thousand-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    archive.writestr("thousand-1.0.dist-info/RECORD", "")
block = os.urandom(1 << 20)

def write(place):
    with open(place / "big", "wb") as big:
        for _ in range(MEGABYTES):
            big.write(block)
        big.flush()
        os.fsync(big.fileno())

def read(place):
    with open(place / "big", "rb") as big:
        while big.read(1 << 20):
            pass

def make(place):
    (place / "many").mkdir()
    for number in range(FILES):
        (place / "many" / f"f{number}").write_bytes(block[:200])

def look(place):
    assert sum(entry.stat().st_size for entry in os.scandir(place / "many")) == 200 * FILES

def read_many(place):
    for number in range(FILES):
        (place / "many" / f"f{number}").read_bytes()

def remove(place):
    shutil.rmtree(place / "many")

def clone(place):
    run("git", "clone", "-q", "--no-hardlinks", f"file://{repository}", place / "clone")

def install(place):
    pip = [sys.executable, "-m", "pip", "--isolated", "install", "-q", "--no-index", "--no-cache-dir"]
    run(*pip, "--target", place / "packages", wheel)

WORKS = {f"write {MEGABYTES} MB": write, f"read {MEGABYTES} MB": read, f"make {FILES} files": make,
         f"list {FILES} files": look, f"read {FILES} files": read_many, f"remove {FILES} files": remove,
         f"git clone of {COMMITTED} files": clone, f"pip install of {PACKAGED} files": install}
"""

# Runs in a kernel and prints the seconds of each kind of work, by place.
COMPARE = r"""
times = {}
for name, parent in (("local", "/tmp"), ("home", os.path.expanduser("~"))):
    place = pathlib.Path(tempfile.mkdtemp(prefix=".benchmark-", dir=parent))
    try:
        for what, work in WORKS.items():
            begin = time.monotonic()
            work(place)
            times.setdefault(name, {})[what] = round(time.monotonic() - begin, 3)
    finally:
        shutil.rmtree(place)
shutil.rmtree(source)
print(json.dumps(times))
"""


def program(end: str, megabytes: int = 200, files: int = 10_000, committed: int = 2000, packaged: int = 1000) -> str:
    """Return a program with all jobs, of these sizes, that ends with `end`."""
    return f"MEGABYTES, FILES, COMMITTED, PACKAGED = {megabytes}, {files}, {committed}, {packaged}\n{JOBS}{end}"


def by_work(rounds: list[dict[str, dict[str, float]]], place: str) -> dict[str, list[float]]:
    """Return the seconds of all rounds in one place, by what was done."""
    return {what: [times[place][what] for times in rounds] for what in rounds[0][place]} if rounds else {}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "user": {"type": "str", "default": "jhok-verify"},
            "password": {"type": "str", "default": "", "no_log": True},
            "service_token": {"type": "str", "required": True, "no_log": True},
            "rounds": {"type": "int", "default": 3},
            "start_timeout": {"type": "int", "default": 300},
            "stop_timeout": {"type": "int", "default": 90},
            "round_timeout": {"type": "int", "default": 900},
        },
        supports_check_mode=False,
    )
    if hub_client.IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("requests, websocket-client"), exception=hub_client.IMPORT_ERROR)
    params = module.params
    user = params["user"]
    who = (params["url"], params["service_token"], user, params["password"], params["stop_timeout"])
    try:
        with hub_client.visit(*who) as visitor:
            visitor.start_server(user, {}, params["start_timeout"])
            visitor.lab_page(user)
            work = program(COMPARE)
            rounds = [json.loads(visitor.run(user, work, params["round_timeout"])) for _ in range(params["rounds"])]
    except (HubError, OSError) as error:  # requests' own errors are OSErrors
        module.fail_json(msg=f"The home at {params['url']} could not be measured: {error}")
    module.exit_json(changed=False, **{place: by_work(rounds, place) for place in ("home", "local")})


if __name__ == "__main__":
    main()
