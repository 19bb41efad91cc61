"""Figures of one machine that the node exporter does not know, written as files that it reads.

`jhok_metrics.py machine` writes jhok.prom: expiry of Kubernetes' certificates, GPUs, and where the homes are, their
file system and how long a write to it takes. `jhok_metrics.py homes` writes jhok_homes.prom: the size of every home,
which takes long where there is much, and its quota, where role nfs_server has set one. The configuration is
/etc/jhok/metrics.json: `directory` (where the node exporter reads) and `homes` (directory of all homes; empty on a
machine that has none).

Needs nothing but Python 3.10 and du; runs as root, since nobody else may look into homes.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

CONFIG = Path("/etc/jhok/metrics.json")
QUOTA_STATE = Path("/var/lib/jhok/quota.json")  # what role nfs_server's jhok_quota.py knows
ROOT = Path("/")
# The files that keep a certificate: PEM, or a kubeconfig with one in it.
CERTIFICATES = (
    "etc/kubernetes/pki/*.crt",
    "etc/kubernetes/pki/etcd/*.crt",
    "etc/kubernetes/*.conf",
    "var/lib/kubelet/pki/kubelet-client-current.pem",
)
# What the hub lets a user be called. Anything else beside the homes, such as lost+found, is no home.
HOME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
WRITE_BYTES = 4096
PROGRAM_SECONDS = 30
GPU_FIELDS = "index,name,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw"
MIB = 1024 * 1024

Samples = Iterable["tuple[Mapping[str, str], float]"]


class Page:
    """Metrics in Prometheus' text format."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def gauge(self, name: str, about: str, samples: Samples) -> None:
        """Add a metric with its samples (labels and value); without any it is left out."""
        lines = [f"{name}{_labels(labels)} {value!r}" for labels, value in samples]
        if lines:
            self._lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge", *lines]

    def write(self, path: Path) -> None:
        """Replace the file in one step: the node exporter never reads half of it."""
        new = path.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in self._lines), encoding="utf-8")
        new.chmod(0o644)
        new.replace(path)


