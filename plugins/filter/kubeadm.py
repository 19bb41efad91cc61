"""Filter jhok.lab.kubeadm_config."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kubeadm_config
short_description: Turn settings into kubeadm's configuration file
version_added: 0.1.0
description:
  - Returns the YAML documents for C(kubeadm init --config) or C(kubeadm join --config) in the API version that the
    given version of kubeadm reads.
positional: _input, action
options:
  _input:
    description: The settings, see the functions in plugins/plugin_utils/kubeadm.py.
    type: dict
    required: true
  action:
    description: What the file is for.
    type: str
    choices: [init, join]
    default: init
"""

EXAMPLES = r"""
- name: Write kubeadm's configuration
  ansible.builtin.copy:
    dest: /etc/kubernetes/kubeadm.yml
    content: "{{ settings | jhok.lab.kubeadm_config('join') }}"
    mode: "0600"
  vars:
    settings:
      version: v1.20.2
      node_name: worker1
      node_address: 172.16.0.101
      api_endpoint: 172.16.0.100:6443
      token: abcdef.0123456789abcdef
      ca_cert_hashes: ["{{ ca_cert_hash }}"]
"""

RETURN = r"""
_value:
  description: YAML text of one or more documents.
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.jhok.lab.plugins.plugin_utils import kubeadm


def kubeadm_config(settings: Mapping[str, Any], action: str = "init") -> str:
    """Return kubeadm's configuration file for ``init`` or ``join`` as text."""
    builders = {"init": kubeadm.init_documents, "join": kubeadm.join_documents}
    if action not in builders:
        raise AnsibleFilterError(f"kubeadm_config: action {action} is unknown; use init or join")
    try:
        documents = builders[action](settings)
    except ValueError as error:
        raise AnsibleFilterError(f"kubeadm_config: {error}") from error
    return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True)


class FilterModule:
    """Filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {"kubeadm_config": kubeadm_config}
