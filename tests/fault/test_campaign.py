"""One hand of faults on a whole service under load: the part of the fault suite that always runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fault.campaign import Campaign
from tests.fault.deck import DECKS, FAULTS, hand
from tests.support.findings import table

#: `SVC_FAULTS_SEED=7 pytest tests/fault/test_campaign.py` takes another hand; `make faults` runs all.
SEED = int(os.environ.get("SVC_FAULTS_SEED", "1"))
#: The number of hands, each with other kinds of faults: there is time for one of so many.
HANDS = 5
#: The faults that always run on a journal in memory: of consumers, workers, clients and the network.
IN_MEMORY = (
    "F1 kill -9 a consumer",
    "F1 kill between run and report",
    "F2 kill -9 a whole worker",
    "F11 reset clients' connections",
    "F12 cut replies to a worker",
    "F35 kill -9 a consumer in a stream",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_doubled_or_invented_and_all_comes_back_in_a_hand_of_faults(tmp_path: Path):
    dealt = hand(SEED, HANDS)

    findings = Campaign(tmp_path, SEED, dealt).run(seconds=0.0)

    assert findings.violations == [], f"seed {SEED}\n{table(findings)}"
    assert findings.faults.keys() | findings.undealt.keys() >= set(dealt)
    assert findings.jobs > 1000, "too little load for the test to mean anything"


def test_each_kind_of_fault_is_in_one_hand():
    dealt = [kind for seed in range(HANDS) for kind in hand(seed, HANDS)]

    assert sorted(dealt) == sorted(FAULTS)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_with_the_journal_in_memory_all_comes_back_as_long_as_the_manager_lives(tmp_path: Path):
    findings = Campaign(tmp_path, SEED, IN_MEMORY, journal="memory").run(seconds=0.0)

    assert findings.violations == [], f"seed {SEED}\n{table(findings)}"
    assert findings.faults.keys() >= set(IN_MEMORY)
    assert findings.jobs > 500, "too little load for the test to mean anything"


def test_in_memory_no_fault_is_dealt_that_ends_the_manager_or_needs_its_file():
    kinds = DECKS["memory"].keys()

    assert kinds < FAULTS.keys()
    assert not [kind for kind in kinds if kind.startswith(("F4 ", "F15 ", "F26 ", "F27 ", "F31 "))]
    assert len(kinds) > 30
