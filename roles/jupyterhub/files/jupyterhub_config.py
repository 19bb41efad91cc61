"""JupyterHub's configuration: reads what role `jupyterhub` put beside it, holds no value of a site itself.

settings.json comes from a ConfigMap (plugins/plugin_utils/hub.py, hub_config), secrets/ from a Secret.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import html
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jupyterhub.utils
import kubespawner.spawner
from jupyterhub.auth import Authenticator
from kubespawner import KubeSpawner
from tornado.web import HTTPError

if TYPE_CHECKING:
    from jupyterhub.user import User
    from traitlets.config import get_config

CONFIG_DIR = Path(os.environ.get("JHOK_CONFIG_DIR", "/etc/jupyterhub"))
SETTINGS: dict[str, Any] = json.loads((CONFIG_DIR / "settings.json").read_text())

# A name is also a directory of the homes' volume and part of paths, so it must never climb or hide.
USERNAME_PATTERN = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z"
VERIFY_USER = "jhok-verify"
POLL_SECONDS = 0.5
USER_UID, USER_GID = 1000, 100


def secret(name: str) -> str:
    """Return one secret of the hub."""
    return (CONFIG_DIR / "secrets" / name).read_text()


class PasswordAuthenticator(Authenticator):
    """Sign-in with the passwords that were generated on the control plane host.

    The inventory's list decides who may sign in, not the hub's user records: a name that left the list is signed out
    within `auth_refresh_age`, and deleting a record locks nobody out.
    """

    _pool = ThreadPoolExecutor(max_workers=2)  # wrong passwords in any number keep the hub answering
    failure_delay = 1.0  # seconds

    def load(self) -> dict[str, str]:
        """Return the hash of each user's password, `scrypt$n$r$p$salt$hash`."""
        return json.loads(secret("passwords.json"))  # type: ignore[no-any-return]

    @staticmethod
    def matches(password: str, encoded: str) -> bool:
        """Tell in constant time whether `password` has the hash `encoded`."""
        try:
            scheme, n, r, p, salt, digest = encoded.split("$")
            if scheme != "scrypt":
                return False
            got = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=int(n), r=int(r), p=int(p), dklen=32)
        except ValueError:
            return False
        return hmac.compare_digest(got.hex(), digest)

    async def authenticate(self, handler: object, data: dict[str, str]) -> dict[str, Any] | None:  # noqa: ARG002
        """Return the user's name and whether they are an admin, or None when name or password is wrong."""
        name = self.normalize_username(data.get("username", ""))
        password = data.get("password", "")
        # An unknown name costs as much time as a wrong password, so answers do not tell who exists.
        encoded = self.load().get(name, f"scrypt$16384$8$1${'00' * 16}${'00' * 32}")
        loop = asyncio.get_running_loop()
        if len(password) <= 1024 and await loop.run_in_executor(self._pool, self.matches, password, encoded):
            return {"name": name, "admin": name in self.admin_users}
        await asyncio.sleep(self.failure_delay)
        return None

    async def refresh_user(self, user: User, handler: object = None) -> bool:  # noqa: ARG002
        """Sign out who left the list."""
        return user.name in self.allowed_users

    def delete_user(self, user: User) -> None:
        """Leave the list as the inventory has it."""


class PromptKubeSpawner(KubeSpawner):
    """KubeSpawner that lets go of a pod as soon as its containers have ended.

    The kubelet removes an ended pod in its next round, up to 10 s later (Kubernetes before 1.22), and the user could
    start no server until then.
    """

    async def stop(self, now: bool = False) -> None:
        """Stop the server; `now` leaves its processes no time to end."""
        await self._start_watching_pods()
        removal = asyncio.create_task(self._remove_when_ended())
        try:
            await super().stop(now)
        finally:
            removal.cancel()

    async def _remove_when_ended(self) -> None:
        key = f"{self.namespace}/{self.pod_name}"
        while pod := self.pod_reflector.pods.get(key):
            containers = pod["status"].get("containerStatuses") or []
            if containers and all((container.get("state") or {}).get("terminated") for container in containers):
                await super().stop(now=True)
                return
            await asyncio.sleep(POLL_SECONDS)


