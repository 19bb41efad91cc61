"""jupyterhub_config.py as the real JupyterHub and KubeSpawner read it."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.jhok.lab.plugins.module_utils.secrets import scrypt_hash
from ansible_collections.jhok.lab.plugins.plugin_utils.hub import (
    VERIFY_USER,
    hub_config,
    hub_secret_entries,
    hub_secrets,
)
from hub_homes import stable_uid
from hub_queue import StartQueue
from hub_signin import PasswordAuthenticator
from hub_spawner import LabSpawner, has_ended
from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.auth import Authenticator
from jupyterhub.crypto import CryptKeeper
from jupyterhub.objects import Hub, Server
from jupyterhub.proxy import ConfigurableHTTPProxy
from jupyterhub.scopes import _check_scopes_exist
from jupyterhub.spawner import Spawner, SpawnException
from kubernetes_asyncio.client import ApiClient
from kubernetes_asyncio.config import kube_config
from kubespawner import KubeSpawner
from tornado.web import HTTPError
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "roles" / "jupyterhub" / "files" / "hub" / "jupyterhub_config.py"
LAB: Any = yaml.safe_load((ROOT / "tests" / "unit" / "golden" / "hub" / "lab-settings.yml").read_text())
CLASSES = {
    cls.__name__: cls
    for cls in (
        JupyterHub,
        Authenticator,
        PasswordAuthenticator,
        CryptKeeper,
        ConfigurableHTTPProxy,
        Spawner,
        KubeSpawner,
    )
}
PASSWORD = "correct horse"
STARTED = datetime(2026, 11, 24, 9, 30)  # as the hub's database has it: UTC without a zone


ConfigOf = Callable[[Path, dict[str, Any]], Config]


@pytest.fixture(scope="module")
def config_of() -> Iterator[ConfigOf]:
    """Lay settings and secrets out in a directory as the pod's volume does, and load the file."""
    with pytest.MonkeyPatch.context() as patch:

        def load(directory: Path, settings: dict[str, Any]) -> Config:
            (directory / "secrets").mkdir()
            (directory / "settings.json").write_text(hub_config(settings))
            entries = hub_secret_entries(settings["users"], settings["admins"], settings["auth"])
            values = {entry["name"]: "ab" * 32 for entry in entries}
            values["jupyterhub/password-hash/ann"] = scrypt_hash(PASSWORD, b"salt")
            [secret] = hub_secrets(settings, values)
            for name, data in secret["data"].items():
                (directory / "secrets" / name).write_bytes(base64.b64decode(data))
            cluster = {"name": "none", "cluster": {"server": "https://192.0.2.1"}}  # a manifest is made without it
            context = {"name": "none", "context": {"cluster": "none", "user": "none"}}
            users = [{"name": "none", "user": {}}]
            kubeconfig = {"clusters": [cluster], "contexts": [context], "users": users, "current-context": "none"}
            (directory / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
            patch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(directory / "kubeconfig"))
            patch.setenv("JHOK_CONFIG_DIR", str(directory))
            return PyFileConfigLoader(str(CONFIG)).load_config()

        yield load


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, config_of: ConfigOf) -> Config:
    """Return the configuration of the lab."""
    return config_of(tmp_path_factory.mktemp("etc"), LAB)


def authenticator(config: Config) -> Authenticator:
    made: Authenticator = config.JupyterHub.authenticator_class(config=config)
    made.failure_delay = 0
    return made


def spawner(config: Config, name: str, **options: object) -> KubeSpawner:
    """Return the spawner that the hub would make for a user."""
    user = SimpleNamespace(
        id=7, name=name, escaped_name=name, url=f"/user/{name}/", server=Server(), settings={}, state=None, admin=False
    )
    made: KubeSpawner = config.JupyterHub.spawner_class(
        hub=Hub(connect_url=config.JupyterHub.hub_connect_url),
        user=user,
        orm_spawner=orm.Spawner(name="", started=STARTED),
        user_options=options,
        api_token="token of the server",
        config=config,
        _mock=True,
    )
    made.apply_user_options(made, options)
    made.pre_spawn_hook(made)
    return made


