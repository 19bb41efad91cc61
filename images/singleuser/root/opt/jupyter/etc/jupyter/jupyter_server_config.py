"""What the server of every user of this image is set to. A user's own configuration in ~/.jupyter comes after it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import simpervisor.atexitasync
from jupyter_core.paths import jupyter_data_dir, jupyter_path
from jupyter_server.services.contents.fileio import path_to_intermediate
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from nbformat.sign import SQLiteSignatureStore

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class Contents(AsyncLargeFileManager):
    """The files of a home that may be full."""

    @contextlib.contextmanager
    def atomic_writing(self, os_path: str, *args: Any, **options: Any) -> Iterator[IO[Any]]:  # noqa: ANN401
        """Keep the old file when the new one has no room.

        On NFS, and with small files anywhere, that comes out at the end, when Jupyter Server no longer puts the old one
        back. Its copy of that has been made by then.
        """
        path = Path(os_path).resolve()
        copy, new, file = Path(path_to_intermediate(path)), not path.exists(), None
        try:
            with super().atomic_writing(os_path, *args, **options) as file:
                yield file
        except BaseException:
            with contextlib.suppress(OSError):
                if file:
                    file.close()
            with contextlib.suppress(OSError):
                if not file:  # there was no room for the copy
                    copy.unlink()
                elif new:
                    path.unlink()
                else:
                    copy.replace(path)
            raise


class Signatures(SQLiteSignatureStore):
    """Which notebooks are trusted. Where there is no room to note that, they can be opened and saved all the same."""

    def store_signature(self, digest: str, algorithm: str) -> None:
        """Note that a notebook is trusted."""
        with self.noted():
            super().store_signature(digest, algorithm)

    def check_signature(self, digest: str, algorithm: str) -> bool:
        """Tell whether a notebook is trusted, which notes when that was asked; it is not when this fails."""
        with self.noted():
            return bool(super().check_signature(digest, algorithm))
        return False

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Go on after what the home has no room for."""
        try:
            yield
        except sqlite3.Error as error:
            self.log.warning("%s: %s", self.db_file, error)
            with contextlib.suppress(sqlite3.Error):
                self.db.rollback()


c.ServerApp.contents_manager_class = Contents
c.NotebookNotary.store_factory = lambda: Signatures(str(Path(jupyter_data_dir(), "nbsignatures.db")))
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
