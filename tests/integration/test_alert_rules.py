"""Rules and Alertmanager's configuration, judged by promtool and amtool of the image that is shipped.

Run as root, after `site.yml --tags bundle`, or with promtool and amtool on the path.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.testing import patch_module_args
from ansible_collections.jhok.lab.plugins.module_utils import images
from ansible_collections.jhok.lab.plugins.modules import monitoring_check
from ansible_collections.jhok.lab.plugins.plugin_utils.alertmanager import alertmanager_config
from ansible_collections.jhok.lab.plugins.plugin_utils.monitoring_check import rule_files
from ansible_collections.jhok.lab.plugins.plugin_utils.prometheus import prometheus_config
from ansible_collections.jhok.lab.plugins.plugin_utils.rules import rules, rules_text

pytestmark = pytest.mark.integration

IMAGE = "localhost/jhok/prometheus:latest"
URL = "http://172.16.0.100:30759"
SETTINGS: dict[str, Any] = {
    "url": URL,
    "hub_namespace": "jupyterhub",
    "machines": {"master": "172.16.0.100", "worker1": "172.16.0.101"},
    "node": "master",
    "manage_kubernetes": True,
    "traffic_budget_gb": 20,
    "backup_max_age_days": 2,
    "rules": [],
    "dashboards": ["overview", "hub", "users", "nodes", "homes", "traffic", "gpu"],
    "panels": [],
    "gpus": True,
    "nfs_kernel": True,
    "nfs_address": "172.16.0.100",
    "quotas": True,
    "scrape_interval": 30,
    "extra_metrics": [],
}
TABLE = yaml.safe_load(Path(__file__).with_name("alert_rules.yml").read_text())
ALERTS = {rule["alert"]: rule for group in rules(SETTINGS)["groups"] for rule in group["rules"] if "alert" in rule}
RECEIVERS: dict[str, dict[str, Any]] = {
    "email": {"to": "a@example.org, b@example.org", "from": "lab@example.org", "smarthost": "mail.example.org:25"},
    "email-with-password": {
        "type": "email",
        "to": "a@example.org",
        "from": "lab@example.org",
        "smarthost": "mail.example.org:465",
        "username": "lab",
        "password": "secret: '{{'",
    },
    "webhook": {"url": "https://example.org/hook?token=a%20b"},
    "slack": {"url": "https://hooks.slack.com/services/T0/B0/x"},
    "dingtalk": {"url": "https://oapi.dingtalk.com/robot/send?access_token=1", "secret": "SEC1"},
    "wecom": {"url": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=1", "send_resolved": False},
}


def run(directory: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the image in `directory`, which it sees read-only."""
    if shutil.which(command[0]):
        return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    cgroup2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    podman = images.podman_command(cgroup2, shutil.which("runc") is not None)
    directory.chmod(0o755)
    options = ["--rm", "--network=none", "--ulimit=nofile=16384:16384", "--ulimit=nproc=32768:32768", "--pids-limit=0"]
    mount = ["--volume", f"{directory}:{directory}:ro", "--workdir", str(directory), "--entrypoint", ""]
    return subprocess.run(
        [*podman, "run", *options, *mount, IMAGE, *command], capture_output=True, text=True, check=False
    )


def unit_test(case: dict[str, Any]) -> dict[str, Any]:
    """Return a case as promtool has it."""
    at, step = case.get("at", "30m"), case.get("every", "30s")
    healthy = {name: f"{values}x{seconds(at) // seconds(step)}" for name, values in TABLE["healthy"].items()}
    series = case.get("only", {**healthy, **case.get("series", {})})
    judged = case.get("judge", ALERTS) if "fires" in case else ()
    return {
        "name": case["name"],
        "interval": step,
        "input_series": [{"series": name, "values": values} for name, values in series.items() if values is not None],
        "alert_rule_test": [
            {
                "eval_time": at,
                "alertname": name,
                "exp_alerts": [
                    {
                        "exp_labels": {**ALERTS[name]["labels"], **fired["labels"]},
                        "exp_annotations": {
                            "summary": fired["summary"],
                            "description": fired["description"],
                            "runbook_url": f"{URL}/site/runbooks.html#{name.lower()}",
                        },
                    }
                    for fired in case["fires"].get(name, [])
                ],
            }
            for name in judged
        ],
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": at,
                "exp_samples": [
                    {
                        "labels": (query if query[0].islower() and "(" not in query else "")
                        + json_labels(one["labels"]),
                        "value": one["value"],
                    }
                    for one in samples
                ],
            }
            for query, samples in case.get("is", {}).items()
        ],
    }


def seconds(duration: str) -> int:
    return sum(
        int(number) * {"s": 1, "m": 60, "h": 3600}[unit] for number, unit in re.findall(r"(\d+)([smh])", duration)
    )


