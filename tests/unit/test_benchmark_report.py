"""What the benchmark's report makes of its figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

TASKS = yaml.safe_load((Path(__file__).parents[2] / "playbooks/tasks/benchmark_report.yml").read_text())
FIGURES = [
    {"what": "memory", "unit": "MiB", "aim": 400, "value": "380.5"},
    {"what": "memory", "unit": "MiB", "aim": 400, "value": "390.5"},
    {"what": "processor", "unit": "% of a core", "aim": 5, "value": 5.0},
    {"what": "series", "unit": "series", "value": "12000"},
]


def rendered(text: str, **variables: object) -> Any:  # noqa: ANN401
    return Templar(loader=DataLoader(), variables=variables).template(trust_as_template(text))


def test_figures_with_an_aim_are_judged_by_it() -> None:
    figures = rendered(TASKS[0]["ansible.builtin.set_fact"]["benchmark_report"]["figures"], benchmark_figures=FIGURES)
    assert [(each["what"], each["median"], each["verdict"]) for each in figures] == [
        ("memory", 385.5, "met"),
        ("processor", 5.0, "missed"),
        ("series", 12000.0, ""),
    ]
    lines = rendered(TASKS[1]["vars"]["__benchmark_lines"], benchmark_report={"figures": figures}).splitlines()
    assert lines[0].endswith("MiB            under 400: met")
    assert lines[1].endswith("% of a core    under 5: missed")
    assert lines[2].endswith("series")
