"""What `make audit` makes of its tools' answers: a database that was not asked is never "no vulnerability"."""

from __future__ import annotations

import json
import runpy
import stat
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
AUDIT = runpy.run_path(str(ROOT / "tests" / "audit" / "audit.py"))
Report = AUDIT["Report"]
TRACE = [{"module": "golang.org/x/net", "version": "v0.58.0", "package": "golang.org/x/net/html", "function": "Parse"}]
FINDING = {"finding": {"osv": "GO-2026-1", "fixed_version": "v0.59.0", "trace": TRACE}}
IN_MODULE = {
    "finding": {
        "osv": "GO-2026-1",
        "fixed_version": "v0.59.0",
        "trace": [{"module": "golang.org/x/net", "version": "v0.58.0"}],
    }
}
UNMENDED = {"finding": {"osv": "GO-2026-2", "trace": [{"module": "stdlib", "version": "v1.27.3"}]}}
STREAM = "\n".join(json.dumps(message, indent=2) for message in ({"config": {}}, IN_MODULE, FINDING, UNMENDED))


def test_findings_of_govulncheck_are_one_per_vulnerability_and_part() -> None:
    assert AUDIT["go_vulnerabilities"](STREAM) == {
        ("GO-2026-1", "golang.org/x/net v0.58.0", "v0.59.0"),
        ("GO-2026-2", "stdlib v1.27.3", ""),
    }


def test_packages_that_the_database_does_not_know_are_told_from_those_without_vulnerabilities() -> None:
    answer = {
        "dependencies": [
            {"name": "fine", "version": "1.0", "vulns": []},
            {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"]}]},
            {"name": "unknown", "skip_reason": "Dependency not found"},
        ]
    }
    assert AUDIT["python_vulnerabilities"](answer) == ({("PYSEC-1", "bad 2.0", "2.1, 3.0")}, 2, ["unknown"])


VULNERABLE = Report("t", 2, {("GO-2026-1", "m v1", "v2"): ["bin/a"]})
CLEAN, PARTLY, NOTHING = Report("t", 2), Report("t", 2, {}, ["cut off"]), Report("t", 0, {}, ["cut off"])


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([CLEAN, CLEAN], 0),
        ([CLEAN, VULNERABLE], 1),
        ([NOTHING, VULNERABLE], 1),
        ([CLEAN, PARTLY], 3),
        ([NOTHING, CLEAN], 3),
        ([CLEAN, Report("t")], 3),
    ],
)
def test_status(reports: list[Any], expected: int) -> None:
    assert AUDIT["status"](reports) == expected


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (CLEAN, ["t: no known vulnerability in the 2 parts that it looked at."]),
        (PARTLY, ["t: cut off", "t: no known vulnerability in the 2 parts that it looked at, not all."]),
        (NOTHING, ["t: cut off; so it is not known whether there are vulnerabilities."]),
        (Report("t"), ["t: there was nothing to look at; so it is not known whether there are vulnerabilities."]),
    ],
)
def test_a_database_that_was_not_asked_is_no_good_news(report: Any, expected: list[str]) -> None:  # noqa: ANN401
    assert list(AUDIT["lines"](report)) == expected


def test_a_vulnerability_is_told_once_with_all_its_places() -> None:
    report = Report("govulncheck", 2)
    for name in ("cni/bridge", "bin/runc", "bin/runc"):
        report.add(name, [("GO-2026-1", "golang.org/x/net v0.58.0", "v0.59.0")])
    assert list(AUDIT["lines"](report)) == [
        "govulncheck: GO-2026-1 in golang.org/x/net v0.58.0, mended in v0.59.0; in bin/runc, cni/bridge",
        "govulncheck: known vulnerabilities: 1 in the 2 parts that it looked at.",
    ]


def tool(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def bundle(directory: Path) -> Path:
    """Make a bundle of two programs, one of Go's, and no image."""
    entries = []
    for name, content in (("a", b"\x7fELF \xff Go buildinf: of a"), ("b", b"\x7fELF in C")):
        path = directory / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        entries.append({"path": f"bin/{name}", "section": "kubernetes"})
    (directory / "manifest.json").write_text(json.dumps({"files": entries, "images": []}))
    return directory


def test_an_unreachable_database_is_named_with_its_reason(tmp_path: Path) -> None:
    failing = tool(tmp_path / "govulncheck", "echo 'fetching vulnerabilities: no route to host' >&2; exit 1")
    report = AUDIT["audit_go"](failing, bundle(tmp_path), "")
    assert (report.looked_at, report.found) == (0, {})
    assert report.not_asked == ["its database cannot be asked about bin/a (fetching vulnerabilities: no route to host)"]
    assert AUDIT["status"]([report]) == 3


def test_go_programs_of_the_bundle_are_looked_at(tmp_path: Path) -> None:
    (tmp_path / "answer").write_text(STREAM)
    report = AUDIT["audit_go"](tool(tmp_path / "govulncheck", f"cat {tmp_path}/answer"), bundle(tmp_path), "")
    assert report.looked_at == 1, "bin/b is not Go's"
    assert {name for name, _, _ in report.found} == {"GO-2026-1", "GO-2026-2"}


def test_hashed_requirement_files_of_the_images_are_found() -> None:
    names = {str(path.relative_to(ROOT / "images")) for path in AUDIT["hashed_files"]()}
    assert {"hub/requirements.txt", "scipy/python.txt", "singleuser/server.txt"} <= names