def _labels(labels: Mapping[str, str]) -> str:
    escape = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
    pairs = ",".join(f'{name}="{value.translate(escape)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


# ------------------------------------------------------------------ homes


def homes_page(homes: Path) -> Page:
    """Return what jhok_homes.prom says.

    Raises:
        OSError: the directory cannot be read, or there is no du.

    """
    begin = time.monotonic()
    with os.scandir(homes) as entries:
        names = sorted(e.name for e in entries if HOME_NAME.fullmatch(e.name) and e.is_dir(follow_symlinks=False))
    used = disk_usage(homes, names, "--block-size=1")
    files = disk_usage(homes, names, "--inodes")
    page = Page()
    about = "Disk space that a home takes on the server, in bytes; a file with several names counts once."
    page.gauge("jhok_home_bytes", about, (({"user": name}, value) for name, value in used.items()))
    about = "Files and directories in a home."
    page.gauge("jhok_home_files", about, (({"user": name}, value) for name, value in files.items()))
    quotas = known_quotas(names)
    about = "What a home may hold, in bytes; homes that share a quota may hold it together."
    page.gauge("jhok_home_quota_bytes", about, ((labels, quota["limit"]) for labels, quota in quotas))
    about = "What counts towards a home's quota, in bytes; where it is shared, what all these homes hold."
    page.gauge("jhok_home_quota_used_bytes", about, ((labels, quota["used"]) for labels, quota in quotas))
    about = "When the homes were measured, in seconds since 1970."
    page.gauge("jhok_homes_scan_timestamp_seconds", about, [({}, round(time.time(), 3))])
    about = "How long the measuring of all homes took, in seconds."
    page.gauge("jhok_homes_scan_seconds", about, [({}, round(time.monotonic() - begin, 3))])
    return page


def known_quotas(names: Sequence[str]) -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Return the quotas of these homes as role nfs_server knows them, with labels; a home without one is left out.

    Raises:
        OSError: the file is there and cannot be read.
        ValueError: it is not what it should be.

    """
    try:
        homes = json.loads(QUOTA_STATE.read_text(encoding="utf-8"))["homes"]
    except FileNotFoundError:
        return []
    except KeyError as error:
        raise ValueError(f"{QUOTA_STATE} has no {error}") from None
    found = []
    for name in names:
        quota = homes.get(name, {})
        if quota.get("limit") is not None:
            found.append(({"user": name, **({"shared": quota["shared"]} if quota["shared"] else {})}, quota))
    return found


def disk_usage(directory: Path, names: Sequence[str], unit: str) -> dict[str, int]:
    """Return what `du` counts in each of the directories, by name.

    One that vanished is left out, and files that vanish while it looks do not count: users go on working. Symbolic
    links are not followed, other file systems not entered, and a file with several names is counted once.

    Args:
        directory: where they are.
        names: which ones.
        unit: du's option for what is counted, `--block-size=1` for bytes on the disk or `--inodes` for files.

    Raises:
        OSError: there is no du.

    """
    command = ["du", "--null", "--summarize", "--one-file-system", unit, "--files0-from=-"]
    listed = "".join(f"{name}\0" for name in names)
    # Its complaints are about what vanished.
    done = subprocess.run(command, input=listed, capture_output=True, cwd=directory, text=True, check=False)  # noqa: S603
    lines = (line.partition("\t") for line in done.stdout.split("\0") if line)
    return {name: int(count) for count, _tab, name in lines}


def write_seconds(directory: Path) -> float:
    """Return how long a small write took until it was on the disk, in seconds.

    It is the same file each time, so that a full disk is no obstacle.

    Raises:
        OSError: it cannot be written.

    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(directory / ".jhok-metrics", flags, 0o600)
    try:
        begin = time.monotonic()
        os.pwrite(descriptor, os.urandom(WRITE_BYTES), 0)
        os.fsync(descriptor)
        return round(time.monotonic() - begin, 6)
    finally:
        os.close(descriptor)


def _file_system(page: Page, homes: Path) -> None:
    status = os.statvfs(homes)
    about = "Size of the file system of the homes, in bytes."
    page.gauge("jhok_homes_filesystem_size_bytes", about, [({}, status.f_blocks * status.f_frsize)])
    about = "Free space of the file system of the homes, in bytes."
    page.gauge("jhok_homes_filesystem_avail_bytes", about, [({}, status.f_bavail * status.f_frsize)])
    about = "How long a write of 4 KiB beside the homes takes until it is on the disk, in seconds."
    page.gauge("jhok_homes_write_seconds", about, [({}, write_seconds(homes.parent))])


# ------------------------------------------------------------------ certificates


def certificate_expiry(text: str) -> float | None:
    """Return when the first certificate in a PEM file or kubeconfig expires, in seconds since 1970; None without one.

    Raises:
        ValueError: what looks like a certificate is none.

    """
    embedded = re.search(r"client-certificate-data:\s*(\S+)", text)
    if embedded:
        text = base64.b64decode(embedded[1]).decode("ascii")
    pem = re.search(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text, re.DOTALL)
    return not_after(ssl.PEM_cert_to_DER_cert(pem[0])) if pem else None


def not_after(certificate: bytes) -> float:
    """Return the end of a DER certificate's validity, in seconds since 1970.

    Raises:
        ValueError: it is no certificate.

    """
    try:
        # Certificate → TBSCertificate → [version], serial number, algorithm, issuer, validity → notBefore, notAfter
        fields = _der(_der(_der(certificate)[0][1])[0][1])
        validity = fields[4 if fields[0][0] == _VERSION else 3][1]
        tag, value = _der(validity)[1]
    except IndexError:
        raise ValueError("not a certificate") from None
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(value.decode("ascii"), form).replace(tzinfo=timezone.utc).timestamp()  # noqa: UP017


_VERSION, _UTC_TIME = 0xA0, 0x17  # tags of DER


def _der(data: bytes) -> list[tuple[int, bytes]]:
    """Return the elements that follow each other in DER, each with its tag."""
    found = []
    while data:
        tag, length, head = data[0], data[1], 2
        if length & 0x80:
            head += length & 0x7F
            length = int.from_bytes(data[2:head], "big")
        found.append((tag, data[head : head + length]))
        data = data[head + length :]
    return found


def _certificates(page: Page) -> None:
    samples = []
    problems = []
    for path in sorted(path for pattern in CERTIFICATES for path in ROOT.glob(pattern)):
        try:
            end = certificate_expiry(path.read_text(encoding="ascii"))
        except ValueError as error:
            problems.append(f"{path}: {error}")
            continue
        if end is not None:
            samples.append(({"certificate": str(path)}, end))
    about = "When a certificate expires, in seconds since 1970."
    page.gauge("jhok_certificate_expiry_timestamp_seconds", about, samples)
    if problems:
        raise ValueError("; ".join(problems))


# ------------------------------------------------------------------ GPUs


def gpus() -> list[dict[str, str]]:
    """Return what nvidia-smi says of each GPU, by the names of GPU_FIELDS; nothing on a machine without it.

    Raises:
        OSError: nvidia-smi failed.
        subprocess.TimeoutExpired: it did not end, as with a GPU that has hung.

    """
    command = ["nvidia-smi", f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_SECONDS, check=False)  # noqa: S603
    except FileNotFoundError:
        return []
    if done.returncode:
        raise OSError(f"nvidia-smi ended with {done.returncode}: {(done.stdout + done.stderr).strip()}")
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [dict(zip(GPU_FIELDS.split(","), row, strict=True)) for row in rows]


def _gpus(page: Page) -> None:
    found = gpus()

    def samples(field: str, factor: float) -> Iterator[tuple[Mapping[str, str], float]]:
        for gpu in found:
            labels = {"gpu": gpu["index"], "name": gpu["name"]}
            try:
                yield labels, float(gpu[field]) * factor
            except ValueError:  # [N/A]: this kind of GPU does not tell
                continue

    for name, about, field, factor in (
        ("jhok_gpu_utilization_ratio", "Share of the time in which a GPU worked.", "utilization.gpu", 0.01),
        ("jhok_gpu_memory_used_bytes", "Memory of a GPU that is taken, in bytes.", "memory.used", MIB),
        ("jhok_gpu_memory_total_bytes", "Memory of a GPU, in bytes.", "memory.total", MIB),
        ("jhok_gpu_temperature_celsius", "Temperature of a GPU, in degrees Celsius.", "temperature.gpu", 1),
        ("jhok_gpu_power_watts", "Power that a GPU draws, in watts.", "power.draw", 1),
    ):
        page.gauge(name, about, samples(field, factor))


# ------------------------------------------------------------------ program


def machine_page(homes: str) -> tuple[Page, list[str]]:
    """Return what jhok.prom says, and what could not be learnt: one part that fails does not take the others along."""
    page = Page()
    problems = []
    parts: dict[str, Callable[[Page], None]] = {"certificates": _certificates, "GPUs": _gpus}
    if homes:
        parts["homes"] = lambda page: _file_system(page, Path(homes))
    for name, part in parts.items():
        try:
            part(page)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            problems.append(f"{name}: {error}")
    return page, problems


def main(arguments: Sequence[str]) -> int:
    """Write the page that is asked for; return the exit status, 1 when something could not be learnt."""
    config = json.loads(CONFIG.read_text(encoding="utf-8"))
    directory = Path(config["directory"])
    problems: list[str] = []
    if list(arguments) == ["homes"]:
        homes_page(Path(config["homes"])).write(directory / "jhok_homes.prom")
    elif list(arguments) == ["machine"]:
        page, problems = machine_page(config["homes"])
        page.write(directory / "jhok.prom")
    else:
        problems = ["say what to write: machine or homes"]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
