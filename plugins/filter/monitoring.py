"""Filters of role monitoring."""

from __future__ import annotations

DOCUMENTATION = r"""
name: monitoring_objects
short_description: Kubernetes objects of role monitoring, but its Secret
version_added: "0.1.0"
description: Volume, account, configuration, Deployment and Service of Prometheus, Alertmanager and the page.
positional: _input, directory, secrets
options:
  _input:
    description: The variables of role C(jhok.lab.monitoring) that shape objects, without the prefix C(monitoring_).
    type: dict
    required: true
  directory:
    description: Folder of the role, on the control machine.
    type: path
    required: true
  secrets:
    description: The values that M(jhok.lab.secret_store) returned. Only a digest of them gets into the objects.
    type: dict
    required: true
"""

EXAMPLES = r"""
entries: "{{ [] | jhok.lab.monitoring_secret_entries }}"
objects: "{{ __monitoring_settings | jhok.lab.monitoring_objects(role_path, result.secrets) }}"
secrets: "{{ __monitoring_settings | jhok.lab.monitoring_secrets(result.secrets) }}"
"""

RETURN = r"""
_value:
  description: >-
    Plain Kubernetes objects. C(monitoring_secret_entries) gives entries for M(jhok.lab.secret_store), C(monitoring_ui)
    what runs, C(monitoring_targets) how many targets each job has, C(monitoring_dashboard_names) names.
  type: list
  elements: dict
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible_collections.jhok.lab.plugins.plugin_utils.dashboards import site_dashboards
from ansible_collections.jhok.lab.plugins.plugin_utils.grafana_provisioning import chosen_ui, ui_summary
from ansible_collections.jhok.lab.plugins.plugin_utils.monitoring import (
    MonitoringSettings,
    alertmanager_text,
    monitoring_objects,
    monitoring_secret_entries,
    monitoring_secrets,
    prometheus_text,
)
from ansible_collections.jhok.lab.plugins.plugin_utils.monitoring_check import rule_files
from ansible_collections.jhok.lab.plugins.plugin_utils.prometheus import expected_targets


def _chosen(settings: MonitoringSettings) -> MonitoringSettings:
    """Return the settings with the page that runs, as plain values: YAML's writer takes no others."""
    plain: MonitoringSettings = json.loads(json.dumps({**settings, "ui": chosen_ui(settings)}))
    return plain


def objects(settings: MonitoringSettings, directory: str, secrets: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the objects; `directory` is the role's folder, beside which the docs lie."""
    role = Path(directory)
    files = {
        "sign_in.py": (role / "files" / "sign_in.py").read_text(),
        "runbooks.md": (role / ".." / ".." / "docs" / "admin" / "runbooks.md").read_text(),
    }
    return monitoring_objects(_chosen(settings), files, secrets)


def secret_objects(settings: MonitoringSettings, secrets: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the Secret."""
    return monitoring_secrets(_chosen(settings), secrets)


def entries(_input: object) -> list[dict[str, Any]]:
    """Return the entries of the store."""
    return monitoring_secret_entries()


def dashboard_names(settings: MonitoringSettings) -> list[str]:
    """Return the names (uid) of the site's dashboards."""
    return [dashboard.uid for dashboard in site_dashboards(settings)]


def checked_prometheus(settings: MonitoringSettings) -> str:
    """Return prometheus.yml."""
    return prometheus_text(_chosen(settings))


def checked_rules(settings: MonitoringSettings) -> dict[str, str]:
    """Return files for promtool, by what they are of."""
    return rule_files(_chosen(settings))


def checked_alertmanager(settings: MonitoringSettings) -> str:
    """Return alertmanager.yml, which holds secrets."""
    return alertmanager_text(_chosen(settings))


class FilterModule:
    """Thin wrappers."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "monitoring_objects": objects,
            "monitoring_secrets": secret_objects,
            "monitoring_secret_entries": entries,
            "monitoring_prometheus_text": checked_prometheus,
            "monitoring_rule_files": checked_rules,
            "monitoring_alertmanager_text": checked_alertmanager,
            "monitoring_targets": expected_targets,
            "monitoring_dashboard_names": dashboard_names,
            "monitoring_ui": chosen_ui,
            "monitoring_ui_summary": ui_summary,
        }
