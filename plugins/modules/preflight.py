#!/usr/bin/python
"""Documentation of action plugin `jhok.lab.preflight`, which does the work on the control machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Judges the inventory, an existing cluster or the machines, and lists every problem at once
version_added: 0.1.0
description:
  - Judges the whole inventory against the argument specifications of the collection's roles and the rules across roles,
    before any host is touched. It runs on the control machine and changes nothing, in check mode or not.
  - Fails with one message that gives file and line, variable, value and what to do for each problem. Values of secrets
    are never shown.
options:
  stage:
    description:
      - V(static) judges the inventory.
      - V(existing) asks the API server of an existing cluster (C(kubernetes_manage=false)) for its version.
      - V(machine) judges what M(jhok.lab.machine_facts) learnt of each.
    type: str
    choices: [static, existing, machine]
    default: static
  machines:
    description: For O(stage=machine), the RV(jhok.lab.machine_facts#module:machine) of each host.
    type: dict
    default: {}
  limits:
    description:
      - For O(stage=machine), the limits C(control_plane_memory_mb), C(node_memory_mb), C(control_plane_cpus),
        C(disk_gb) and C(clock_seconds).
    type: dict
    default: {}
author: The jhok.lab authors
"""

EXAMPLES = r"""
- name: Judge the inventory
  jhok.lab.preflight:
    stage: static
"""

RETURN = r"""
msg:
  description: That all is fine, or the numbered problems.
  type: str
  returned: always
"""
