#!/usr/bin/python
"""Ansible module unit_fresh: have a systemd unit run with what is in its files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: unit_fresh
short_description: Restarts a systemd unit that runs since before its files changed
version_added: 0.1.0
description:
  - Compares when the unit's program was started with when its files were changed. A handler does so for one run only; a
    run that is interrupted between a file and its handler leaves the unit as it was for good.
  - Counts are the unit file, its drop-ins and O(files), by the time of their last change (ctime), which no copying of
    times alters.
  - Has systemd read the unit's files again if it has not since they changed. That includes an administrator's unit file
    (C(/etc/systemd/system)) that came in the place of a package's, which systemd itself does not notice.
  - A unit that does not run is left alone, except one of type C(oneshot) that does not remain active, which runs again.
attributes:
  check_mode:
    support: full
    description: Says whether it would restart the unit, by the files as they are.
options:
  name:
    description: The unit.
    type: str
    required: true
  files:
    description: What else its program reads when it starts, and the program; a missing file counts for nothing.
    type: list
    elements: path
    default: []
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: Run containerd with its configuration
  jhok.lab.unit_fresh:
    name: containerd.service
    files: [/etc/containerd/config.toml]
"""

RETURN = r"""
newer:
  description: The files that changed since the unit was started; it is restarted for any of them.
  returned: always
  type: list
  elements: str
  sample: [/etc/containerd/config.toml]
"""

import os
import time
from collections.abc import Iterable, Mapping

from ansible.module_utils.basic import AnsibleModule

PROPERTIES = (
    "ActiveState",
    "DropInPaths",
    "ExecMainStartTimestampMonotonic",
    "FragmentPath",
    "NeedDaemonReload",
    "RemainAfterExit",
    "Type",
)
ADMINISTRATORS = "/etc/systemd/system"
# The kernel takes the time of a change from a clock that it sets a hundred times a second or so.
COARSE = 0.02


def runs(state: Mapping[str, str]) -> bool:
    """Return whether the unit runs, or is one that runs now and then."""
    if state.get("Type") == "oneshot" and state.get("RemainAfterExit") != "yes":
        return bool(state.get("FragmentPath"))
    return state.get("ActiveState") in ("active", "activating", "reloading")


def unread(state: Mapping[str, str], own: str) -> bool:
    """Return whether systemd knows the unit from other files than those that are there.

    own: path of the administrator's unit file, or "" when there is none.
    """
    return state.get("NeedDaemonReload") == "yes" or bool(own and state.get("FragmentPath") not in ("", own))


def newer(files: Iterable[str], started: float) -> list[str]:
    """Return the files that changed since the time `started`, in seconds since 1970."""
    found = set()
    for path in files:
        try:
            if os.stat(path).st_ctime > started - COARSE:  # noqa: PTH116 (AnsibleModule's paths are text)
                found.add(path)
        except FileNotFoundError:
            continue
    return sorted(found)


def main() -> None:
    """Run the module."""
    spec = {
        "name": {"type": "str", "required": True},
        "files": {"type": "list", "elements": "path", "default": []},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    name = module.params["name"]
    show = ["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", name]
    _, shown, _ = module.run_command(show, check_rc=True)
    state = dict(line.partition("=")[::2] for line in shown.splitlines())
    own = f"{ADMINISTRATORS}/{name}"
    there = os.path.isfile(own) and not os.path.islink(own)  # noqa: PTH113, PTH114 (a link is an alias or a mask)
    reload = unread(state, own if there else "")
    if reload and not module.check_mode:
        module.run_command(["systemctl", "daemon-reload"], check_rc=True)
        _, shown, _ = module.run_command(show, check_rc=True)
        state = dict(line.partition("=")[::2] for line in shown.splitlines())
    # Both clocks count from the machine's start; the other kind of time stamp has whole seconds only.
    age = time.clock_gettime(time.CLOCK_MONOTONIC) - int(state.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
    files = [*module.params["files"], state.get("FragmentPath", ""), *state.get("DropInPaths", "").split()]
    found = newer(filter(None, files), time.time() - age) if runs(state) else []
    if found and not module.check_mode:
        module.run_command(["systemctl", "restart", "--", name], check_rc=True)
    module.exit_json(changed=bool(found) or reload, newer=found)


if __name__ == "__main__":
    main()
