"""What a machine tells besides the node exporter: real trees and certificates, a stand-in for nvidia-smi."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import jhok_metrics
import pytest
from prometheus_client.parser import text_string_to_metric_families

MIB = 1024 * 1024


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's root directory, with the configuration and no program but du."""
    for path in ("etc/jhok", "textfile", "bin", "data/homes"):
        (tmp_path / path).mkdir(parents=True)
    config = tmp_path / "etc/jhok/metrics.json"
    config.write_text(json.dumps({"directory": str(tmp_path / "textfile"), "homes": str(tmp_path / "data/homes")}))
    (tmp_path / "bin/du").symlink_to("/usr/bin/du")
    monkeypatch.setattr(jhok_metrics, "CONFIG", config)
    monkeypatch.setattr(jhok_metrics, "ROOT", tmp_path)
    monkeypatch.setattr(jhok_metrics, "QUOTA_STATE", tmp_path / "quota.json")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def samples(machine: Path, page: str) -> dict[tuple[str, ...], float]:
    """Return what the page says, by name and values of labels."""
    families = text_string_to_metric_families((machine / "textfile" / page).read_text())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


# ------------------------------------------------------------------ homes


def test_homes_are_measured_as_du_does(machine: Path) -> None:
    homes = machine / "data/homes"
    for name in ("alice", "Bob_3.x", "lost+found", ".hidden", "with space"):
        (homes / name / "数据 é").mkdir(parents=True)
    (homes / "a-file").write_text("x")
    (homes / "a-link").symlink_to(homes / "alice")
    alice = homes / "alice"
    (alice / "数据 é" / "文件").write_bytes(b"x" * MIB)
    os.link(alice / "数据 é" / "文件", alice / "the same file")
    (alice / "a new\nline").write_bytes(b"x" * MIB)
    with (alice / "sparse").open("wb") as sparse:
        sparse.truncate(100 * MIB)
    (alice / "to bob").symlink_to(homes / "Bob_3.x")
    (homes / "Bob_3.x" / "much").write_bytes(b"x" * 5 * MIB)

    begin = datetime.now(tz=UTC).timestamp()
    assert jhok_metrics.main(["homes"]) == 0
    told = samples(machine, "jhok_homes.prom")
    assert {key[1] for key in told if len(key) > 1} == {"alice", "Bob_3.x"}
    blocks = {path.stat().st_ino: path.lstat().st_blocks * 512 for path in (alice, *alice.rglob("*")) if path.is_file()}
    own = sum(path.lstat().st_blocks * 512 for path in (alice, *alice.rglob("*")) if not path.is_file())
    assert told["jhok_home_bytes", "alice"] == sum(blocks.values()) + own
    assert 2 * MIB <= told["jhok_home_bytes", "alice"] < 3 * MIB
    # The home, a directory, a file of two names, one with a new line, a sparse one, a link.
    assert told["jhok_home_files", "alice"] == 6
    assert 5 * MIB <= told["jhok_home_bytes", "Bob_3.x"] < 6 * MIB
    assert told["jhok_homes_scan_timestamp_seconds",] >= begin - 1
    assert told["jhok_homes_scan_seconds",] > 0


def test_no_homes_yet(machine: Path) -> None:
    assert jhok_metrics.main(["homes"]) == 0
    assert set(samples(machine, "jhok_homes.prom")) == {
        ("jhok_homes_scan_timestamp_seconds",),
        ("jhok_homes_scan_seconds",),
    }


def test_quotas_of_homes(machine: Path) -> None:
    for name in ("alice", "bob", "carol", "dan", "new"):
        (machine / "data/homes" / name).mkdir()
    own = {"used": 3 * MIB, "limit": 5 * MIB, "shared": None}
    together = {"used": 7 * MIB, "limit": 9 * MIB, "shared": "class"}
    homes = {"alice": own, "bob": {**own, "limit": None}, "carol": together, "dan": together, "gone": own}
    (machine / "quota.json").write_text(json.dumps({"mode": "enforce", "time": 1, "homes": homes}))
    assert jhok_metrics.main(["homes"]) == 0
    told = {key: value for key, value in samples(machine, "jhok_homes.prom").items() if "quota" in key[0]}
    assert told == {
        ("jhok_home_quota_bytes", "alice"): 5 * MIB,
        ("jhok_home_quota_used_bytes", "alice"): 3 * MIB,
        **{("jhok_home_quota_bytes", name, "class"): 9 * MIB for name in ("carol", "dan")},
        **{("jhok_home_quota_used_bytes", name, "class"): 7 * MIB for name in ("carol", "dan")},
    }


