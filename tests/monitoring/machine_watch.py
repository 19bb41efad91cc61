"""Tell what a machine's kernel counts, a line of JSON every few seconds: what Prometheus' figures are compared with.

Runs on a machine of the lab with Python's own library only: `ssh machine python3 - SECONDS < machine_watch.py`.
Reads neither Prometheus nor any exporter. Bytes and seconds throughout; knows cgroups of version 1 and 2.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

POD = re.compile(r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f_-]+|[0-9a-f]{32})(?:\.slice)?$")
CGROUPS = Path("/sys/fs/cgroup")
UNIFIED = (CGROUPS / "cgroup.controllers").exists()
TICKS = os.sysconf("SC_CLK_TCK")


def hierarchy(controller: str) -> Path:
    """Return where a controller's cgroups are."""
    if UNIFIED:
        return CGROUPS
    return next(path for path in sorted(CGROUPS.iterdir()) if controller in path.name.split(","))


def pods(controller: str) -> dict[str, Path]:
    """Return each pod's cgroup by the pod's uid."""
    found = {}
    for top in hierarchy(controller).glob("kubepods*"):
        for folder, folders, _ in os.walk(top):
            for name in [*folders]:
                match = POD.search(name)
                if match:
                    found[match[1].replace("_", "-")] = Path(folder) / name
                    folders.remove(name)
    return found


def cpu_seconds(cgroup: Path) -> float:
    if UNIFIED:
        return int(table(cgroup / "cpu.stat")["usage_usec"]) / 1e6
    return int((cgroup / "cpuacct.usage").read_text()) / 1e9


def memory_bytes(cgroup: Path) -> int:
    """Return what cannot be given back at once: all but the file pages that have not been used for long."""
    used, inactive = (
        ("memory.current", "inactive_file") if UNIFIED else ("memory.usage_in_bytes", "total_inactive_file")
    )
    return int((cgroup / used).read_text()) - int(table(cgroup / "memory.stat")[inactive])


def table(path: Path) -> dict[str, str]:
    """Return a file of names and values."""
    return dict(line.split()[:2] for line in path.read_text().splitlines() if len(line.split()) > 1)


def network(process: str = "self") -> dict[str, tuple[int, int]]:
    """Return the bytes that came in and went out by interface, as a process sees them."""
    lines = Path(f"/proc/{process}/net/dev").read_text().splitlines()[2:]
    split = [(name.strip(), figures.split()) for name, _, figures in (line.partition(":") for line in lines)]
    return {name: (int(figures[0]), int(figures[8])) for name, figures in split}


def processes(cgroup: Path) -> list[str]:
    return [number for path in cgroup.rglob("cgroup.procs") for number in path.read_text().split()]


def resident_bytes(process: str) -> int:
    return int(table(Path(f"/proc/{process}/status")).get("VmRSS:", 0)) * 1024


def pod_figures() -> dict[str, dict[str, object]]:
    found = {}
    memory = pods("memory")
    own = Path("/proc/1/ns/net").readlink()
    for uid, cgroup in pods("cpuacct").items():
        try:
            inside = processes(cgroup)
            netns = Path(f"/proc/{inside[0]}/ns/net").readlink()
            found[uid] = {
                "cpu": cpu_seconds(cgroup),
                "memory": memory_bytes(memory[uid]),
                "largest": max(resident_bytes(number) for number in inside),
                "network": None if netns == own else network(inside[0]).get("eth0"),
            }
        except (OSError, IndexError, KeyError):  # it has just ended or begun
            continue
    return found


def machine_figures() -> dict[str, object]:
    cpu = [int(number) / TICKS for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    meminfo = {name.rstrip(":"): int(value) * 1024 for name, value in table(Path("/proc/meminfo")).items()}
    disks = {}
    for line in Path("/proc/diskstats").read_text().splitlines():
        figures = line.split()
        disks[figures[2]] = {"read": int(figures[5]) * 512, "written": int(figures[9]) * 512}
    return {
        "cpu": sum(cpu) - cpu[3] - cpu[4],  # all but idle and waiting for a disk
        "cpu_all": sum(cpu),
        "iowait": cpu[4],
        "cores": os.cpu_count(),
        "memory": meminfo,
        "load5": float(Path("/proc/loadavg").read_text().split()[1]),
        "network": network(),
        "disks": disks,
    }


def main() -> None:
    while True:
        print(json.dumps({"time": time.time(), **machine_figures(), "pods": pod_figures()}), flush=True)
        time.sleep(float(sys.argv[1]))


if __name__ == "__main__":
    main()
