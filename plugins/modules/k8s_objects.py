#!/usr/bin/python
"""Module jhok.lab.k8s_objects: apply a named set of Kubernetes objects."""

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_objects
short_description: Apply a named set of Kubernetes objects
version_added: "0.1.0"
description:
  - Applies a whole set of objects in one call, by server-side apply as field manager C(jhok.lab).
  - Every object gets the labels C(jhok.lab/set) with the name of the set and C(app.kubernetes.io/managed-by=jhok.lab).
    Objects that bear the set's label and are no longer listed are deleted, except C(Namespace), C(PersistentVolume) and
    C(PersistentVolumeClaim), which hold people's data and are only reported in a warning.
  - An object that belongs to another set is an error. A C(Namespace) may be listed in several sets; it belongs to the
    set that made it, and the others leave it as it is.
  - The order of objects does not matter. Namespaces go first, then what workloads need, then the workloads;
    independent objects are applied at the same time. All objects that fail are reported, not only the first.
  - Works with Kubernetes 1.34 and later.
options:
  kubeconfig:
    description: Path of the kubeconfig on the host where the module runs.
    type: path
    required: true
  context:
    description: Context in the kubeconfig. Without it, the kubeconfig's current context.
    type: str
  set:
    description: Name of the set, a valid label value.
    type: str
    required: true
  objects:
    description:
      - The objects of the set, all but those of kind C(Secret).
      - Their values are printed in diffs and with C(-vvv); therefore a C(Secret) is refused here.
    type: list
    elements: dict
    default: []
  secrets:
    description:
      - The objects of kind C(Secret) of the set. Diffs show names and keys and which of them changed, no values.
      - Ansible replaces every occurrence of a value in this module's output, so put only what is secret in a Secret. A
        value like V(true) or a user name would be starred out in messages and in the diff of other objects too.
    type: list
    elements: dict
    default: []
  state:
    description:
      - V(present) applies the listed objects and deletes what left the set.
      - V(absent) deletes every object that bears the set's label. C(Namespace), C(PersistentVolume) and
        C(PersistentVolumeClaim) are deleted only when they are listed in O(objects). A listed object that does not
        belong to the set is left alone with a warning.
    type: str
    choices: [present, absent]
    default: present
  force_conflicts:
    description:
      - Take over fields that another manager has set, for example somebody with C(kubectl edit).
      - With V(false) such a field is an error that names it and its manager.
    type: bool
    default: true
  wait:
    description:
      - Wait until Deployments, StatefulSets and DaemonSets are rolled out, Jobs complete, Pods ready and claims bound;
        with O(state=absent) until the objects are gone.
      - Claims are waited for before workloads are applied, unless their StorageClass binds on first use.
      - When an object is not ready in time, the error says why, down to the message of the pod's container or event.
    type: bool
    default: true
  timeout:
    description: Seconds to wait, for the whole set.
    type: int
    default: 300
  unreachable_ok:
    description:
      - In check mode only, do not fail when the kubeconfig does not exist or nobody answers at its address, because an
        earlier task of the same run would make the cluster. All objects are then reported as new, with a warning.
    type: bool
    default: false
attributes:
  check_mode:
    description: The API server computes and checks each object without keeping it (dry-run).
    support: full
  diff_mode:
    description: One diff for the whole set, values of Secrets redacted.
    support: full
requirements:
  - kubernetes (the Python client) >= 24
author:
  - The jhok.lab authors
"""

EXAMPLES = r"""
- name: Apply the hub
  jhok.lab.k8s_objects:
    kubeconfig: /etc/kubernetes/admin.conf
    set: jupyterhub
    objects:
      - apiVersion: v1
        kind: Namespace
        metadata:
          name: jupyterhub
      - apiVersion: v1
        kind: ConfigMap
        metadata:
          name: hub
          namespace: jupyterhub
        data:
          settings.json: "{}"
    secrets:
      - apiVersion: v1
        kind: Secret
        metadata:
          name: hub
          namespace: jupyterhub
        stringData:
          cookie-secret: "{{ hub_cookie_secret }}"
    timeout: 600

- name: Remove the hub, but neither its namespace nor any volume or claim
  jhok.lab.k8s_objects:
    kubeconfig: /etc/kubernetes/admin.conf
    set: jupyterhub
    state: absent
"""

RETURN = r"""
objects:
  description: What was done, or would be done in check mode, in a stable order.
  returned: always, when the API server was asked
  type: list
  elements: dict
  contains:
    kind:
      description: The object's kind.
      type: str
    namespace:
      description: Its namespace, empty for kinds that have none.
      type: str
    name:
      description: Its name.
      type: str
    action:
      description: One of V(created), V(configured), V(unchanged) and V(pruned).
      type: str
  sample:
    - {kind: ConfigMap, namespace: jupyterhub, name: hub, action: configured}
