"""Names of metrics in PromQL."""

from __future__ import annotations

import itertools
import random

import pytest
from ansible_collections.jhok.lab.plugins.plugin_utils.promql import metric_names


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        ("1 + 2.5e3 * 0x1f > bool Inf", set()),
        ("vector(0)", set()),
        ('a{b="c", d=~"e|f"} / on(g) group_left(h) i', {"a", "i"}),
        ("sum by (a, b) (rate(c[5m]))", {"c"}),
        ("sum(rate(c[5m])) without (a)", {"c"}),
        ("SUM BY (a) (b) OR ON () C", {"b", "C"}),
        ("topk(5, a) and ignoring(b) c unless d", {"a", "c", "d"}),
        ("max_over_time(rate(a[2m])[1d:30s] offset 1h)", {"a"}),
        ("a offset -1w @ 1609746000 + b @ end()", {"a", "b"}),
        ('{__name__="a", job="b"}', {"a"}),
        ('{job="b", __name__="a"}', {"a"}),
        ('{"a.b", job="c"}', {"a.b"}),
        ('{__name__=~"a|b"}', set()),
        ('a:b:rate2m{c=\'}\', d="\\"e"}', {"a:b:rate2m"}),
        ("a # b\n + c", {"a", "c"}),
        ('label_replace(a, "b", "$1", "c", "(.*)")', {"a"}),
        ('a{b=~"$b"}[$__range] + c{d="${e:regex}"}', {"a", "c"}),
        ("a * on() group_right b", {"a", "b"}),
        ("count(a == 0) or vector(0)", {"a"}),
        ("avg by () (a) atan2 b", {"a", "b"}),
        ("a + on(sum) (b)", {"a", "b"}),
    ],
)
def test_names(expression: str, names: set[str]) -> None:
    assert metric_names(expression) == names


@pytest.mark.parametrize("expression", ["sum(a", "a)", "sum(a]", 'a{b="c}', "a{b='c\n'}", "a ! b", "a[5m", "a & b"])
def test_what_is_no_promql_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"without|not PromQL"):
        metric_names(expression)


WRAPPERS = (
    "({})",
    "sum by (label_a) ({})",
    "sum({}) without (label_b)",
    "rate({}[5m])",
    "max_over_time(({})[1h:1m])",
    '({}) * on(label_c) group_left(label_d) (kept_other{{label_e!="kept_not"}})',
    "-({}) # kept_comment\n",
    "clamp_min({}, 0) offset 5m",
    'label_replace({}, "dst", "kept_not", "src", ".*") > bool 5',
)


@pytest.mark.parametrize("seed", range(50))
def test_names_survive_nesting(seed: int) -> None:
    rng = random.Random(seed)
    expression, names = 'kept{label="kept_not"}', {"kept"}
    for wrapper in rng.choices(WRAPPERS, k=5):
        expression = wrapper.format(expression)
        names |= {"kept_other"} if "kept_other" in wrapper else set()
    assert metric_names(expression) == names


@pytest.mark.parametrize(("by", "space"), list(itertools.product(("by", "BY", "By"), ("", " ", "\n", " # c\n"))))
def test_space_and_case_of_words_do_not_matter(by: str, space: str) -> None:
    assert metric_names(f"sum {by}{space}(a){space}(b){space}") == {"b"}
