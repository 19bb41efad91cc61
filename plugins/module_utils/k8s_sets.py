"""Judge and compare sets of Kubernetes objects: pure functions over plain dicts, without I/O, clock or randomness."""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import yaml
from ansible_collections.jhok.lab.plugins.module_utils.k8s import Obj, split_api_version

SET_LABEL = "jhok.lab/set"
"""Label that says which set an object belongs to."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
"""Kubernetes' recommended label for the tool that manages an object."""

MANAGED_BY = "jhok.lab"

KEPT_KINDS = ("Namespace", "PersistentVolume", "PersistentVolumeClaim")
"""Kinds that are never deleted because they left a set: people's data hangs on them."""

PRUNED_KINDS = (
    ("", "ConfigMap"),
    ("", "LimitRange"),
    ("", "Namespace"),
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("", "Pod"),
    ("", "ResourceQuota"),
    ("", "Secret"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("apps", "DaemonSet"),
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("batch", "CronJob"),
    ("batch", "Job"),
    ("networking.k8s.io", "Ingress"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("policy", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("storage.k8s.io", "StorageClass"),
)
"""(group, kind) that are searched for what left a set, besides the kinds that the set has now."""

INHERITING_KINDS = ("Endpoints", "EndpointSlice")
"""Kinds that the cluster makes itself with their Service's labels: never searched for leftovers."""

STAGES = (
    ("Namespace",),
    (
        "ClusterRole",
        "ConfigMap",
        "CustomResourceDefinition",
        "LimitRange",
        "NetworkPolicy",
        "PersistentVolume",
        "PriorityClass",
        "ResourceQuota",
        "Role",
        "RuntimeClass",
        "Secret",
        "ServiceAccount",
        "StorageClass",
    ),
    ("ClusterRoleBinding", "PersistentVolumeClaim", "RoleBinding", "Service"),
)
"""Kinds in the order in which they are applied; all others come last."""

_VOLATILE_METADATA = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink", "uid")
_VOLATILE_ANNOTATIONS = ("deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

Action = Literal["created", "configured", "unchanged", "pruned"]


class Ident(NamedTuple):
    """What makes an object the same one, whichever version of its API is used."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Change:
    """What happened to one object.

    Args:
        ident: The object.
        before: As it was, None when it did not exist.
        after: As it is or would be, None when it is deleted.

    """

    ident: Ident
    before: Obj | None
    after: Obj | None

    @property
    def action(self) -> Action:
        """What was done to the object."""
        if self.after is None:
            return "pruned"
        if self.before is None:
            return "created"
        # Not by resourceVersion: a dry-run does not raise it, and controllers raise it by writing a status.
        return "unchanged" if normalise(self.before) == normalise(self.after) else "configured"


@dataclass(frozen=True)
class State:
    """Whether an object is ready; `reason` says why not."""

    state: Literal["ready", "waiting", "failed"]
    reason: str = ""


READY = State("ready")


def ident_of(obj: Obj) -> Ident:
    """Return the identity of an object."""
    metadata = obj["metadata"]
    return Ident(
        split_api_version(obj["apiVersion"])[0], obj["kind"], metadata.get("namespace") or "", metadata["name"]
    )


def problems_of(set_name: str, objects: Sequence[Obj], secrets: Sequence[Obj]) -> list[str]:
    """Return what is wrong with the parameters of a set, one sentence each."""
    problems = []
    if not _LABEL_VALUE.fullmatch(set_name):
        problems.append(
            f"set: {set_name!r} cannot be a label's value: use up to 63 letters, digits, '-', '_' or '.', with a "
            "letter or digit first and last."
        )
    seen: dict[Ident, str] = {}
    for parameter, entries in (("objects", objects), ("secrets", secrets)):
        for number, obj in enumerate(entries):
            where = f"{parameter}[{number}]"
            metadata = obj.get("metadata")
            missing = [key for key in ("apiVersion", "kind") if not isinstance(obj.get(key), str) or not obj[key]]
            if not isinstance(metadata, Mapping) or not metadata.get("name"):
                missing.append("metadata.name")
            if missing:
                problems.append(f"{where} has no {', '.join(missing)}.")
                continue
            ident = ident_of(obj)
            is_secret = (ident.group, ident.kind) == ("", "Secret")
            if parameter == "objects" and is_secret:
                problems.append(
                    f"{where}: {ident} stands in objects, whose values are printed: move it to parameter secrets."
                )
            if parameter == "secrets" and not is_secret:
                problems.append(f"{where}: {ident} is no Secret: move it to parameter objects.")
            if ident in seen:
                problems.append(f"{where}: {ident} is already in {seen[ident]}.")
            seen.setdefault(ident, where)
    return problems


def prepare(obj: Obj, set_name: str) -> Obj:
    """Return a copy of an object as it is applied: labelled, and a Secret's `stringData` moved into `data`.

    `stringData` is write-only: the server would not notice that one of its keys left.
    """
    prepared = copy.deepcopy(obj)
    metadata = prepared["metadata"]
    metadata["labels"] = dict(metadata.get("labels") or {}) | {SET_LABEL: set_name, MANAGED_BY_LABEL: MANAGED_BY}
    if prepared["kind"] == "Secret" and "stringData" in prepared:
        encoded = {
            key: base64.b64encode(str(value).encode()).decode()
            for key, value in (prepared.pop("stringData") or {}).items()
        }
        prepared["data"] = dict(prepared.get("data") or {}) | encoded
    return prepared


def secret_values(secrets: Iterable[Obj]) -> set[str]:
    """Return every value of Secrets that must not be printed, encoded and decoded."""
    found = set()
    for secret in secrets:
        for value in (secret.get("stringData") or {}).values():
            found |= {str(value), base64.b64encode(str(value).encode()).decode()}
        for value in (secret.get("data") or {}).values():
            found.add(str(value))
            try:
                found.add(base64.b64decode(str(value), validate=True).decode())
            except ValueError:  # not base64, which the API server refuses, or not text
                continue
    return {value for value in found if value}


def stages_of(objects: Iterable[Obj]) -> list[list[Obj]]:
    """Return objects in the groups in which they are applied one after the other; those in a group are independent."""
    stages: list[list[Obj]] = [[] for _ in range(len(STAGES) + 1)]
    for obj in objects:
        stages[stage_of(obj["kind"])].append(obj)
    return [stage for stage in stages if stage]


def stage_of(kind: str) -> int:
    """Return the number of the stage in which a kind is applied."""
    return next((number for number, kinds in enumerate(STAGES) if kind in kinds), len(STAGES))


def normalise(obj: Obj) -> Obj:
    """Return a copy of an object without what the cluster itself writes into it."""
    result = copy.deepcopy({key: value for key, value in obj.items() if key != "status"})
    metadata = result["metadata"]
    for key in _VOLATILE_METADATA:
        metadata.pop(key, None)
    annotations = metadata.get("annotations") or {}
    for key in _VOLATILE_ANNOTATIONS:
        annotations.pop(key, None)
    if not annotations:
        metadata.pop("annotations", None)
    return result


def redacted(before: Obj | None, after: Obj | None) -> tuple[Obj | None, Obj | None]:
    """Return normalised copies of both sides of a change, without the values of a Secret."""
    sides = [normalise(side) if side is not None else None for side in (before, after)]
    old, new = ((side or {}).get("data") or {} for side in (before, after))
    for side, values in zip(sides, (old, new), strict=True):
        if side is None or side["kind"] != "Secret":
            continue
        side.pop("stringData", None)
        if values:
            side["data"] = {
                key: "<redacted, changed>" if side is sides[1] and key in old and old[key] != value else "<redacted>"
                for key, value in values.items()
            }
    return sides[0], sides[1]


class _Dumper(yaml.SafeDumper):
    """YAML for people: text of several lines as a block, nothing as an alias."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def to_yaml(obj: Obj) -> str:
    """Return an object as YAML that is the same for equal objects."""
    return yaml.dump(obj, Dumper=_Dumper, sort_keys=True, default_flow_style=False, allow_unicode=True, width=1000)


def diff_of(changes: Iterable[Change], set_name: str) -> dict[str, str]:
    """Return Ansible's diff of all objects that changed: one pair of texts, the same for equal changes."""
    texts: tuple[list[str], list[str]] = ([], [])
    for change in sorted(changes, key=lambda change: (stage_of(change.ident.kind), change.ident)):
        if change.action == "unchanged":
            continue
        for side, text in zip(redacted(change.before, change.after), texts, strict=True):
            if side is not None:
                text.append(f"# {change.ident}\n{to_yaml(side)}")
    return {
        "before_header": f"set {set_name}, as it is",
        "after_header": f"set {set_name}, as it should be",
        "before": "---\n".join(texts[0]),
        "after": "---\n".join(texts[1]),
    }


# Readiness


def _condition(obj: Obj, name: str) -> dict[str, str]:
    for condition in (obj.get("status") or {}).get("conditions") or []:
        if condition.get("type") == name:
            return dict(condition)
    return {}


def _deployment(obj: Obj, spec: Obj, status: Obj) -> State:
    progressing = _condition(obj, "Progressing")
    if progressing.get("status") == "False" and progressing.get("reason") == "ProgressDeadlineExceeded":
        return State("failed", progressing.get("message") or "ProgressDeadlineExceeded")
    wanted = spec.get("replicas", 1)
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if updated < wanted:
        return State("waiting", f"{updated} of {wanted} pods are of the new version")
    if status.get("replicas", 0) > updated:
        return State("waiting", f"{status['replicas'] - updated} pods of the old version still end")
    if available < wanted:
        return State("waiting", f"{available} of {wanted} pods are available")
    return READY


def _stateful_set(_obj: Obj, spec: Obj, status: Obj) -> State:
    wanted, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
    rolling = (spec.get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
    if rolling and status.get("updateRevision") != status.get("currentRevision"):
        return State("waiting", f"{status.get('updatedReplicas', 0)} of {wanted} pods are of the new version")
    if ready < wanted:
        return State("waiting", f"{ready} of {wanted} pods are ready")
    return READY


def _daemon_set(_obj: Obj, spec: Obj, status: Obj) -> State:
    wanted = status.get("desiredNumberScheduled", 0)
    updated, available = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    rolling = (spec.get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
    if rolling and updated < wanted:
        return State("waiting", f"{updated} of {wanted} pods are of the new version")
    if available < wanted:
        return State("waiting", f"{available} of {wanted} pods are available")
    return READY


def _job(obj: Obj, spec: Obj, status: Obj) -> State:
    failed = _condition(obj, "Failed")
    if failed.get("status") == "True":
        return State("failed", f"{failed.get('reason', 'Failed')}: {failed.get('message', '')}".rstrip(": "))
    if spec.get("suspend") or _condition(obj, "Complete").get("status") == "True":
        return READY
    return State("waiting", f"{status.get('succeeded', 0)} of {spec.get('completions') or 1} pods have succeeded")


def _pod(obj: Obj, _spec: Obj, status: Obj) -> State:
    phase = status.get("phase", "Pending")
    if phase == "Succeeded" or (phase == "Running" and _condition(obj, "Ready").get("status") == "True"):
        return READY
    if phase == "Failed":
        return State("failed", f"{status.get('reason', 'Failed')}: {status.get('message', '')}".rstrip(": "))
    return State("waiting", "it runs but is not ready" if phase == "Running" else f"its phase is {phase}")


def _claim(_obj: Obj, _spec: Obj, status: Obj) -> State:
    phase = status.get("phase", "Pending")
    if phase == "Bound":
        return READY
    if phase == "Lost":
        return State("failed", "its PersistentVolume is gone")
    return State("waiting", "no PersistentVolume is bound to it")


def _volume(_obj: Obj, _spec: Obj, status: Obj) -> State:
    # What stands in the way of a volume that is released or failed, its claim tells.
    return State("waiting", "no controller has looked at it") if status.get("phase", "Pending") == "Pending" else READY


def _definition(obj: Obj, _spec: Obj, _status: Obj) -> State:
    if _condition(obj, "Established").get("status") == "True":
        return READY
    return State("waiting", _condition(obj, "NamesAccepted").get("message") or "it is not established")


_JUDGES = {
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("", "PersistentVolume"): _volume,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): _pod,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("batch", "Job"): _job,
}


def judge(obj: Obj | None) -> State:
    """Return whether an object is ready, waits, or failed for good. Kinds without readiness are ready at once."""
    if obj is None:
        return State("waiting", "it does not exist")
    ident = ident_of(obj)
    judge_kind = _JUDGES.get((ident.group, ident.kind))
    if judge_kind is None:
        return READY
    status = obj.get("status") or {}
    if ident.group == "apps" and status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0):
        return State("waiting", "no controller has looked at it yet")
    return judge_kind(obj, obj.get("spec") or {}, status)


def pod_selector(obj: Obj) -> str:
    """Return the label selector of an object's pods, empty when it has none of its own."""
    selector = (obj.get("spec") or {}).get("selector")
    if not isinstance(selector, Mapping):
        return ""
    terms = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or []:
        operator, values = term["operator"], ",".join(term.get("values") or [])
        terms.append(
            {
                "In": f"{term['key']} in ({values})",
                "NotIn": f"{term['key']} notin ({values})",
                "Exists": term["key"],
                "DoesNotExist": f"!{term['key']}",
            }[operator]
        )
    return ",".join(terms)


class Crash(NamedTuple):
    """A container whose last words are worth reading."""

    pod: str
    container: str
    previous: bool


def _container_states(pod: Obj) -> list[Obj]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def _exit(terminated: Mapping[str, object]) -> str:
    return f"{terminated.get('reason', 'Error')}, exit code {terminated.get('exitCode', '?')}"


def crashes_of(pods: Iterable[Obj]) -> list[Crash]:
    """Return the containers that crashed, one per pod."""
    crashes = []
    for pod in pods:
        for entry in _container_states(pod):
            state, last = entry.get("state") or {}, (entry.get("lastState") or {}).get("terminated")
            if (state.get("terminated") or {}).get("exitCode", 0) != 0:
                crashes.append(Crash(pod["metadata"]["name"], entry["name"], previous=False))
                break
            if last and not entry.get("ready"):
                crashes.append(Crash(pod["metadata"]["name"], entry["name"], previous="running" in state))
                break
    return crashes


def _warnings(obj: Obj, events: Iterable[Obj]) -> list[str]:
    mine = [event for event in events if event["involvedObject"].get("uid") == obj["metadata"].get("uid")]
    mine.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    latest = {event.get("reason", ""): event.get("message", "").strip() for event in mine}
    return [f"{reason}: {message}" for reason, message in latest.items()][-2:]


def _pod_reasons(pod: Obj, events: Iterable[Obj]) -> list[str]:
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return [f"{scheduled.get('reason')}: {scheduled.get('message')}"]
    reasons = []
    for entry in _container_states(pod):
        state = entry.get("state") or {}
        waiting, terminated = state.get("waiting") or {}, state.get("terminated") or {}
        last = (entry.get("lastState") or {}).get("terminated")
        if waiting.get("reason", "ContainerCreating") not in ("ContainerCreating", "PodInitializing"):
            text = f"container {entry['name']}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
            reasons.append(f"{text} (before that: {_exit(last)})" if last else text)
        elif terminated.get("exitCode", 0) != 0:
            reasons.append(f"container {entry['name']}: {_exit(terminated)}")
    return reasons or _warnings(pod, events) or [judge(pod).reason]


def diagnose(
    obj: Obj, pods: Sequence[Obj] = (), events: Sequence[Obj] = (), logs: Mapping[Crash, str] | None = None
) -> list[str]:
    """Return in a few lines why an object is not ready.

    Args:
        obj: The object.
        pods: Its pods.
        events: Warning events of its namespace.
        logs: Last words of its crashed containers.

    """
    lines = [f"{ident_of(obj)}: {judge(obj).reason}"]
    failure = _condition(obj, "ReplicaFailure")
    if failure.get("status") == "True":
        lines.append(f"  {failure.get('message')}")
    lines += [f"  {text}" for text in _warnings(obj, events)]
    told: dict[tuple[str, ...], list[str]] = {}
    for pod in pods:
        if judge({"apiVersion": "v1", "kind": "Pod"} | pod) != READY:
            told.setdefault(tuple(_pod_reasons(pod, events)), []).append(pod["metadata"]["name"])
    for reasons, names in told.items():
        others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        lines += [f"  pod {names[0]}{others}: {reason}" for reason in reasons]
        for crash, text in (logs or {}).items():
            if crash.pod == names[0]:
                lines += [f"    | {line}" for line in text.strip().splitlines()[-5:]]
    return lines
