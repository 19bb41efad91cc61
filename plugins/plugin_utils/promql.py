"""Which metrics a PromQL expression asks for. A pure function."""

from __future__ import annotations

import re
from itertools import pairwise

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|\#[^\n]*)
  | (?P<string>"(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' | `[^`]*`)
  | (?P<variable>\$\w+ | \$\{[^}]*\})
  | (?P<number>[0-9.][0-9a-zA-Z_.]*)
  | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
  | (?P<operator>=~|!~|!=|==|<=|>=|[-+*/%^=<>,@:])
  | (?P<bracket>[()\[\]{}])
    """,
    re.VERBOSE,
)
_PAIRS = {")": "(", "]": "[", "}": "{"}
_LABEL_LISTS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS = {"and", "or", "unless", "atan2", "bool", "offset", "inf", "nan", *_LABEL_LISTS}


def metric_names(expression: str) -> set[str]:
    """Return the names of the metrics that an expression selects.

    A selector by regular expression (`{__name__=~"…"}`) gives no name.

    Args:
        expression: PromQL, in which `$name` may stand for a value.

    Raises:
        ValueError: a character that PromQL has not, a string without an end, a bracket without its other half.

    """
    names: set[str] = set()
    open_brackets: list[str] = []
    labels_until: int | None = None  # depth at which a list of labels ends
    tokens = [*_tokens(expression), ("end", "")]
    for (kind, text), (_, following) in pairwise(tokens):
        inside = open_brackets[-1] if open_brackets else ""
        if kind == "bracket":
            if text in _PAIRS.values():
                open_brackets.append(text)
                continue
            if inside != _PAIRS[text]:
                raise ValueError(f"{text} without its {_PAIRS[text]}")
            open_brackets.pop()
            if labels_until is not None and len(open_brackets) <= labels_until:
                labels_until = None
        elif kind == "name" and inside not in ("{", "["):
            if text.lower() in _LABEL_LISTS and following == "(":
                labels_until = len(open_brackets)
            elif labels_until is None and not _is_word(text, following):
                names.add(text)
    if open_brackets:
        raise ValueError(f"{open_brackets[-1]} without its end")
    return names | _named_in_braces(tokens)


def _is_word(name: str, following: str) -> bool:
    """Tell whether a name is PromQL's own: a function, an aggregation or an operator."""
    return name.lower() in _WORDS or following == "(" or following.lower() in ("by", "without")


def _named_in_braces(tokens: list[tuple[str, str]]) -> set[str]:
    """Return the names in `{__name__="name"}` and `{"name"}`."""
    names = set()
    for before, token, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token[0] != "string" and token[1] != "=":
            continue
        if token[1] == "=" and before[1] == "__name__" and after[0] == "string":
            names.add(after[1][1:-1])
        elif token[0] == "string" and before[1] == "{" and after[1] in (",", "}"):
            names.add(token[1][1:-1])
    return names


def _tokens(expression: str) -> list[tuple[str, str]]:
    """Return kind and text of each token but space and comments."""
    tokens = []
    position = 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if not match:
            raise ValueError(f"not PromQL from here on: {expression[position : position + 20]}")
        if match.lastgroup and match.lastgroup != "space":
            tokens.append((match.lastgroup, match.group()))
        position = match.end()
    return tokens
