"""Configuration documents of kubeadm and the kubelet from plain settings: no I/O, no clock, no randomness."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

API = "kubeadm.k8s.io/v1beta4"
"""The configuration API that every supported kubeadm reads (1.31 and newer)."""

CRI_SOCKET = "unix:///run/containerd/containerd.sock"

# Files of the control plane host that the API server reads, made by role kubernetes, and the directory that it writes
# to who changed what.
AUDIT_POLICY = "/etc/kubernetes/jhok-audit-policy.yaml"
ENCRYPTION = "/etc/kubernetes/jhok-encryption.yaml"
AUDIT_LOGS = "/var/log/kubernetes"

# What the controller manager gives each node, and kubeadm's limit for how much smaller that is than the whole.
NODE_MASK = 24
MAX_MASK_DIFFERENCE = 16

# What the kubelet leaves to chance. A pod that makes processes without end stops at its own limit; a server with
# JupyterLab, VS Code and kernels has some hundred threads, numerical libraries add one per core and process. The
# machine's own programs (sshd, containerd, the kubelet) get their share, and pods are evicted before the kernel kills.
# Its serving certificate is the cluster's (jhok_kubelet_certificates.py approves it): nobody needs to skip the check.
# Of a pod that needs too much memory only the greedy process ends, so that a kernel dies and JupyterLab stays.
# The thresholds of disks are the kubelet's own, said here since preflight works with them.
KUBELET: dict[str, Any] = {
    "podPidsLimit": 4096,
    "singleProcessOOMKill": True,
    "serverTLSBootstrap": True,
    "systemReserved": {"cpu": "100m", "memory": "256Mi"},
    "evictionHard": {
        "memory.available": "200Mi",
        "nodefs.available": "10%",
        "nodefs.inodesFree": "5%",
        "imagefs.available": "15%",
    },
}

# What other settings and the cluster itself rely on.
OWN_KUBELET_FIELDS = {
    "apiVersion",
    "authentication",
    "authorization",
    "cgroupDriver",
    "failCgroupV1",
    "kind",
    "serverTLSBootstrap",
    "staticPodPath",
    "tlsCertFile",
    "tlsPrivateKeyFile",
}

COMMON = ("version", "node_name", "node_address", "taints", "cgroup_v1")
INIT = (
    *COMMON,
    "api_endpoint",
    "pod_cidr",
    "service_cidr",
    "dns_domain",
    "image_repository",
    "extra_sans",
    "conntrack_max_per_core",
)
JOIN = (*COMMON, "api_endpoint", "token", "ca_cert_hashes")

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_TOKEN = re.compile(r"[a-z0-9]{6}\.[a-z0-9]{16}")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")

Document = dict[str, Any]


def init_documents(settings: Mapping[str, Any]) -> list[Document]:
    """Return the documents for ``kubeadm init --config`` on the control plane host.

    Args:
        settings: required are ``version`` (of the bundle's kubeadm, ``v1.37.2`` for example), ``node_name``,
            ``node_address`` (of the API server and the kubelet), ``api_endpoint`` (``host:port`` that kubeconfigs and
            joins use), ``pod_cidr``, ``service_cidr``. Optional:
            ``dns_domain`` (default ``cluster.local``), ``image_repository`` (default: kubeadm's),
            ``taints`` (``[]``: pods are scheduled on the control plane too; ``None``, the default: kubeadm's taint),
            ``cgroup_v1`` (whether the machine has cgroup v1; default no),
            ``extra_sans`` of the API server's certificate,
            ``conntrack_max_per_core`` (``None``: kube-proxy's default; 0: the host's limit is left as it is).

    Raises:
        ValueError: a setting is missing, unknown or wrong; the message names the variable and the remedy.

    """
    _check_names(settings, INIT, required=("node_address", "api_endpoint", "pod_cidr", "service_cidr"))
    address = _address(settings, "node_address")
    pods, services = _network(settings, "pod_cidr"), _network(settings, "service_cidr")
    if pods.overlaps(services):
        raise _wrong("pod_cidr", str(pods), f"overlaps kubernetes_service_cidr {services}", "choose networks apart")
    if not NODE_MASK - MAX_MASK_DIFFERENCE <= pods.prefixlen <= NODE_MASK:
        largest = NODE_MASK - MAX_MASK_DIFFERENCE
        what = f"does not hold a /{NODE_MASK} for each node"
        raise _wrong("pod_cidr", str(pods), what, f"choose a network between /{largest} and /{NODE_MASK}")
    init: Document = {
        "apiVersion": API,
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": address},
        "nodeRegistration": _node_registration(settings),
    }
    cluster: Document = {
        "apiVersion": API,
        "kind": "ClusterConfiguration",
        "kubernetesVersion": "v" + settings["version"].removeprefix("v"),
        "networking": {
            "podSubnet": str(pods),
            "serviceSubnet": str(services),
            "dnsDomain": settings.get("dns_domain") or "cluster.local",
        },
        "controlPlaneEndpoint": settings["api_endpoint"],
        "apiServer": {
            "extraArgs": _arguments(
                {
                    "audit-policy-file": AUDIT_POLICY,
                    "audit-log-path": f"{AUDIT_LOGS}/audit.log",
                    "audit-log-maxage": "30",  # days
                    "audit-log-maxbackup": "5",  # files
                    "audit-log-maxsize": "20",  # MB each
                    "encryption-provider-config": ENCRYPTION,
                    "kubelet-certificate-authority": "/etc/kubernetes/pki/ca.crt",
                }
            ),
            "extraVolumes": [
                {
                    "name": "audit-policy",
                    "hostPath": AUDIT_POLICY,
                    "mountPath": AUDIT_POLICY,
                    "readOnly": True,
                    "pathType": "File",
                },
                {
                    "name": "encryption",
                    "hostPath": ENCRYPTION,
                    "mountPath": ENCRYPTION,
                    "readOnly": True,
                    "pathType": "File",
                },
                {
                    "name": "audit-logs",
                    "hostPath": AUDIT_LOGS,
                    "mountPath": AUDIT_LOGS,
                    "pathType": "DirectoryOrCreate",
                },
            ],
        },
        "controllerManager": {"extraArgs": _arguments({"node-cidr-mask-size": str(NODE_MASK)})},
    }
    if settings.get("image_repository"):
        cluster["imageRepository"] = settings["image_repository"]
    if settings.get("extra_sans"):
        cluster["apiServer"]["certSANs"] = list(settings["extra_sans"])
    proxy: Document = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
    }
    if settings.get("conntrack_max_per_core") is not None:
        proxy["conntrack"] = {"maxPerCore": int(settings["conntrack_max_per_core"])}
    return [_plain(document) for document in (init, cluster, proxy)]


def join_documents(settings: Mapping[str, Any]) -> list[Document]:
    """Return the document for ``kubeadm join --config`` on a worker.

    Args:
        settings: required are ``version``, ``node_name``, ``node_address``, ``api_endpoint`` (``host:port``), ``token``
            and ``ca_cert_hashes`` (list of ``sha256:<hex>``). Optional: ``taints``, ``cgroup_v1``.

    Raises:
        ValueError: a setting is missing, unknown or wrong; the message names the variable and the remedy.

    """
    _check_names(settings, JOIN, required=("node_address", "api_endpoint", "token", "ca_cert_hashes"))
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
        "apiVersion": API,
        "kind": "JoinConfiguration",
        "discovery": {"bootstrapToken": discovery},
        "nodeRegistration": _node_registration(settings),
    }
    return [_plain(document)]


def kubelet_document(extra: Mapping[str, Any], *, cgroup_v1: bool) -> Document:
    """Return what a node's kubelet is told besides what kubeadm tells it, a drop-in file of its configuration.

    The cgroup driver is left to the kubelet, which asks containerd for it.

    Args:
        extra: fields of KubeletConfiguration that differ from KUBELET. The kubelet merges the document into its
            defaults: a field that holds fields keeps those that are not named.
        cgroup_v1: whether the machine has cgroup v1, on which the kubelet starts only when it is told to.

    Raises:
        ValueError: a field is this collection's own.

    """
    owned = sorted(OWN_KUBELET_FIELDS & set(extra))
    if owned:
        raise _wrong("kubelet_config", ", ".join(owned), "is not an admin's to set", "remove it")
    document: Document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        **KUBELET,
        **extra,
    }
    if cgroup_v1:
        document["failCgroupV1"] = False
    return _plain(document)


def _check_names(settings: Mapping[str, Any], known: Sequence[str], required: Sequence[str]) -> None:
    """Check which settings are there."""
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"unknown setting(s) {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    for name in ("version", "node_name", *required):
        if not settings.get(name):
            raise ValueError(f"kubernetes_{name} is empty; set it")
    if not re.fullmatch(r"v?1\.\d+\.\d+([-+][-+.\w]+)?", settings["version"]):
        raise _wrong("version", settings["version"], "is no release of Kubernetes", "write it like v1.37.2")
    _matching(settings, "node_name", _NAME, "use lower case letters, digits, - and .")


def _arguments(arguments: Mapping[str, str]) -> list[dict[str, str]]:
    """Return extra arguments in the form of the API."""
    return [{"name": name, "value": value} for name, value in arguments.items()]


def _node_registration(settings: Mapping[str, Any]) -> Document:
    """Return how this node registers itself."""
    registration: Document = {
        "name": settings["node_name"],
        "criSocket": CRI_SOCKET,
        "kubeletExtraArgs": _arguments({"node-ip": settings["node_address"]}),
    }
    taints = settings.get("taints")
    if taints is not None:
        registration["taints"] = taints
    if settings.get("cgroup_v1"):
        # kubeadm's check of the machine refuses cgroup v1, whatever the kubelet is told.
        registration["ignorePreflightErrors"] = ["SystemVerification"]
    return registration


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
