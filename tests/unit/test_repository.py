"""Rules of this repository, see docs/architecture.md. Each has been seen failing."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.block import Block
from ansible.playbook.handler import Handler

ROOT = Path(__file__).parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
MODULES = sorted((ROOT / "plugins" / "modules").glob("*.py"))
TASK_DIRECTORIES = ("roles/*/tasks", "roles/*/handlers", "playbooks", "molecule")
COMMANDS = {f"ansible.builtin.{name}" for name in ("command", "shell", "raw", "script", "expect")}
TASK_KEYWORDS = {*Handler.fattributes, *Block.fattributes}
# Hosts that belong to the machines of a developer, not to the product: joined, or this file would break its own rule.
FORBIDDEN_HOSTS = [
    ".".join(parts)
    for parts in (
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("snapshot", "debian", "org"),
        ("pypi", "org"),
        ("files", "pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("proxy", "golang", "org"),
        ("galaxy", "ansible", "com"),
    )
]
# What kubeadm and upstream's releases call their hosts is a default of the product, in one role.
PRODUCT_HOSTS = [".".join(parts) for parts in (("registry", "k8s", "io"), ("dl", "k8s", "io"), ("k8s", "gcr", "io"))]
DEVELOPER_PATHS = ["/" + "work/", "/" + "home/runner", "/" + "Users/"]


@cache
def tracked() -> tuple[Path, ...]:
    """Return the files that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return tuple(path for path in paths if path.is_file() and not path.is_symlink())


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data:
            yield path, data.decode()


@cache
def load(path: Path) -> Any:  # noqa: ANN401
    return DataLoader().load_from_file(str(path)) if path.is_file() else None


def task_files() -> list[Path]:
    found = {path for pattern in TASK_DIRECTORIES for path in ROOT.glob(f"{pattern}/**/*.yml")}
    return sorted(path for path in found if isinstance(load(path), list))


