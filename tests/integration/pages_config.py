"""The tests' hub with the pages that role `jupyterhub` ships; $TEST_HUB_SETTINGS is its settings.json."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

FILES = Path(__file__).parents[2] / "roles/jupyterhub/files/hub"
sys.path.insert(0, str(FILES))

import hub_pages  # noqa: E402

c = get_config()  # noqa: F821
load_subconfig(str(Path(__file__).with_name("jupyterhub_config.py")))  # noqa: F821
settings = json.loads(os.environ["TEST_HUB_SETTINGS"])
hub_pages.configure(c, settings, lambda _name: "")
go = Path(os.environ["TEST_HUB_DIR"]) / "go"
templates = Environment(loader=FileSystemLoader(FILES / "templates"), autoescape=True)


class WaitingSpawner(c.JupyterHub.spawner_class):  # type: ignore[name-defined,misc]
    """Asks for the options, waits for the file `go` before it starts, and does not start at all in size small."""

    def options_form_page(self) -> str:
        chosen = {"environment": "science", "size": "small", "gpu_count": 0, "gpu_type": ""}
        offered = {name: settings[name] for name in ("environments", "sizes", "gpus")}
        return templates.get_template("options_form.html").render(**offered, chosen=chosen)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        yield {"progress": 5, "message": "Waiting: 12 servers start before yours"}
        while not go.exists():
            await asyncio.sleep(0.1)

    async def start(self) -> tuple[str, int]:
        while not go.exists():
            await asyncio.sleep(0.1)
        if self.user_options.get("size") == "small":
            raise RuntimeError("no room")
        started: tuple[str, int] = await super().start()
        return started


def options_from_form(form: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "environment": form["environment"][0],
        "size": form["size"][0],
        "gpu_count": int(form["gpu_count"][0]),
        "gpu_type": form.get("gpu_type", [""])[0],
    }


c.JupyterHub.spawner_class = WaitingSpawner
c.Spawner.options_form = WaitingSpawner.options_form_page
c.Spawner.options_from_form = options_from_form
