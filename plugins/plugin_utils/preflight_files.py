"""Where an inventory's variables are set: a scan of its YAML files, with line numbers. Pure: text in, facts out.

Ansible merges an inventory's files and forgets duplicated keys; what an admin needs to hear is the file and the line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import yaml


@dataclass(frozen=True)
class Definition:
    """One place where a variable is set.

    Attributes:
        name: the variable.
        where: `path:line`.
        scope: `group` or `host`.
        owner: the group's or host's name.
        vaulted: its value is encrypted in the file.
        templated: its value is, or contains, a template.

    """

    name: str
    where: str
    scope: str
    owner: str
    vaulted: bool = False
    templated: bool = False


@dataclass(frozen=True)
class FileFault:
    """A fault of the file itself: `where`, the key (empty for bad syntax), and what is wrong."""

    where: str
    key: str
    what: str
    do: str


@dataclass
class Scan:
    """What a scan of an inventory's files found.

    Attributes:
        definitions: in the order in which Ansible reads them (later ones win within one scope).
        faults: duplicated keys and bad syntax.
        groups: where each group is first named.
        hosts: where each host is first named.

    """

    definitions: list[Definition] = field(default_factory=list)
    faults: list[FileFault] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)

    def locate(self, name: str, host: str, groups: Iterable[str]) -> Definition | None:
        """Return the definition of `name` that wins on `host`.

        Args:
            name: the variable.
            host: the machine's inventory name.
            groups: the machine's groups in rising precedence, without `all`.

        """
        rank = {("group", group): number for number, group in enumerate(["all", *groups])}
        rank["host", host] = len(rank)
        found = [d for d in self.definitions if d.name == name and (d.scope, d.owner) in rank]
        return max(found, key=lambda d: rank[d.scope, d.owner]) if found and rank else None


def scan_variables(scan: Scan, path: str, text: str, scope: str, owner: str, *, vaulted: bool = False) -> None:
    """Add a file of `group_vars` or `host_vars` to `scan`.

    Args:
        scan: receives what was found.
        path: the file's name for messages.
        text: its content (decrypted).
        scope: `group` or `host`.
        owner: the group's or host's name.
        vaulted: the whole file was encrypted.

    """
    _add_variables(scan, path, _compose(scan, path, text), scope, owner, vaulted=vaulted)


def scan_inventory(scan: Scan, path: str, text: str) -> None:
    """Add an inventory file in YAML (`all: {hosts: …, children: …}`) to `scan`."""
    root = _compose(scan, path, text)
    for key, group in _items(root):
        _add_group(scan, path, key, group)


def _compose(scan: Scan, path: str, text: str) -> yaml.Node | None:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 1
        scan.faults.append(FileFault(f"{path}:{line}", "", f"not valid YAML: {err.problem}", "correct the syntax"))
        return None
    for key, first, second in _duplicates(root):
        fault = f"the key is given twice (lines {first} and {second}); the first value is lost"
        scan.faults.append(FileFault(f"{path}:{second}", key, fault, "keep one of the two"))
    return root


def _duplicates(node: yaml.Node | None) -> Iterator[tuple[str, int, int]]:
    """Yield (key, first line, second line) of every key given twice in one mapping, at any depth."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                yield key.value, seen[key.value], line
            elif isinstance(key, yaml.ScalarNode):
                seen[key.value] = line
            yield from _duplicates(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _duplicates(item)


def _items(node: yaml.Node | None) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Return a mapping's pairs whose key is a scalar; nothing for any other node."""
    if not isinstance(node, yaml.MappingNode):
        return []
    return [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]


def _at(path: str, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _scalars(item)
    elif isinstance(node, yaml.MappingNode):
        for _key, value in node.value:
            yield from _scalars(value)


def _add_variables(
    scan: Scan, path: str, node: yaml.Node | None, scope: str, owner: str, *, vaulted: bool = False
) -> None:
    for key, value in _items(node):
        leaves = list(_scalars(value))
        scan.definitions.append(
            Definition(
                name=key.value,
                where=_at(path, key),
                scope=scope,
                owner=owner,
                vaulted=vaulted or any(leaf.tag == "!vault" for leaf in leaves),
                templated=any("{{" in leaf.value for leaf in leaves),
            )
        )


def _add_group(scan: Scan, path: str, key: yaml.ScalarNode, group: yaml.Node) -> None:
    scan.groups.setdefault(key.value, _at(path, key))
    for section, content in _items(group):
        if section.value == "vars":
            _add_variables(scan, path, content, "group", key.value)
        elif section.value == "hosts":
            for host, variables in _items(content):
                scan.hosts.setdefault(host.value, _at(path, host))
                _add_variables(scan, path, variables, "host", host.value)
        elif section.value == "children":
            for child, body in _items(content):
                _add_group(scan, path, child, body)
