"""The faults of a replicated journal are noticed if svc does not bear them, and svc bears a few under load.

`make faults JOURNAL=jetstream` deals all of them.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from svc.server.journal.jetstream.frames import FrameOrigin
from tests.fault import surroundings
from tests.fault.campaign import Campaign
from tests.fault.deck import DECKS
from tests.fault.replication import REPLICATION
from tests.support.findings import Findings, table
from tests.support.nats_servers import nats_server
from tests.support.processes import ROOT
from tests.support.replicated_service import wrong_terms

SABOTAGE = ROOT / "tests" / "support" / "sabotage"
#: The faults that always run: one of the managers, one of the servers, one of the network.
USUAL = ("F36 kill -9 the leader", "F38 kill -9 the stream's leader", "F42 answers to appends are lost")
#: A protection that is taken away, the fault by which that is noticed, and the invariants that do not hold.
NOTICED = [
    ("takeover", "F36 kill -9 the leader", {"I6"}),
    ("takeover", "F36 the leader hands over", {"I6"}),
    ("tickets", "F41 a leader is cut off from NATS", {"I1", "I2"}),
    ("answers", "F42 answers to appends are lost", {"I1", "I2", "I20"}),
    ("answers", "F38 kill -9 the stream's leader", {"I1", "I2", "I20"}),
]


def dealt(folder: Path, *kinds: str, sabotage: str = "") -> Findings:
    nats_server()
    campaign = Campaign(folder, 1, kinds, journal="jetstream")
    if sabotage:
        campaign.site.service.environment |= {
            "SVC_SABOTAGE": sabotage,
            "PYTHONPATH": f"{SABOTAGE}:{ROOT}",
        }
    return campaign.run(seconds=0.0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_replicated_journal_bears_a_few_faults_under_load(tmp_path: Path):
    findings = dealt(tmp_path, *USUAL)

    assert findings.violations == [], table(findings)
    assert findings.faults == Counter(USUAL)
    assert findings.jobs > 500, "too little load for the test to mean anything"


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("sabotage", "kind", "invariants"), NOTICED)
def test_a_fault_is_noticed_if_the_protection_against_it_is_missing(
    sabotage: str, kind: str, invariants: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(surroundings, "PATIENCE_SECONDS", 8.0)

    found = dealt(tmp_path, kind, sabotage=sabotage).violations

    assert invariants & {line.partition(":")[0] for line in found}, found


def test_the_deck_of_a_stream_has_all_faults_but_those_of_a_file():
    assert DECKS["jetstream"].keys() >= REPLICATION.keys()
    assert DECKS["sqlite"].keys() - DECKS["jetstream"].keys() == {
        "F19 journal of an older format",
        "F26 the journal's files go",
        "F27 a second manager, without locks",
    }


def test_terms_that_follow_one_another_are_right_and_others_are_not():
    rng = random.Random(1)
    first, second, third = (rng.getrandbits(64) for _ in range(3))
    right = [FrameOrigin(1, first, 0), FrameOrigin(1, first, 1), FrameOrigin(3, second, 0)]

    assert wrong_terms(right) == []
    assert wrong_terms([*right, FrameOrigin(1, first, 2)]) == [
        "I20: a message of term 1 follows one of term 3"
    ]
    assert wrong_terms([*right, FrameOrigin(3, third, 1)]) == ["I20: term 3 has two writers"]
