"""The store of generated secrets: pure functions, no file access.

The store is one JSON document, `{"format": 1, "secrets": {<name>: <record>}}`. A record holds `kind` and `value`;
`scrypt` records also the digest of the password they were made from, and entries that people have to be told hold
`announced`. A value, once made, is kept whatever kind or length is asked for later: rotation is always explicit.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import string
from typing import Any, NamedTuple

FORMAT = 1
NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?(/[a-z0-9]([a-z0-9._-]*[a-z0-9])?)*")
# Without the characters that people mistake for one another when they type from a screen.
ALPHANUMERIC = "".join(sorted(set(string.ascii_letters + string.digits) - set("0O1lI")))
SCRYPT_N, SCRYPT_R, SCRYPT_P = 2**14, 8, 1  # 16 MiB of memory, about 50 ms


class StoreError(ValueError):
    """The store, or what is asked of it, cannot be used; the message says what to do."""


class Entry(NamedTuple):
    """One secret that must exist.

    `kind` is `hex` or `alphanumeric` (`length` in characters), or `scrypt`: the salted hash of the entry named by
    `source`, made again only when that entry's value has changed. `announce`: a person has to be told the value.
    `value`: what a new entry is to be, when people have kept it elsewhere.
    """

    name: str
    kind: str
    length: int = 0
    source: str | None = None
    announce: bool = False
    value: str | None = None


class Outcome(NamedTuple):
    """What `ensure` made of a store."""

    store: dict[str, Any]
    values: dict[str, str]  # of the entries that were asked for
    created: list[str]  # names of new or newly derived values
    unannounced: list[str]  # names of the entries asked for whose value nobody was told yet
    changed: bool


def empty() -> dict[str, Any]:
    """Return a store without secrets."""
    return {"format": FORMAT, "secrets": {}}


def parse(text: str) -> dict[str, Any]:
    """Read a store; raise StoreError (which never quotes the text) when it is not one."""
    try:
        store = json.loads(text)
    except ValueError:
        raise StoreError("is not valid JSON") from None
    if not isinstance(store, dict) or store.get("format") != FORMAT:
        raise StoreError(f"is not a store of format {FORMAT}")
    records = store.get("secrets")
    if not isinstance(records, dict):
        raise StoreError("has no mapping `secrets`")
    for name, record in records.items():
        value = record.get("value") if isinstance(record, dict) else None
        if not (isinstance(value, str) and value and isinstance(record.get("kind"), str)):
            raise StoreError(f"holds a damaged record `{name}`")
    return store


def serialise(store: dict[str, Any]) -> str:
    """Return the store as text, the same for the same content."""
    return json.dumps(store, indent=2, sort_keys=True) + "\n"


def generate(kind: str, length: int) -> str:
    """Return a new random value of kind `hex` or `alphanumeric` with `length` characters."""
    if kind == "hex":
        return secrets.token_hex((length + 1) // 2)[:length]
    return "".join(secrets.choice(ALPHANUMERIC) for _ in range(length))


def scrypt_hash(password: str, salt: bytes) -> str:
    """Return `scrypt$n$r$p$<salt hex>$<hash hex>` of a password."""
    digest = hashlib.scrypt(password.encode(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=32)
    return f"scrypt${SCRYPT_N}${SCRYPT_R}${SCRYPT_P}${salt.hex()}${digest.hex()}"


def check_entries(entries: list[Entry]) -> None:
    """Raise StoreError when the entries asked for make no sense."""
    by_name = {entry.name: entry for entry in entries}
    if len(by_name) != len(entries):
        raise StoreError("`entries` names a secret twice: give each `name` once")
    for entry in entries:
        if not NAME_PATTERN.fullmatch(entry.name):
            raise StoreError(
                f"`{entry.name}` is no name for a secret: use a-z, 0-9, `.`, `_`, `-`, and `/` between parts"
            )
        if entry.kind == "scrypt":
            source = by_name.get(entry.source or "")
            if source is None or source.kind == "scrypt":
                raise StoreError(f"`{entry.name}` is of kind scrypt: `source` must name a generated entry of this task")
        elif entry.length < 16:
            raise StoreError(f"`{entry.name}`: `length` is {entry.length}, but less than 16 characters can be guessed")


def ensure(store: dict[str, Any], entries: list[Entry], announced: list[str], real: bool = True) -> Outcome:
    """Add what the store lacks of `entries`, and mark `announced` names as told.

    With `real=False` (check mode) what is missing gets the value `would-create:<name>` instead of a random one.
    The given store is left as it is. Raises StoreError.
    """
    check_entries(entries)
    old: dict[str, dict[str, Any]] = store["secrets"]
    records = {name: dict(record) for name, record in old.items()}
    created = []
    for entry in sorted(entries, key=lambda e: e.kind == "scrypt"):  # sources first
        record = records.get(entry.name)
        if entry.kind == "scrypt":
            password = records[str(entry.source)]["value"]
            digest = hashlib.sha256(password.encode()).hexdigest()  # tells only that the password beside it changed
            if record is not None and record.get("source_sha256") == digest:
                continue
            value = scrypt_hash(password, secrets.token_bytes(16)) if real else f"would-create:{entry.name}"
            records[entry.name] = {"kind": entry.kind, "value": value, "source_sha256": digest}
        else:
            if record is not None and entry.value not in (None, "", record["value"]):
                raise StoreError(
                    f"holds another value of `{entry.name}` than the one given: find out which one is right, and "
                    "remove the other, here or there"
                )
            if record is not None:
                continue
            value = entry.value or (generate(entry.kind, entry.length) if real else f"would-create:{entry.name}")
            records[entry.name] = {"kind": entry.kind, "value": value}
            if entry.announce and not entry.value:
                records[entry.name]["announced"] = False
        created.append(entry.name)
    for name in announced:
        if name not in records and real:
            raise StoreError(f"`announced` names `{name}`, which the store does not hold")
        if "announced" in records.get(name, {}):
            records[name]["announced"] = True
    return Outcome(
        store={**store, "secrets": records},
        values={entry.name: records[entry.name]["value"] for entry in entries},
        created=created,
        unannounced=[entry.name for entry in entries if records[entry.name].get("announced") is False],
        changed=records != old,
    )
