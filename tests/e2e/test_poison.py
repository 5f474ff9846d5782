"""A job that takes its worker down is dead soon, and the good jobs behind it are all done."""

from __future__ import annotations

import json

import pytest

from svc.domain.limits import Limits
from tests.e2e.readings import results, submit_naps
from tests.support.docker import Project, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.long]
GOOD = 100
BUDGET = Limits().suspicion_budget


def shown(service: Project, job: str) -> dict[str, object]:
    view: dict[str, object] = json.loads(service.svc("jobs", "show", job, "--json").stdout)
    return view


@pytest.mark.parametrize("task", ["end_worker", "close_descriptors", "end_parent"])
def test_good_jobs_behind_a_poison_job_are_done_and_it_is_dead_with_its_cause(service, client, task):
    def restarts() -> int:
        return sum(int(each.attrs["RestartCount"]) for each in service.containers(client, "worker"))

    before = restarts()
    poison = service.svc("submit", f"chores:{task}").stdout.strip()
    good = submit_naps(service, GOOD, seconds=0.05)

    assert results(service, good, 120) == list(range(GOOD))
    wait_for(lambda: shown(service, poison)["state"] == "dead", 60, "the poison job to be dead", every=0.5)

    view = shown(service, poison)
    attempts = view["attempts"]
    assert isinstance(attempts, list)
    assert [attempt["number"] for attempt in attempts] == list(range(1, len(attempts) + 1))
    assert view["suspicions"] == BUDGET
    assert attempts[-1]["cause"] == "suspected"
    assert attempts[-1]["error"]["type"] == "WorkerLost"
    told = [(each["at"], each["cause"], each["seconds"], each["consumer"]) for each in attempts]
    assert restarts() - before <= BUDGET + 1, (told, service.logs())
    lines = service.svc("jobs", "show", *good[:20], "--ndjson").stdout.splitlines()
    assert max(json.loads(line)["suspicions"] for line in lines) <= 1