def test_limits_that_cannot_be_read_are_no_missing_limits(machine: Path) -> None:
    for text in ("{", "{}"):
        (machine / "quota.json").write_text(text)
        with pytest.raises(ValueError, match=r"homes|Expecting"):
            jhok_metrics.main(["homes"])


def test_files_may_vanish_while_homes_are_measured(machine: Path) -> None:
    home = machine / "data/homes/alice"
    home.mkdir()
    (home / "kept").write_bytes(b"x" * MIB)
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            for number in range(50):
                (home / f"{number}" / "deep").mkdir(parents=True)
            for number in range(50):
                (home / f"{number}" / "deep").rmdir()
                (home / f"{number}").rmdir()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(20):
            assert jhok_metrics.main(["homes"]) == 0
            assert MIB <= samples(machine, "jhok_homes.prom")["jhok_home_bytes", "alice"] < 2 * MIB
    finally:
        done.set()
        worker.join()


def test_a_home_that_vanished_is_left_out(machine: Path) -> None:
    homes = machine / "data/homes"
    (homes / "alice").mkdir()
    assert list(jhok_metrics.disk_usage(homes, ["gone", "alice"], "--inodes").items()) == [("alice", 1)]


def test_without_the_directory_of_homes_the_old_page_stays(machine: Path) -> None:
    (machine / "data/homes").rmdir()
    (machine / "textfile/jhok_homes.prom").write_text("old")
    with pytest.raises(FileNotFoundError):
        jhok_metrics.main(["homes"])
    assert (machine / "textfile/jhok_homes.prom").read_text() == "old"


def test_file_system_of_the_homes(machine: Path) -> None:
    assert jhok_metrics.main(["machine"]) == 0
    told = samples(machine, "jhok.prom")
    status = os.statvfs(machine)
    assert told["jhok_homes_filesystem_size_bytes",] == status.f_blocks * status.f_frsize
    assert told["jhok_homes_filesystem_avail_bytes",] == pytest.approx(status.f_bavail * status.f_frsize, rel=0.05)
    assert 0 < told["jhok_homes_write_seconds",] < 60
    assert (machine / "data/.jhok-metrics").stat().st_size == 4096
    assert [path.name for path in (machine / "textfile").iterdir()] == ["jhok.prom"]
    assert (machine / "textfile/jhok.prom").stat().st_mode & 0o777 == 0o644


