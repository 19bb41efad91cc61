"""Whose home is which, as which user number its owner's servers run, and how a new one is made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

# User numbers that systemd's documentation (UIDS-GIDS) leaves unused, and which Kubernetes takes: 0x70000000 and on.
FIRST_UID, UIDS = 0x70000000, 268_000_000
VOLUME = "homes"
USAGE = "/run/jhok/home"  # where images/singleuser's home-usage looks

# Makes the home before the kubelet would, which is root and so nobody on the NFS server. It runs as the user, since
# whoever makes a directory owns it. The home appears under its name only when it is complete, so an interrupted run is
# completed by the next. Users see nothing above their own home.
MAKE_HOME = """\
set -eu
umask 077
cd /volume
fail() { echo "The home directory homes/$HOME_NAME on the NFS server cannot be used: $1" >&2; exit 1; }
closed() { fail "user number $HOME_UID cannot add to $1. If that is not permitted: chmod 1733 $1, on the server."; }
[ ! -L homes ] || fail "homes is a symbolic link."
[ -d homes ] || fail "there is no homes. An admin makes it there, in the exported directory: mkdir -m 1733 homes."
cd homes
[ ! -L "$HOME_NAME" ] || fail "it is a symbolic link."
if [ -d "$HOME_NAME" ]; then
  owner=$(stat -c %u "$HOME_NAME")
  [ "$owner" = "$HOME_UID" ] || fail "it belongs to user number $owner, but its user's servers run as $HOME_UID. \\
An admin either gives it away, with chown -hR --from=$owner $HOME_UID:$HOME_UID on the server, or keeps the number, \\
with $HOME_NAME: $owner in jupyterhub_uids."
else
  [ ! -e "$HOME_NAME" ] || fail "it is not a directory."
  rm -rf ".new.$HOME_NAME"
  mkdir ".new.$HOME_NAME" || closed homes
  if [ -d /etc/skel ]; then cp -R /etc/skel/. ".new.$HOME_NAME"; fi
  mv -T ".new.$HOME_NAME" "$HOME_NAME"
fi
if [ "$HOME_USAGE" ]; then  # the NFS server writes there, and the kubelet mounts what is there
  (umask 022 && mkdir -p "../usage/$HOME_NAME") || closed usage
fi
"""


class HomeTakenError(Exception):
    """The home of this name belongs to an account that is now called otherwise."""


@dataclass(frozen=True)
class Home:
    """A home.

    directory: its name among the homes.
    uid: number of its user, and of a group of the same number.
    usage: whether the server sees what the NFS server says of it.
    """

    directory: str
    uid: int
    usage: bool


class Homes:
    """The homes of a site.

    Args:
        uids: user numbers that the inventory names, by directory.
        renamed: directories of people whose account was renamed since, by the account's name.
        usage: whether servers see what the NFS server says of their home.

    """

    def __init__(self, uids: dict[str, int], renamed: dict[str, str], *, usage: bool = False) -> None:
        self._uids, self._renamed, self._usage = uids, renamed, usage

    def of(self, user: str) -> Home:
        """Return a user's home.

        Raises:
            HomeTakenError: it was this name's home before its account was renamed.

        """
        if user not in self._renamed and user in self._renamed.values():
            raise HomeTakenError(user)
        directory = self._renamed.get(user, user)
        return Home(directory, self._uids.get(directory) or stable_uid(directory), self._usage)


def stable_uid(directory: str) -> int:
    """Return a number that follows from the name alone: the same on every node, and after any loss of the hub."""
    digest = hashlib.sha256(directory.encode()).digest()
    return FIRST_UID + int.from_bytes(digest[:8], "big") % UIDS


def make_home(home: Home, image: str) -> dict[str, Any]:
    """Return the init container that makes a home, or refuses one that is somebody else's."""
    return {
        "name": "home",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", MAKE_HOME.replace("{", "{{").replace("}", "}}")],  # KubeSpawner formats every string
        "env": [
            {"name": "HOME_NAME", "value": home.directory},
            {"name": "HOME_UID", "value": str(home.uid)},
            {"name": "HOME_USAGE", "value": "yes" if home.usage else ""},
        ],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {
            "runAsUser": home.uid,
            "runAsGroup": home.uid,
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": VOLUME, "mountPath": "/volume"}],
    }


def mounts(home: Home, user: str) -> list[dict[str, Any]]:
    """Return where a server sees the home: under the user's name, and under an earlier one, which files may name."""
    names = dict.fromkeys((user, home.directory))
    homes = [{"name": VOLUME, "mountPath": f"/home/{name}", "subPath": f"homes/{home.directory}"} for name in names]
    usage = {"name": VOLUME, "mountPath": USAGE, "subPath": f"usage/{home.directory}", "readOnly": True}
    return [*homes, usage] if home.usage else homes


def refusal(pod: dict[str, Any]) -> str:
    """Return why the home of a pod could not be used; nothing while it may still be."""
    for status in (pod.get("status") or {}).get("initContainerStatuses") or []:
        for state in (status.get("state") or {}, status.get("lastState") or {}):
            ended = state.get("terminated") or {}
            if status.get("name") == "home" and ended.get("exitCode"):
                return (ended.get("message") or "").strip() or f"Making the home ended with {ended['exitCode']}."
    return ""
