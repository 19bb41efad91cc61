"""The end of an alert is told, too."""

from __future__ import annotations

from lab import Receiver, wait_for


def test_end_is_told(receiver: Receiver) -> None:
    def told() -> list[object]:
        return list(receiver.alerts("ExporterStopped", "resolved"))

    # Alertmanager tells of changes once in five minutes.
    assert wait_for("the end of the alert at the receiver", told, 330)
