"""kubeadm's configuration documents from plain settings: no I/O, no clock, no randomness."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

# Newest configuration API that a kubeadm speaks, by the first minor release (of 1.x) that reads it.
# Source: kubeadm's validateSupportedVersion() and the reference of each API: v1beta2 came with 1.15 and left with
# 1.27, v1beta3 came with 1.22, v1beta4 with 1.31 (before that only behind a flag).
CONFIG_APIS: tuple[tuple[int, str], ...] = ((31, "v1beta4"), (22, "v1beta3"), (15, "v1beta2"))

# From this minor release on kubeadm wants the runtime's socket as a URL; older ones want a plain path.
SOCKET_URL_SINCE = 24

# What the controller manager gives each node when nothing is said, and kubeadm's limit for the ratio.
DEFAULT_NODE_MASK = 24
MAX_MASK_DIFFERENCE = 16

# What the kubelet leaves to chance. A pod that makes processes without end stops at its own limit; a server with
# JupyterLab, VS Code and kernels has some hundred threads, numerical libraries add one per core and process. The
# machine's own programs (sshd, containerd, the kubelet) get their share, and pods are evicted before the kernel kills.
# The thresholds of disks are the kubelet's own, which has to be told all or none.
KUBELET: dict[str, Any] = {
    "podPidsLimit": 4096,
    "systemReserved": {"cpu": "100m", "memory": "256Mi"},
    "evictionHard": {
        "memory.available": "200Mi",
        "nodefs.available": "10%",
        "nodefs.inodesFree": "5%",
        "imagefs.available": "15%",
    },
}

COMMON = ("version", "node_name", "node_address", "cri_socket", "taints")
INIT = (
    *COMMON,
    "advertise_address",
    "api_endpoint",
    "pod_cidr",
    "service_cidr",
    "node_cidr_mask_size",
    "dns_domain",
    "image_repository",
    "cgroup_driver",
    "extra_sans",
    "kubelet",
    "conntrack_max_per_core",
    "token",
)
JOIN = (*COMMON, "api_endpoint", "token", "ca_cert_hashes")

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_TOKEN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")

Document = dict[str, Any]


def init_documents(settings: Mapping[str, Any]) -> list[Document]:
    """Return the documents for ``kubeadm init --config`` on the control plane host.

    Args:
        settings: required are ``version`` (of the bundled kubeadm, e.g. ``v1.20.2``), ``node_name``, ``node_address``
            (the kubelet's ``node-ip``), ``pod_cidr``, ``service_cidr``. Optional:
            ``advertise_address`` of the API server (default: ``node_address``),
            ``api_endpoint`` ``host[:port]`` that kubeconfigs and joins use (default: left to kubeadm),
            ``node_cidr_mask_size`` in bits (default 24), ``dns_domain`` (default ``cluster.local``),
            ``image_repository`` (default: kubeadm's), ``cri_socket`` as path or ``unix://`` URL (default containerd's),
            ``cgroup_driver`` ``systemd`` (default) or ``cgroupfs``, ``taints`` (``[]``: pods are scheduled on the
            control plane too; ``None``, the default: kubeadm's taint), ``extra_sans`` of the API server's certificate,
            ``kubelet``: fields of KubeletConfiguration for all nodes,
            ``conntrack_max_per_core`` (``None``: kube-proxy's default; 0: the host's limit is left as it is),
            ``token`` for joins (default: kubeadm makes one).

    Raises:
        ValueError: a setting is missing, unknown or wrong; the message names the variable and the remedy.

    """
    minor = _check_names(settings, INIT, required=("node_address", "pod_cidr", "service_cidr"))
    address = _address(settings, "node_address")
    pods, services = _network(settings, "pod_cidr"), _network(settings, "service_cidr")
    if pods.overlaps(services):
        raise _wrong("pod_cidr", str(pods), f"overlaps kubernetes_service_cidr {services}", "choose networks apart")
    mask = int(settings.get("node_cidr_mask_size") or DEFAULT_NODE_MASK)
    if not pods.prefixlen <= mask <= min(30, pods.prefixlen + MAX_MASK_DIFFERENCE):
        raise _wrong(
            "node_cidr_mask_size",
            mask,
            f"does not divide kubernetes_pod_cidr {pods}",
            f"set {pods.prefixlen} to {min(30, pods.prefixlen + MAX_MASK_DIFFERENCE)}, or another kubernetes_pod_cidr",
        )
    advertise = _address(settings, "advertise_address") if settings.get("advertise_address") else address
    api = _config_api(minor)
    init: Document = {
        "apiVersion": api,
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": advertise},
        "nodeRegistration": _node_registration(settings, minor),
    }
    if settings.get("token"):
        init["bootstrapTokens"] = [{"token": _matching(settings, "token", _TOKEN, "make one: kubeadm token generate")}]
    cluster: Document = {
        "apiVersion": api,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": "v" + settings["version"].removeprefix("v"),
        "networking": {
            "podSubnet": str(pods),
            "serviceSubnet": str(services),
            "dnsDomain": _get(settings, "dns_domain", "cluster.local"),
        },
        "controllerManager": {"extraArgs": _arguments(minor, {"node-cidr-mask-size": str(mask)})},
    }
    for key, field in (("image_repository", "imageRepository"), ("api_endpoint", "controlPlaneEndpoint")):
        if settings.get(key):
            cluster[field] = settings[key]
    if settings.get("extra_sans"):
        cluster["apiServer"] = {"certSANs": list(settings["extra_sans"])}
    documents = [init, cluster, _kubelet(settings)]
    if settings.get("conntrack_max_per_core") is not None:
        documents.append(
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "conntrack": {"maxPerCore": int(settings["conntrack_max_per_core"])},
            }
        )
    return [_plain(document) for document in documents]


def join_documents(settings: Mapping[str, Any]) -> list[Document]:
    """Return the document for ``kubeadm join --config`` on a worker.

    Args:
        settings: required are ``version``, ``node_name``, ``node_address``, ``api_endpoint`` (``host:port``), ``token``
            and ``ca_cert_hashes`` (list of ``sha256:<hex>``). Optional: ``cri_socket``, ``taints``.

    Raises:
        ValueError: a setting is missing, unknown or wrong; the message names the variable and the remedy.

    """
    minor = _check_names(settings, JOIN, required=("node_address", "api_endpoint", "token", "ca_cert_hashes"))
    _address(settings, "node_address")
    hashes = [str(digest) for digest in settings["ca_cert_hashes"]]
    if not all(_HASH.fullmatch(digest) for digest in hashes):
        raise _wrong("ca_cert_hashes", hashes, "is no list of sha256:<64 hex digits>", "hash the cluster's CA key")
    discovery = {
        "apiServerEndpoint": settings["api_endpoint"],
        "token": _matching(settings, "token", _TOKEN, "make one: kubeadm token create"),
        "caCertHashes": hashes,
    }
    document = {
        "apiVersion": _config_api(minor),
        "kind": "JoinConfiguration",
        "discovery": {"bootstrapToken": discovery},
        "nodeRegistration": _node_registration(settings, minor),
    }
    return [_plain(document)]


def _check_names(settings: Mapping[str, Any], known: Sequence[str], required: Sequence[str]) -> int:
    """Check which settings are there and return the minor version of Kubernetes."""
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"unknown setting(s) {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    for name in ("version", "node_name", *required):
        if not settings.get(name):
            raise ValueError(f"kubernetes_{name} is empty; set it")
    match = re.fullmatch(r"v?1\.(\d+)\.\d+([-+][-+.\w]+)?", settings["version"])
    if not match:
        raise _wrong("version", settings["version"], "is no release of Kubernetes", "write it like v1.20.2")
    if int(match[1]) < CONFIG_APIS[-1][0]:
        raise _wrong("version", settings["version"], "is older than what is supported", "use 1.15 or later")
    _matching(settings, "node_name", _NAME, "use lower case letters, digits, - and .")
    return int(match[1])


def _config_api(minor: int) -> str:
    """Return the newest configuration API that kubeadm 1.<minor> reads."""
    return "kubeadm.k8s.io/" + next(version for since, version in CONFIG_APIS if minor >= since)


def _arguments(minor: int, arguments: Mapping[str, str]) -> dict[str, str] | list[dict[str, str]]:
    """Return extra arguments in the form of the API: a map, or from v1beta4 on a list of names and values."""
    if _config_api(minor).endswith("v1beta4"):
        return [{"name": name, "value": value} for name, value in arguments.items()]
    return dict(arguments)


def _node_registration(settings: Mapping[str, Any], minor: int) -> Document:
    """Return how this node registers itself."""
    path = _get(settings, "cri_socket", "/run/containerd/containerd.sock").removeprefix("unix://")
    if not path.startswith("/"):
        raise _wrong("cri_socket", path, "is no absolute path", "write it like /run/containerd/containerd.sock")
    registration: Document = {
        "name": settings["node_name"],
        "criSocket": f"unix://{path}" if minor >= SOCKET_URL_SINCE else path,
        "kubeletExtraArgs": _arguments(minor, {"node-ip": settings["node_address"]}),
    }
    taints = settings.get("taints")
    if taints is not None:
        registration["taints"] = taints
    return registration


def _kubelet(settings: Mapping[str, Any]) -> Document:
    """Return the configuration that all kubelets of the cluster share."""
    driver = _get(settings, "cgroup_driver", "systemd")
    if driver not in ("systemd", "cgroupfs"):
        raise _wrong("cgroup_driver", driver, "is no cgroup driver", "set systemd or cgroupfs, as containerd has it")
    extra = settings.get("kubelet") or {}
    owned = sorted({"apiVersion", "kind", "cgroupDriver"} & set(extra))
    if owned:
        raise _wrong("kubelet", owned, "is set by other variables", "remove it; use kubernetes_cgroup_driver")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": driver,
        **KUBELET,
        **extra,
    }


def _get(settings: Mapping[str, Any], name: str, default: str) -> str:
    """Return a setting, or its default where it is missing or None."""
    value = settings.get(name)
    return default if value is None else str(value)


def _matching(settings: Mapping[str, Any], name: str, pattern: re.Pattern[str], remedy: str) -> str:
    """Return a setting that matches a pattern in full. A token is not repeated in the message."""
    value = str(settings[name])
    if not pattern.fullmatch(value):
        raise _wrong(name, "(hidden)" if name == "token" else value, "is not valid", remedy)
    return value


def _address(settings: Mapping[str, Any], name: str) -> str:
    """Return a setting that is an IPv4 address."""
    try:
        return str(ipaddress.IPv4Address(str(settings[name])))
    except ValueError:
        raise _wrong(name, settings[name], "is no IPv4 address", "write it like 172.16.0.100") from None


def _network(settings: Mapping[str, Any], name: str) -> ipaddress.IPv4Network:
    """Return a setting that is an IPv4 network."""
    try:
        return ipaddress.IPv4Network(str(settings[name]))
    except ValueError as error:
        raise _wrong(name, settings[name], f"is no network ({error})", "write it like 10.244.0.0/16") from None


def _wrong(name: str, value: object, what: str, remedy: str) -> ValueError:
    """Return the error for one wrong variable."""
    return ValueError(f"kubernetes_{name}: {value} {what}; {remedy}")


def _plain(document: Mapping[str, Any]) -> Document:
    """Return plain values all through: Ansible's own subclasses of str, int and so on cannot be dumped as YAML."""
    return {str(key): _plain_value(value) for key, value in document.items()}


def _plain_value(value: object) -> object:
    """Return a plain value for one field."""
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, (list, tuple)):
        return [_plain_value(item) for item in value]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, float) else value
