#!/usr/bin/python3
"""Have kube-proxy write its tables again when somebody has emptied them.

In mode nftables kube-proxy looks only once an hour whether its tables are there, and no Service can be reached
meanwhile. So this program looks, each time that the pods' routes are put back (jhok-pod-network.service). It stops a
kube-proxy whose table is gone; the kubelet starts it anew, and it writes the table. A kube-proxy that has just started
may not have written it yet, and is left alone. It runs on every node as root.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

TABLE = ["nft", "list", "table", "ip", "kube-proxy"]
PODS = ["crictl", "ps", "--state", "running", "--label", "io.kubernetes.container.name=kube-proxy", "--output", "json"]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
YOUNG = 30  # seconds; kube-proxy writes its tables in the first one, or waits for the API server


def is_gone(status: int, error: str) -> bool:
    """Return whether nft, which ended with `status`, said that there is no table. Any other failure says nothing."""
    return status == 1 and "No such file or directory" in error


def settled(containers: Iterable[Mapping[str, Any]], now: float) -> list[str]:
    """Return the ids of the containers that have run for a while; their `createdAt` is in nanoseconds since 1970."""
    return [container["id"] for container in containers if now - int(container["createdAt"]) / 1e9 > YOUNG]


def main() -> int:
    """Run the program and return its exit status."""
    environment = os.environ | {"LC_ALL": "C", "PATH": PATH}
    table = subprocess.run(TABLE, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if not is_gone(table.returncode, table.stderr):
        return 0
    listed = subprocess.run(PODS, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if listed.returncode:  # no containerd yet, at boot
        return 0
    for container in settled(json.loads(listed.stdout).get("containers") or [], time.time()):
        print(
            f"kube-proxy's table is gone; stopping its container {container[:12]}, so that it is written again",
            flush=True,
        )
        stopped = subprocess.run(["crictl", "stop", container], env=environment, check=False)  # noqa: S603, S607
        if stopped.returncode:
            return stopped.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
