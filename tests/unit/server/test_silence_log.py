"""The log of the silence of a journal's servers."""

from __future__ import annotations

from unittest.mock import Mock

from svc.app.lead_metrics import SILENT_SECONDS, TELL_SECONDS, SilenceLog


def told(*silences: float) -> list[tuple[str, float]]:
    log = Mock()
    silence = SilenceLog("n1:4222,n2:4222", log)
    for silent in silences:
        silence.told(silent)
    assert all(call.kwargs["servers"] == "n1:4222,n2:4222" for call in log.method_calls)
    return [(call.args[0], call.kwargs["silent_s"]) for call in log.method_calls]


def test_an_answer_that_is_a_little_late_is_not_told():
    assert told(0, SILENT_SECONDS - 0.1, 0) == []


def test_a_silence_is_told_at_its_beginning_each_minute_and_at_its_end():
    seconds = [float(second) for second in range(int(SILENT_SECONDS + 2 * TELL_SECONDS))]
    assert told(*seconds, 0.0, 0.0) == [
        ("journal_silent", SILENT_SECONDS),
        ("journal_silent", SILENT_SECONDS + TELL_SECONDS),
        ("journal_answers", seconds[-1]),
    ]


def test_each_silence_is_told():
    assert told(4.0, 0.0, 5.0, 0.0) == [
        ("journal_silent", 4.0),
        ("journal_answers", 4.0),
        ("journal_silent", 5.0),
        ("journal_answers", 5.0),
    ]
