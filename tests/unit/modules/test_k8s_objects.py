"""The module's documentation against what it takes and returns. Its work is tested in tests/integration."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.testing import patch_module_args
from ansible_collections.jhok.lab.plugins.modules import k8s_objects


def test_documentation_has_the_same_options() -> None:
    documented = yaml.safe_load(k8s_objects.DOCUMENTATION)["options"]
    stripped = {
        name: {key: value for key, value in option.items() if key != "description"}
        for name, option in documented.items()
    }
    spec = {
        name: {key: value for key, value in option.items() if key != "no_log"}
        for name, option in k8s_objects.ARGUMENT_SPEC.items()
    }
    assert stripped == spec


@pytest.mark.parametrize("task", yaml.safe_load(k8s_objects.EXAMPLES), ids=lambda task: task["name"])
def test_examples_are_valid(task: dict[str, Any]) -> None:
    validated = ArgumentSpecValidator(k8s_objects.ARGUMENT_SPEC).validate(task["jhok.lab.k8s_objects"])
    assert validated.error_messages == []
    parameters = validated.validated_parameters
    assert k8s_objects.problems_of(parameters["set"], parameters["objects"], parameters["secrets"]) == []


def test_return_is_yaml() -> None:
    assert set(yaml.safe_load(k8s_objects.RETURN)) == {"objects", "seconds"}


def test_secret_in_a_failed_check_is_not_returned(capsys: pytest.CaptureFixture[str]) -> None:
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"k": "hidden\nvalue"}}
    arguments = {"kubeconfig": "/none", "set": "x", "objects": [config_map, config_map], "secrets": [secret]}
    with patch_module_args(copy.deepcopy(arguments)), pytest.raises(SystemExit):
        k8s_objects.main()
    out = capsys.readouterr().out
    answer = json.loads(out)
    assert "ConfigMap a is already in objects[0]" in answer["msg"]
    assert "hidden" not in out
    assert answer["invocation"]["module_args"]["secrets"][0]["apiVersion"] == "v1"
