#!/usr/bin/python
"""Ansible module benchmark_clicks: how long a JupyterHub's user waits for a server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_clicks
short_description: Measures how long a JupyterHub's user waits for JupyterLab, VS Code and a server's end
version_added: 0.1.0
description:
  - Starts a server, opens its JupyterLab and VS Code and stops it, several times over, and notes how long each took.
  - Removes the server and the user's record at the end. The home directory on the NFS server is not its business.
extends_documentation_fragment: [jhok.lab.hub, jhok.lab.hub.visitor]
options:
  rounds:
    description: How often a server is started and stopped.
    type: int
    default: 10
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: Click ten times
  jhok.lab.benchmark_clicks:
    url: http://172.16.0.100:30080
    password: "{{ secrets.verify_password }}"
    service_token: "{{ secrets.verify_token }}"
  register: clicks
"""

RETURN = r"""
click_to_jupyter:
  description: Seconds from the request to start a server to its JupyterLab page, for each round.
  returned: success
  type: list
  elements: float
  sample: [4.2, 3.9]
click_to_vscode:
  description: >-
    Seconds from the request to start a server until VS Code's page, program and websocket have answered, opened right
    after JupyterLab's page, for each round.
  returned: success
  type: list
  elements: float
  sample: [5.6, 5.1]
stop:
  description: Seconds from the request to stop the server until the hub knows of none, for each round.
  returned: success
  type: list
  elements: float
  sample: [2.5, 2.7]
"""

import time

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.jhok.lab.plugins.module_utils import hub_client
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError


def click(client: HubClient, user: str, start_timeout: float, stop_timeout: float) -> tuple[float, float, float]:
    """Start a server, use and stop it; return the seconds of the start to JupyterLab, to VS Code, and of the stop."""
    begin = time.monotonic()
    client.start_server(user, {}, start_timeout)
    client.lab_page(user)
    lab = time.monotonic()
    client.vscode_page(user)
    vscode = time.monotonic()
    client.stop_server(user, stop_timeout)
    return round(lab - begin, 3), round(vscode - begin, 3), round(time.monotonic() - vscode, 3)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "user": {"type": "str", "default": "jhok-verify"},
            "password": {"type": "str", "default": "", "no_log": True},
            "service_token": {"type": "str", "required": True, "no_log": True},
            "rounds": {"type": "int", "default": 10},
            "start_timeout": {"type": "int", "default": 300},
            "stop_timeout": {"type": "int", "default": 90},
        },
        supports_check_mode=False,
    )
    if hub_client.IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("requests, websocket-client"), exception=hub_client.IMPORT_ERROR)
    params = module.params
    user, timeouts = params["user"], (params["start_timeout"], params["stop_timeout"])
    who = (params["url"], params["service_token"], user, params["password"], params["stop_timeout"])
    try:
        with hub_client.visit(*who) as visitor:
            times = [click(visitor, user, *timeouts) for _ in range(params["rounds"])]
    except (HubError, OSError) as error:  # requests' own errors are OSErrors
        module.fail_json(msg=f"The hub at {params['url']} could not be measured: {error}")
    names = ("click_to_jupyter", "click_to_vscode", "stop")
    module.exit_json(changed=False, **{name: [figures[i] for figures in times] for i, name in enumerate(names)})


if __name__ == "__main__":
    main()
