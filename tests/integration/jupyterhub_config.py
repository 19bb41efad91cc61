"""A JupyterHub of real processes for tests: single-user servers run beside it, with homes under $TEST_HUB_DIR."""

import json
import os
import pathlib
import sys
from collections.abc import Callable

from jupyterhub.auth import Authenticator
from jupyterhub.spawner import LocalProcessSpawner
from traitlets import Dict

c = get_config()  # noqa: F821
base = pathlib.Path(os.environ["TEST_HUB_DIR"])


class OnePassword(Authenticator):
    """Everybody named in `passwords` gets in with the password there, also after the record was deleted."""

    passwords = Dict().tag(config=True)
    allow_all = True

    async def authenticate(self, handler: object, data: dict[str, str]) -> str | None:  # noqa: ARG002
        return data["username"] if self.passwords.get(data["username"]) == data["password"] else None


class HomeSpawner(LocalProcessSpawner):
    """Starts the server as the test's own account in a home of its own."""

    def make_preexec_fn(self, name: str) -> Callable[[], None]:  # noqa: ARG002
        return lambda: None

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        home = base / "homes" / self.user.name
        home.mkdir(parents=True, exist_ok=True)
        (base / "options.log").open("a").write(f"{self.user_options}\n")
        return env | {"HOME": str(home), "USER": self.user.name, "SHELL": "/bin/sh", "JUPYTERHUB_ROOT_DIR": str(home)}


c.JupyterHub.bind_url = os.environ["TEST_HUB_URL"]
c.JupyterHub.hub_bind_url = os.environ["TEST_HUB_INTERNAL_URL"]
c.JupyterHub.db_url = "sqlite://"
c.JupyterHub.cookie_secret = os.urandom(32)
c.ConfigurableHTTPProxy.command = os.environ["TEST_HUB_PROXY"].split()
c.ConfigurableHTTPProxy.api_url = os.environ["TEST_HUB_PROXY_API"]
c.ConfigurableHTTPProxy.pid_file = str(base / "proxy.pid")
c.JupyterHub.authenticator_class = OnePassword
c.OnePassword.passwords = dict.fromkeys(os.environ["TEST_HUB_USERS"].split(), os.environ["TEST_HUB_PASSWORD"])
c.JupyterHub.spawner_class = HomeSpawner
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser", "--allow-root", "--ServerApp.allow_root=True"]
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = 60
c.Spawner.http_timeout = 60
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}  # starts are followed through the progress stream
c.JupyterHub.services = [{"name": "verify", "api_token": os.environ["TEST_HUB_TOKEN"]}]
c.JupyterHub.load_roles = [
    {
        "name": "verify",
        "services": ["verify"],
        "scopes": [
            *("admin:users!user=jhok-verify", "servers!user=jhok-verify", "tokens!user=jhok-verify"),
            *(f"admin:users!user={name}" for name in os.environ.get("TEST_HUB_LOAD_USERS", "").split()),
            *(f"admin:servers!user={name}" for name in os.environ.get("TEST_HUB_LOAD_USERS", "").split()),
        ],
    }
]
if os.environ.get("TEST_HUB_BROKEN_SERVER"):
    c.Spawner.cmd = [sys.executable, "-c", "raise SystemExit('this server is broken')"]
    c.Spawner.http_timeout = 5  # the hub waits all of it for a process that is gone

if os.environ.get("TEST_HUB_CULLER"):
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "roles/jupyterhub/files/hub"))
    import hub_culler

    c.Spawner.options_form = "Which environment?"
    hub_culler.configure(c, json.loads(os.environ["TEST_HUB_CULLER"]), None)
