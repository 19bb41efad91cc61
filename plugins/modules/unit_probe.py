#!/usr/bin/python
"""Ansible module unit_probe: whether systemd units run and will run after a reboot."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_probe
short_description: Reports whether systemd units are active and enabled
version_added: 0.1.0
description:
  - Changes nothing and never fails by itself; what is wrong is a line with C(ok=false) under RV(probes).
attributes:
  check_mode:
    support: full
    description: It only reads.
options:
  check:
    description: Area of the report that the lines belong to.
    type: str
    required: true
  units:
    description: Names of units that must be active now and enabled, so that they come back after a reboot.
    type: list
    elements: str
    required: true
  host:
    description: Name of this machine in the report.
    type: str
    required: true
  timeout:
    description: Seconds until systemd must have answered.
    type: int
    default: 15
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: Look at the node's services
  jhok.lab.unit_probe:
    check: node
    units: [containerd, kubelet]
    host: "{{ inventory_hostname }}"
  register: units
"""

RETURN = r"""
probes:
  description: One line per unit.
  returned: always
  type: list
  elements: dict
  sample:
    - {check: node, asked: unit kubelet on worker1, got: "active, enabled", ok: true, seconds: 0.01}
"""

import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError, ProbeLog


def judge(shown: str) -> str:
    """Return the state in words from the output of `systemctl show`; ProbeError when it is not as it should be."""
    state = dict(line.partition("=")[::2] for line in shown.splitlines())
    if state.get("LoadState") != "loaded":
        raise ProbeError(f"the unit is {state.get('LoadState') or 'unknown'}")
    text = f"{state.get('ActiveState')}, {state.get('UnitFileState') or 'never enabled'}"
    if state.get("ActiveState") != "active" or not state.get("UnitFileState", "").startswith("enabled"):
        raise ProbeError(text)
    return text


def ask(unit: str, timeout: int) -> str:
    """Ask systemd about one unit."""
    command = ["systemctl", "show", "--property=LoadState,ActiveState,UnitFileState", "--", unit]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)  # noqa: S603
    if done.returncode:
        raise ProbeError(done.stderr.strip() or f"systemctl ended with {done.returncode}")
    return judge(done.stdout)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "check": {"type": "str", "required": True},
            "units": {"type": "list", "elements": "str", "required": True},
            "host": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 15},
        },
        supports_check_mode=True,
    )
    log = ProbeLog(module.params["check"])
    for unit in module.params["units"]:
        log.ask(f"unit {unit} on {module.params['host']}", lambda unit=unit: ask(unit, module.params["timeout"]))  # type: ignore[misc]
    module.exit_json(changed=False, probes=log.as_dicts())


if __name__ == "__main__":
    main()
