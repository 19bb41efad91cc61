"""Users' servers: their pods."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jupyterhub.utils
import kubespawner.spawner
from hub_homes import VOLUME, Homes, HomeTakenError, make_home, mounts, refusal
from hub_options import Choice, Offer
from hub_queue import Place, StartQueue, describe
from jinja2 import Environment, FileSystemLoader
from jupyterhub.spawner import SpawnException
from jupyterhub.utils import url_path_join, wait_for_http_server
from kubespawner import KubeSpawner
from tornado.web import HTTPError

if TYPE_CHECKING:
    from traitlets.config import Config

# A name is also a directory of the homes' volume and part of paths, so it must never climb or hide.
USERNAME_PATTERN = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\Z"
VERIFY_USER = "jhok-verify"
POLL_SECONDS = 0.5
NO_ROOM = "No machine has room for your server now. It starts as soon as one has."
NO_ROOM_LEFT = "No machine had room for your server: choose a smaller size, or try again later."
QUEUE_SECONDS = 86400  # the longest that a person waits for a place; every start before theirs has limits of its own
HOME = "/home/{unescaped_username}"
TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True)


class StartError(SpawnException):
    """A start failed for a reason that people can do something about. Pages show it as it is."""

    def __str__(self) -> str:
        return str(self.message)


class LabSpawner(KubeSpawner):
    """KubeSpawner that starts servers in turn and lets go of a pod as soon as its containers have ended.

    Too many servers that start at once take the processor from each other until none of them answers in time.

    The kubelet removes an ended pod in its next round, up to 10 s later (Kubernetes before 1.22), and the user could
    start no server until then.
    """

    queue: StartQueue
    offer: Offer
    homes: Homes
    pod_timeout: int  # seconds; start_timeout is more while the server waits in the queue
    _in_turn = False

    def start(self) -> asyncio.Future[str]:
        """Line up for a start. The hub reads start_timeout once, now, and the queue is to count."""
        self.start_timeout = QUEUE_SECONDS
        starting: asyncio.Future[str] = super().start()
        return starting

    async def _start(self) -> str:
        """Start the server when its turn has come; return its address when it answers."""
        self._in_turn = False
        try:
            async with self.queue.place(self) as place:
                self._in_turn = True
                self.start_timeout = self.pod_timeout
                missed = f"The server's pod did not run within {self.pod_timeout} seconds."
                url = await self._start_pod(place)
                missed = f"The server did not answer within {self.http_timeout} seconds after its pod had started."
                await wait_for_http_server(url_path_join(url, self.server.base_url, "api"), timeout=self.http_timeout)
        except TimeoutError as error:
            if self._has_no_room():  # no fault of the hub: it exits after a number of faults in a row
                raise StartError(NO_ROOM_LEFT, reason="capacity", status_code=503) from error
            raise TimeoutError(missed) from error
        finally:
            self.start_timeout = self.pod_timeout
        return url

    async def _start_pod(self, place: Place) -> str:
        """Make the pod and wait until it runs."""
        return await self.wait_for_pod(asyncio.ensure_future(super()._start()), place)

    async def wait_for_pod(self, starting: asyncio.Future[str], place: Place) -> str:
        """Wait for a pod. One that no machine has room for does not hold up the others.

        Raises:
            StartError: its home cannot be used.

        """
        try:
            while not (await asyncio.wait([starting], timeout=POLL_SECONDS))[0]:
                if self._has_no_room():
                    place.give_back()
                if why := refusal(self._pod()):  # it would be tried again until the time is over
                    raise StartError(why, reason="home", status_code=503)
            url: str = starting.result()
        finally:
            starting.cancel()
        return url

    def _pod(self) -> dict[str, Any]:
        """Return what is known of the pod; nothing before there is one."""
        pods = self.pod_reflector.pods if self.pod_reflector else {}
        pod: dict[str, Any] = pods.get(f"{self.namespace}/{self.pod_name}", {})
        return pod

    def _has_no_room(self) -> bool:
        conditions = self._pod().get("status", {}).get("conditions") or []
        return any(condition.get("reason") == "Unschedulable" for condition in conditions)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Say where the server stands in the queue, then what Kubernetes does with its pod."""
        told = None
        while not self._in_turn and not (self._start_future and self._start_future.done()):
            ahead = self.queue.ahead(self)
            if ahead is not None and ahead != told:
                yield {"progress": 0, "message": describe(ahead)}
                told = ahead
            await asyncio.sleep(POLL_SECONDS)
        async for event in super().progress():
            if event.get("raw_event", {}).get("reason") == "FailedScheduling":
                event["message"] = f"{NO_ROOM} ({event['raw_event']['message']})"
            yield event

    def options_page(self) -> str:
        """Return the form in which a person chooses."""
        return TEMPLATES.get_template("options_form.html").render(self.offer.page(self.user_options))

    def take_options(self, options: dict[str, Any]) -> None:
        """Keep the choice with its defaults filled in, or refuse it."""
        choice, node = self._chosen(options)
        self.user_options = {**choice, **({"node": node} if node else {})}
        self.orm_spawner.user_options = self.user_options

    async def load_user_options(self) -> None:
        """Let the choice alone, checked once more, decide on the pod that is made now."""
        choice, node = self._chosen(self.user_options)
        for name, value in self.offer.pod(choice).items():
            setattr(self, name, value)
        if node:
            self.node_selector = {**self.node_selector, "kubernetes.io/hostname": node}
        home = self.homes.of(self.user.name)
        self.uid = self.gid = home.uid
        self.init_containers = [make_home(home, self.image)]
        self.volume_mounts = mounts(home, self.user.name)

    def get_env(self) -> dict[str, str]:
        """Return the server's environment variables, with those that follow from the choice."""
        choice, _node = self._chosen(self.user_options)
        return {**super().get_env(), **self.offer.variables(choice, self.orm_spawner.started)}

    def _chosen(self, options: dict[str, Any]) -> tuple[Choice, str]:
        """Return the checked choice, and the node that the verify user may choose besides, and nobody else."""
        if self.user.name != VERIFY_USER:
            return self.offer.check(options), ""
        node = options.get("node")
        choice = self.offer.check({name: options[name] for name in options if name != "node"})
        return choice, node if isinstance(node, str) else ""

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
            if has_ended(pod):
                await super().stop(now=True)
                return
            await asyncio.sleep(POLL_SECONDS)