def chosen(config: Config, name: str, **options: object) -> KubeSpawner:
    """Return the spawner after the hub has taken the user's choice."""

    async def make() -> KubeSpawner:
        return spawner(config, name, **options)

    return asyncio.run(make())


def pod(config: Config, name: str, **options: object) -> dict[str, Any]:
    manifest: dict[str, Any] = {}

    async def build() -> None:
        made = spawner(config, name, **options)
        await made.load_user_options()
        async with ApiClient() as api:
            manifest.update(api.sanitize_for_serialization(await made.get_pod_manifest()))

    asyncio.run(build())
    return manifest


def sign_in(config: Config, name: str, password: str) -> dict[str, Any] | None:
    return asyncio.run(authenticator(config).get_authenticated_user(None, {"username": name, "password": password}))


def test_every_setting_exists(config: Config) -> None:
    assert set(config) == set(CLASSES), "a section that no class reads"
    known = {name: cls.class_traits(config=True).keys() for name, cls in CLASSES.items()}
    assert [f"{s}.{name}" for s, values in config.items() for name in values if name not in known[s]] == []


def test_the_application_takes_the_values(config: Config) -> None:
    app = JupyterHub(config=config)  # raises TraitError for a value of the wrong kind
    assert app.hub_connect_url == "http://hub:8081"
    assert app.db_url == "sqlite:////srv/jupyterhub/jupyterhub.sqlite"
    assert app.cookie_secret == bytes.fromhex("ab" * 32)
    assert app.concurrent_spawn_limit == 0, "people wait in a queue instead"
    assert not any((app.admin_access, app.cleanup_servers, app.allow_named_servers, app.shutdown_on_logout))
    assert app.template_vars["site"]["name"] == "Physics <lab>", "templates escape it"
    proxy = ConfigurableHTTPProxy(config=config, app=app)
    assert (proxy.should_start, proxy.api_url, proxy.auth_token) == (False, "http://proxy-api:8001", "ab" * 32)
    assert CryptKeeper(config=config).keys == [bytes.fromhex("ab" * 32)]


@pytest.mark.parametrize(("viewers", "roles"), [("users", ["user"]), ("admins", [])])
def test_who_may_look_at_the_dashboards(tmp_path: Path, config_of: ConfigOf, viewers: str, roles: list[str]) -> None:
    """Admins may by JupyterHub's own role of that name."""
    loaded = config_of(tmp_path, {**LAB, "dashboards_viewers": viewers}).JupyterHub
    [service] = [service for service in loaded.services if service["name"] == "dashboards"]
    assert service["oauth_redirect_uri"] == "http://172.16.0.100:30759/sign-in/callback"
    opening = [role["name"] for role in loaded.load_roles if "access:services!service=dashboards" in role["scopes"]]
    assert opening == roles


def test_without_dashboards_nobody_signs_in_to_them(tmp_path: Path, config_of: ConfigOf) -> None:
    loaded = config_of(tmp_path, {**LAB, "dashboards_url": ""}).JupyterHub
    assert "dashboards" not in [service["name"] for service in loaded.services]
    assert "user" not in [role["name"] for role in loaded.load_roles]


def test_roles_name_services_and_scopes_that_exist(config: Config) -> None:
    services = {service["name"] for service in config.JupyterHub.services}
    for role in config.JupyterHub.load_roles:
        assert set(role.get("services", [])) <= services
        _check_scopes_exist(role["scopes"])
    [verify] = [role for role in config.JupyterHub.load_roles if role["name"] == "verify"]
    assert [s for s in verify["scopes"] if not s.endswith(f"!user={VERIFY_USER}")] == ["read:hub"]


@pytest.mark.parametrize("name", ["ann", "Ann", "ANN"])
def test_the_right_password_signs_in(config: Config, name: str) -> None:
    got = sign_in(config, name, PASSWORD)
    assert got is not None
    assert (got["name"], got["admin"]) == ("ann", True)


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("ann", "wrong"),
        ("ann", ""),
        ("ann", PASSWORD + " "),
        ("ann", "x" * 2000),
        ("ann", "\udcff"),
        ("zoe", PASSWORD),
        ("nobody", PASSWORD),
        ("../ann", PASSWORD),
        ("", PASSWORD),
    ],
)
def test_anything_else_does_not(config: Config, name: str, password: str) -> None:
    assert sign_in(config, name, password) is None


