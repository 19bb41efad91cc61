"""The tests' hub with service `dashboards` as role `jupyterhub` sets it, for one user and the admin."""

import os
from pathlib import Path

c = get_config()  # noqa: F821
load_subconfig(str(Path(__file__).with_name("jupyterhub_config.py")))  # noqa: F821
c.OnePassword.admin_users = {"boss"}
c.JupyterHub.services.append(
    {
        "name": "dashboards",
        "api_token": os.environ["TEST_DASHBOARDS_TOKEN"],
        "oauth_client_id": "service-dashboards",
        "oauth_redirect_uri": os.environ["TEST_DASHBOARDS_URL"] + "/sign-in/callback",
        "oauth_no_confirm": True,
        "display": False,
    }
)
c.JupyterHub.load_roles.append({"name": "viewers", "users": ["ada"], "scopes": ["access:services!service=dashboards"]})
