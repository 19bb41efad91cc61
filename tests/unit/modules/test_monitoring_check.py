"""Module monitoring_check: what it makes of the tools' words. It runs in tests/integration/test_alert_rules.py."""

from __future__ import annotations

from ansible_collections.jhok.lab.plugins.modules.monitoring_check import faults

NAMES = {
    "prometheus.yml": "prometheus.yml",
    "rules-0.yml": "rules",
    "rules-1.yml": "monitoring_rules",
    "rules-2.yml": "queries",
    "alertmanager.yml": "monitoring_receivers",
}


def said(file: str, words: str) -> list[str]:
    return faults(f"{file}\n{words}\n\0", NAMES)


def test_silence_is_consent() -> None:
    assert faults("", NAMES) == []


def test_words_on_rules_bear_the_variable_and_no_place_in_a_file_that_nobody_has() -> None:
    words = (
        "Checking rules-1.yml\n  FAILED:\n"
        'rules-1.yml: 4:22: group "a", rule 1, "X": could not parse expression: 1:8: parse error: unclosed\n'
        "rules-1.yml: yaml: unmarshal errors:\n  line 5: field fr not found in type rulefmt.RuleNode"
    )
    assert said("rules-1.yml", words) == [
        'monitoring_rules: group "a", rule 1, "X": could not parse expression: 1:8: parse error: unclosed',
        "monitoring_rules: yaml: unmarshal errors:",
        "monitoring_rules: field fr not found in type rulefmt.RuleNode",
    ]


def test_words_on_a_query_bear_its_name() -> None:
    words = (
        'rules-2.yml: 3:35: group "monitoring_panels[0].query", rule 1, "query": could not parse expression: 1:2: no'
    )
    assert said("rules-2.yml", words) == ["monitoring_panels[0].query: could not parse expression: 1:2: no"]


def test_words_on_receivers_have_no_address() -> None:
    words = (
        "Checking 'alertmanager.yml'  FAILED: parse \"https://x.y/ab%zz?k=tok3n\": invalid URL escape\n"
        "unsupported scheme for https://x.y/tok3n\namtool: error: failed to validate 1 file(s)"
    )
    found = said("alertmanager.yml", words)
    assert found == [
        "monitoring_receivers: parse (hidden): invalid URL escape",
        "monitoring_receivers: unsupported scheme for (hidden)",
    ]