seconds:
  description: Seconds that the module took, waiting included.
  returned: always, when the API server was asked
  type: float
  sample: 0.4
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.jhok.lab.plugins.module_utils.k8s import (
    CONNECTIONS,
    Cluster,
    K8sError,
    Obj,
    connect,
)
from ansible_collections.jhok.lab.plugins.module_utils.k8s_sets import (
    INHERITING_KINDS,
    KEPT_KINDS,
    PRUNED_KINDS,
    READY,
    SET_LABEL,
    Change,
    Ident,
    State,
    crashes_of,
    diagnose,
    diff_of,
    ident_of,
    judge,
    pod_selector,
    prepare,
    problems_of,
    secret_values,
    stage_of,
    stages_of,
)

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "kubeconfig": {"type": "path", "required": True},
    "context": {"type": "str"},
    "set": {"type": "str", "required": True},
    "objects": {"type": "list", "elements": "dict", "default": []},
    "secrets": {"type": "list", "elements": "dict", "default": [], "no_log": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "force_conflicts": {"type": "bool", "default": True},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 300},
    "unreachable_ok": {"type": "bool", "default": False},
}

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass
class Result:
    """What a run did, filled as it goes, so that a failing run can still tell it."""

    changes: list[Change] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class ObjectSet:
    """A named set of objects on one cluster.

    Args:
        cluster: The cluster.
        name: The set's name.
        check: Change nothing.
        force: Take over fields of other managers.
        wait: Wait for readiness.
        timeout: Seconds to wait in all.

    """

    cluster: Cluster
    name: str
    check: bool = False
    force: bool = True
    wait: bool = True
    timeout: float = 300

    def __post_init__(self) -> None:
        self._deadline = time.monotonic() + self.timeout
        self.result = Result()

    def _left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())

    def _each(self, work: Callable[[In], Out], items: Sequence[In]) -> list[Out]:
        """Do `work` for all items at the same time; what fails is noted in the result and left out."""
        if not items:
            return []
        done = []
        with ThreadPoolExecutor(max_workers=min(len(items), CONNECTIONS)) as pool:
            for future in [pool.submit(work, item) for item in items]:
                try:
                    done.append(future.result())
                except K8sError as error:
                    self.result.errors.append(str(error))
        return done

    def members(self, kinds: Iterable[tuple[str, str]]) -> dict[Ident, Obj]:
        """Return the objects that bear the set's label now.

        Args:
            kinds: (group, kind) to search besides those that every set is searched for.

        """
        selector = f"{SET_LABEL}={self.name}"

        def members_of(kind: tuple[str, str]) -> list[Obj]:
            resource = self.cluster.find(*kind)
            if resource is None:
                return []
            return self.cluster.list(resource.api_version, resource.kind, label_selector=selector)

        wanted = sorted({*PRUNED_KINDS, *(kind for kind in kinds if kind[1] not in INHERITING_KINDS)})
        self.cluster.find("apps", "Deployment")  # the list of API groups is read once, not by each thread
        found = [obj for objects in self._each(members_of, wanted) for obj in objects]
        # What a controller made, e.g. a CronJob's Job, goes with its owner.
        return {ident_of(obj): obj for obj in found if not obj["metadata"].get("ownerReferences")}

    # Present

    def present(self, objects: Sequence[Obj]) -> None:
        """Apply objects, delete what left the set, and wait for readiness."""
        wanted = {ident_of(obj) for obj in objects}
        members = self.members((ident.group, ident.kind) for ident in wanted)
        if self.result.errors:
            return
        for stage in stages_of(objects):
            # Without its namespace an object only fails once more, and hides the one failure that matters.
            done = {change.ident for change in self.result.changes}
            lost = {ident.name for ident in wanted - done if ident.kind == "Namespace"}
            possible = [obj for obj in stage if ident_of(obj).namespace not in lost]
            self._each(lambda obj: self._apply(obj, objects, members), possible)
            if not self._settle([ident_of(obj) for obj in stage]):
                return
        if self.result.errors:
            return  # nothing is deleted on the ground of half a set
        self._prune({ident: obj for ident, obj in members.items() if ident not in wanted}, listed=set())
        if self.wait and not self.check and not self.result.errors:
            self._wait_ready([change for change in self.result.changes if change.after is not None])

    def _apply(self, obj: Obj, objects: Sequence[Obj], members: dict[Ident, Obj]) -> None:
        api_version, kind, metadata = obj["apiVersion"], obj["kind"], obj["metadata"]
        ident = ident_of(obj)
        prepared = prepare(obj, self.name)
        if self.check and not self.cluster.has_api(api_version, kind) and _defined_by(objects, ident):
            self.result.changes.append(Change(ident, None, prepared))
            return
        before = members.get(ident) or self.cluster.get(api_version, kind, metadata["name"], metadata.get("namespace"))
        if before is not None:
            owner = (before["metadata"].get("labels") or {}).get(SET_LABEL, self.name)
            if owner != self.name and ident.kind == "Namespace":
                self.result.changes.append(Change(ident, before, before))
                return
            if owner != self.name:
                raise K8sError(
                    f"{ident} belongs to set {owner}, not to {self.name}: list it in one set only, or remove its label "
                    f"{SET_LABEL} to move it.",
                    "conflict",
                )
            if before["metadata"].get("deletionTimestamp") and not self.check:
                self._wait_gone(before)
                before = None
        try:
            after = self.cluster.apply(prepared, dry_run=self.check, force=self.force)
        except K8sError as error:
            if not (self.check and error.reason == "not-found"):
                raise
            after = prepared  # its namespace would be made by this run
        self.result.changes.append(Change(ident, before, after))

    def _settle(self, stage: Sequence[Ident]) -> bool:
        """Wait for what the next stage stands on: definitions of kinds, and claims that pods would stumble over.

        Returns:
            False when it did not come.

        """
        if self.check or self.result.errors:
            return True
        done = {change.ident: change for change in self.result.changes}
        definitions = [done[ident] for ident in stage if ident.kind == "CustomResourceDefinition"]
        if definitions:
            self._wait_ready(definitions)
            self.cluster.forget_discovery()
        if self.wait:  # A claim that comes before its volume is available waits 15 s for the controller's next round.
            kinds = ("PersistentVolume", "PersistentVolumeClaim")
            self._wait_ready([done[ident] for ident in stage if ident.kind in kinds])
        return not self.result.errors

    # Absent

    def absent(self, objects: Sequence[Obj]) -> None:
        """Delete all that bears the set's label, and what is listed of the kinds that are otherwise kept."""
        listed = {ident_of(obj): obj for obj in objects}
        members = self.members((ident.group, ident.kind) for ident in listed)
        for ident, obj in listed.items():
            if ident in members or not self.cluster.has_api(obj["apiVersion"], ident.kind):
                continue
            if self.cluster.get(obj["apiVersion"], ident.kind, ident.name, ident.namespace or None):
                self.result.warnings.append(f"{ident} does not belong to set {self.name} and was left alone.")
        if not self.result.errors:
            self._prune(members, set(listed))
        if self.wait and not self.check:
            self._each(self._wait_gone, [change.before for change in self.result.changes if change.before])

    def _prune(self, leftovers: dict[Ident, Obj], listed: set[Ident]) -> None:
        kept = sorted(ident for ident in leftovers if ident.kind in KEPT_KINDS and ident not in listed)
        if kept:
            self.result.warnings.append(
                f"No longer in set {self.name}, but kept since data may hang on it: {', '.join(map(str, kept))}. "
                "Delete it by hand when it is not needed."
            )

        def prune(ident: Ident) -> None:
            obj = leftovers[ident]
            self.cluster.delete(obj["apiVersion"], ident.kind, ident.name, ident.namespace or None, dry_run=self.check)
            self.result.changes.append(Change(ident, obj, None))

        doomed = [ident for ident in leftovers if ident not in kept]
        for stage in sorted({stage_of(ident.kind) for ident in doomed}, reverse=True):
            self._each(prune, [ident for ident in doomed if stage_of(ident.kind) == stage])

    def _wait_gone(self, obj: Obj) -> None:
        ident, uid = ident_of(obj), obj["metadata"].get("uid")
        gone, last = self.cluster.wait_for(
            obj["apiVersion"],
            ident.kind,
            ident.name,
            ident.namespace or None,
            lambda now: now is None or now["metadata"].get("uid") != uid,
            self._left(),
        )
        if not gone and last is not None:
            holders = ", ".join(last["metadata"].get("finalizers") or []) or "nothing that is known"
            raise K8sError(
                f"{ident} is being deleted, but not gone after {self.timeout:g} s. It is held by: {holders}.", "other"
            )

    # Readiness

    def _wait_ready(self, changes: Sequence[Change]) -> None:
        pending = [change.after for change in changes if change.after is not None and judge(change.after) != READY]
        self._each(self._wait_one, pending)

    def _wait_one(self, obj: Obj) -> None:
        ident = ident_of(obj)
        if ident.kind == "PersistentVolumeClaim" and self._binds_on_use(obj):
            return
        # A rollout that ran into its deadline before this run may still succeed, now that something was put right.
        stale = judge(obj) if ident.kind == "Deployment" else None
        state = State("waiting")

        def settled(now: Obj | None) -> bool:
            nonlocal state
            state = judge(now)
            return state.state == "ready" or (state.state == "failed" and state != stale)

        namespace = ident.namespace or None
        _, last = self.cluster.wait_for(obj["apiVersion"], ident.kind, ident.name, namespace, settled, self._left())
        if state.state == "ready":
            return
        when = "failed" if state.state == "failed" and state != stale else f"is not ready after {self.timeout:g} s"
        raise K8sError(f"{ident} {when}.\n" + "\n".join(self._why(last)) if last else f"{ident} was deleted.", "other")

    def _binds_on_use(self, claim: Obj) -> bool:
        name = claim["spec"].get("storageClassName")
        found = self.cluster.get("storage.k8s.io/v1", "StorageClass", name) if name else None
        return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"

    def _why(self, obj: Obj) -> list[str]:
        ident = ident_of(obj)
        if not ident.namespace:
            return diagnose(obj)
        selector = pod_selector(obj)
        try:
            pods = [obj] if ident.kind == "Pod" else []
            if selector:
                pods = self.cluster.list("v1", "Pod", ident.namespace, label_selector=selector)
            events = self.cluster.list("v1", "Event", ident.namespace, field_selector="type=Warning")
        except K8sError as error:
            return [*diagnose(obj), f"  (its pods and events could not be read: {error})"]
        logs = {}
        for crash in crashes_of(pods)[:3]:
            try:
                logs[crash] = self.cluster.logs(ident.namespace, crash.pod, crash.container, previous=crash.previous)
            except K8sError as error:
                logs[crash] = f"(its log could not be read: {error})"
        return diagnose(obj, pods, events, logs)


