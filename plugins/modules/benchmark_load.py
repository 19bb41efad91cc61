#!/usr/bin/python
"""Ansible module benchmark_load: many users start their servers at the same moment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: benchmark_load
short_description: Starts many users' servers at once and measures how a JupyterHub bears it
version_added: 0.2.0
description:
  - Makes a record for each user, starts all their servers at the same moment and follows the progress of each as the
    hub's page does. Meanwhile asks for the hub's pages at a fixed pace and notes how long the answers take.
  - An answer's time counts from the moment when the question was due, so that a hub that stalls is not asked less.
  - Removes servers and records at the end, also those that an interrupted run left. The home directories on the NFS
    server are not its business.
extends_documentation_fragment: [jhok.lab.hub]
options:
  users:
    description: Names of the users. No person may have one of them; the records are removed.
    type: list
    elements: str
    required: true
  visitor:
    description: Name of a user who signs in and looks at V(/hub/home) meanwhile.
    type: str
    default: jhok-verify
  password:
    description: The visitor's password. Without it only V(/hub/login) is asked for.
    type: str
    default: ""
  pause:
    description: Seconds between two questions for a page.
    type: float
    default: 0.1
  start_timeout:
    description: Seconds until a server must be ready, its wait for other starts included.
    type: int
    default: 900
  stop_timeout:
    description: Seconds until a server must be gone.
    type: int
    default: 120
author: [The jhok.lab authors (@jhok)]
"""

EXAMPLES = r"""
- name: Let forty people start at once
  jhok.lab.benchmark_load:
    url: http://172.16.0.100:30080
    users: "{{ range(1, 41) | map('regex_replace', '^', 'jhok-load-') | list }}"
    service_token: "{{ secrets.verify_token }}"
  register: load
"""

RETURN = r"""
started:
  description: How many servers became ready.
  returned: success
  type: int
  sample: 40
not_started:
  description: Why the others did not.
  returned: success
  type: list
  elements: dict
  sample: [{user: jhok-load-7, reason: "the server did not start: Spawn failed: Timeout"}]
ready:
  description: Seconds until the V(first), the V(median) and the V(last) server was ready. Empty when none was.
  returned: success
  type: dict
  sample: {first: 5.1, median: 31.0, last: 60.2}
told:
  description: >-
    How many people had to wait for others' starts and were told their place.
  returned: success
  type: int
  sample: 32
pages:
  description: For each page how often it was asked for, how often in vain, and the seconds that answers took.
  returned: success
  type: dict
  sample: {/hub/login: {asked: 300, failed: 0, p50: 0.05, p99: 0.4, max: 0.6}}
"""

import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.jhok.lab.plugins.module_utils import hub_client
from ansible_collections.jhok.lab.plugins.module_utils.hub_client import HubClient, HubError

STOPPING = 8  # servers that are stopped at the same time
PLACE = re.compile(r"before yours|the next to start")  # as hub_queue.py says it


@dataclass
class Start:
    """How one user's start went: what was heard, and the seconds until it was ready or the reason why it was not."""

    user: str
    messages: list[str] = field(default_factory=list)
    seconds: float | None = None
    reason: str = ""


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of `values` that at least `share` (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def summary(starts: Sequence[Start]) -> dict[str, Any]:
    """Return what the module returns of the starts."""
    ready = [start.seconds for start in starts if start.seconds is not None]
    names = {"first": 0.0, "median": 0.5, "last": 1.0}
    return {
        "started": len(ready),
        "not_started": [{"user": start.user, "reason": start.reason} for start in starts if start.seconds is None],
        "ready": {name: round(quantile(ready, share), 1) for name, share in names.items()} if ready else {},
        "told": sum(any(PLACE.search(message) for message in start.messages) for start in starts),
    }


def page_summary(seconds: Sequence[float], failed: int) -> dict[str, float]:
    """Return what the module returns of one page's answers, of which there is at least one."""
    names = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    figures = {name: round(quantile(seconds, share), 3) for name, share in names.items()}
    return {"asked": len(seconds), "failed": failed, **figures}


class Prober:
    """Asks for each page in turn, one question every `pause` seconds, until it is told to stop."""

    def __init__(self, questions: Mapping[str, Callable[[], object]], pause: float) -> None:
        self.questions, self.pause = questions, pause
        self.seconds: dict[str, list[float]] = {page: [] for page in questions}
        self.failed = dict.fromkeys(questions, 0)
        self.enough = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        pages = list(self.questions)
        begin, number = time.monotonic(), 0
        while not self.enough.wait(max(begin + number * self.pause - time.monotonic(), 0)):
            page, due = pages[number % len(pages)], begin + number * self.pause
            try:
                self.questions[page]()
            except (HubError, OSError):  # requests' own errors are OSErrors
                self.failed[page] += 1
            self.seconds[page].append(time.monotonic() - due)
            number += 1

    def __enter__(self) -> Prober:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        self.thread.join()

    def results(self) -> dict[str, dict[str, float]]:
        """Return the figures of each page that was asked for."""
        return {page: page_summary(seconds, self.failed[page]) for page, seconds in self.seconds.items() if seconds}


def start(admin: HubClient, user: str, timeout: float) -> Start:
    """Start one server, as the hub's page does."""
    result = Start(user)
    begin = time.monotonic()
    try:
        admin.start_server(user, {}, timeout, heard=result.messages.append)
        result.seconds = time.monotonic() - begin
    except (HubError, OSError) as error:
        result.reason = str(error)
    return result


def clean(admin: HubClient, users: Sequence[str], timeout: float) -> None:
    """Remove servers and records."""

    def remove(user: str) -> None:
        admin.stop_server(user, timeout)
        admin.delete_user(user)

    with ThreadPoolExecutor(STOPPING) as pool:
        list(pool.map(remove, users))  # raises what the first one raised


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "users": {"type": "list", "elements": "str", "required": True},
            "service_token": {"type": "str", "required": True, "no_log": True},
            "visitor": {"type": "str", "default": "jhok-verify"},
            "password": {"type": "str", "default": "", "no_log": True},
            "pause": {"type": "float", "default": 0.1},
            "start_timeout": {"type": "int", "default": 900},
            "stop_timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=False,
    )
    if hub_client.IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("requests, websocket-client"), exception=hub_client.IMPORT_ERROR)
    params = module.params
    users = params["users"]
    # A client each: a session's connections are few, and every start holds one open.
    clients = {user: HubClient(params["url"], token=params["service_token"], timeout=60) for user in users}
    admin, stranger, visitor = clients[users[0]], HubClient(params["url"]), HubClient(params["url"])
    questions = {"/hub/login": lambda: stranger.request("GET", "/hub/login")}
    try:
        if params["password"]:
            visitor.sign_in(params["visitor"], params["password"])
            questions["/hub/home"] = lambda: visitor.request("GET", "/hub/home")
        clean(admin, users, params["stop_timeout"])
        try:
            for user in users:
                admin.create_user(user)
            with Prober(questions, params["pause"]) as prober, ThreadPoolExecutor(len(users)) as pool:
                starts = list(pool.map(lambda user: start(clients[user], user, params["start_timeout"]), users))
        finally:
            clean(admin, users, params["stop_timeout"])
    except (HubError, OSError) as error:
        module.fail_json(msg=f"The hub at {params['url']} could not be measured: {error}")
    module.exit_json(changed=False, **summary(starts), pages=prober.results())


if __name__ == "__main__":
    main()
