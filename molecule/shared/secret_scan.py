"""Search processes, world-readable files and given logs for a site's secrets, read as base64 lines from stdin.

Usage: secret_scan.py ROOT... [--log FILE...]
       secret_scan.py --record FILE    notes until it is killed what processes are called with: a log for a later search
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

LARGEST = 20 * 1024 * 1024  # bytes; larger files are archives and images, searched where they are made
SKIPPED = ("/proc", "/sys", "/dev")


def secrets(lines: list[str]) -> dict[str, bytes]:
    """Return the secrets by name: the store's values and the private keys of a kubeconfig."""
    found: dict[str, bytes] = {}
    for line in lines:
        text = base64.b64decode(line).decode()
        if text.lstrip().startswith("{"):
            for name, entry in json.loads(text)["secrets"].items():
                found[name] = entry["value"].encode()
        else:
            for index, key in enumerate(re.findall(r"client-key-data: (\S+)", text)):
                found[f"kubeconfig key {index}"] = key.encode()
    if not found:
        sys.exit("no secrets on standard input: the search would prove nothing")
    return found | {f"{name} in base64": base64.b64encode(value).rstrip(b"=") for name, value in found.items()}


def readable(root: Path) -> Iterator[Path]:
    """Yield the regular files below a directory that any user of the machine can open."""
    for folder, folders, names in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if f"{folder.rstrip('/')}/{name}" not in SKIPPED
            and not (Path(folder) / name).is_symlink()
            and (Path(folder) / name).lstat().st_mode & stat.S_IXOTH
        ]
        for name in names:
            path = Path(folder) / name
            try:
                status = path.lstat()
            except OSError:
                continue  # gone in the meantime
            if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH and status.st_size <= LARGEST:
                yield path


def command_lines() -> Iterator[tuple[str, bytes]]:
    """Yield process numbers and what these processes were called with, except this one."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(process.name) != os.getpid():
                yield process.name, (process / "cmdline").read_bytes()
        except OSError:
            continue  # gone in the meantime


def record(log: Path) -> None:
    """Note every command line that is seen, once; the nodes of a lab are containers, so theirs are among them."""
    seen: set[bytes] = set()
    with log.open("wb", buffering=0) as file:
        while True:
            for _, line in command_lines():
                if line not in seen:
                    seen.add(line)
                    file.write(line.replace(b"\0", b" ") + b"\n")
            time.sleep(0.1)


def main() -> None:
    """Print every place where a secret is found, and fail if there is one."""
    if sys.argv[1] == "--record":
        record(Path(sys.argv[2]))
    wanted = secrets(sys.stdin.read().split())
    roots, _, logs = (" ".join(sys.argv[1:]) + " ").partition(" --log ")
    places: list[tuple[str, bytes]] = []
    # A generated password is shown once, to the one who runs the playbook: that is its purpose.
    shown = re.compile(rb"User: \S+, password: \S+")
    places += [(log, shown.sub(b"", Path(log).read_bytes())) for log in logs.split()]
    places += [(f"process {number}", line) for number, line in command_lines()]
    found = [f"{name} in {place}" for place, content in places for name, value in wanted.items() if value in content]
    files = 0
    for root in roots.split():
        for path in readable(Path(root)):
            files += 1
            try:
                content = path.read_bytes()
            except OSError:
                continue
            found += [f"{name} in {path}" for name, value in wanted.items() if value in content]
    print(f"{len(wanted)} forms of secrets, {len(places)} processes and logs, {files} files")
    sys.exit("\n".join(found) or 0)


if __name__ == "__main__":
    main()
