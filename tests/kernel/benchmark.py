#!/usr/bin/env python3
"""Measures mount options: what people do in their homes, by each set of options in turn, on the machines of nfs_kernel.

    benchmark.py OUT [ROUNDS]   writes all figures to OUT and prints tables

The jobs are those of module benchmark_home, smaller, since an emulated machine is slow. Seconds are told as ratios to
the first set of the same round. The numbers of calls to the server do not depend on the machine's speed.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from ansible_collections.jhok.lab.plugins.modules.benchmark_home import program
from machines import EXPORT, SHIPPED, Machine, in_image

USER, UID = "jhok-benchmark", 1030
SERVER = "ext4"
PLACE = "/mnt-benchmark"
SIZES = {"megabytes": 100, "files": 500, "committed": 200, "packaged": 100}
SETS = [
    SHIPPED,
    "nfsvers=4.2,hard,noatime",  # the same by another name: what differs is noise
    "nfsvers=3,hard,noatime",
    "nfsvers=4,hard",
    *(
        f"{SHIPPED},{more}"
        for more in (
            "nconnect=4",
            "rsize=1048576,wsize=1048576",
            "rsize=131072,wsize=131072",
            "rsize=65536,wsize=65536",
            "actimeo=60",
            "acregmax=600",
            "nocto",
            "lookupcache=pos",
            "lookupcache=none",
        )
    ),
]
# A machine with so little memory would offer 64 KiB; from 4 GB on a kernel offers this.
LARGEST = 1 << 20

# The user works. Root asks the kernel for its counts, and makes it forget, as on a machine where the user has not been.
BEGIN = f"""
import os
os.setgroups([])
os.setresgid(100, 100, 100)
os.setresuid({UID}, {UID}, 0)
"""
END = r"""
import contextlib

@contextlib.contextmanager
def root():
    os.seteuid(0)
    yield
    os.seteuid(os.getuid())

def forget():
    with root():
        os.sync()
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")

def calls():
    with root():
        mounts = pathlib.Path("/proc/self/mountstats").read_text().split("device ")
    [own] = [text for text in mounts if f" mounted on {os.environ['HOME']} with fstype nfs" in text]
    lines = [line.replace(":", "").split() for line in own.partition("per-op statistics")[2].splitlines()]
    return {line[0]: int(line[1]) for line in lines if line}

last = WORKS.pop(f"remove {FILES} files")
jobs = [(what, work, False) for what, work in WORKS.items()]
jobs += [(f"{what}, first time here", work, True) for what, work in WORKS.items() if work in (read, look, read_many)]
jobs += [(f"remove {FILES} files", last, False)]
figures = {}
place = pathlib.Path(tempfile.mkdtemp(prefix=".benchmark-", dir=os.environ["HOME"]))
try:
    for what, work, cold in jobs:
        if cold:
            forget()
        before, begin = calls(), time.monotonic()
        work(place)
        seconds, after = time.monotonic() - begin, calls()
        made = {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)}
        figures[what] = {"seconds": round(seconds, 3), "calls": made}
finally:
    shutil.rmtree(place)
print(json.dumps(figures))
"""

Figures = dict[str, dict[str, Any]]


def measure(client: Machine, address: str, options: str) -> Figures:
    """Do all jobs once on a mount with these options."""
    client.run(f"mount -t nfs -o {options} {address}:{EXPORT} {PLACE}")
    try:
        work = BEGIN + program(END, **SIZES)
        start = in_image(f"{PLACE}/homes/{USER}", USER, "--pipe", "--wait")
        return dict(json.loads(client.run(f"{start} python3 - << 'EOF'\n{work}\nEOF", seconds=900)))
    finally:
        client.run(f"umount {PLACE}")


def prepare(client: Machine, server: Machine) -> str:
    """Let the server offer what one of a usual size does, and make the home; return what the mount became."""
    server.run(
        f"systemctl stop nfs-server; echo {LARGEST} > /proc/fs/nfsd/max_block_size; systemctl start nfs-server\n"
        f"until [ $(cat /proc/fs/nfsd/threads) -gt 0 ]; do sleep 0.1; done"
    )
    client.run(f"mkdir -p {PLACE}; mount -t nfs -o {SHIPPED} {server.address}:{EXPORT} {PLACE}")
    client.run(f"mkdir -p -m 0700 {PLACE}/homes/{USER}", uid=UID)
    server.run("systemctl start jhok-quota.service")
    return client.run(f"grep ' {PLACE} ' /proc/mounts; umount {PLACE}")


def table(rows: list[list[str]]) -> str:
    """Return rows as a table in Markdown, the first as its head."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])


def report(rounds: list[dict[str, Figures]]) -> str:
    """Return two tables: how long all took, and each job's calls; then how long each job took."""
    jobs = list(rounds[0][SETS[0]])

    def seconds(figures: dict[str, Figures], options: str, what: list[str]) -> float:
        return float(sum(figures[options][job]["seconds"] for job in what))

    def time_of(options: str, what: list[str]) -> str:
        if options == SETS[0]:
            return f"{statistics.median(seconds(figures, options, what) for figures in rounds):.2f} s"
        ratios = [seconds(figures, options, what) / seconds(figures, SETS[0], what) for figures in rounds]
        return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"

    def calls(options: str, what: str) -> str:
        counts = [sum(figures[options][what]["calls"].values()) for figures in rounds]
        return f"{statistics.median_low(counts)}"

    summary = [["options", *jobs, "time of all"]]
    summary += [[f"`{options}`", *(calls(options, job) for job in jobs), time_of(options, jobs)] for options in SETS]
    times = [["options", *jobs]] + [[f"`{options}`", *(time_of(options, [job]) for job in jobs)] for options in SETS]
    return f"Calls to the server\n\n{table(summary)}\n\nTimes\n\n{table(times)}"


def main(out: Path, count: int) -> None:
    machines = json.loads(Path(os.environ["JHOK_KERNEL_MACHINES"]).read_text())
    client, server = Machine(**machines["client"]), Machine(**machines[SERVER])
    mounted = prepare(client, server)
    rounds: list[dict[str, Figures]] = []
    try:
        measure(client, server.address, SETS[0])  # so that no set has to read the image from the disk
        for number in range(count):
            # Each round begins with another set, so that none is always the first or the last.
            order = [*SETS[number:], *SETS[:number]]
            begin = time.monotonic()
            rounds.append({options: measure(client, server.address, options) for options in order})
            print(f"round {number + 1} of {count}: {time.monotonic() - begin:.0f} s", flush=True)
            out.write_text(json.dumps({"mounted": mounted, "sizes": SIZES, "rounds": rounds}, indent=1))
    finally:
        server.run(f"rm -rf {EXPORT}/homes/{USER}; systemctl start jhok-quota.service")
    print(f"\n{mounted}\n\n{report(rounds)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4)
