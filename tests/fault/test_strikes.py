"""Faults around the service are noticed if svc does not bear them, and svc bears them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault import surroundings
from tests.fault.controlled_jobs import CONTROLLED
from tests.fault.deadly_jobs import DEADLY
from tests.fault.deck import FAULTS, NEEDS
from tests.fault.site import Site
from tests.fault.streams import IN_STREAMS
from tests.fault.strikes import Strikes
from tests.fault.surroundings import AHEAD, SURROUNDINGS
from tests.support.privileges import obtained
from tests.support.processes import ROOT

SABOTAGE = ROOT / "tests" / "support" / "sabotage"
#: Seconds after which a sabotaged service is taken to fail; a sound one has all the time of a campaign.
IMPATIENCE_SECONDS = 4.0
#: The protection that each fault is about, as `sitecustomize` there knows it.
PROTECTIONS = {
    "F24 a client forks": "forks",
    "F25 a log that nobody reads": "lines",
    "F26 the journal's files go": "presence",
    "F27 a second manager, without locks": "ownership",
    "F28 tasks leave processes": "leftovers",
    AHEAD: "clock",
    **dict.fromkeys(DEADLY, "suspicion"),
    "F30 a job closes its descriptors": "crashes",
    **dict(zip(CONTROLLED, ("cancels", "checkpoints", "leaving", "leaving"), strict=True)),
}


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(tmp_path, seed=1)
    if request.param:
        site.service.environment |= {
            "SVC_SABOTAGE": request.param,
            "PYTHONPATH": f"{SABOTAGE}:{ROOT}",
        }
    try:
        site.start_manager()
        site.start_worker("direct")
        yield site
    finally:
        site.close()


def strike(strikes: Strikes, kind: str) -> None:
    def need() -> None:
        if (missing := strikes.site.missing.get(NEEDS.get(kind, ""))) is not None:
            raise OSError(missing)

    obtained(need)
    FAULTS[kind](strikes, kind)


def test_each_has_a_protection_that_is_taken_away():
    assert PROTECTIONS.keys() == SURROUNDINGS.keys() | DEADLY.keys() | CONTROLLED.keys()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("kind", "site"), PROTECTIONS.items(), indirect=["site"])
def test_a_fault_is_noticed_if_the_protection_against_it_is_missing(
    kind: str, site: Site, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(surroundings, "PATIENCE_SECONDS", IMPATIENCE_SECONDS)
    strikes = Strikes(site)

    strike(strikes, kind)

    assert len(strikes.violations) >= 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "site"),
    [
        *((kind, "") for kind in (*PROTECTIONS, IN_STREAMS[1])),
        pytest.param(IN_STREAMS[0], "", marks=pytest.mark.long),
    ],
    indirect=["site"],
)
def test_svc_bears_it(kind: str, site: Site):
    strikes = Strikes(site)

    strike(strikes, kind)

    assert strikes.violations == []
    assert kind in {fault.kind for fault in strikes.faults}
