"""JupyterHub's configuration: reads what role `jupyterhub` put beside it, holds no value of a site itself.

settings.json comes from a ConfigMap (plugins/plugin_utils/hub.py, hub_config) like this file and its modules, secrets/
from a Secret.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

import hub_culler
import hub_metrics
import hub_pages
import hub_signin
import hub_spawner

if TYPE_CHECKING:
    from traitlets.config import get_config

CONFIG_DIR = Path(os.environ.get("JHOK_CONFIG_DIR", Path(__file__).parent))
SETTINGS: dict[str, Any] = json.loads((CONFIG_DIR / "settings.json").read_text())


def secret(name: str) -> str:
    """Return one secret of the hub."""
    return (CONFIG_DIR / "secrets" / name).read_text()


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
c.JupyterHub.concurrent_spawn_limit = 0  # it would send people away; hub_spawner has them wait in a queue
c.JupyterHub.active_server_limit = SETTINGS["active_servers"]
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}  # show the progress page at once

# --- the proxy: a Deployment of its own, so servers stay reachable while the hub restarts ---
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://proxy-api:8001"
c.ConfigurableHTTPProxy.auth_token = secret("proxy-auth-token")

# --- services ---
c.JupyterHub.services = [
    {"name": "verify", "api_token": secret("verify-token")},
    {"name": "metrics", "api_token": secret("metrics-token")},
]
VERIFY_SCOPES = ("admin:users", "admin:servers", "tokens", "access:servers")
c.JupyterHub.load_roles = [
    {
        "name": "verify",
        "services": ["verify"],
        "scopes": [
            "read:hub",
            *(f"{scope}!user={hub_spawner.VERIFY_USER}" for scope in VERIFY_SCOPES),
            *(f"{scope}!user={name}" for name in SETTINGS["load_users"] for scope in ("admin:users", "admin:servers")),
        ],
    },
    {"name": "metrics", "services": ["metrics"], "scopes": ["read:metrics"]},
]

# --- the dashboards: who looks at them signs in here ---
if SETTINGS["dashboards_url"]:
    c.JupyterHub.services.append(
        {
            "name": "dashboards",
            "api_token": secret("dashboards-token"),
            "oauth_client_id": "service-dashboards",
            "oauth_redirect_uri": SETTINGS["dashboards_url"].rstrip("/") + "/sign-in/callback",
            "oauth_no_confirm": True,
            "display": False,
        }
    )
    viewer_scopes = ["access:services!service=dashboards"]
    if SETTINGS["dashboards_viewers"] == "users":
        c.JupyterHub.load_roles.append({"name": "user", "scopes": ["self", *viewer_scopes]})
    # Admins have access to every service by their own role.

# --- each in its module ---
for module in (hub_pages, hub_signin, hub_spawner, hub_culler, hub_metrics):
    module.configure(c, SETTINGS, secret)