def before_spawn(spawner: KubeSpawner) -> None:
    """Refuse names that are unsafe as a path; let the verify user choose a node, and nobody else."""
    name = spawner.user.name
    if not re.match(USERNAME_PATTERN, name):
        raise HTTPError(400, f"The user name {name!r} cannot have a home directory: ask an admin for another name.")
    node = spawner.user_options.get("node") if name == VERIFY_USER else None
    spawner.node_selector = {"kubernetes.io/hostname": node} if isinstance(node, str) and node else {}


# Makes the home before the kubelet would (as root:root). It appears under its name only when owner and mode are set,
# so an interrupted run is completed by the next. Users see nothing above their own home.
MAKE_HOME = """\
set -eu
umask 077
cd /volume
fail() { echo "cannot make the home directory homes/$HOME_NAME on the NFS volume: $1" >&2; exit 1; }
[ -d homes ] || mkdir -m 0711 homes || fail "the export refuses uid 0 of this node (root_squash?)"
[ ! -L homes ] || fail "homes is a symbolic link"
cd homes
[ ! -L "$HOME_NAME" ] || fail "it is a symbolic link"
[ ! -d "$HOME_NAME" ] || exit 0
[ ! -e "$HOME_NAME" ] || fail "it is not a directory"
mkdir -p ".new.$HOME_NAME" || fail "the export refuses uid 0 of this node (root_squash?)"
chmod 0700 ".new.$HOME_NAME"
chown -h "$HOME_UID:$HOME_GID" ".new.$HOME_NAME" || fail "the export does not let this node set owners"
mv -T ".new.$HOME_NAME" "$HOME_NAME"
"""

# How long a pod and its server are waited for between two looks: without this up to 5 s, of which a user sees most.
jupyterhub.utils.exponential_backoff = kubespawner.spawner.exponential_backoff = functools.partial(
    jupyterhub.utils.exponential_backoff, max_wait=POLL_SECONDS
)

c = get_config()

# --- the hub itself ---
c.JupyterHub.hub_bind_url = "http://:8081"
c.JupyterHub.hub_connect_url = "http://hub:8081"
c.JupyterHub.db_url = "sqlite:////srv/jupyterhub/jupyterhub.sqlite"
c.JupyterHub.upgrade_db = True  # a new version of the hub brings its database along, after a copy of the file
c.JupyterHub.cookie_secret = bytes.fromhex(secret("cookie-secret"))
c.CryptKeeper.keys = [bytes.fromhex(secret("crypt-key"))]
c.JupyterHub.cleanup_servers = False  # a restart of the hub leaves users' servers alone
c.JupyterHub.cleanup_proxy = False
c.JupyterHub.allow_named_servers = False
c.JupyterHub.admin_access = False
c.JupyterHub.shutdown_on_logout = False
c.JupyterHub.concurrent_spawn_limit = SETTINGS["concurrent_spawns"]
c.JupyterHub.active_server_limit = SETTINGS["active_servers"]
c.JupyterHub.last_activity_interval = 60  # seconds; also how soon a restarted proxy knows its routes again
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}  # show the progress page at once
c.JupyterHub.template_vars = {"announcement_login": html.escape(SETTINGS["site_name"])}

# --- the proxy: a Deployment of its own, so servers stay reachable while the hub restarts ---
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://proxy-api:8001"
c.ConfigurableHTTPProxy.auth_token = secret("proxy-auth-token")

# --- sign-in ---
if SETTINGS["auth"] != "password":
    sys.exit(f"jupyterhub_auth is {SETTINGS['auth']!r}; this version knows `password`")
c.JupyterHub.authenticator_class = PasswordAuthenticator
c.Authenticator.allow_all = False
c.Authenticator.allow_existing_users = False
c.Authenticator.allowed_users = {*SETTINGS["users"], *SETTINGS["admins"], VERIFY_USER}
c.Authenticator.admin_users = set(SETTINGS["admins"])
c.Authenticator.username_pattern = USERNAME_PATTERN