def test_an_unknown_name_costs_a_hash_too(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    made = authenticator(config)
    costs = []
    real = type(made).matches

    def counted(password: str, encoded: str) -> bool:
        costs.append(encoded.split("$")[:4])
        return bool(real(password, encoded))

    monkeypatch.setattr(type(made), "matches", staticmethod(counted))
    for name in ("ann", "nobody"):
        asyncio.run(made.authenticate(None, {"username": name, "password": "wrong"}))
    assert costs[0] == costs[1] == ["scrypt", "16384", "8", "1"]


def test_a_wrong_password_has_to_wait(config: Config) -> None:
    made = authenticator(config)
    made.failure_delay = 3600

    async def attempt() -> None:
        await asyncio.wait_for(made.authenticate(None, {"username": "ann", "password": "wrong"}), 0.5)

    with pytest.raises(TimeoutError):
        asyncio.run(attempt())


def test_the_inventory_decides_who_stays(config: Config) -> None:
    made = authenticator(config)
    ann, gone = SimpleNamespace(name="ann"), SimpleNamespace(name="gone")
    made.add_user(gone)  # a record from before
    made.delete_user(ann)  # an admin deleted the record
    assert asyncio.run(made.refresh_user(ann)) is True
    assert asyncio.run(made.refresh_user(gone)) is False


def test_a_users_pod_is_locked_down(config: Config) -> None:
    spec = pod(config, "ann")["spec"]
    [server] = spec["containers"]
    assert server["securityContext"] == {
        "runAsUser": 1500,
        "runAsGroup": 1500,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


def test_a_users_home_is_its_directory_alone(config: Config) -> None:
    spec = pod(config, "john.doe")["spec"]
    [server] = spec["containers"]
    assert spec["volumes"] == [{"name": "homes", "persistentVolumeClaim": {"claimName": "people"}}]
    assert server["volumeMounts"] == [{"name": "homes", "mountPath": "/home/john.doe", "subPath": "homes/john.doe"}]
    env = {e["name"]: e["value"] for e in server["env"] if "value" in e}
    assert server["workingDir"] == env["HOME"] == "/home/john.doe"
    assert env["NB_USER"] == "john.doe"
    assert env["JUPYTERHUB_ACTIVITY_INTERVAL"] == "0"
    assert server["args"][0] == "jupyterhub-singleuser"
    assert "command" not in server, "the image's entry point stays"


def test_every_user_has_a_number_of_his_own(config: Config) -> None:
    """It follows from the name alone, or the inventory gives it."""
    names = ["ann", "bob", "zed", "john.doe"]
    pods = {name: pod(config, name)["spec"] for name in names}
    numbers = {name: spec["containers"][0]["securityContext"]["runAsUser"] for name, spec in pods.items()}
    assert numbers == {"ann": 1500, "bob": 2079226842, "zed": 2133638142, "john.doe": 2146894472}
    for name, spec in pods.items():
        env = {e["name"]: e["value"] for e in spec["initContainers"][0]["env"]}
        assert env == {"HOME_NAME": name, "HOME_UID": str(numbers[name]), "HOME_USAGE": ""}


def test_a_server_sees_what_is_said_of_its_home_alone(
    tmp_path: Path, config_of: ConfigOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LabSpawner, "homes", LabSpawner.homes)  # to be put back
    spec = pod(config_of(tmp_path, {**LAB, "home_usage": True}), "bob")["spec"]
    usage = {"name": "homes", "mountPath": "/run/jhok/home", "subPath": "usage/bob", "readOnly": True}
    assert spec["containers"][0]["volumeMounts"][1:] == [usage]
    assert {"name": "HOME_USAGE", "value": "yes"} in spec["initContainers"][0]["env"]


def test_a_renamed_account_keeps_its_home(config: Config) -> None:
    """Files may name the earlier path, so it is there too."""
    spec = pod(config, "zoe")["spec"]
    [server] = spec["containers"]
    assert server["volumeMounts"] == [
        {"name": "homes", "mountPath": "/home/zoe", "subPath": "homes/zora"},
        {"name": "homes", "mountPath": "/home/zora", "subPath": "homes/zora"},
    ]
    assert server["securityContext"]["runAsUser"] == stable_uid("zora")
    assert spec["initContainers"][0]["env"][0] == {"name": "HOME_NAME", "value": "zora"}


def test_nobody_else_gets_the_home_of_a_renamed_account(config: Config) -> None:
    with pytest.raises(HTTPError, match="belongs to an account that was renamed"):
        pod(config, "zora")


def test_numbers_are_none_that_a_machine_gives_its_own() -> None:
    """As systemd's documentation divides them; Kubernetes takes none above 2³¹ - 1."""
    numbers = {stable_uid(f"user{number}") for number in range(5000)}
    assert len(numbers) == 5000
    assert all(0x70000000 <= number < 2147352576 for number in numbers)


def test_why_a_home_cannot_be_used_is_told_at_once(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet would start the container that makes it again and again."""
    message = "The home directory homes/ann on the NFS server cannot be used: it is a symbolic link."
    failed = {"name": "home", "state": {"terminated": {"exitCode": 1, "message": f"{message}\n"}}}
    again = {"name": "home", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": failed["state"]}
    fine = {"name": "home", "state": {"terminated": {"exitCode": 0}}}

    async def why(status: dict[str, Any]) -> str:
        made = spawner(config, "ann")
        known = {f"{made.namespace}/{made.pod_name}": {"status": {"initContainerStatuses": [status]}}}
        monkeypatch.setattr(type(made), "pod_reflector", SimpleNamespace(pods=known))
        starting = asyncio.ensure_future(asyncio.Event().wait())  # stands for a pod that does not come
        try:
            await made.wait_for_pod(starting, SimpleNamespace())
        except SpawnException as error:
            return str(error)
        return ""

    for status in (failed, again):
        assert asyncio.run(why(status)) == message
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(why(fine), 1))


@pytest.mark.parametrize("name", ["octo-cat", "007", "7bond", "1-2-3", "a", "a" * 39, "x-" * 19 + "x", "octo_lab"])
def test_every_name_that_github_gives_has_a_pod_and_a_home(config: Config, name: str) -> None:
    manifest = pod(config, name)
    assert re.fullmatch(r"jupyter-[a-z0-9]([a-z0-9-]{0,53}[a-z0-9])?", manifest["metadata"]["name"])
    assert re.fullmatch(
        r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", manifest["metadata"]["labels"]["hub.jupyter.org/username"]
    )
    [server] = manifest["spec"]["containers"]
    assert server["volumeMounts"][0] == {"name": "homes", "mountPath": f"/home/{name}", "subPath": f"homes/{name}"}


def test_policies_meet_the_users_pod(config: Config) -> None:
    manifest = pod(config, "ann")
    for key, value in {
        "app.kubernetes.io/name": "jupyterhub",
        "app.kubernetes.io/component": "singleuser-server",
    }.items():
        assert manifest["metadata"]["labels"][key] == value
    assert manifest["spec"]["containers"][0]["ports"][0]["containerPort"] == 8888
    assert manifest["metadata"]["name"] == "jupyter-ann"


def test_the_verify_user_alone_chooses_a_node(config: Config) -> None:
    assert pod(config, VERIFY_USER, node="worker1")["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "worker1"}
    assert "nodeSelector" not in pod(config, VERIFY_USER)["spec"]
    with pytest.raises(HTTPError, match="no option 'node'"):
        pod(config, "ann", node="worker1")


@pytest.mark.parametrize(
    ("deleted", "states", "ended"),
    [
        (True, ["running"], False),
        (True, ["terminated"], True),
        (True, ["waiting"], True),
        (True, ["running", "terminated"], False),
        (True, [], False),
        (False, ["waiting"], False),
        (False, ["terminated"], True),
        (False, ["running"], False),
    ],
)
def test_a_stop_sees_when_the_containers_have_ended(deleted: bool, states: list[str], ended: bool) -> None:
    metadata = {"deletionTimestamp": "2026-11-24T09:30:00Z"} if deleted else {}
    statuses = [{"state": {state: {}}} for state in states]
    assert has_ended({"metadata": metadata, "status": {"containerStatuses": statuses}}) is ended


OFFERED = {
    "environment": {
        "standard": "172.16.0.100:5000/jhok/singleuser@sha256:33",
        "science": "172.16.0.100:5000/jhok/scipy@sha256:44",
        "extern": "registry.example.org/extern@sha256:55",
    },
    "size": {
        "small": ({"cpu": 0.1, "memory": 512 * 1024**2}, {"memory": 512 * 1024**2}),
        "large": ({"cpu": 0.5, "memory": 1024**3}, {"cpu": 4.0, "memory": 4 * 1024**3}),
    },
    "gpus": {
        (0, ""): ({}, None),
        (1, "t4"): ({"nvidia.com/gpu": "1"}, {"example.org/gpu": "t4"}),
        (2, "t4"): ({"nvidia.com/gpu": "2"}, {"example.org/gpu": "t4"}),
        (1, "mi300"): ({"amd.com/gpu": "1"}, None),
    },
}


def choose(config: Config, **form: str) -> dict[str, Any]:
    """Return what the hub makes of the options page's form."""
    choice: dict[str, Any] = config.Spawner.options_from_form({name: [value] for name, value in form.items()})
    return choice


@pytest.mark.parametrize("gpus", OFFERED["gpus"])
@pytest.mark.parametrize("size", OFFERED["size"])
@pytest.mark.parametrize("environment", OFFERED["environment"])
def test_every_choice_of_the_page_is_a_pod(config: Config, environment: str, size: str, gpus: tuple[int, str]) -> None:
    count, kind = gpus
    gpu = {"gpu_count": str(count), "gpu_type": kind or "t4"}  # without scripts the page sends a type for none, too
    spec = pod(config, "ann", **choose(config, environment=environment, size=size, **gpu))["spec"]
    [server] = spec["containers"]
    requests, limits = OFFERED["size"][size]
    devices, selector = OFFERED["gpus"][gpus]
    assert server["image"] == spec["initContainers"][0]["image"] == OFFERED["environment"][environment]
    assert server["resources"] == {"requests": {**requests, **devices}, "limits": {**limits, **devices}}
    assert spec.get("nodeSelector") == selector


def checked(page: str) -> list[str]:
    return re.findall(r'value="([\w-]+)"\s+required\s+checked', page)


def test_who_chooses_nothing_gets_the_defaults(config: Config) -> None:
    made = chosen(config, "ann")
    assert made.user_options == {"environment": "science", "size": "large", "gpu_count": 0, "gpu_type": ""}
    assert pod(config, "ann") == pod(config, "ann", **made.user_options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"environment": "evil.example.org/miner"}, "no environment 'evil.example.org/miner' here. There is: standard"),
        ({"environment": ["standard"]}, "no environment"),
        ({"size": "enormous"}, "no size 'enormous'"),
        ({"size": None, "image": "evil.example.org/miner"}, "no option 'image'"),
        ({"profile": "x", "kubespawner_override": {"image": "x"}}, "no option 'profile'"),
        ({"gpu_count": 3, "gpu_type": "t4"}, "2 GPUs of type t4 at most"),
        ({"gpu_count": -1, "gpu_type": "t4"}, "no number of GPUs"),
        ({"gpu_count": True, "gpu_type": "t4"}, "no number of GPUs"),
        ({"gpu_count": 1, "gpu_type": "h100"}, "no GPU type 'h100'"),
        ({"gpu_count": 0, "gpu_type": "h100"}, "no GPU type 'h100'"),
        ({"gpu_count": 0, "gpu_type": None}, "None is no type of GPU"),
    ],
)
def test_what_is_not_offered_gets_no_pod(config: Config, options: dict[str, Any], says: str) -> None:
    with pytest.raises(HTTPError, match=says) as refused:
        pod(config, "ann", **options)
    assert refused.value.status_code == 400


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"environment": ["standard", "science"]}, "2 answers for 'environment'"),
        ({"size": ["enormous"]}, "no size 'enormous'"),
        ({"image": ["evil.example.org/miner"]}, "no option 'image'"),
        ({"gpu_count": ["1e3"]}, "'1e3' is no number of GPUs"),
    ],
)
def test_a_form_made_by_hand_is_refused(config: Config, form: dict[str, list[str]], says: str) -> None:
    with pytest.raises(HTTPError, match=says):
        config.Spawner.options_from_form(form)


