#!/usr/bin/env python3
"""Says which known vulnerabilities the shipped parts have (`make audit`, after playbooks/audit.yml).

govulncheck looks at the Go programs of the bundle (`bin/`, `cni/`) and of the cluster's images in it. pip-audit looks
at the Python packages of this environment, which `make` makes of requirements.txt and requirements-dev.txt, and at the
hashed requirement files of `images/`. The programs have no symbol tables, so govulncheck tells what is known of the
modules in them, not whether a program uses the part in question.

Exit status:
    0  every database was asked about everything, and none knows of a vulnerability
    1  there are known vulnerabilities
    2  there is nothing to look at, or a tool is missing
    3  no vulnerability is known, but a database could not be asked about everything
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CLEAN, VULNERABLE, UNUSABLE, NOT_ASKED = range(4)
ELF = b"\x7fELF"
GO = b"\xff Go buildinf:"  # begins the part of a program that says which modules it is made of


@dataclass
class Report:
    """What a tool found out.

    Attributes:
        tool: its name.
        looked_at: how many programs or packages its database was asked about.
        found: per vulnerability (id, part and version, where it is mended), the programs or files that have the part.
        not_asked: why the database was not asked about something; empty when it was asked about all.

    """

    tool: str
    looked_at: int = 0
    found: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    not_asked: list[str] = field(default_factory=list)

    def add(self, where: str, vulnerabilities: Iterable[tuple[str, str, str]]) -> None:
        """Note the vulnerabilities of one program or file."""
        for vulnerability in vulnerabilities:
            self.found.setdefault(vulnerability, []).append(where)


# ---------------------------------------------------------------------------------------------------- pure


def go_vulnerabilities(stream: str) -> set[tuple[str, str, str]]:
    """Return the vulnerabilities in what `govulncheck -format=json` wrote: one JSON object after the other."""
    decoder, position, found = json.JSONDecoder(), 0, set()
    while position < len(stream):
        if stream[position].isspace():
            position += 1
            continue
        message, position = decoder.raw_decode(stream, position)
        finding = message.get("finding")
        if finding:
            part = finding["trace"][0]
            name = f"{part['module']} {part.get('version', '')}".strip()
            found.add((finding["osv"], name, finding.get("fixed_version", "")))
    return found


def python_vulnerabilities(answer: Mapping[str, Any]) -> tuple[set[tuple[str, str, str]], int, list[str]]:
    """Return the vulnerabilities in pip-audit's JSON, how many packages it asked about, and which it skipped."""
    found, asked, skipped = set(), 0, []
    for package in answer["dependencies"]:
        if "skip_reason" in package:
            skipped.append(package["name"])
            continue
        asked += 1
        for entry in package["vulns"]:
            found.add((entry["id"], f"{package['name']} {package['version']}", ", ".join(entry["fix_versions"])))
    return found, asked, skipped


def reason(stderr: str) -> str:
    """Return the last line of what a tool complained about: the reason, without what it led to."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def status(reports: Sequence[Report]) -> int:
    """Return the exit status; a vulnerability that is known counts more than a database that was not asked."""
    if any(report.found for report in reports):
        return VULNERABLE
    return NOT_ASKED if any(report.not_asked or not report.looked_at for report in reports) else CLEAN


def lines(report: Report) -> Iterator[str]:
    """Return what a report says to a person."""
    for (name, part, mended), places in sorted(report.found.items()):
        cure = f"mended in {mended}" if mended else "not mended in any version yet"
        yield f"{report.tool}: {name} in {part}, {cure}; in {', '.join(sorted(set(places)))}"
    if not report.looked_at:
        why = "; ".join(report.not_asked) or "there was nothing to look at"
        yield f"{report.tool}: {why}; so it is not known whether there are vulnerabilities."
        return
    for why in report.not_asked:
        yield f"{report.tool}: {why}"
    known = f"known vulnerabilities: {len(report.found)}" if report.found else "no known vulnerability"
    limit = ", not all" if report.not_asked else ""
    yield f"{report.tool}: {known} in the {report.looked_at} parts that it looked at{limit}."


def is_go(data: bytes) -> bool:
    """Return whether a file is a Go program that says what it is made of."""
    return data.startswith(ELF) and GO in data


# ---------------------------------------------------------------------------------------------------- the bundle


def programs(bundle: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Return name and path of each Go program of the bundle's files and of the cluster's images."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for entry in manifest["files"]:
        path = bundle / entry["path"]
        if entry["section"] == "kubernetes" and is_go(path.read_bytes()):
            yield entry["path"], path
    for image in manifest["images"]:
        if image["section"] == "kubernetes":
            yield from image_programs(bundle, image, scratch)


def image_programs(bundle: Path, image: Mapping[str, str], scratch: Path) -> Iterator[tuple[str, Path]]:
    """Return name and path of each Go program in an image; skopeo undoes the layers' compression, whatever it is."""
    name = f"{image['name']}:{image['tag']}"
    folder = scratch / image["name"].replace("/", "-")
    source = f"oci:{bundle / 'images'}:{image['layout_ref']}"
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-decompress", source, f"dir:{folder}"]
    subprocess.run(command, check=True, capture_output=True)
    layers = json.loads((folder / "manifest.json").read_text())["layers"]
    for layer in (folder / entry["digest"].removeprefix("sha256:") for entry in layers):
        with tarfile.open(layer) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                data = content.read() if content and member.mode & 0o111 else b""
                if is_go(data):
                    path = folder / "program"
                    path.write_bytes(data)
                    yield f"{name}/{member.name.removeprefix('./')}", path


