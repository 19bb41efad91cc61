"""The lab at one moment, told by its machines' kernels and files, by Kubernetes and by the hub: never by Prometheus."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar

from activity import MOVER, Activity, home_sizes
from ansible_collections.jhok.lab.plugins.plugin_utils.prometheus import ALERTMANAGER
from kubernetes.utils import parse_quantity
from lab import EXPORTER, Sample, Site, Watch

WINDOW = 120  # seconds over which rates are taken
Ends = tuple[float, float]  # the least and the largest that a figure may have been
Found = TypeVar("Found")
LOOKBACK = 300  # seconds for which Prometheus believes a figure
LOCAL = ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs")
# Runs on a machine and prints the seconds of each small write to its disk.
WRITES = """python3 - <<'END'
import os, time
with open("{folder}/.write-test", "wb") as file:
    for _ in range(20):
        begin = time.monotonic()
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())
        print(time.monotonic() - begin)
os.remove("{folder}/.write-test")
END"""


# Runs on a machine and prints the seconds of each call of procedure NULL of NFS version 3 or 4.
NULLS = """python3 - <<'END'
import socket, struct, time
for version in (4, 3):
    answers = []
    for number in range(20):
        begin = time.monotonic()
        with socket.create_connection(("{server}", 2049), 5) as server:
            call = struct.pack(">10I", number, 0, 2, 100003, version, 0, 0, 0, 0, 0)
            server.sendall(struct.pack(">I", 0x80000000 | len(call)) + call)
            answer = server.recv(1024)
        if len(answer) >= 28 and answer[24:28] == bytes(4):
            answers.append(time.monotonic() - begin)
    if answers:
        print(*answers)
        break
END"""


def alertmanager_alerts(site: Site) -> list[dict[str, Any]]:
    """Return the alerts that Alertmanager knows."""
    ask = "import urllib.request as u; print(u.urlopen('{}').read().decode())"
    url = f"http://127.0.0.1:{ALERTMANAGER}/api/v2/alerts"
    found: list[dict[str, Any]] = json.loads(site.run(site.node, f'python3 -c "{ask.format(url)}"'))
    return found


def in_of(sample: Sample) -> float:
    """Return what came in through the machine's own card."""
    return float(sample["network"]["eth0"][0])


def out_of(sample: Sample) -> float:
    return float(sample["network"]["eth0"][1])