def test_a_choice_that_is_no_longer_offered_decides_nothing(config: Config) -> None:
    made = chosen(config, "ann")
    made.user_options = {"environment": "of last year", "size": "small"}
    assert checked(made.options_page()) == ["science", "large"], "the page begins with the defaults"
    with pytest.raises(HTTPError, match="no environment 'of last year'"):
        asyncio.run(made.load_user_options())


def test_the_page_begins_with_the_last_choice(config: Config) -> None:
    page = chosen(config, "ann", environment="standard", gpu_count=2, gpu_type="t4").options_page()
    assert checked(page) == ["standard", "large"]
    assert 'value="2" selected' in page
    assert "Standard &lt;b&gt;" in page, "titles are text"


def test_a_server_knows_when_it_will_be_stopped(config: Config) -> None:
    def variables(environment: str) -> dict[str, str]:
        [server] = pod(config, "ann", environment=environment)["spec"]["containers"]
        return {e["name"]: e.get("value") for e in server["env"] if e["name"].startswith("JHOK_")}

    assert variables("science") == {"JHOK_STOP_AT": "2026-11-24T11:30:00Z", "JHOK_STOP_WARNING": "1800"}
    assert variables("standard") == {}


def test_a_server_waits_for_its_turn(config: Config) -> None:
    async def check() -> None:
        made = spawner(config, "ann")
        made.queue = StartQueue(1)
        async with made.queue.place("another's"):
            starting = made.start()
            assert made.start_timeout == 86400, "what the hub waits for"
            told = await anext(made.progress())
            assert "the next to start" in told["message"]
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert made.queue.ahead(made) is None
            assert made.start_timeout == 300, "what a stop waits for"

    asyncio.run(check())


