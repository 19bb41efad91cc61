"""Keep and show how long the stages of the Makefile took.

    times.py note FILE RUN SECONDS STAGE    add a stage to the run; print it
    times.py show FILE RUN                  the run's stages, each beside the median of the earlier runs

FILE has a line for each stage: run, seconds and stage, with tabs between. Without a name nothing is kept. RUN says when
it began, the target and the commit. The last 20 runs of each target are kept. Where nothing was timed in the run, the
last one is shown.
"""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

KEPT = 20


@dataclass(frozen=True)
class Stage:
    """How long one stage took in one run."""

    run: str
    seconds: int
    name: str

    @property
    def target(self) -> str:
        return self.run.split()[1]

    def __str__(self) -> str:
        return f"{self.run}\t{self.seconds}\t{self.name}"


def read(text: str) -> list[Stage]:
    stages = []
    for line in text.splitlines():
        run, seconds, name = line.split("\t")
        stages.append(Stage(run, int(seconds), name))
    return stages


def kept(stages: Sequence[Stage]) -> list[Stage]:
    """Return the stages of the last runs of each target."""
    runs: dict[str, dict[str, None]] = {}
    for stage in stages:
        runs.setdefault(stage.target, {})[stage.run] = None
    last = {run for of_target in runs.values() for run in list(of_target)[-KEPT:]}
    return [stage for stage in stages if stage.run in last]


def table(stages: Sequence[Stage], run: str) -> str:
    """Return what took how long in this run, and in the median of those before."""
    if not stages:
        return "Nothing was timed yet."
    runs = [stage.run for stage in stages]
    run = run if run in runs else max(runs)
    mine = [stage for stage in stages if stage.run == run]
    lines = [f"How long it took ({run}), and the median of earlier runs:"]
    for stage in mine:
        before = [other.seconds for other in stages if other.name == stage.name and other.run < run]
        lines.append(f"{stage.seconds:6d} s {f'{median(before):.0f} s' if before else '-':>8}  {stage.name}")
    lines.append(f"{sum(stage.seconds for stage in mine):6d} s {'':>8}  in all")
    return "\n".join(lines)


def keep(path: Path, stage: Stage) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        stages = kept([*read(file.read()), stage])
        file.seek(0)
        file.truncate()
        file.writelines(f"{one}\n" for one in stages)


def main(arguments: Sequence[str]) -> None:
    what, name, run, *stage = arguments
    if what == "show":
        path = Path(name)
        print(table(read(path.read_text()) if path.is_file() else [], run))
        return
    new = Stage(run, int(stage[0]), stage[1])
    print(f"{new.seconds:6d} s  {new.name}")
    if name:
        keep(Path(name), new)


if __name__ == "__main__":
    main(sys.argv[1:])
