"""What the server of every user of this image is set to. A user's own configuration in ~/.jupyter comes after it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import simpervisor.atexitasync
from jupyter_core.paths import jupyter_path

if TYPE_CHECKING:
    from traitlets.config import get_config

c = get_config()


def readable(folder: str) -> bool:
    """Tell whether each of JupyterLab's extensions in `folder` says its name; one that cannot would break the page."""
    for file in (*Path(folder).glob("[!@]*/package.json"), *Path(folder).glob("@*/*/package.json")):
        try:
            data = json.loads(file.read_text())
            _ = data["name"], data["version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"JupyterLab's extensions in {folder} are left out: {file} is broken ({error!r})")
            return False
    return True


# The user's own extensions, in ~/.local, are among them.
c.LabApp.labextensions_path = [folder for folder in jupyter_path("labextensions") if readable(folder)]

# Deleting deletes: a home on NFS has no trash that anything would empty.
c.FileContentsManager.delete_to_trash = False
# JupyterLab can show hidden files (View → Show Hidden Files, off by default), so that ~/.zshrc can be edited in it.
c.ContentsManager.allow_hidden = True

# VS Code at <server>/vscode/. It listens on a socket in a directory of the server's own and asks nobody who they are:
# the only way to it is this server, which lets its owner in and nobody else. The launcher's entry is made by
# labextension @jhok/lab, which knows the file browser's directory.
c.ServerProxy.servers = {
    "vscode": {
        "command": ["start-vscode", "{unix_socket}"],
        "unix_socket": True,
        "timeout": 60,  # seconds, on a machine that is very busy
        "launcher_entry": {"enabled": False},
    }
}
# What starts VS Code would take the server's place at SIGTERM and end at once, without a moment for kernels and
# terminals. VS Code gets the signal anyway, from tini.
simpervisor.atexitasync.signal_handler_set = True

# For labextension @jhok/lab.
c.ServerApp.tornado_settings = {
    "page_config_data": {
        "jhokRoot": str(Path.cwd()),
        "jhokStopAt": os.environ.get("JHOK_STOP_AT", ""),
        "jhokStopWarning": os.environ.get("JHOK_STOP_WARNING", "0"),
    }
}
