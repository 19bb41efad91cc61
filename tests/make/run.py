"""Run the parts of `make test`, each a target of the Makefile, and say at the end what became of them.

    run.py [--minutes MINUTES]

Check and unit come first: when one fails, nothing else is run. Each of the others is run whatever became of those
before. Then each that failed is run once more, if what it usually takes fits into what is left of MINUTES; what passes
then is called flaky. A part that takes too long is ended, with all processes that it started. The exit status is 0 when
every part has passed in its last try.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[2]
CI_MINUTES = 88  # CI ends a run after 90, and says nothing then
GRACE_SECONDS = 60  # for a part to clean up, after it was told to end
TAIL_LINES, TAIL_BYTES = 30, 20_000


@dataclass(frozen=True)
class Part:
    """A target of the Makefile, and the minutes that it usually takes and may take, on two cores."""

    name: str
    usual: float
    limit: float
    first: bool = False  # nothing else is run when it fails


PARTS = (
    Part("check", 2, 15, first=True),
    Part("unit", 1, 15, first=True),
    Part("molecule", 48, 75),
    Part("test-kernel", 6, 20),
    Part("integration", 8, 30),
)


@dataclass(frozen=True)
class Try:
    """One run of a part. `why` is empty when it passed."""

    seconds: float
    why: str = ""


def say(text: str) -> None:
    print(text, flush=True)


def parents() -> dict[int, int]:
    """Return the parent of each process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    return found


def below(pid: int) -> Iterator[int]:
    """Yield the processes below this one, those too that left its group, as Ansible's workers do."""
    known = parents()
    wanted = [pid]
    for above in wanted:
        children = [child for child, parent in known.items() if parent == above]
        wanted += children
        yield from children


def end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Interrupt the part, so that it cleans up; then kill what is left of it."""
    handles = []
    for pid in below(process.pid):
        with contextlib.suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for handle in handles:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], grace)
        os.close(handle)
    process.wait()


def attempt(command: Sequence[str], directory: Path, seconds: float, grace: float) -> Try:
    """Run a command for so many seconds at most. Its output is shown as it comes."""
    start = time.monotonic()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout
    # The reader's own: it may outlive this function, and a number that was given back may become another pipe's.
    source, tail = os.dup(process.stdout.fileno()), bytearray()

    def show() -> None:
        while data := os.read(source, 65536):
            tail.extend(data)
            del tail[:-TAIL_BYTES]
            with contextlib.suppress(OSError):  # nobody looks any more; the part goes on
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        os.close(source)

    reader = threading.Thread(target=show, daemon=True)
    reader.start()
    why = ""
    try:
        status = process.wait(seconds)
        why = f"exit status {status}" if status else ""
    except subprocess.TimeoutExpired:
        last = tail.decode(errors="replace").splitlines()[-TAIL_LINES:]
        end(process, grace)
        reader.join(grace)
        why = f"ended after {seconds / 60:.0f} min"
        say(f"\n==> {' '.join(command)}: {why}. When it was ended, its last lines were:")
        say("\n".join(f"  | {line}" for line in last))
    except BaseException:
        end(process, grace)
        raise
    reader.join(grace)  # what the part left running may hold the pipe open
    return Try(time.monotonic() - start, why)


class Run:
    """A run of all parts."""

    def __init__(self, parts: Sequence[Part], directory: Path, minutes: float, grace: float) -> None:
        self.parts, self.directory, self.grace = parts, directory, grace
        self.end = time.monotonic() + minutes * 60
        self.tries: dict[str, list[Try]] = {}

    def minutes_left(self) -> float:
        return (self.end - time.monotonic()) / 60

    def failed(self, part: Part) -> bool:
        return bool(self.tries[part.name][-1].why)

    def try_part(self, part: Part) -> None:
        minutes = min(part.limit, self.minutes_left())
        if minutes <= 0:
            result = Try(0, "no time was left for it")
        else:
            say(f"\n==> make {part.name} ({minutes:.0f} min at most)")
            result = attempt(["make", "--no-print-directory", part.name], self.directory, minutes * 60, self.grace)
        self.tries.setdefault(part.name, []).append(result)

    def all_parts(self) -> None:
        for part in self.parts:
            self.try_part(part)
            if part.first and self.failed(part):
                return
        for part in self.parts:
            if not part.first and self.failed(part):
                if part.usual <= self.minutes_left():
                    say(f"\n==> {part.name} failed: once more")
                    self.try_part(part)
                else:
                    say(f"\n==> {part.name} is not run once more: {self.minutes_left():.0f} min are left")

    def verdict(self, part: Part) -> str:
        tries = self.tries.get(part.name, [])
        if not tries:
            return "not done"
        if tries[-1].why:
            return "FAILED: " + ", then ".join(one.why for one in tries)
        return f"FLAKY: {tries[0].why}, then passed" if len(tries) > 1 else "passed"

    def summary(self) -> str:
        seconds = {part: sum(one.seconds for one in self.tries.get(part.name, [])) for part in self.parts}
        lines = [f"{seconds[part]:6.0f} s  {part.name:<12}  {self.verdict(part)}" for part in self.parts]
        return "\n".join(["\nWhat became of the parts:", *lines])


def stop(number: int, frame: object) -> NoReturn:  # noqa: ARG001
    raise SystemExit(128 + number)


def main(
    arguments: Sequence[str], parts: Sequence[Part] = PARTS, directory: Path = ROOT, grace: float = GRACE_SECONDS
) -> int:
    parser = argparse.ArgumentParser(description="Run the parts of `make test`.")
    parser.add_argument("--minutes", type=float, default=CI_MINUTES, help="for all parts together; default %(default)s")
    run = Run(parts, directory, parser.parse_args(arguments).minutes, grace)
    try:
        run.all_parts()
    finally:
        say(run.summary())
    failed = [part.name for part in parts if part.name not in run.tries or run.failed(part)]
    if "molecule" in run.tries and "molecule" in failed:
        subprocess.run(["make", "--no-print-directory", "test-look"], cwd=directory, check=False)
    return 1 if failed else 0


if __name__ == "__main__":
    # A shell starts what it puts into the background with SIGINT ignored, which the parts would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
