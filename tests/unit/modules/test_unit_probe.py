from __future__ import annotations

import pytest
from ansible_collections.jhok.lab.plugins.module_utils.probes import ProbeError
from ansible_collections.jhok.lab.plugins.modules.unit_probe import judge


def shown(load: str = "loaded", active: str = "active", file: str = "enabled") -> str:
    return f"LoadState={load}\nActiveState={active}\nUnitFileState={file}\n"


@pytest.mark.parametrize("file", ["enabled", "enabled-runtime"])
def test_active_and_enabled(file: str) -> None:
    assert judge(shown(file=file)) == f"active, {file}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (shown(load="not-found"), "the unit is not-found"),
        (shown(active="failed"), "failed, enabled"),
        (shown(file="disabled"), "active, disabled"),
        (shown(file=""), "active, never enabled"),
        ("", "the unit is unknown"),
    ],
)
def test_anything_else_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        judge(text)