def has_ended(pod: dict[str, Any]) -> bool:
    """Tell whether the containers of a pod have ended.

    Of a pod that is being deleted, the kubelet may say that a container waits which has ended: it is gone already.
    """
    states = [container.get("state") or {} for container in pod["status"].get("containerStatuses") or []]
    if pod["metadata"].get("deletionTimestamp"):
        return bool(states) and not any("running" in state for state in states)
    return bool(states) and all("terminated" in state for state in states)


def before_spawn(spawner: KubeSpawner) -> None:
    """Refuse names that are unsafe as a path, or whose home is another's."""
    name = spawner.user.name
    if not re.match(USERNAME_PATTERN, name):
        raise HTTPError(400, f"The user name {name!r} cannot have a home directory: ask an admin for another name.")
    try:
        spawner.homes.of(name)
    except HomeTakenError:
        why = f"The home of {name!r} belongs to an account that was renamed (jupyterhub_renamed_users): ask an admin."
        raise HTTPError(403, why) from None


def configure(c: Config, settings: dict[str, Any], secret: Callable[[str], str]) -> None:  # noqa: ARG001
    """Set up the spawner."""
    # How long a pod and its server are waited for between two looks: without this up to 5 s, of which a user sees most.
    jupyterhub.utils.exponential_backoff = kubespawner.spawner.exponential_backoff = functools.partial(
        jupyterhub.utils.exponential_backoff, max_wait=POLL_SECONDS
    )

    c.JupyterHub.spawner_class = LabSpawner
    c.Spawner.pre_spawn_hook = before_spawn
    LabSpawner.offer = Offer(settings)
    c.Spawner.options_form = LabSpawner.options_page
    c.Spawner.options_from_form = LabSpawner.offer.from_form
    c.Spawner.apply_user_options = LabSpawner.take_options
    c.Spawner.cmd = ["jupyterhub-singleuser"]
    c.Spawner.default_url = "/lab"
    LabSpawner.homes = Homes(settings["uids"], settings["renamed_users"], usage=settings["home_usage"])
    LabSpawner.queue = StartQueue(settings["concurrent_spawns"])
    LabSpawner.pod_timeout = settings["start_timeout"]
    c.Spawner.start_timeout = settings["start_timeout"]
    c.Spawner.http_timeout = settings["http_timeout"]
    c.Spawner.consecutive_failure_limit = 5
    c.Spawner.environment = {
        "HOME": HOME,
        "NB_USER": "{unescaped_username}",
    }
    c.KubeSpawner.namespace = settings["namespace"]
    c.KubeSpawner.enable_user_namespaces = False
    c.KubeSpawner.image_pull_policy = "IfNotPresent"
    c.KubeSpawner.slug_scheme = "safe"
    c.KubeSpawner.pod_name_template = "jupyter-{user_server}"
    c.KubeSpawner.extra_labels = {"app.kubernetes.io/name": "jupyterhub", "app.kubernetes.io/managed-by": "kubespawner"}
    c.KubeSpawner.working_dir = HOME
    c.KubeSpawner.delete_grace_period = 10  # seconds for kernels to end
    c.KubeSpawner.automount_service_account_token = False
    c.KubeSpawner.allow_privilege_escalation = False
    c.KubeSpawner.container_security_context = {"runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
    c.KubeSpawner.pod_security_context = {"seccompProfile": {"type": "RuntimeDefault"}}
    c.KubeSpawner.extra_pod_config = {"enableServiceLinks": False}
    c.KubeSpawner.storage_pvc_ensure = False
    c.KubeSpawner.delete_pvc = False
    c.KubeSpawner.volumes = [{"name": VOLUME, "persistentVolumeClaim": {"claimName": settings["homes_claim"]}}]