def tasks(items: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """Yield all tasks of a playbook or task file, those in blocks too."""
    for item in items or []:
        if not isinstance(item, dict):
            continue
        nested = [
            item[key]
            for key in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers")
            if key in item
        ]
        for inner in nested:
            yield from tasks(inner)
        if not nested and "hosts" not in item and "import_playbook" not in item:
            yield item


def action(task: dict[str, Any]) -> str:
    """Return the module that a task names."""
    names = [key for key in task if key not in TASK_KEYWORDS and not key.startswith("with_")]
    assert len(names) == 1, f"task {task.get('name')!r} has keys {names}: not one module"
    return names[0]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def documentation(path: Path, name: str) -> Any:  # noqa: ANN401
    """Return the string constant of this name in a Python file."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == [name]:
            return yaml.safe_load(ast.literal_eval(node.value))
    return None


@cache
def module_documents() -> dict[str, dict[str, Any]]:
    """Return the documentation of all modules by name, with that of their fragments."""
    program = Path(sys.executable).with_name("ansible-doc")
    names = [f"jhok.lab.{path.stem}" for path in MODULES]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    listed = subprocess.run([program, "--json", *names], cwd=ROOT, env=environment, check=True, capture_output=True)
    return {name.rpartition(".")[2]: entry["doc"] for name, entry in json.loads(listed.stdout).items()}


def declared_options(path: Path) -> dict[str, Any] | None:
    """Return the argument spec that a module gives AnsibleModule; None when it is made elsewhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "argument_spec":
            try:
                return dict(ast.literal_eval(node.value))
            except ValueError:
                return None
    return None


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


# ------------------------------------------------------------------ roles


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_those_of_the_argument_specs(role: Path) -> None:
    specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
    options = {name: option for entry in specs.values() for name, option in (entry.get("options") or {}).items()}
    defaults = load(role / "defaults" / "main.yml") or {}
    own = {name: option for name, option in options.items() if name.startswith(f"{role.name}_")}
    assert set(specs["main"].get("options") or {}) <= set(own), "a role's variables begin with its name"
    assert {name: option["default"] for name, option in own.items() if "default" in option} == defaults
    for entry in specs.values():
        given = {
            name: option["default"] for name, option in (entry.get("options") or {}).items() if "default" in option
        }
        assert {name: value for name, value in given.items() if name in own and value != defaults[name]} == {}
    assert [name for name, option in options.items() if not option.get("description")] == []
    assert [name for name, option in options.items() if "type" not in option] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_main_task_file_only_imports(role: Path) -> None:
    used = {action(task).rpartition(".")[2] for task in tasks(load(role / "tasks" / "main.yml"))}
    assert used <= {"import_tasks", "include_tasks", "import_role", "include_role"}
    assert used


@pytest.mark.parametrize("path", sorted(ROOT.glob("roles/*/tasks/**/*.yml")), ids=name_of)
def test_task_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 60


@pytest.mark.parametrize("path", task_files(), ids=name_of)
def test_tasks(path: Path) -> None:
    for task in tasks(load(path)):
        module = action(task)
        assert module.count(".") >= 2, f"task {task.get('name')!r}: {module} is no full name"
        if module in COMMANDS:
            assert "changed_when" in task, f"task {task.get('name')!r} runs a command without changed_when"


def delegated(items: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """Yield plays, blocks and tasks that leave their host for the control machine."""
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            for value in item.values():
                yield from delegated(value)
            if item.get("delegate_to") == "localhost":
                yield item


@pytest.mark.parametrize("path", task_files(), ids=name_of)
def test_control_machine_is_left_to_its_user(path: Path) -> None:
    """What a play of the nodes' root does on the control machine would be root's there, too."""
    assert [item.get("name") for item in delegated(load(path)) if "become" not in item] == []


# ------------------------------------------------------------------ plugins


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_are_documented_and_their_examples_hold(path: Path) -> None:
    document, examples = module_documents()[path.stem], documentation(path, "EXAMPLES")
    assert document["module"] == path.stem
    assert "short_description" in document
    assert documentation(path, "RETURN")
    validator = ArgumentSpecValidator(argument_spec(document.get("options") or {}))
    shown = [task for task in tasks(examples) if action(task) == f"jhok.lab.{path.stem}"]
    assert shown, "no example of the module"
    for task in shown:
        arguments = {
            key: value for key, value in (task[f"jhok.lab.{path.stem}"] or {}).items() if not is_template(value)
        }
        result = validator.validate(arguments)
        # A template stands for a value that only a play has: its argument counts as given, and is not judged.
        given = {key for key in task[f"jhok.lab.{path.stem}"] or {} if key not in arguments}
        messages = [m for m in result.error_messages if not any(name in m for name in given)]
        assert messages == [], task["name"]


@pytest.mark.parametrize("path", [path for path in MODULES if declared_options(path)], ids=lambda path: path.stem)
def test_modules_take_what_they_document(path: Path) -> None:
    declared = {
        name: {key: value for key, value in option.items() if key not in ("no_log", "options")}
        for name, option in (declared_options(path) or {}).items()
    }
    documented = argument_spec(module_documents()[path.stem]["options"])
    for option in documented.values():
        option.pop("options", None)
        if option.get("default", "") is None:  # Ansible fills it in
            del option["default"]
    assert documented == declared


def argument_spec(options: dict[str, Any]) -> dict[str, Any]:
    """Return the argument spec that documented options describe."""
    keys = ("type", "elements", "default", "choices", "required", "aliases")
    return {
        name: {
            **{key: option[key] for key in keys if key in option},
            **({"options": argument_spec(option["suboptions"])} if "suboptions" in option else {}),
        }
        for name, option in options.items()
    }


def is_template(value: object) -> bool:
    return isinstance(value, str) and "{{" in value


def test_one_file_imports_the_kubernetes_client() -> None:
    users = [p for p in (ROOT / "plugins").rglob("*.py") if any(i.split(".")[0] == "kubernetes" for i in imports(p))]
    assert [name_of(path) for path in users] in ([], ["plugins/module_utils/k8s.py"])


def test_module_utils_and_modules_do_not_need_plugin_utils() -> None:
    paths = [*(ROOT / "plugins" / "module_utils").rglob("*.py"), *MODULES]
    assert [name_of(path) for path in paths if any("plugin_utils" in name for name in imports(path))] == []


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").rglob("*.py")), ids=name_of)
def test_python_files_begin_with_annotations(path: Path) -> None:
    assert not path.read_text().strip() or "__future__.annotations" in imports(path)


# ------------------------------------------------------------------ all files


def test_no_file_names_a_package_registry_or_a_developers_path() -> None:
    found = []
    for path, text in texts():
        product = name_of(path).startswith(("roles/bundle/", "inventory/example/", "tests/", "docs/", "plugins/"))
        words = [*FORBIDDEN_HOSTS, *DEVELOPER_PATHS, *([] if product else PRODUCT_HOSTS)]
        found += [f"{name_of(path)}: {word}" for word in words if re.search(rf"(?<![\w.-]){re.escape(word)}", text)]
    assert found == []


def test_collections_are_those_of_galaxy() -> None:
    listed = load(ROOT / "requirements.yml")["collections"]
    assert {item["name"]: item["version"] for item in listed} == load(ROOT / "galaxy.yml")["dependencies"]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_python_packages_are_pinned(name: str) -> None:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    assert [line for line in lines if line and not re.fullmatch(r"[\w.-]+==(?:\d+!)?[\w.]+|-r [\w.-]+", line)] == []
