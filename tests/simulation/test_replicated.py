"""The whole service on a replicated journal: its stream loses answers, elects leaders, and has standbys."""

from __future__ import annotations

import pytest

from svc.server.journal.jetstream import sending
from tests.support.simulated_journals import StreamJournals
from tests.support.simulated_peer import Violation
from tests.support.simulation import World


@pytest.mark.parametrize("seed", range(25))
def test_no_fault_of_the_stream_breaks_a_promise(seed: int):
    World(seed, journals=StreamJournals()).run()


@pytest.mark.long
@pytest.mark.parametrize("tens", range(100))
def test_no_fault_of_the_stream_breaks_a_promise_in_a_thousand_stories(tens: int):
    for seed in range(1000 + 10 * tens, 1010 + 10 * tens):
        World(seed, journals=StreamJournals()).run()


def test_the_faults_of_the_stream_do_happen():
    found = []
    for seed in range(20):
        found.append(journals := StreamJournals())
        World(seed, journals=journals).run()
    assert sum(each.stream.elections for each in found) > 10
    assert sum(each.standbys for each in found) > 10


def test_an_answer_before_the_frame_is_stored_is_noticed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sending.FrameTicket, "settled", lambda self: True)

    def finds_fault(seed: int) -> bool:
        try:
            World(seed, journals=StreamJournals()).run()
        except Violation:
            return True
        return False

    assert any(finds_fault(seed) for seed in range(40))
