#!/usr/bin/python
"""Ansible module monitoring_cost: what some services and pods take of a machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: monitoring_cost
short_description: Measures the memory and the processor time of pods, services and commands on a machine
version_added: 0.2.0
description:
  - Runs on a machine with root's rights. Looks at the processes of each pod and service twice, some time apart.
  - Memory is the processes' proportional share (PSS), in which what several share counts once. A process that ends
    meanwhile does not count; what runs for a moment now and then is measured as a command.
attributes:
  check_mode:
    support: full
    description: It only looks, and runs the commands that it is given.
options:
  pods:
    description: Uids of pods. One that is not on this machine takes nothing.
    type: list
    elements: str
    default: []
  units:
    description: Names of systemd services, without their suffix.
    type: list
    elements: str
    default: []
  commands:
    description: Commands that a timer runs, each with C(name), C(argv) and C(every), its interval in seconds.
    type: list
    elements: dict
    default: []
  seconds:
    description: How long to look.
    type: int
    default: 60
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: Measure the node exporter
  jhok.lab.monitoring_cost:
    units: [prometheus-node-exporter]
"""

RETURN = r"""
figures:
  description: >-
    What each program takes; C(cores) is the share of one processor, C(memory) in bytes. A command has no memory when it
    does not run.
  returned: success
  type: list
  elements: dict
  sample: [{of: pod, program: prometheus, cores: 0.01, memory: 104857600}]
"""

import os
import re
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PROC = Path("/proc")


def processes(pods: Sequence[str], units: Sequence[str]) -> dict[int, tuple[str, str]]:
    """Return what each process of the pods and services belongs to (C(pod) or the service) and its program."""
    names = "|".join(re.escape(uid).replace("\\-", "[-_]") for uid in pods)
    pod = re.compile(rf"pod(?:{names})\b") if pods else None
    services = {f"/{unit}.service": unit for unit in units}
    found = {}
    for path in PROC.glob("[0-9]*"):
        try:
            cgroup = (path / "cgroup").read_text()
            of = next((unit for part, unit in services.items() if part in cgroup), "")
            if not of and pod and pod.search(cgroup):
                of = "pod"
            if of:
                found[int(path.name)] = (of, program((path / "cmdline").read_bytes().split(b"\0")))
        except OSError:  # it has just ended
            continue
    return found


def program(command: Sequence[bytes]) -> str:
    """Return what a process is called: its program, or what Python runs."""
    words = [Path(word.decode(errors="replace")).name for word in command if word]
    if not words:
        return "kernel"
    name = words[0].rstrip(":")
    if name.startswith("python") and len(words) > 1:
        name = words[2] if words[1] == "-m" and len(words) > 2 else words[1]
    return name


def cpu_seconds(process: int) -> float:
    """Return the processor time that a process has taken. Raises OSError when it has ended."""
    fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_bytes(process: int) -> int:
    """Return the memory of a process, its share of what is shared. Raises OSError when it has ended."""
    match = re.search(r"^Pss:\s+(\d+) kB", (PROC / str(process) / "smaps_rollup").read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def measure(pods: Sequence[str], units: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """Return the figures of what runs all the time."""
    before = {}
    for process, names in processes(pods, units).items():
        try:
            before[process] = (names, cpu_seconds(process))
        except OSError:
            continue
    begin = time.monotonic()
    time.sleep(seconds)
    sums: dict[tuple[str, str], list[float]] = {}
    for process, (names, cpu) in before.items():
        try:
            cores = (cpu_seconds(process) - cpu) / (time.monotonic() - begin)
            memory = memory_bytes(process)
        except OSError:
            continue
        total = sums.setdefault(names, [0, 0])
        total[0] += cores
        total[1] += memory
    return [
        {"of": of, "program": name, "cores": round(cores, 5), "memory": int(memory)}
        for (of, name), (cores, memory) in sorted(sums.items())
    ]


def command_figure(command: Mapping[str, Any]) -> dict[str, Any]:
    """Run a command once and return what it takes. Raises CalledProcessError when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command["argv"], check=True, capture_output=True)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cores = round(taken / float(command["every"]), 5)
    return {"of": "timer", "program": command["name"], "cores": cores, "memory": 0}


def main() -> None:
    """Measure and answer."""
    module = AnsibleModule(
        argument_spec={
            "pods": {"type": "list", "elements": "str", "default": []},
            "units": {"type": "list", "elements": "str", "default": []},
            "commands": {
                "type": "list",
                "elements": "dict",
                "default": [],
            },
            "seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        figures = measure(given["pods"], given["units"], given["seconds"])
        figures += [command_figure(command) for command in given["commands"]]
    except (OSError, subprocess.CalledProcessError) as error:
        module.fail_json(msg=f"The cost could not be measured: {error}. Run it with root's rights.")
    module.exit_json(changed=False, figures=figures)


if __name__ == "__main__":
    main()
