#!/usr/bin/env python3
"""The user guide's commands, run as a person in a server would: guide_check.py < commands.json.

Standard input is a JSON list of the guide's blocks (plugin_utils/guide.py, `commands`). Every block runs in bash and in
zsh, each as a script of its own that ends at the first failure, in the calling user's home. Prints a line for each;
exit status 0 when all passed. Runs inside users' servers, so it needs Python's own library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SHELLS = ("bash", "zsh")
SECONDS = 60


def failure(shell: str, block: str) -> str:
    """Run a block; return what it printed if it failed, else an empty string."""
    try:
        done = subprocess.run(
            [shell, "-e", "-c", block],
            cwd=Path.home(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return f"exit status {done.returncode}: {done.stdout.strip()}" if done.returncode else ""


def main() -> int:
    """Run all blocks in all shells."""
    blocks = json.load(sys.stdin)
    failed = 0
    for shell in SHELLS:
        for block in blocks:
            reason = failure(shell, block)
            failed += bool(reason)
            print(f"{shell}: {'; '.join(block.splitlines())}: {reason or 'ok'}")
    print(f"{len(blocks) * len(SHELLS) - failed} of {len(blocks) * len(SHELLS)} passed")
    return 1 if failed or not blocks else 0


if __name__ == "__main__":
    sys.exit(main())
