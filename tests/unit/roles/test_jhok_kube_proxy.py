"""When a kube-proxy is stopped. molecule/kubernetes/side_effect.yml sees that it writes its table again."""

from __future__ import annotations

import pytest
from jhok_kube_proxy import YOUNG, is_gone, settled


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (1, "Error: No such file or directory\nlist table ip kube-proxy\n", True),
        (0, "", False),
        (1, "Error: Could not process rule: Operation not permitted\n", False),
        (-11, "", False),  # nft died at a table of a newer one
        (139, "", False),
    ],
)
def test_only_a_table_that_is_not_there_is_gone(status: int, error: str, expected: bool) -> None:
    assert is_gone(status, error) is expected


def test_one_that_has_just_started_is_left_alone() -> None:
    now = 1_800_000_000.0
    containers = [
        {"id": "old", "createdAt": str(int((now - YOUNG - 1) * 1e9))},
        {"id": "new", "createdAt": str(int(now * 1e9))},
    ]
    assert settled(containers, now) == ["old"]
