"""Speak to the Kubernetes API: the one file of this collection that imports the ``kubernetes`` client.

The client reads the kubeconfig and makes TLS connections; requests are made with plain paths and plain dicts, because
its model classes know only their own release's fields while this collection serves several releases of Kubernetes.
Only the API groups that are asked for are discovered, so a short run stays short.

Every failure is a :class:`K8sError`, whose text says what went wrong and what to do.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import quote, urlencode

from ansible.module_utils.basic import missing_required_lib

FIELD_MANAGER = "jhok.lab"
"""Name under which server-side apply records the fields that this collection sets."""

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a TCP connection to the API server."""

READ_TIMEOUT = 40.0
"""Seconds to wait for an answer: a little more than an admission webhook may take."""

WATCH_SECONDS = 60.0
"""Longest single watch in seconds; a longer wait lists again, so that a connection that died silently is noticed."""

CONNECTIONS = 8
"""Connections kept open to the API server, for callers that work in threads."""

Obj = dict[str, Any]
"""A Kubernetes object as plain data, as in its YAML."""

Reason = Literal[
    "library",
    "no-kubeconfig",
    "kubeconfig",
    "unreachable",
    "tls",
    "unauthorized",
    "forbidden",
    "unknown-kind",
    "not-found",
    "conflict",
    "invalid",
    "other",
]
"""What kind of failure a :class:`K8sError` is."""


class K8sError(Exception):
    """Something asked of the Kubernetes API failed.

    Args:
        message: What failed and what to do, readable by an admin.
        reason: The kind of failure, for callers that treat some of them in a special way.
        status: The HTTP status when the API server answered, else None.

    """

    def __init__(self, message: str, reason: Reason, status: int | None = None) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.status = status


@dataclass(frozen=True)
class Version:
    """Version of the API server."""

    major: int
    minor: int
    text: str
    """As the server writes it, e.g. ``v1.37.2``."""


@dataclass(frozen=True)
class Resource:
    """Where a kind lives in the API."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Return the REST path of the collection, or of one object when `name` is given.

        Raises:
            K8sError: One object of a namespaced kind is asked for without a namespace, or a namespace is given for a
                kind that has none.

        """
        if namespace and not self.namespaced:
            raise K8sError(f"{self.kind} {name or ''} has no namespace: remove metadata.namespace.", "invalid")
        if name and self.namespaced and not namespace:
            raise K8sError(f"{self.kind} {name} needs metadata.namespace.", "invalid")
        parts = ["/api" if "/" not in self.api_version else "/apis", self.api_version]
        if namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        return "/".join(parts)


@dataclass(frozen=True)
class ExecResult:
    """What a command in a container left."""

    stdout: str
    stderr: str
    code: int


def split_api_version(api_version: str) -> tuple[str, str]:
    """Return group and version of an ``apiVersion``; the core group is the empty string."""
    group, _, version = api_version.rpartition("/")
    return group, version


def resources_of(listing: Mapping[str, Any]) -> dict[str, Resource]:
    """Return kind → :class:`Resource` from an ``APIResourceList``; subresources are left out."""
    found: dict[str, Resource] = {}
    for entry in listing.get("resources") or []:
        if "/" not in entry["name"]:
            found.setdefault(
                entry["kind"], Resource(listing["groupVersion"], entry["kind"], entry["name"], entry["namespaced"])
            )
    return found


