"""What a person chooses before a server starts: environment, size and GPUs. No Kubernetes, no database.

Only what is offered gets through, whether a form, an address or an API call asks for it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

from tornado.web import HTTPError


class Choice(TypedDict):
    """A person's choice, as the hub keeps it: names of what is offered. `gpu_type` is empty without GPUs."""

    environment: str
    size: str
    gpu_count: int
    gpu_type: str


class ChoiceError(HTTPError):
    """Somebody asked for what is not offered; says so to them, too."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)
        self.jupyterhub_message = message  # what JupyterHub shows beside the form and in the progress


class Offer:
    """The site's environments, sizes and GPU types, from the hub's settings.

    The first two have one default each, and `image` is a whole reference. Times are in seconds.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self.environments: list[dict[str, Any]] = settings["environments"]
        self.sizes: list[dict[str, Any]] = settings["sizes"]
        self.gpus: list[dict[str, Any]] = settings["gpus"]
        self._max_age: int = settings["max_age"]
        self._stop_warning: int = settings["stop_warning"]

    def page(self, last: object) -> dict[str, Any]:
        """Return what the options page shows; the last choice is chosen already where it is still offered."""
        try:
            chosen = self.check(last)
        except ChoiceError:
            chosen = self.check({})
        return {"environments": self.environments, "sizes": self.sizes, "gpus": self.gpus, "chosen": chosen}

    def from_form(self, form: dict[str, list[Any]]) -> Choice:
        """Return the choice in a form or an address. Raises ChoiceError."""
        options: dict[str, Any] = {}
        for name, values in form.items():
            if len(values) != 1:
                raise ChoiceError(f"There are {len(values)} answers for {_shown(name)}, and one is wanted.")
            options[name] = values[0]
        count = options.get("gpu_count")
        if isinstance(count, str) and re.fullmatch(r"[0-9]{1,3}", count):
            options["gpu_count"] = int(count)
        return self.check(options)

    def check(self, options: object) -> Choice:
        """Return the choice with what is missing filled in. Raises ChoiceError for all that is not offered."""
        if not isinstance(options, dict):
            raise ChoiceError(f"{_shown(options)} is no choice: names and values are wanted.")
        for name in options:
            if name not in Choice.__annotations__:
                raise ChoiceError(f"There is no option {_shown(name)}.")
        return {
            "environment": _chosen("environment", self.environments, options.get("environment"))["name"],
            "size": _chosen("size", self.sizes, options.get("size"))["name"],
            **self._gpus(options.get("gpu_count", 0), options.get("gpu_type", "")),
        }

    def pod(self, choice: Choice) -> dict[str, Any]:
        """Return KubeSpawner's attributes for a choice that was checked."""
        environment = _chosen("environment", self.environments, choice["environment"])
        size = _chosen("size", self.sizes, choice["size"])
        devices, node_selector = {}, {}
        if choice["gpu_count"]:
            gpu = _chosen("GPU type", self.gpus, choice["gpu_type"])
            devices = {gpu["resource"]: str(choice["gpu_count"])}
            node_selector = dict(gpu["node_selector"])
        return {
            "image": environment["image"],
            "cpu_guarantee": size["cpu_guarantee"],
            "cpu_limit": size["cpu_limit"],
            "mem_guarantee": size["memory_guarantee"],
            "mem_limit": size["memory_limit"],
            "extra_resource_guarantees": devices,
            "extra_resource_limits": devices,
            "node_selector": node_selector,
        }

    def variables(self, choice: Choice, started: datetime) -> dict[str, str]:
        """Return environment variables of the server. `started` is as the hub's database has it: UTC without a zone."""
        found = {}
        if self.gpus and not choice["gpu_count"]:
            # Else an image made for GPUs sees all of a node whose containers run with NVIDIA's runtime.
            found["NVIDIA_VISIBLE_DEVICES"] = "void"
        own = _chosen("environment", self.environments, choice["environment"]).get("max_age")
        max_age = self._max_age if own is None else own
        if max_age:
            stop = started.replace(tzinfo=UTC) + timedelta(seconds=max_age)
            found["JHOK_STOP_AT"] = stop.isoformat(timespec="seconds").replace("+00:00", "Z")
            found["JHOK_STOP_WARNING"] = str(self._stop_warning)
        return found

    def _gpus(self, count: object, name: object) -> dict[str, Any]:
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise ChoiceError(f"{_shown(count)} is no number of GPUs.")
        if not isinstance(name, str):
            raise ChoiceError(f"{_shown(name)} is no type of GPU.")
        if count and not self.gpus:
            raise ChoiceError("There are no GPUs here.")
        if not count and name == "":
            return {"gpu_count": 0, "gpu_type": ""}
        gpu = _chosen("GPU type", self.gpus, name or None)
        if count > gpu["max"]:
            raise ChoiceError(f"A server can have {gpu['max']} GPUs of type {gpu['name']} at most.")
        return {"gpu_count": count, "gpu_type": gpu["name"] if count else ""}


def _chosen(what: str, offered: list[dict[str, Any]], name: object) -> dict[str, Any]:
    """Return what is offered under a name; the default, else the first, for None."""
    for item in offered:
        if item["name"] == name if name is not None else item.get("default"):
            return item
    if name is None:
        return offered[0]
    names = ", ".join(item["name"] for item in offered)
    raise ChoiceError(f"There is no {what} {_shown(name)} here. There is: {names or 'none'}.")


def _shown(value: object) -> str:
    """Return what a stranger sent as a message may show it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