def _defined_by(objects: Iterable[Obj], ident: Ident) -> bool:
    """Return whether one of the objects is the definition of a custom object's kind."""
    for obj in objects:
        if obj["kind"] == "CustomResourceDefinition":
            spec = obj.get("spec") or {}
            if (spec.get("group"), (spec.get("names") or {}).get("kind")) == (ident.group, ident.kind):
                return True
    return False


def simulate(objects: Iterable[Obj], set_name: str) -> Result:
    """Return the result of a check where there is no cluster yet: everything is new."""
    return Result([Change(ident_of(obj), None, prepare(obj, set_name)) for obj in objects])


def run(module: AnsibleModule) -> None:
    """Run the module."""
    start = time.monotonic()
    params = module.params
    # Ansible would star out every value below `secrets`, "v1" and names included; only what is secret needs it.
    module.no_log_values = secret_values(params["secrets"])
    problems = problems_of(params["set"], params["objects"], params["secrets"])
    if problems:
        module.fail_json(msg=f"k8s_objects, set {params['set']}: " + " ".join(problems))
    objects = [*params["objects"], *params["secrets"]]
    result = Result()
    try:
        cluster = connect(params["kubeconfig"], params["context"])
        cluster.version()  # says in one place what is wrong with the connection
        work = ObjectSet(
            cluster,
            params["set"],
            check=module.check_mode,
            force=params["force_conflicts"],
            wait=params["wait"],
            timeout=params["timeout"],
        )
        result = work.result
        if params["state"] == "present":
            work.present(objects)
        else:
            work.absent(objects)
    except K8sError as error:
        no_cluster = error.reason in ("no-kubeconfig", "unreachable")
        if module.check_mode and params["unreachable_ok"] and no_cluster:
            result = simulate(objects if params["state"] == "present" else [], params["set"])
            result.warnings.append(f"Nothing was compared, since there is no cluster yet. {error}")
        else:
            result.errors.append(str(error))
    finish(module, result, time.monotonic() - start)


def finish(module: AnsibleModule, result: Result, seconds: float) -> None:
    """Return the result to Ansible."""
    for warning in result.warnings:
        module.warn(warning)
    changes = sorted(result.changes, key=lambda change: (stage_of(change.ident.kind), change.ident))
    answer: dict[str, Any] = {
        "changed": any(change.action != "unchanged" for change in changes),
        "objects": [
            {
                "kind": change.ident.kind,
                "namespace": change.ident.namespace,
                "name": change.ident.name,
                "action": change.action,
            }
            for change in changes
        ],
        "seconds": round(seconds, 3),
    }
    if module._diff:
        answer["diff"] = diff_of(changes, module.params["set"])
    if result.errors:
        module.fail_json(msg=f"Set {module.params['set']}: " + "\n".join(result.errors), **answer)
    module.exit_json(**answer)


def main() -> None:
    """Enter from Ansible."""
    run(AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True))


if __name__ == "__main__":
    main()