def json_labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f"{name}={json.dumps(value)}" for name, value in labels.items()) + "}"


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rules_text(SETTINGS))
    result = run(tmp_path, "promtool", "check", "rules", "--lint-fatal", "rules.yml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_rules_do_what_the_table_says(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rules_text(SETTINGS))
    steps: dict[str, list[dict[str, Any]]] = {}
    for case in TABLE["cases"]:
        steps.setdefault(case.get("every", "30s"), []).append(unit_test(case))
    for step, tests in steps.items():
        # Without it promtool takes the groups of a moment in any order, and alerts may see figures of a moment before.
        order = [group["name"] for group in rules(SETTINGS)["groups"]]
        document = {
            "rule_files": ["rules.yml"],
            "evaluation_interval": step,
            "group_eval_order": order,
            "tests": tests,
        }
        (tmp_path / f"{step}.yml").write_text(yaml.safe_dump(document, width=1000))
    result = run(tmp_path, "promtool", "test", "rules", *(f"{step}.yml" for step in steps))
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_has_a_case_of_firing_and_one_of_not_firing_close_to_it() -> None:
    cases = [case for case in TABLE["cases"] if "fires" in case]
    fired = {name for case in cases for name in case["fires"]}
    assert fired == set(ALERTS)
    for name in ALERTS:
        touched = {series for case in cases if name in case["fires"] for series in case.get("series", case.get("only"))}
        quiet = [case for case in cases if name not in case["fires"] and case.get("series", case.get("only"))]
        assert any(touched & set(case.get("series", case.get("only"))) for case in quiet), name


@pytest.mark.parametrize("name", RECEIVERS)
def test_alertmanager_takes_every_type_of_receiver(name: str, tmp_path: Path) -> None:
    receiver = {"name": "someone", "type": name, **RECEIVERS[name]}
    check(tmp_path, [receiver])


def test_alertmanager_takes_all_receivers_together_and_none(tmp_path: Path) -> None:
    check(tmp_path, [{"name": name, "type": name, **receiver} for name, receiver in RECEIVERS.items()])
    check(tmp_path, [])


def check(directory: Path, receivers: list[dict[str, Any]]) -> None:
    (directory / "alertmanager.yml").write_text(yaml.safe_dump(alertmanager_config({"receivers": receivers})))
    result = run(directory, "amtool", "check-config", "alertmanager.yml")
    assert result.returncode == 0, result.stdout + result.stderr


Judged = Callable[..., dict[str, Any]]


@pytest.fixture
def judged(capsys: pytest.CaptureFixture[str]) -> Judged:
    """Return how module monitoring_check judges a site: its result, with what it printed under `output`."""

    def judge(
        alertmanager: str = "", own: Sequence[str] = (), *, check: bool = False, **changes: object
    ) -> dict[str, Any]:
        settings = {**SETTINGS, **changes}
        arguments = {
            "image": IMAGE,
            "prometheus": yaml.safe_dump(prometheus_config(settings, ["up"])),
            "rules": rule_files(settings),
            "alertmanager": alertmanager or yaml.safe_dump(alertmanager_config({"receivers": []})),
            "own": list(own),
            "_ansible_check_mode": check,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            monitoring_check.main()
        output = capsys.readouterr().out
        return {**json.loads(output), "output": output}

    return judge


def test_every_query_of_every_dashboard_is_promql(judged: Judged) -> None:
    result = judged()
    assert not result.get("failed"), result["msg"]
    assert result["tools"] in ("image", "path")
    assert not result["changed"]


def test_wrong_promql_of_a_site_is_refused_in_promtool_s_words(judged: Judged) -> None:
    result = judged(
        panels=[
            {"dashboard": "hub", "title": "A", "query": "rate(up)"},
            {"dashboard": "hub", "title": "B", "query": "up"},
        ],
        rules=[{"name": "mine", "rules": [{"alert": "X", "expr": "up ==", "labels": {"room": "1"}}]}],
    )
    assert result["failed"]
    lines = result["msg"].splitlines()[2:]
    assert len(lines) == 2, lines
    assert 'monitoring_rules: group "mine", rule 1, "X": could not parse expression' in lines[0]
    assert (
        "monitoring_panels[0].query: could not parse expression: 1:6: parse error: expected type range vector"
        in lines[1]
    )


def test_what_amtool_refuses_shows_no_secret(judged: Judged) -> None:
    text = "route: {receiver: a}\nreceivers: [{name: a, webhook_configs: [{url: 'https://x.y/tok3n%zz'}]}]\n"
    result = judged(alertmanager=text)
    assert result["failed"]
    assert "monitoring_receivers: " in result["msg"]
    assert "tok3n" not in result["output"]


@pytest.mark.parametrize(("own", "check"), [([], False), (["monitoring_rules"], True)])
def test_without_the_tools_there_is_a_warning(
    judged: Judged, monkeypatch: pytest.MonkeyPatch, own: list[str], check: bool
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(monitoring_check.AnsibleModule, "warn", lambda _module, text: warnings.append(text))
    result = judged(own=own, check=check)
    assert not result.get("failed")
    assert result["tools"] == ""
    assert len(warnings) == 1
    assert "have not been judged" in warnings[0]


def test_without_the_tools_a_site_s_own_are_refused(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    result = judged(own=["monitoring_rules", "monitoring_receivers"])
    assert result["failed"]
    for piece in ("monitoring_rules, monitoring_receivers", IMAGE, "--tags bundle", "apt-get install"):
        assert piece in result["msg"]
