#!/usr/bin/python
# Copyright: The jhok.lab authors
# MIT License (see LICENSE)
"""Module jhok.lab.secret_store."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: secret_store
short_description: Generate secrets once and keep them on the host
version_added: "0.1.0"
description:
  - Keeps generated secrets in one JSON file that only its owner can read. What is missing is generated; what is there
    is never changed, so a second run gives the same values.
  - The file is written whole or not at all, and two runs at the same time wait for each other.
  - The returned values are secrets. Set C(no_log=true) on the task that calls this module. Because that also hides the
    reason of a failure, register the result with C(failed_when=false) and fail with its C(msg) when RV(secrets) is
    missing.
options:
  path:
    description: The file. Its directory is made with mode 0700 when it does not exist.
    type: path
    default: /etc/jhok/secrets.json
  entries:
    description: The secrets that must exist.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Lower-case name, parts separated by C(/).
        type: str
        required: true
      kind:
        description:
          - V(hex) and V(alphanumeric) are random; V(alphanumeric) leaves out characters that look alike.
          - V(scrypt) is the salted hash of the entry named by O(entries[].source). It is made again only when that
            entry's value changes.
        type: str
        choices: [hex, alphanumeric, scrypt]
        required: true
      length:
        description: Characters of a random value, 16 or more. Not used for V(scrypt).
        type: int
        default: 64
      source:
        description: Name of the entry that a V(scrypt) entry is the hash of.
        type: str
      announce:
        description: A person has to be told the value. It is listed in RV(unannounced) until O(announced) names it.
        type: bool
        default: false
      value:
        description:
          - What a missing entry is to be, instead of random, because it was kept elsewhere. Empty, it is random.
          - When the entry is there and another, the module fails.
        type: str
  announced:
    description: Names of secrets that people have been told.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Writes nothing. A value that is missing is returned as C(would-create:<name>).
  diff_mode:
    support: full
    description: Names only, never values.
author:
  - The jhok.lab authors (@jhok-lab)
"""

EXAMPLES = r"""
- name: Read or generate the secrets
  jhok.lab.secret_store:
    entries:
      - {name: hub/cookie, kind: hex, length: 64}
      - {name: hub/password/demo, kind: alphanumeric, length: 16, announce: true}
      - {name: hub/password-hash/demo, kind: scrypt, source: hub/password/demo}
  register: secrets
  no_log: true

- name: Remember that the password was shown
  jhok.lab.secret_store:
    announced: [hub/password/demo]
  no_log: true
"""

RETURN = r"""
secrets:
  description: The value of each entry of O(entries), by name.
  type: dict
  returned: success
  sample: {"hub/cookie": "2f0c..."}
created:
  description: Names of the entries whose value was generated (in check mode, would be) by this call.
  type: list
  elements: str
  returned: success
  sample: ["hub/cookie"]
unannounced:
  description: Names of the entries of O(entries) whose value has still to be told to a person.
  type: list
  elements: str
  returned: success
  sample: ["hub/password/demo"]
"""

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.jhok.lab.plugins.module_utils import secrets as store_lib


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, so that two runs do not generate the same secret twice."""
    fd = os.open(str(directory), os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def read(path: Path) -> dict[str, Any] | None:
    """Return the store in `path`, or None when there is none; raise StoreError when it must not be used."""
    try:
        fd = os.open(str(path), os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise store_lib.StoreError(f"cannot be opened ({e.strerror}); it must be a plain file of its owner") from e
    with os.fdopen(fd, encoding="utf-8") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise store_lib.StoreError("is not a plain file: move it away")
        if status.st_uid != os.geteuid():
            raise store_lib.StoreError(f"belongs to uid {status.st_uid}, not to uid {os.geteuid()}: change its owner")
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise store_lib.StoreError(
                f"has mode {mode:04o}, so others may have read it: set 0600 (chmod 0600 {path}), and move the file "
                "away instead if anybody else could log in, so that new secrets are generated"
            )
        try:
            text = file.read()
        except UnicodeDecodeError:
            text = ""
    try:
        return store_lib.parse(text)
    except store_lib.StoreError as e:
        raise store_lib.StoreError(f"{e}: restore it from a backup, or move it away to generate new secrets") from e


def write(path: Path, text: str) -> None:
    """Put `text` in `path`, mode 0600, whole or not at all, on disk before it is seen."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=str(path.parent))  # mode 0600 from the start
    temporary = Path(name)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do what the task asks; return the module's result."""
    path = Path(module.params["path"])
    entries = [store_lib.Entry(**entry) for entry in module.params["entries"]]

    def ensure() -> tuple[dict[str, Any], store_lib.Outcome]:
        old = read(path)
        store = old if old is not None else store_lib.empty()
        outcome = store_lib.ensure(store, entries, module.params["announced"], real=not module.check_mode)
        if outcome.changed and not module.check_mode:
            write(path, store_lib.serialise(outcome.store))
        return store, outcome

    if module.check_mode:
        store, outcome = ensure()
    else:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(path.parent):
            store, outcome = ensure()

    def names(records: dict[str, Any]) -> str:
        lines = [f"{n}: {r['kind']}{'' if r.get('announced', True) else ', not announced'}" for n, r in records.items()]
        return "".join(f"{line}\n" for line in sorted(lines))

    return {
        "changed": outcome.changed,
        "secrets": outcome.values,
        "created": outcome.created,
        "unannounced": outcome.unannounced,
        "diff": {
            "before_header": str(path),
            "after_header": str(path),
            "before": names(store["secrets"]),
            "after": names(outcome.store["secrets"]),
        },
    }


def main() -> None:
    """Entry point."""
    entry_options = {
        "name": {"type": "str", "required": True},
        "kind": {"type": "str", "required": True, "choices": ["hex", "alphanumeric", "scrypt"]},
        "length": {"type": "int", "default": 64},
        "source": {"type": "str"},
        "announce": {"type": "bool", "default": False},
        "value": {"type": "str"},  # no_log here would hide it in what is returned
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/jhok/secrets.json"},
            "entries": {"type": "list", "elements": "dict", "default": [], "options": entry_options},
            "announced": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except store_lib.StoreError as e:
        module.fail_json(msg=f"{module.params['path']}: {e}")
    except OSError as e:
        module.fail_json(msg=f"{module.params['path']}: cannot be read or written: {e.strerror}: {e.filename}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
