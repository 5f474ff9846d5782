"""One round of every fault on a whole service under load: what of the fault suite runs each time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fault.campaign import FAULTS, Campaign
from tests.support.checker import table

#: `SVC_FAULTS_SEED=7 pytest tests/fault/test_campaign.py` deals another hand; `make faults-long` deals many.
SEED = int(os.environ.get("SVC_FAULTS_SEED", "1"))


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_nothing_is_lost_doubled_or_invented_in_a_round_of_all_faults(tmp_path: Path):
    verdict = Campaign(tmp_path, SEED).run(seconds=0.0)

    assert verdict.violations == [], f"seed {SEED}\n{table(verdict)}"
    assert verdict.faults.keys() >= FAULTS.keys()
    assert verdict.jobs > 1000, "too little load for the test to mean anything"
