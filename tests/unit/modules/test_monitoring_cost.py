from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.jhok.lab.plugins.modules import monitoring_cost

UID = "2cc2790d-0501-4a33-9440-31440e32202f"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str, str], None]:
    monkeypatch.setattr(monitoring_cost, "PROC", tmp_path)

    def run(number: int, cgroup: str, command: str) -> None:
        process = tmp_path / str(number)
        process.mkdir()
        (process / "cgroup").write_text(f"4:memory:{cgroup}\n")
        (process / "cmdline").write_bytes(command.replace(" ", "\0").encode())

    return run


def test_finds_processes_of_pods_and_services(machine: Callable[[int, str, str], None]) -> None:
    machine(10, f"/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-1.scope", "/usr/bin/prometheus --web")
    machine(11, f"/kubepods/burstable/pod{UID}/1", "/opt/python/bin/python -m jhok_exporter")
    machine(12, "/kubepods/burstable/pod11111111-0501-4a33-9440-31440e32202f/1", "/usr/bin/other")
    machine(13, "/system.slice/prometheus-node-exporter.service", "/usr/bin/prometheus-node-exporter")
    machine(14, "/system.slice/ssh.service", "sshd: root")
    assert monitoring_cost.processes([UID], ["prometheus-node-exporter"]) == {
        10: ("pod", "prometheus"),
        11: ("pod", "jhok_exporter"),
        13: ("prometheus-node-exporter", "prometheus-node-exporter"),
    }
    assert monitoring_cost.processes([], []) == {}


def test_measures_a_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "print('here', flush=True)\nwhile True: pass"], stdout=-1) as busy:
        try:
            assert busy.stdout
            busy.stdout.readline()
            before = monitoring_cost.cpu_seconds(busy.pid)
            while monitoring_cost.cpu_seconds(busy.pid) < before + 0.2:
                pass
            assert monitoring_cost.memory_bytes(os.getpid()) > 10e6
        finally:
            busy.kill()


def test_measures_a_command() -> None:
    work = "import time\nwhile time.process_time() < 0.3: pass"
    figure = monitoring_cost.command_figure({"name": "work", "argv": [sys.executable, "-c", work], "every": "10"})
    assert figure["cores"] >= 0.03
