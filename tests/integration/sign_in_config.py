"""The tests' hub with the sign-in that role `jupyterhub` ships; $JHOK_CONFIG_DIR holds settings and secrets."""

import json
import os
import sys
from pathlib import Path

FILES = Path(__file__).parents[2] / "roles/jupyterhub/files/hub"
sys.path.insert(0, str(FILES))

import hub_pages  # noqa: E402
import hub_signin  # noqa: E402

c = get_config()  # noqa: F821
load_subconfig(str(Path(__file__).with_name("jupyterhub_config.py")))  # noqa: F821
base = Path(os.environ["JHOK_CONFIG_DIR"])
settings = json.loads((base / "settings.json").read_text())
for module in (hub_signin, hub_pages):
    module.configure(c, settings, lambda name: (base / "secrets" / name).read_text())
hub_signin.GitHubAuthenticator.pause = 0.1  # asks again at once
c.Authenticator.auth_refresh_age = 1
c.Spawner.args = ["--HubOAuth.cache_max_age=1"]
c.CryptKeeper.keys = [bytes(32)]
c.JupyterHub.db_url = f"sqlite:///{base}/hub.sqlite"