def test_a_write_follows_no_link(machine: Path) -> None:
    (machine / "data/.jhok-metrics").symlink_to(machine / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        jhok_metrics.write_seconds(machine / "data")
    assert not (machine / "elsewhere").exists()


# ------------------------------------------------------------------ certificates


def certificate(path: Path, end: str, extensions: Sequence[str] = ("-extensions", "ext")) -> str:
    """Make a certificate that ends at this time (YYYYMMDDHHMMSSZ); return its PEM, which is in `path`.

    Without extensions it is one of X.509's first version, which does not say its version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    key = path.with_suffix(".key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/O=Lab 实验室/CN=a", "-keyout", str(key), "-out", str(path.with_suffix(".req"))]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/bin"})
    # Signed again, since `req` of older releases takes whole days only.
    (path.parent / "index.txt").write_text("")
    config = path.parent / "ca.cnf"
    config.write_text(
        f"[ca]\ndefault_ca = own\n[own]\ndatabase = {path.parent}/index.txt\nnew_certs_dir = {path.parent}\n"
        "default_md = sha256\npolicy = any\nrand_serial = yes\n[any]\ncommonName = supplied\n"
        "[ext]\nbasicConstraints = CA:FALSE\n"
    )
    command = ["openssl", "ca", "-batch", "-notext", "-config", str(config), "-ss_cert", str(path.with_suffix(".req"))]
    command += ["-keyfile", str(key), "-cert", str(path.with_suffix(".req")), "-out", str(path)]
    command += ["-startdate", "20200101000000Z", "-enddate", end, *extensions]
    subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/bin"})
    for suffix in (".key", ".req"):
        path.with_suffix(suffix).unlink()
    return path.read_text()


def test_certificates(machine: Path) -> None:
    pki, kubelet = machine / "etc/kubernetes/pki", machine / "var/lib/kubelet/pki"
    server = certificate(pki / "apiserver.crt", "20311231235958Z")
    certificate(pki / "etcd/ca.crt", "20550102030405Z", [])  # after 2049 the year has four digits
    certificate(kubelet / "kubelet-client.pem", "20270228120000Z")
    (kubelet / "kubelet-client-current.pem").symlink_to(kubelet / "kubelet-client.pem")
    data = base64.b64encode(server.encode()).decode()
    (machine / "etc/kubernetes/admin.conf").write_text(f"users:\n- user:\n    client-certificate-data: {data}\n")
    (machine / "etc/kubernetes/kubelet.conf").write_text("users:\n- user:\n    client-certificate: /a/file\n")
    assert jhok_metrics.main(["machine"]) == 0
    name = "jhok_certificate_expiry_timestamp_seconds"
    told = {key[1]: value for key, value in samples(machine, "jhok.prom").items() if key[0] == name}
    assert told == {
        str(pki / "apiserver.crt"): datetime(2031, 12, 31, 23, 59, 58, tzinfo=UTC).timestamp(),
        str(pki / "etcd/ca.crt"): datetime(2055, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp(),
        str(kubelet / "kubelet-client-current.pem"): datetime(2027, 2, 28, 12, tzinfo=UTC).timestamp(),
        str(machine / "etc/kubernetes/admin.conf"): datetime(2031, 12, 31, 23, 59, 58, tzinfo=UTC).timestamp(),
    }


def test_a_broken_certificate_does_not_hide_the_others(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = machine / "etc/kubernetes/pki/apiserver.crt"
    certificate(good, "20311231235958Z")
    lines = good.read_text().splitlines()
    good.with_name("ca.crt").write_text("\n".join([lines[0], lines[1], lines[-1]]))
    assert jhok_metrics.main(["machine"]) == 1
    assert "pki/ca.crt: " in capsys.readouterr().err
    assert ("jhok_certificate_expiry_timestamp_seconds", str(good)) in samples(machine, "jhok.prom")


# ------------------------------------------------------------------ GPUs


def nvidia_smi(machine: Path, body: str) -> None:
    program = machine / "bin/nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)


def test_gpus(machine: Path) -> None:
    asked = "--query-gpu=index,name,utilization.gpu,memory.used,memory.total,temperature.gpu,power.draw"
    answers = '0, NVIDIA A100-SXM4-40GB, 37, 1024, 40960, 41, 52.12\\n1, Tesla \\"T4\\", 0, 3, 15360, [N/A], [N/A]'
    nvidia_smi(machine, f'[ "$*" = "{asked} --format=csv,noheader,nounits" ] || exit 2\nprintf "{answers}\\n"')
    assert jhok_metrics.main(["machine"]) == 0
    told = {key: value for key, value in samples(machine, "jhok.prom").items() if "gpu" in key[0]}
    assert told == {
        ("jhok_gpu_utilization_ratio", "0", "NVIDIA A100-SXM4-40GB"): 0.37,
        ("jhok_gpu_memory_used_bytes", "0", "NVIDIA A100-SXM4-40GB"): 1024 * MIB,
        ("jhok_gpu_memory_total_bytes", "0", "NVIDIA A100-SXM4-40GB"): 40960 * MIB,
        ("jhok_gpu_temperature_celsius", "0", "NVIDIA A100-SXM4-40GB"): 41,
        ("jhok_gpu_power_watts", "0", "NVIDIA A100-SXM4-40GB"): 52.12,
        ("jhok_gpu_utilization_ratio", "1", 'Tesla "T4"'): 0,
        ("jhok_gpu_memory_used_bytes", "1", 'Tesla "T4"'): 3 * MIB,
        ("jhok_gpu_memory_total_bytes", "1", 'Tesla "T4"'): 15360 * MIB,
    }


def test_a_driver_that_fails_is_told_and_hides_nothing(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nvidia_smi(machine, "echo 'Driver/library version mismatch'; exit 18")
    assert jhok_metrics.main(["machine"]) == 1
    assert "GPUs: nvidia-smi ended with 18: Driver/library version mismatch" in capsys.readouterr().err
    assert ("jhok_homes_filesystem_size_bytes",) in samples(machine, "jhok.prom")


# ------------------------------------------------------------------ program


def test_a_machine_without_anything_writes_an_empty_page(machine: Path) -> None:
    (machine / "etc/jhok/metrics.json").write_text(json.dumps({"directory": str(machine / "textfile"), "homes": ""}))
    assert jhok_metrics.main(["machine"]) == 0
    assert (machine / "textfile/jhok.prom").read_text() == ""


def test_unknown_page(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert jhok_metrics.main([]) == 1
    assert "machine or homes" in capsys.readouterr().err
    assert list((machine / "textfile").iterdir()) == []