# ---------------------------------------------------------------------------------------------------- the tools


def audit_go(govulncheck: Path, bundle: Path, database: str) -> Report:
    """Have govulncheck look at the bundle's programs; the first that it cannot ask about is the last."""
    report = Report("govulncheck")
    command = [str(govulncheck), "-mode=binary", "-format=json", *([f"-db={database}"] if database else [])]
    with tempfile.TemporaryDirectory(prefix="jhok-audit-", dir="/var/tmp") as scratch:
        for name, path in programs(bundle, Path(scratch)):
            done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
            if done.returncode:
                report.not_asked.append(f"its database cannot be asked about {name} ({reason(done.stderr)})")
                break
            report.looked_at += 1
            report.add(name, go_vulnerabilities(done.stdout))
    return report


def audit_python(files: Sequence[Path]) -> Report:
    """Have pip-audit look at hashed requirement files and at this environment, until it cannot ask about one."""
    report = Report("pip-audit")
    command = [str(Path(sys.executable).with_name("pip-audit")), "--progress-spinner=off", "--format=json"]
    subjects = [
        (str(path.relative_to(ROOT)), ["--disable-pip", "--require-hashes", f"--requirement={path}"]) for path in files
    ]
    subjects.append((".venv", ["--local"]))
    for name, options in subjects:
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, cwd=ROOT)
        try:
            found, asked, skipped = python_vulnerabilities(json.loads(done.stdout))
        except ValueError:
            report.not_asked.append(f"its database cannot be asked about {name} ({reason(done.stderr)})")
            break
        report.looked_at += asked
        report.add(name, found)
        if skipped:
            report.not_asked.append(f"its database does not know {shown(skipped)} of {name}")
            if not asked:  # as where what answers is no database
                break
    return report


def shown(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, and how many there are besides."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def hashed_files() -> list[Path]:
    """Return the requirement files of images/ that pin packages with hashes, the smallest first."""
    found = [path for path in (ROOT / "images").glob("*/*.txt") if "--hash=sha256:" in path.read_text()]
    return sorted(found, key=lambda path: path.stat().st_size)


def main() -> int:
    """Look at all, say what was found, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    prepared = ROOT / ".cache" / "audit"
    parser.add_argument("--bundle", type=Path, default=prepared / "bundle", help="directory of the bundle")
    parser.add_argument("--govulncheck", type=Path, default=prepared / "bin" / "govulncheck", help="the program")
    parser.add_argument("--go-database", default=os.environ.get("GOVULNDB", ""), help="URL of a copy of Go's database")
    arguments = parser.parse_args()
    for path in (arguments.bundle / "manifest.json", arguments.govulncheck):
        if not path.is_file():
            print(f"There is no {path}: run playbooks/audit.yml first (make audit does).", file=sys.stderr)
            return UNUSABLE
    reports = [audit_go(arguments.govulncheck, arguments.bundle, arguments.go_database), audit_python(hashed_files())]
    for report in reports:
        for line in lines(report):
            print(line)
    print("Not looked at: packages of Debian and npm.")
    return status(reports)


if __name__ == "__main__":
    sys.exit(main())
