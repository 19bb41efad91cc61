"""Stops users' servers that no browser uses, and those that reached their maximum age.

`configure` tells the hub; as a program this file is the hub's service `idle-culler`: jupyterhub-idle-culler with limits
per environment. A server's last use is what passed the proxy to or from a browser (an open tab counts, by the answers
to its websockets' pings), never what a kernel does by itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

SCOPES = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
START_SECONDS = 300  # within which the hub answers; else the hub starts its service anew
LIMITS = ("idle_timeout", "max_age")
log = logging.getLogger("idle-culler")


def rules(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what of the hub's settings decides on stops; times in seconds, 0 is no limit."""
    return {
        "check_interval": settings["idle_check_interval"],
        # How old the hub's knowledge of the proxy's traffic may be, and how long a restarted proxy lacks its routes.
        "activity_interval": min(60, settings["idle_check_interval"]),
        "site": {key: settings[key] for key in LIMITS},
        "environments": {
            environment["name"]: {key: environment[key] for key in LIMITS if environment.get(key) is not None}
            for environment in settings["environments"]
        },
    }


def configure(c: Any, settings: dict[str, Any], secret: Callable[[str], str]) -> None:  # noqa: ANN401, ARG001
    """Set up the service with the least that it may do, and count as use only what passes the proxy."""
    chosen = rules(settings)
    # Without these pings a tab in the background that shows neither notebook nor terminal sends nothing at all.
    c.Spawner.args.append(f"--ServerApp.websocket_ping_interval={chosen['activity_interval'] // 2 or 1}")
    c.JupyterHub.last_activity_interval = chosen["activity_interval"]
    c.Spawner.environment.update({"JUPYTERHUB_ACTIVITY_INTERVAL": "0"})  # servers report nothing of their own
    c.JupyterHub.services.append({"name": "idle-culler", "command": [sys.executable, __file__, json.dumps(chosen)]})
    c.JupyterHub.load_roles.append({"name": "idle-culler", "services": ["idle-culler"], "scopes": SCOPES})


def why_stop(server: dict[str, Any], rules: dict[str, Any], now: datetime) -> str | None:
    """Return the reason to stop a server, in words for the log; None to leave it alone.

    server: the hub's record, with `started`, `last_activity` and `user_options`. An environment that is no longer
    offered has the site's limits. Times in the future (a clock that was set back) stop nothing.
    """
    if not server.get("started"):
        return None
    started = datetime.fromisoformat(server["started"])
    used = datetime.fromisoformat(server.get("last_activity") or server["started"])
    environment = (server.get("user_options") or {}).get("environment")
    limits = rules["site"] | rules["environments"].get(environment, {})
    age, idle = now - started, now - used
    if limits["max_age"] and age >= timedelta(seconds=limits["max_age"]):
        return f"it is {_words(age)} old (limit {_words(limits['max_age'])}), last used {_words(idle)} ago"
    # Somebody may have come back that the hub does not know of yet.
    if limits["idle_timeout"] and idle >= timedelta(seconds=limits["idle_timeout"] + rules["activity_interval"]):
        return f"last used {_words(idle)} ago (limit {_words(limits['idle_timeout'])})"
    return None


def _words(time: timedelta | int) -> str:
    """Return a time as `[days, ]h:mm:ss`."""
    return str(timedelta(seconds=time) if isinstance(time, int) else timedelta(seconds=int(time.total_seconds())))


def main() -> None:
    """Run the service; its rules are its one argument. One server's trouble leaves the others' rounds alone."""
    from jupyterhub.utils import wait_for_http_server
    from jupyterhub_idle_culler import IdleCuller  # in the hub's image

    chosen = json.loads(sys.argv[1])

    def arbiter(server: dict[str, Any], **_: object) -> bool:
        reason = why_stop(server, chosen, datetime.now(UTC))
        if reason:
            log.info("stopping the server %s: %s", server["url"], reason)
        return reason is not None

    logging.basicConfig(level=logging.INFO, format="[%(levelname).1s %(asctime)s %(name)s] %(message)s")
    # The hub starts its services before its address answers.
    asyncio.run(wait_for_http_server(os.environ["JUPYTERHUB_API_URL"], timeout=START_SECONDS))
    # The library's own line for each stop would name no reason.
    IdleCuller(config_file="", log_level="WARN", cull_every=chosen["check_interval"], cull_arbiter_hook=arbiter).start()


if __name__ == "__main__":
    main()
