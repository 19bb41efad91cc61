"""Judges one value against its argument specification. Pure.

Ansible's own validator stops at a role's first fault and names neither file nor remedy; this one lists every fault with
the path of the value inside its variable. What a type accepts is Ansible's own conversion.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ansible.module_utils.common import validation

Fault = tuple[str, str, str, str]  # path, shown value, what is wrong, what to do

HIDDEN = "(hidden)"
_SHOWN = 80  # characters of a value that a message shows

_TYPES = {
    "bool": (validation.check_type_bool, "true or false"),
    "bytes": (validation.check_type_bytes, "a size such as 10M"),
    "dict": (validation.check_type_dict, "a mapping (key: value)"),
    "float": (validation.check_type_float, "a number"),
    "int": (validation.check_type_int, "a whole number"),
    "list": (validation.check_type_list, "a list"),
    "path": (validation.check_type_path, "a path"),
    "str": (validation.check_type_str, "text"),
}


def nearest(word: str, words: Iterable[str], cutoff: float = 0.75) -> str | None:
    """Return the entry of `words` that `word` was probably meant to be, or None."""
    found = difflib.get_close_matches(word, sorted(set(words)), n=1, cutoff=cutoff)
    return found[0] if found else None


def show(value: object, *, secret: bool = False) -> str:
    """Return `value` as a message shows it: one line, cut to a sane length, never a secret's."""
    if secret:
        return HIDDEN
    text = value if isinstance(value, str) and value.strip() == value != "" else json.dumps(value, default=str)
    text = text.replace("\n", "\\n")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def is_secret(option: Mapping[str, Any]) -> bool:
    """Return whether an option, or any option inside it, is marked `no_log`."""
    return bool(option.get("no_log")) or any(is_secret(o) for o in (option.get("options") or {}).values())


def has_secret(value: object, option: Mapping[str, Any]) -> bool:
    """Return whether `value` really holds something under an option marked `no_log`."""
    if option.get("no_log"):
        return value not in (None, "", [], {})
    options = option.get("options") or {}
    items = value if isinstance(value, list) else [value]
    return any(has_secret(i.get(key), o) for i in items if isinstance(i, Mapping) for key, o in options.items())


def faults(path: str, value: object, option: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield (path, shown value, what is wrong, what to do) for each fault of `value`.

    Args:
        path: the variable's name; grows to `jupyterhub_users[0].name` inside it.
        value: the value, without templates.
        option: its entry in the argument specification.

    """
    shown = show(value, secret=is_secret(option))
    if value is None:
        yield path, shown, "it has no value", f"give {_expected(option)}, or remove the line"
        return
    check, expected = _TYPES.get(str(option.get("type", "str")), (None, ""))
    try:
        if isinstance(value, bool) and option.get("type") in ("int", "float"):
            raise TypeError("a truth value is no number")
        if isinstance(value, (dict, list)) and option.get("type", "str") in ("str", "path"):
            raise TypeError("Ansible would turn a list into text")
        value = check(value) if check else value
    except (TypeError, ValueError):
        yield path, shown, f"it is {_kind(value)}, not {expected}", f"give {_expected(option)}"
        return
    choices = option.get("choices") or []
    for item in value if isinstance(value, list) else [value]:
        if choices and item not in choices:
            guess = nearest(str(item), map(str, choices), 0.6)
            allowed = ", ".join(map(str, choices))
            what = f"{show(item, secret=is_secret(option))} is not one of: {allowed}"
            yield path, shown, what, f"write {guess}" if guess else "choose one"
    suboptions = option.get("options")
    if isinstance(value, list):
        inner = {"type": option.get("elements", "raw"), "no_log": option.get("no_log"), "options": suboptions}
        for number, item in enumerate(value):
            yield from faults(f"{path}[{number}]", item, inner)
    elif isinstance(value, dict) and suboptions:
        yield from _suboption_faults(path, value, suboptions)


def _suboption_faults(path: str, value: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[Fault]:
    aliases = {alias for option in options.values() for alias in option.get("aliases") or []}
    for key in value:
        if key not in options and key not in aliases:
            guess = nearest(str(key), options)
            do = f"rename it to {guess}" if guess else f"remove it; the keys are {', '.join(sorted(options))}"
            # An unknown key may be a misspelt secret, so its value is never shown.
            yield f"{path}.{key}", HIDDEN, "unknown key", do
    for key, option in options.items():
        if key in value:
            yield from faults(f"{path}.{key}", value[key], option)
        elif option.get("required"):
            yield f"{path}.{key}", "", "it is missing", f"add {key}: {_expected(option)}"


def _expected(option: Mapping[str, Any]) -> str:
    choices = option.get("choices")
    if choices:
        return "one of: " + ", ".join(map(str, choices))
    return _TYPES.get(str(option.get("type", "str")), (None, "a value"))[1]


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {dict: "a mapping", list: "a list", str: "text", int: "a number", float: "a number"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), type(value).__name__)