# --- users' servers ---
HOME = "/home/{unescaped_username}"
c.JupyterHub.spawner_class = PromptKubeSpawner
c.Spawner.pre_spawn_hook = before_spawn
c.Spawner.cmd = ["jupyterhub-singleuser"]
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = SETTINGS["start_timeout"]
c.Spawner.http_timeout = SETTINGS["http_timeout"]
c.Spawner.consecutive_failure_limit = 5
c.Spawner.cpu_guarantee = SETTINGS["user_cpu_guarantee"]
c.Spawner.cpu_limit = SETTINGS["user_cpu_limit"]
c.Spawner.mem_guarantee = SETTINGS["user_memory_guarantee"]
c.Spawner.mem_limit = SETTINGS["user_memory_limit"]
c.Spawner.environment = {
    "HOME": HOME,
    "NB_USER": "{unescaped_username}",
    "NB_UID": str(USER_UID),
    "NB_GID": str(USER_GID),
    # Only what passes the proxy counts as use: a kernel that prints by itself does not keep a server alive.
    "JUPYTERHUB_ACTIVITY_INTERVAL": "0",
}
c.KubeSpawner.namespace = SETTINGS["namespace"]
c.KubeSpawner.enable_user_namespaces = False
c.KubeSpawner.image = SETTINGS["singleuser_image"]
c.KubeSpawner.image_pull_policy = "IfNotPresent"
c.KubeSpawner.slug_scheme = "safe"
c.KubeSpawner.pod_name_template = "jupyter-{user_server}"
c.KubeSpawner.extra_labels = {"app.kubernetes.io/name": "jupyterhub", "app.kubernetes.io/managed-by": "kubespawner"}
c.KubeSpawner.working_dir = HOME
c.KubeSpawner.delete_grace_period = 10  # seconds for kernels to end
c.KubeSpawner.automount_service_account_token = False
c.KubeSpawner.uid = USER_UID
c.KubeSpawner.gid = USER_GID
c.KubeSpawner.allow_privilege_escalation = False
c.KubeSpawner.container_security_context = {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
c.KubeSpawner.pod_security_context = {"seccompProfile": {"type": "RuntimeDefault"}}
c.KubeSpawner.extra_pod_config = {"enableServiceLinks": False}
c.KubeSpawner.storage_pvc_ensure = False
c.KubeSpawner.delete_pvc = False
c.KubeSpawner.volumes = [{"name": "homes", "persistentVolumeClaim": {"claimName": SETTINGS["homes_claim"]}}]
c.KubeSpawner.volume_mounts = [{"name": "homes", "mountPath": HOME, "subPath": "homes/{unescaped_username}"}]
c.KubeSpawner.init_containers = [
    {
        "name": "home",
        "image": SETTINGS["singleuser_image"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", MAKE_HOME.replace("{", "{{").replace("}", "}}")],  # KubeSpawner formats every string
        "env": [
            {"name": "HOME_NAME", "value": "{unescaped_username}"},
            {"name": "HOME_UID", "value": str(USER_UID)},
            {"name": "HOME_GID", "value": str(USER_GID)},
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER"]},
        },
        "volumeMounts": [{"name": "homes", "mountPath": "/volume"}],
    }
]

# --- services ---
c.JupyterHub.services = [
    {
        "name": "idle-culler",
        "command": [
            sys.executable,
            "-m",
            "jupyterhub_idle_culler",
            f"--timeout={SETTINGS['idle_timeout']}",
            f"--cull-every={SETTINGS['idle_check_interval']}",
        ],
    },
    {"name": "verify", "api_token": secret("verify-token")},
    {"name": "metrics", "api_token": secret("metrics-token")},
]
VERIFY_SCOPES = ("admin:users", "admin:servers", "tokens", "access:servers")
c.JupyterHub.load_roles = [
    {
        "name": "idle-culler",
        "services": ["idle-culler"],
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
    },
    {
        "name": "verify",
        "services": ["verify"],
        "scopes": ["read:hub", *(f"{scope}!user={VERIFY_USER}" for scope in VERIFY_SCOPES)],
    },
    {"name": "metrics", "services": ["metrics"], "scopes": ["read:metrics"]},
]