class Facts:
    """All that is known of moment `now`; what is slow to learn is learnt when it is asked for."""

    def __init__(self, site: Site, activity: Activity, watches: dict[str, Watch]) -> None:
        self.site, self.activity, self.watches = site, activity, watches
        pause = site.settings["scrape_interval"] + 1
        for _ in range(20):
            before = {alert["fingerprint"] for alert in alertmanager_alerts(site)}
            time.sleep(pause)
            self._read()
            time.sleep(pause)
            if {alert["fingerprint"] for alert in alertmanager_alerts(site)} == before:
                break
        else:
            raise AssertionError("alerts come and go all the time")
        self.alerts = len(before)
        for watch in watches.values():
            watch.wait(self.now)

    def _read(self) -> None:
        """Read what changes from moment to moment and is read quickly."""
        for name in ("disks", "homes_disk", "up_for", "not_ready", "silent"):
            self.__dict__.pop(name, None)
        self.pods = self.site.pods()
        self.users = self.activity.clients["ada"].request("GET", "/hub/api/users").json()
        self.now = time.time()
        _ = (self.not_ready, self.silent, self.homes_disk, self.disks, self.up_for)

    # ---------------------------------------------------------------- machines

    def of_machines(self, figure: Callable[[Watch], Found]) -> dict[str, Found]:
        return {name: figure(watch) for name, watch in self.watches.items()}

    def machine_rate(self, read: Callable[[Sample], float]) -> dict[str, Ends]:
        return self.of_machines(lambda watch: watch.rates(self.now, read))

    @property
    def processors(self) -> dict[str, Ends]:
        """Return the share of processors in use."""

        def share(watch: Watch) -> Ends:
            def within(first: float, last: float) -> float:
                used, all_ = (
                    watch.at(last, lambda sample, name=name: sample[name])
                    - watch.at(first, lambda sample, name=name: sample[name])
                    for name in ("cpu", "cpu_all")
                )
                return used / all_

            return watch.extremes(self.now, within)

        return self.of_machines(share)

    def machine_range(self, read: Callable[[Sample], float]) -> dict[str, Ends]:
        """Return the least and the largest figure of each machine within the last half minute."""
        return self.of_machines(lambda watch: watch.range(self.now, 30, read))

    @property
    def memory(self) -> dict[str, Ends]:
        """Return the share of memory in use."""
        return self.machine_range(lambda sample: 1 - sample["memory"]["MemAvailable"] / sample["memory"]["MemTotal"])

    @cached_property
    def disks(self) -> dict[tuple[str, str], float]:
        """Return the share of each file system in use, by machine and mount point."""
        found = {}
        for name in self.site.machines:
            table = self.site.run(name, "df -B1 --output=fstype,target,size,avail").splitlines()[1:]
            for kind, target, size, free in (line.split() for line in table):
                if kind in LOCAL and not target.startswith(
                    ("/boot", "/run", "/var/lib/kubelet/", "/var/lib/containerd/")
                ):
                    found[name, target] = 1 - int(free) / int(size)
        return found

    @property
    def fullest(self) -> dict[str, float]:
        machines = {name for name, _ in self.disks}
        return {machine: max(used for (name, _), used in self.disks.items() if name == machine) for machine in machines}

    @cached_property
    def drives(self) -> dict[str, list[str]]:
        """Return each machine's drives that are no part of others."""
        other = re.compile(r"(?:loop|ram|zram|sr|dm-|md)")
        return {
            name: [drive for drive in self.site.run(name, "ls /sys/block").split() if not other.match(drive)]
            for name in self.site.machines
        }

    def drive_rate(self, direction: str) -> dict[str, Ends]:
        def moved(name: str) -> Callable[[Sample], float]:
            return lambda sample: float(sum(sample["disks"][drive][direction] for drive in self.drives[name]))

        return {name: watch.rates(self.now, moved(name)) for name, watch in self.watches.items()}

    @cached_property
    def up_for(self) -> dict[str, float]:
        return {
            name: float(self.site.run(name, "cat /proc/uptime").split()[0]) - (time.time() - self.now)
            for name in self.site.machines
        }

    @cached_property
    def certificates(self) -> dict[tuple[str, str], float]:
        """Return how long each certificate lasts, as openssl reads it."""
        end = "openssl x509 -noout -enddate"
        command = f"""for file in /etc/kubernetes/pki/*.crt /etc/kubernetes/pki/etcd/*.crt; do
          [ -e $file ] && echo "$file $({end} -in $file)"; done
        for file in /etc/kubernetes/*.conf; do
          data=$(sed -n 's/.*client-certificate-data: //p' $file)
          [ -n "$data" ] && echo "$file $(echo $data | base64 -d | {end})"; done
        file=/var/lib/kubelet/pki/kubelet-client-current.pem; [ -e $file ] && echo "$file $({end} -in $file)"; true"""
        found = {}
        for name in self.site.machines:
            for line in self.site.run(name, command).splitlines():
                path, _, date = line.partition(" notAfter=")
                expiry = datetime.strptime(date.replace("GMT", "+0000"), "%b %d %H:%M:%S %Y %z")
                found[name, path] = expiry.timestamp() - self.now
        return found

    def writes(self, machine: str, folder: str) -> list[float]:
        """Return how long small writes to a machine's disk take."""
        return [float(line) for line in self.site.run(machine, WRITES.format(folder=folder)).split()]

    @cached_property
    def not_ready(self) -> int:
        """Return on how many nodes Kubernetes would start nothing."""
        conditions = [node.status.conditions for node in self.site.api.list_node().items]
        return sum(each.type == "Ready" and each.status != "True" for found in conditions for each in found)

    @cached_property
    def silent(self) -> int:
        """Return on how many machines the node exporter does not run; the pod's own parts are its readiness'."""
        return sum(
            self.site.run(name, f"systemctl is-active {EXPORTER} || true").strip() != "active"
            for name in self.site.machines
        )

    # ---------------------------------------------------------------- homes

    @cached_property
    def homes(self) -> dict[str, int]:
        return home_sizes(self.site)

    @cached_property
    def files(self) -> dict[str, int]:
        command = f"cd {self.site.homes} && du -s --inodes -- *"
        lines = self.site.run(self.site.nfs_server, command).splitlines()
        return {name: int(count) for count, _, name in (line.partition("\t") for line in lines)}

    @cached_property
    def homes_disk(self) -> tuple[int, int]:
        """Return size and free space of the homes' file system."""
        line = self.site.run(self.site.nfs_server, f"df -B1 --output=size,avail {self.site.homes}").splitlines()[1]
        size, free = line.split()
        return int(size), int(free)

    # ---------------------------------------------------------------- pods

    def uid(self, pod: Any) -> str:  # noqa: ANN401
        """Return what the kubelet calls a pod: of one that comes from a file, the file's hash."""
        return str((pod.metadata.annotations or {}).get("kubernetes.io/config.hash") or pod.metadata.uid)

    def user_pods(self) -> dict[str, Any]:
        name = "hub.jupyter.org/username"
        notes = {pod.metadata.name: pod.metadata.annotations or {} for pod in self.pods}
        return {notes[pod.metadata.name][name]: pod for pod in self.pods if name in notes[pod.metadata.name]}

    def pod_rate(self, pod: Any, read: Callable[[Sample], float]) -> Ends:  # noqa: ANN401
        return self.watches[pod.spec.node_name].rates(self.now, lambda sample: read(self.pod(sample, pod)))

    def pod(self, sample: Sample, pod: Any) -> Sample:  # noqa: ANN401
        """Return a pod's figures; what has not begun has counted nothing."""
        nothing = {"cpu": 0, "memory": 0, "largest": 0, "network": (0, 0)}
        return dict(sample["pods"].get(self.uid(pod), nothing))

    def of_users(self, figure: Callable[[Any], Found]) -> dict[str, Found]:
        return {user: figure(pod) for user, pod in self.user_pods().items()}

    def user_rate(self, read: Callable[[Sample], float]) -> dict[str, Ends]:
        return self.of_users(lambda pod: self.pod_rate(pod, read))

    def user_range(self, what: str) -> dict[str, tuple[float, float]]:
        """Return the least and the largest figure of each user's pod within the last half minute."""
        return {
            user: self.watches[pod.spec.node_name].range(
                self.now, 30, lambda sample, pod=pod: self.pod(sample, pod)[what]
            )
            for user, pod in self.user_pods().items()
        }

    def moved(self, user: str, direction: int, moment: float) -> float:
        """Return the bytes that a user's pod had received (0) or sent (1) at a moment."""
        pod = self.user_pods()[user]
        watch = self.watches[pod.spec.node_name]
        return watch.at(moment, lambda sample: self.pod(sample, pod)["network"][direction])

    def namespace_sums(self, figure: Callable[[Any], float]) -> dict[str, float]:
        """Return the sum of a figure over the pods with a network of their own, by namespace."""
        sums: dict[str, float] = {}
        for pod in self.pods:
            if not pod.spec.host_network and pod.status.phase == "Running":
                sums[pod.metadata.namespace] = sums.get(pod.metadata.namespace, 0) + figure(pod)
        return sums

    def namespace_rate(self, direction: int) -> dict[str, Ends]:
        least, largest = (
            self.namespace_sums(
                lambda pod, end=end: self.pod_rate(pod, lambda figures: (figures["network"] or (0, 0))[direction])[end]
            )
            for end in (0, 1)
        )
        return {name: (least[name], largest[name]) for name in least}

    def namespace_moved(self, direction: int, moment: float) -> dict[str, float]:
        """Return the bytes from before the activity to a moment."""

        def moved(pod: Any) -> float:  # noqa: ANN401
            watch = self.watches[pod.spec.node_name]
            begin, end = (
                watch.at(when, lambda sample: (self.pod(sample, pod)["network"] or (0, 0))[direction])
                for when in (self.activity.before, moment)
            )
            return end - begin

        return self.namespace_sums(moved)

    def machine_moved(self, read: Callable[[Sample], float], moment: float) -> dict[str, float]:
        return self.of_machines(lambda watch: watch.at(moment, read) - watch.at(self.activity.before, read))

    def running(self) -> dict[str, int]:
        """Return the number of running pods by node."""
        counts: dict[str, int] = {}
        for pod in self.pods:
            if pod.status.phase == "Running":
                counts[pod.spec.node_name] = counts.get(pod.spec.node_name, 0) + 1
        return counts

    def promised(self, resource: str) -> dict[str, tuple[float, float]]:
        """Return the share of each node that its pods have been promised, without and with a replaced pod."""
        room = {node.metadata.name: node.status.allocatable for node in self.site.api.list_node().items}
        sums: dict[str, float] = dict.fromkeys(room, 0)
        for pod in self.pods:
            if pod.status.phase == "Running":
                sums[pod.spec.node_name] += self.wanted(pod, resource)
        more = {name: sum(self.wanted(pod, resource) for pod in self.replaced(name)) for name in room}
        return {
            name: tuple(
                value / float(parse_quantity(room[name][resource])) for value in (sums[name], sums[name] + more[name])
            )
            for name in room
        }

    def wanted(self, pod: Any, resource: str) -> float:  # noqa: ANN401
        """Return what a pod's containers ask for."""
        requests = [(container.resources.requests or {}).get(resource, "0") for container in pod.spec.containers]
        return sum(float(parse_quantity(text)) for text in requests)

    def replaced(self, node: str) -> list[Any]:
        """Return what stands for pods of monitoring that Prometheus still counts though they are gone.

        It went down with them, so nobody told it that they ended: for five minutes it believes their last figures.
        """
        return [
            pod
            for pod in self.pods
            if pod.metadata.namespace == self.site.settings["namespace"]
            and pod.spec.node_name == node
            and self.now - pod.metadata.creation_timestamp.timestamp() < LOOKBACK + 60
        ]

    def limits(self) -> dict[str, float]:
        """Return the memory that each user's server may have."""
        return self.of_users(
            lambda pod: sum(
                float(parse_quantity((container.resources.limits or {}).get("memory", "0")))
                for container in pod.spec.containers
            )
        )

    def restarts(self) -> dict[str, int]:
        """Return the restarts of each pod that had any, of containers that ended since there is monitoring."""
        since = self.site.api.read_namespace(self.site.settings["namespace"]).metadata.creation_timestamp
        counts = {
            pod.metadata.name: sum(
                status.restart_count
                for status in pod.status.container_statuses or []
                if status.last_state.terminated and status.last_state.terminated.finished_at > since
            )
            for pod in self.pods
        }
        return {name: count for name, count in counts.items() if count}

    # ---------------------------------------------------------------- the hub

    def component(self, name: str) -> Any:  # noqa: ANN401
        """Return the hub's or the proxy's pod."""
        label = "app.kubernetes.io/component"
        return next(
            pod
            for pod in self.pods
            if pod.metadata.namespace == self.site.namespace and (pod.metadata.labels or {}).get(label) == name
        )

    def largest_process(self, component: str) -> tuple[float, float]:
        pod = self.component(component)
        watch = self.watches[pod.spec.node_name]
        return watch.range(self.now, 30, lambda sample: self.pod(sample, pod)["largest"])

    @cached_property
    def log(self) -> str:
        """Return what the hub has said since it began."""
        return str(self.site.api.read_namespaced_pod_log(self.component("hub").metadata.name, self.site.namespace))

    def seconds_said(self, what: str) -> list[float]:
        """Return the seconds that the hub's log says something took."""
        return [float(seconds) for seconds in re.findall(rf"took ([0-9.]+) seconds to {what}", self.log)]

    @property
    def servers(self) -> int:
        return sum(bool((user.get("servers") or {}).get("", {}).get("ready")) for user in self.users)

    def asked_rate(self) -> Ends:
        """Return how often the hub has answered us at least and at most, per second."""
        asking = self.activity.work["asking"]
        return next(iter(self.watches.values())).extremes(
            self.now, lambda first, last: asking.times(first, last) / (last - first)
        )

    def asked(self, path: str = "/hub/api/") -> list[float]:
        """Return how long the hub takes for some answers."""
        seconds = []
        for _ in range(20):
            begin = time.monotonic()
            self.activity.clients[MOVER].request("GET", path)
            seconds.append(time.monotonic() - begin)
        return seconds

    def nfs_seconds(self) -> list[float]:
        """Return how long the NFS server takes for some requests without work, a connection each."""
        command = NULLS.format(server=self.site.settings["nfs_address"])
        return [float(line) for line in self.site.run(self.site.node, command).split()]

    def api_seconds(self) -> list[float]:
        """Return how long the API server takes for some answers."""
        seconds = []
        for _ in range(10):
            begin = time.monotonic()
            self.site.api.list_node()
            seconds.append(time.monotonic() - begin)
        return seconds