def versions_of(listing: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return group → its ``apiVersion`` values, the preferred one first, from an ``APIGroupList``."""
    found = {}
    for group in listing.get("groups") or []:
        versions = [entry["groupVersion"] for entry in group["versions"]]
        preferred = (group.get("preferredVersion") or {}).get("groupVersion", versions[0])
        found[group["name"]] = sorted(versions, key=lambda version: version != preferred)
    return found


def error_of(status: int, body: str, asked: str, host: str) -> K8sError:
    """Translate the API server's refusal.

    Args:
        status: HTTP status.
        body: The answer, a ``Status`` object as JSON or any text.
        asked: What was asked, e.g. ``apply Deployment jupyterhub/hub``.
        host: The API server's URL.

    """
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    said = str(answer.get("message") or body.strip()[:500] or f"HTTP status {status}")
    causes = (answer.get("details") or {}).get("causes") or []
    if status == 401:
        return K8sError(
            f"{asked}: {host} does not accept the credentials of the kubeconfig (401). Fetch the kubeconfig again; "
            "its certificate or token may have expired or belong to an earlier cluster.",
            "unauthorized",
            status,
        )
    if status == 403:
        if "being terminated" in said:
            hint = "The namespace is being deleted: wait until it is gone and run again."
        elif " cannot " in said:
            hint = "Use a kubeconfig with the right to do this (kubeadm's admin.conf has it)."
        else:
            hint = "An admission rule or a quota of the cluster forbids it."
        return K8sError(f"{asked}: {said} {hint}", "forbidden", status)
    if status == 404:
        hint = ""
        if (answer.get("details") or {}).get("kind") == "namespaces":
            hint = " Create the namespace first, or list it among the objects."
        return K8sError(f"{asked}: {said}.{hint}", "not-found", status)
    if status == 409:
        owned = [f"{c.get('field')} ({c.get('message')})" for c in causes if c.get("reason") == "FieldManagerConflict"]
        if owned:
            said = f"field {', '.join(owned)} is set by somebody else."
            hint = "Remove the field here, or take it over with force_conflicts."
        else:
            hint = "Somebody else changes it at this moment: run again."
        return K8sError(f"{asked}: {said} {hint}", "conflict", status)
    if status in (400, 422) or "field not declared in schema" in said:
        fields = [f"{cause['field']}: {cause.get('message')}" for cause in causes if cause.get("field")]
        text = "; ".join(fields) or said
        hint = ""
        if "immutable" in said or "updates to" in said or "is forbidden after creation" in said:
            hint = " The field cannot change on an existing object: delete the object first, or give it a new name."
        return K8sError(f"{asked}: not valid: {text}.{hint}", "invalid", status)
    return K8sError(f"{asked}: {host} answered {status}: {said}", "other", status)


def connect(kubeconfig: str | Path, context: str | None = None) -> Cluster:
    """Read a kubeconfig and return the cluster it names. No request is made yet.

    Args:
        kubeconfig: Path of the file.
        context: Context in it; None is its current context.

    Raises:
        K8sError: `library` when the client is not installed, `no-kubeconfig` when the file does not exist, `kubeconfig`
            when it is wrong.

    """
    try:
        from kubernetes import client, config  # here: takes 0.4 s, and is not installed everywhere
        from urllib3.util import Retry
    except ImportError as error:
        raise K8sError(
            f"{missing_required_lib('kubernetes')} Install the collection's requirements.txt for the interpreter that "
            f"runs Ansible. ({error})",
            "library",
        ) from error
    path = Path(kubeconfig).expanduser()
    if not path.is_file():
        raise K8sError(
            f"The kubeconfig {path} does not exist. Role kubernetes fetches it from the cluster.", "no-kubeconfig"
        )
    settings = client.Configuration()
    try:
        config.load_kube_config(
            config_file=str(path), context=context, client_configuration=settings, persist_config=False
        )
    except Exception as error:  # the client lets errors of YAML, base64 and its own pass
        raise K8sError(f"The kubeconfig {path} cannot be used: {error}", "kubeconfig") from error
    settings.connection_pool_maxsize = CONNECTIONS
    # Apply and delete may be repeated safely, so every method is tried again while an API server restarts.
    settings.retries = Retry(
        total=4,
        connect=2,
        read=2,
        backoff_factor=0.2,
        status_forcelist=(429, 502, 503, 504),
        allowed_methods=None,
        raise_on_status=False,
    )
    return Cluster(settings, client.ApiClient(settings).rest_client.pool_manager)


class _Configuration(Protocol):
    """What is used of ``kubernetes.client.Configuration``."""

    host: str

    def auth_settings(self) -> dict[str, dict[str, str]]: ...


class _Answer(Protocol):
    """What is used of ``urllib3.HTTPResponse``."""

    status: int
    data: bytes

    def stream(self, amt: int | None, decode_content: bool | None) -> Iterator[bytes]: ...

    def close(self) -> None: ...

    def release_conn(self) -> None: ...


class _Pool(Protocol):
    """What is used of ``urllib3.PoolManager``."""

    def request(self, method: str, url: str, **options: object) -> _Answer: ...


class Cluster:
    """A Kubernetes cluster. May be used by several threads at once. Made by :func:`connect`.

    Args:
        configuration: The client's configuration: server and credentials.
        pool: The client's connections.

    """

    def __init__(self, configuration: _Configuration, pool: _Pool) -> None:
        self._configuration = configuration
        self._pool = pool
        self._resources: dict[str, dict[str, Resource]] = {}
        self._groups: dict[str, list[str]] | None = None

    @property
    def host(self) -> str:
        """URL of the API server."""
        return str(self._configuration.host)

    # Requests

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": FIELD_MANAGER}
        for setting in self._configuration.auth_settings().values():
            if setting.get("value") and setting["in"] == "header":
                headers[setting["key"]] = setting["value"]
        return headers

    def _send(
        self,
        method: str,
        path: str,
        asked: str,
        query: Mapping[str, str] | None = None,
        body: Obj | None = None,
        content_type: str = "application/json",
        stream_seconds: float | None = None,
    ) -> _Answer:
        import urllib3

        headers = self._headers()
        options: dict[str, Any] = {"timeout": urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT)}
        if body is not None:
            headers["Content-Type"] = content_type
            options["body"] = json.dumps(body)
        if stream_seconds is not None:
            options |= {
                "preload_content": False,
                "timeout": urllib3.Timeout(connect=CONNECT_TIMEOUT, read=stream_seconds),
            }
        url = self.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            answer = self._pool.request(method, url, headers=headers, **options)
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error, asked) from error
        if answer.status >= 400:
            text = answer.data.decode("utf-8", "replace")
            raise error_of(answer.status, text, asked, self.host)
        return answer

    def _unreachable(self, error: Exception, asked: str) -> K8sError:
        import urllib3

        cause = getattr(error, "reason", None) or error
        if isinstance(cause, urllib3.exceptions.SSLError):
            return K8sError(
                f"{asked}: no trusted TLS connection to {self.host}: {cause}. The kubeconfig may belong to an earlier "
                "cluster, or its server address is not in the API server's certificate: fetch the kubeconfig again.",
                "tls",
            )
        return K8sError(
            f"{asked}: the API server {self.host} cannot be reached: {cause}. Check that the control plane host runs "
            "(systemctl status kubelet there) and that its address in the kubeconfig is right.",
            "unreachable",
        )

    def raw(self, path: str) -> str:
        """Return the answer to GET `path` as text, e.g. of ``/readyz``."""
        return str(self._send("GET", path, f"GET {path}").data.decode("utf-8", "replace"))

    def _read(self, path: str, asked: str, query: Mapping[str, str] | None = None) -> Obj:
        answer: Obj = json.loads(self._send("GET", path, asked, query).data)
        return answer

    # Discovery

    def version(self) -> Version:
        """Return the API server's version."""
        answer = self._read("/version", "read the version")
        return Version(int(answer["major"]), int(answer["minor"].rstrip("+")), answer["gitVersion"])

    def _served(self, api_version: str) -> dict[str, Resource]:
        if api_version not in self._resources:
            path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            try:
                found = resources_of(self._read(path, f"read the kinds of {api_version}"))
            except K8sError as error:
                if error.reason != "not-found":
                    raise
                found = {}
            self._resources[api_version] = found
        return self._resources[api_version]

    def find(self, group: str, kind: str) -> Resource | None:
        """Return where `kind` is served in `group`, in its preferred version if it is there, or None."""
        if group == "":
            return self._served("v1").get(kind)
        if self._groups is None:
            self._groups = versions_of(self._read("/apis", "read the API groups"))
        for api_version in self._groups.get(group, []):
            if kind in self._served(api_version):
                return self._served(api_version)[kind]
        return None

    def has_api(self, api_version: str, kind: str) -> bool:
        """Return whether the server serves `kind` in `api_version`, e.g. ``("policy/v1", "PodDisruptionBudget")``."""
        return kind in self._served(api_version)

    def resource(self, api_version: str, kind: str) -> Resource:
        """Return where `kind` of `api_version` lives.

        Raises:
            K8sError: `unknown-kind` when this server does not serve it.

        """
        if not self.has_api(api_version, kind):
            other = self.find(split_api_version(api_version)[0], kind)
            hint = f"It serves {other.api_version}." if other else "Is its CustomResourceDefinition installed?"
            raise K8sError(f"{self.host} does not serve {kind} in {api_version}. {hint}", "unknown-kind")
        return self._served(api_version)[kind]

    def forget_discovery(self) -> None:
        """Ask the server anew what it serves, after CustomResourceDefinitions changed."""
        self._resources.clear()
        self._groups = None

    # Objects

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Obj | None:
        """Return one object, or None when it does not exist."""
        path = self.resource(api_version, kind).path(namespace, name)
        try:
            return self._read(path, f"read {kind} {name}")
        except K8sError as error:
            if error.reason == "not-found":
                return None
            raise

    def _list(
        self, api_version: str, kind: str, namespace: str | None, label_selector: str, field_selector: str
    ) -> tuple[list[Obj], str]:
        query = {"labelSelector": label_selector, "fieldSelector": field_selector}
        answer = self._read(
            self.resource(api_version, kind).path(namespace),
            f"list {kind}",
            {key: value for key, value in query.items() if value},
        )
        items = [{"apiVersion": api_version, "kind": kind} | item for item in answer["items"] or []]
        return items, answer["metadata"].get("resourceVersion", "")

    def list(
        self,
        api_version: str,
        kind: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> list[Obj]:
        """Return the objects of a kind; without `namespace` those of all namespaces."""
        return self._list(api_version, kind, namespace, label_selector, field_selector)[0]

    def apply(self, obj: Obj, *, dry_run: bool = False, force: bool = True) -> Obj:
        """Apply an object on the server side and return it as the server keeps it.

        Args:
            obj: The fields that this collection wants to own.
            dry_run: Let the server compute and check the result without keeping it.
            force: Take over fields that another manager owns; else they are a `conflict`.

        """
        kind, metadata = obj["kind"], obj["metadata"]
        path = self.resource(obj["apiVersion"], kind).path(metadata.get("namespace"), metadata["name"])
        # Strict: a field that the server does not know is an error, and not left out.
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower(), "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        asked = f"apply {kind} {full_name(obj)}"
        answer = self._send("PATCH", path, asked, query, body=obj, content_type="application/apply-patch+yaml")
        applied: Obj = json.loads(answer.data)
        return applied

    def delete(
        self, api_version: str, kind: str, name: str, namespace: str | None = None, *, dry_run: bool = False
    ) -> bool:
        """Delete an object, and in the background all that belongs to it.

        Returns:
            Whether it was there.

        """
        path = self.resource(api_version, kind).path(namespace, name)
        # Stated, because a Job's default is to leave its pods behind.
        body: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if dry_run:
            body["dryRun"] = ["All"]
        try:
            self._send("DELETE", path, f"delete {kind} {name}", body=body)
        except K8sError as error:
            if error.reason == "not-found":
                return False
            raise
        return True

    def _watch(self, path: str, selector: str, version: str, seconds: float) -> Iterator[Obj]:
        import urllib3

        query = {
            "watch": "true",
            "fieldSelector": selector,
            "resourceVersion": version,
            "timeoutSeconds": str(math.ceil(seconds)),
        }
        answer = self._send("GET", path, f"watch {path}", query=query, stream_seconds=seconds)
        rest = b""
        try:
            for chunk in answer.stream(amt=None, decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (json.loads(line) for line in lines)
        except urllib3.exceptions.HTTPError:
            return  # silent until the time was over, or the server went away: the caller lists again
        finally:
            answer.close()  # an unread rest must not go back into the pool
            answer.release_conn()

    def wait_for(
        self,
        api_version: str,
        kind: str,
        name: str,
        namespace: str | None,
        until: Callable[[Obj | None], bool],
        timeout: float,
    ) -> tuple[bool, Obj | None]:
        """Watch one object until `until` is content.

        An API server that goes away meanwhile is waited for as well.

        Args:
            api_version: The object's API version.
            kind: Its kind.
            name: Its name.
            namespace: Its namespace, None for kinds that have none.
            until: Judges the object; gets None when it does not exist.
            timeout: Seconds.

        Returns:
            Whether `until` was content in time, and the object as last seen.

        """
        deadline = time.monotonic() + timeout
        selector = f"metadata.name={name}"
        last: Obj | None = None
        while True:
            try:
                items, version = self._list(api_version, kind, namespace, "", selector)
                last = items[0] if items else None
                if until(last):
                    return True, last
                left = deadline - time.monotonic()
                if left <= 0:
                    return False, last
                path = self.resource(api_version, kind).path(namespace)
                for event in self._watch(path, selector, version, min(left, WATCH_SECONDS)):
                    if event["type"] == "ERROR":
                        break
                    last = None if event["type"] == "DELETED" else event["object"]
                    if until(last):
                        return True, last
                    if time.monotonic() >= deadline:
                        return False, last
            except K8sError as error:
                restarting = error.reason == "unreachable" or (error.status or 0) >= 500
                if not restarting or time.monotonic() >= deadline:
                    raise
                time.sleep(0.5)

    # Pods

    def logs(
        self, namespace: str, pod: str, container: str | None = None, *, lines: int = 20, previous: bool = False
    ) -> str:
        """Return the last `lines` lines that a container wrote; with `previous` those of its run before this one."""
        query = {"tailLines": str(lines), "previous": str(previous).lower()}
        if container:
            query["container"] = container
        path = Resource("v1", "Pod", "pods", namespaced=True).path(namespace, pod) + "/log"
        answer = self._send("GET", path, f"read the log of pod {namespace}/{pod}", query=query)
        return str(answer.data.decode("utf-8", "replace"))

    def exec(
        self, namespace: str, pod: str, command: Sequence[str], container: str | None = None, timeout: float = 60
    ) -> ExecResult:
        """Run a command in a container and return what it printed and its exit code.

        Args:
            namespace: The pod's namespace.
            pod: Its name.
            command: Program and arguments; no shell is involved.
            container: Container in the pod; None is the only or default one.
            timeout: Seconds the command may take.

        Raises:
            K8sError: The command could not be started or did not end in time.

        """
        from kubernetes.stream import ws_client

        asked = f"run {command[0]} in pod {namespace}/{pod}"
        query = [("command", word) for word in command] + [("stdout", "true"), ("stderr", "true")]
        if container:
            query.append(("container", container))
        path = Resource("v1", "Pod", "pods", namespaced=True).path(namespace, pod) + "/exec"
        headers = self._headers() | {"Accept": "*/*"}
        try:
            stream = ws_client.websocket_call(
                self._configuration,
                "GET",
                self.host + path,
                query_params=query,
                headers=headers,
                _preload_content=False,
            )
        except Exception as error:  # the client wraps whatever the websocket library raises
            raise K8sError(f"{asked}: {getattr(error, 'reason', None) or error}", "other") from error
        try:
            stream.run_forever(timeout=timeout)
            if stream.is_open():
                raise K8sError(f"{asked}: not done after {timeout:g} s.", "other")
            stdout, stderr = stream.read_stdout() or "", stream.read_stderr() or ""
            try:
                code = int(stream.returncode)
            except (KeyError, TypeError, ValueError) as error:
                raise K8sError(f"{asked}: the command could not be started: {stderr or error}", "other") from error
        finally:
            stream.close()
        return ExecResult(stdout, stderr, code)


def full_name(obj: Mapping[str, Any]) -> str:
    """Return ``namespace/name`` of an object, or ``name`` when it has no namespace."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])
