"""What the probes of `playbooks/verify.yml` have in common: one line per question, its time, the table of them all.

Runs on the machines of a site too, so it needs nothing but Python 3.10's standard library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

HIDDEN = "********"


class ProbeError(Exception):
    """The answer to a probe's question was a wrong one; the message says what came back."""


@dataclass(frozen=True)
class Probe:
    """One line of the report.

    check: area that was asked about (registry, nfs, ...). asked: the question, with who asked whom. got: what came
    back. ok: whether that is how it should be. seconds: how long the answer took.
    """

    check: str
    asked: str
    got: str
    ok: bool
    seconds: float


class ProbeLog:
    """Asks questions one after another and keeps a line of each, whatever happens.

    check: area of its lines. secrets: strings that must appear in no line; they are replaced by asterisks.
    """

    def __init__(self, check: str, secrets: Iterable[str] = ()) -> None:
        self.check = check
        self.lines: list[Probe] = []
        self._secrets: list[str] = [secret for secret in secrets if secret]

    def hide(self, secret: str) -> None:
        """Let `secret` appear in no line from now on."""
        if secret:
            self._secrets.append(secret)

    def ask(self, asked: str, question: Callable[[], str], check: str | None = None) -> bool:
        """Put one question and note its answer; returns whether the answer was right.

        `question` returns what came back, or raises: ProbeError for a wrong answer, anything else when it could not
        ask. Both are failed lines. `check` is the line's area when it is not the log's own.
        """
        begin = time.monotonic()
        try:
            got, ok = question(), True
        except ProbeError as error:
            got, ok = str(error), False
        except Exception as error:  # a probe must not fail by itself: whatever went wrong is its line
            # The collection's own errors are written for people; of others the kind may say more than the text.
            own = type(error).__module__.startswith("ansible_collections.")
            got, ok = str(error) if own else f"{type(error).__name__}: {error}", False
        self._add(check, asked, got, ok, time.monotonic() - begin)
        return ok

    def not_asked(self, asked: str, why: str, check: str | None = None) -> None:
        """Note a question that could not be put: a failed line, because nobody knows the answer."""
        self._add(check, asked, f"not asked: {why}", False, 0.0)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the lines as a module returns them under `probes`."""
        return [asdict(line) for line in self.lines]

    def _add(self, check: str | None, asked: str, got: str, ok: bool, seconds: float) -> None:
        self.lines.append(Probe(check or self.check, self._clean(asked), self._clean(got), ok, round(seconds, 3)))

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return " ".join(text.split())


def missing(probes: Iterable[Mapping[str, Any]], expected: Iterable[str], host: str) -> list[dict[str, Any]]:
    """Return a failed line for every area in `expected` about which `host` returned no line at all."""
    answered = {probe["check"] for probe in probes}
    return [
        asdict(
            Probe(
                check,
                f"all probes of {check} on {host}",
                "no answer: unreachable, or its probes did not run",
                False,
                0.0,
            )
        )
        for check in expected
        if check not in answered
    ]


def table(probes: Sequence[Mapping[str, Any]], width: int = 70) -> list[str]:
    """Return the report as aligned lines of text: a header, one line per probe, a summary.

    width: characters after which `asked` is cut; `got` is cut there too, except in failed lines, which must tell all.
    """
    rows = [("check", "asked", "got", "seconds", "ok")]
    for probe in probes:
        ok = bool(probe["ok"])
        got = str(probe["got"])
        rows.append(
            (
                str(probe["check"]),
                _cut(str(probe["asked"]), width),
                _cut(got, width) if ok else got,
                f"{float(probe['seconds']):.2f}",
                "ok" if ok else "FAILED",
            )
        )
    widths = [min(max(len(row[column]) for row in rows), width) for column in range(4)]
    lines = [
        f"{check:<{widths[0]}}  {asked:<{widths[1]}}  {seconds:>{widths[3]}}  {ok:<6}  {got}".rstrip()
        for check, asked, got, seconds, ok in rows
    ]
    return [*lines, summary(probes)]


def summary(probes: Sequence[Mapping[str, Any]]) -> str:
    """Return `N of M passed in S s`; no probes at all is never a pass."""
    passed = sum(bool(probe["ok"]) for probe in probes)
    seconds = sum(float(probe["seconds"]) for probe in probes)
    return f"{passed} of {len(probes)} passed in {seconds:.1f} s"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