@pytest.mark.parametrize("name", ["../ann", "a/b", "ann\n", ".ssh", "{x}", ""])
def test_a_name_that_is_no_directory_gets_no_pod(config: Config, name: str) -> None:
    with pytest.raises(HTTPError, match="cannot have a home directory"):
        pod(config, name)


class Home:
    """Runs the init container's script on a real directory."""

    def __init__(self, config: Config, volume: Path) -> None:
        [init] = pod(config, "ann")["spec"]["initContainers"]
        self.init = init
        self.volume = volume
        self.home = volume / "homes" / "ann"
        self.skeleton = volume / "no skeleton"
        self.usage = ""

    def __call__(self) -> subprocess.CompletedProcess[str]:
        *shell, script = self.init["command"]
        env = {e["name"]: e["value"] for e in self.init["env"]}
        script = script.replace("cd /volume", f"cd {self.volume}").replace("/etc/skel", str(self.skeleton))
        context = self.init["securityContext"]
        ids = {"reuid": context["runAsUser"], "regid": context["runAsGroup"]}
        return subprocess.run(
            ["setpriv", *(f"--{key}={value}" for key, value in ids.items()), "--clear-groups", *shell, script],
            env={"PATH": "/usr/bin:/bin", **env, "HOME_USAGE": self.usage},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def home(config: Config) -> Iterator[Home]:
    """The export as role nfs_server makes it, where users can get at it (tmp_path's parents are root's alone)."""
    if os.geteuid() != 0:
        pytest.skip("needs root to be several users")
    with TemporaryDirectory() as name:
        volume = Path(name)
        volume.chmod(0o755)
        for directory in ("homes", "usage"):
            (volume / directory).mkdir()
            (volume / directory).chmod(0o1733)
        yield Home(config, volume)


def test_the_init_container_is_its_user(home: Home) -> None:
    """Root of the nodes is nobody on the NFS server."""
    assert home.init["securityContext"] == {
        "runAsUser": 1500,
        "runAsGroup": 1500,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert home.init["volumeMounts"] == [{"name": "homes", "mountPath": "/volume"}]


def test_a_home_is_made_once(home: Home) -> None:
    assert home().returncode == 0
    status = home.home.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1500, 1500, 0o700)
    (home.home / "work.txt").write_text("kept")
    home.home.chmod(0o750)  # the user's own choice
    assert home().returncode == 0
    assert home.home.stat().st_mode & 0o7777 == 0o750
    assert (home.home / "work.txt").read_text() == "kept"
    assert [p.name for p in home.home.parent.iterdir()] == ["ann"]


def test_what_is_said_of_a_home_has_a_place_before_it_is_said(home: Home) -> None:
    """The kubelet would make it too, but a moment too late for the mount to be the server's."""
    home.usage = "yes"
    assert home().returncode == 0
    status = (home.volume / "usage" / "ann").stat()
    assert (status.st_uid, status.st_mode & 0o7777) == (1500, 0o755)
    os.chown(home.volume / "usage" / "ann", 0, 0)  # as the NFS server does when it first writes there
    assert home().returncode == 0


def test_an_interrupted_run_is_completed(home: Home) -> None:
    new = home.volume / "homes" / ".new.ann"
    new.mkdir()
    (new / "half a skeleton").touch()
    os.chown(new, 1500, 1500)
    assert home().returncode == 0
    assert home.home.stat().st_uid == 1500
    assert not (home.home / "half a skeleton").exists()
    assert [p.name for p in home.home.parent.iterdir()] == ["ann"]


def test_a_new_home_is_filled_from_the_image(home: Home) -> None:
    skeleton = home.volume / "skel"
    (skeleton / ".config").mkdir(parents=True)
    (skeleton / ".config" / "tool.toml").write_text("a = 1")
    (skeleton / "data").symlink_to("/srv/data")
    home.skeleton = skeleton
    assert home().returncode == 0
    found = sorted(home.home.rglob("*"))
    assert [str(path.relative_to(home.home)) for path in found] == [".config", ".config/tool.toml", "data"]
    assert {path.lstat().st_uid for path in found} == {1500}
    assert home.home.joinpath("data").readlink() == Path("/srv/data")
    (home.home / "data").unlink()
    assert home().returncode == 0
    assert not (home.home / "data").is_symlink(), "what a user removed does not come back"


def test_a_home_of_somebody_else_is_refused(home: Home) -> None:
    """A home that was brought here belongs to its user first."""
    home.home.mkdir()
    os.chown(home.home, 1000, 100)
    done = home()
    assert done.returncode == 1
    assert "it belongs to user number 1000, but its user's servers run as 1500" in done.stderr
    assert "chown -hR --from=1000 1500:1500 on the server" in done.stderr
    assert home.home.stat().st_uid == 1000


@pytest.mark.parametrize("directory", ["homes", "usage"])
def test_where_users_may_not_add_anything_an_admin_learns_what_to_do(home: Home, directory: str) -> None:
    (home.volume / directory).chmod(0o711)
    home.usage = "yes"
    done = home()
    assert done.returncode == 1
    assert f"number 1500 cannot add to {directory}. If that is not permitted: chmod 1733 {directory}" in done.stderr
    (home.volume / directory).chmod(0o1733)
    assert home().returncode == 0


def test_an_export_without_homes(home: Home) -> None:
    (home.volume / "homes").rmdir()
    done = home()
    assert done.returncode == 1
    assert "in the exported directory: mkdir -m 1733 homes" in done.stderr


def test_a_symlink_is_not_followed(home: Home) -> None:
    (home.volume / "secret").mkdir()
    home.home.symlink_to(home.volume / "secret")
    done = home()
    assert done.returncode == 1
    assert "homes/ann on the NFS server cannot be used: it is a symbolic link" in done.stderr
    assert (home.volume / "secret").stat().st_uid == 0


def test_a_file_in_the_way_is_named(home: Home) -> None:
    home.home.write_text("not a directory")
    done = home()
    assert done.returncode == 1
    assert "it is not a directory" in done.stderr
    assert home.home.read_text() == "not a directory"
