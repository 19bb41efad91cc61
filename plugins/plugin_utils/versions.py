"""The one table of versions: what each supported minor release of Kubernetes runs with. Pure data.

Both bundle sources take their versions from here. Tests compare it with the ``go.mod`` files of ``images/`` and with
what the newest kubeadm, and each other that is built, asks for (``kubeadm config images list``).

To add a minor release: add a row, add its folder to ``images/kubernetes``, ``images/etcd`` and ``images/coredns``
(``images/README.md``, "Pinning again"), and run ``make unit`` and ``make integration``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType

OLDEST_EXISTING = (1, 34)
"""The oldest minor release that an existing cluster may run (``kubernetes_manage: false``)."""


@dataclass(frozen=True)
class Release:
    """A supported release of Kubernetes, and the programs that a site runs with it. Versions have no leading ``v``.

    Attributes:
        kubernetes: version of kubeadm, kubelet, kubectl and the control plane.
        end_of_life: day after which the Kubernetes project makes no more patches for the minor release, which is about
            fourteen months after its first release. Source: kubernetes.io/releases/patch-releases.
        etcd: version of etcd; its image has the tag ``<etcd>-0``.
        coredns: version of CoreDNS.
        pause: version of the pause image.
        crictl: version of cri-tools.
        containerd: version of containerd, of its long-term support line.
        runc: version of runc.
        cni_plugins: version of the CNI plugins.
        sha256: published SHA-256 sums of upstream's files, by the end of their URL. A file that is not listed is
            checked against the sum that is published beside it.

    """

    kubernetes: str
    end_of_life: date
    etcd: str
    coredns: str
    pause: str
    crictl: str
    containerd: str
    runc: str
    cni_plugins: str
    sha256: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def minor(self) -> str:
        """Return the minor release, ``1.37`` for example."""
        return self.kubernetes.rpartition(".")[0]


# Sums of 1.36.3: kubespray's table (roles/kubespray_defaults/vars/main/checksums.yml, 2026-08-21).
RELEASES: Mapping[str, Release] = MappingProxyType(
    {
        release.minor: release
        for release in (
            Release(
                kubernetes="1.37.2",
                end_of_life=date(2027, 10, 28),
                etcd="3.7.0",
                coredns="1.14.6",
                pause="3.10.2",
                crictl="1.37.0",
                containerd="2.3.7",
                runc="1.5.3",
                cni_plugins="1.10.0",
            ),
            Release(
                kubernetes="1.36.3",
                end_of_life=date(2027, 6, 28),
                etcd="3.6.8",
                coredns="1.14.2",
                pause="3.10.2",
                crictl="1.37.0",
                containerd="2.3.7",
                runc="1.5.3",
                cni_plugins="1.10.0",
                sha256=MappingProxyType(
                    {
                        "v1.36.3/bin/linux/amd64/kubeadm": (
                            "bba1733c701bf70ec74ba1cc3fd5745404c1134a8a4b0a5f8560cc9832023421"
                        ),
                        "v1.36.3/bin/linux/amd64/kubectl": (
                            "ebbd080e7c2e275093b55915722043257eb24004363e20acb3c4d71919f88336"
                        ),
                        "v1.36.3/bin/linux/amd64/kubelet": (
                            "46707a53209f826ad0f0d62371ac69cd00e78fd9a8176cf5f6f87f18f7f8b718"
                        ),
                    }
                ),
            ),
        )
    }
)

NEWEST = max(RELEASES, key=lambda minor: [int(part) for part in minor.split(".")])
"""The newest supported minor release, which a new site gets."""


def release_of(version: str) -> Release:
    """Return the release that a version of Kubernetes names.

    Args:
        version: a minor release (``1.37``) or one of the table's versions (``v1.37.2`` or ``1.37.2``).

    Raises:
        ValueError: the version is not in the table; the message lists those that are.

    """
    plain = str(version).removeprefix("v")
    match = re.fullmatch(r"(\d+\.\d+)(\.\d+)?", plain)
    release = RELEASES.get(match[1]) if match else None
    if release is None or (match and match[2] and plain != release.kubernetes):
        known = " or ".join(f"{minor} (v{entry.kubernetes})" for minor, entry in RELEASES.items())
        raise ValueError(f"{version!r} is not a supported version of Kubernetes; give {known}")
    return release
