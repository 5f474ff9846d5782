"""`svc results` of dead jobs whose siblings are forgotten, from a journal in a file: it ended the manager."""

from __future__ import annotations

import json

import pytest

from tests.support.svc import Host, end, until

#: The dead jobs of an origin, among good ones: at its end, at its start, between others, and all but one.
PLACES = ((3,), (0,), (1, 2), (0, 1, 3))
COUNT = 4
#: So many jobs that the events of those are in the journal alone.
OTHERS = 2100
GOOD = [json.dumps({"task": "multiply", "args": [number, 2]}) for number in range(OTHERS)]
DEAD = json.dumps({"task": "sleep", "args": [-1], "retries": 0})


@pytest.fixture
def host(tmp_path):
    host = Host(tmp_path)
    yield host
    host.log.close()


def submitted(host: Host, lines: list[str]) -> list[str]:
    """Submit jobs of one origin; return their ids."""
    ids = host.svc("submit", "--from", "-", stdin="\n".join(lines)).stdout.splitlines()
    assert len(ids) == len(lines)
    return ids


@pytest.mark.long
@pytest.mark.slow
def test_dead_jobs_are_told_after_their_siblings_are_forgotten(host):
    manager = host.start_manager("", "--retention", "1")
    worker = host.start_worker()
    dead, first, good = [], [], []
    for places in PLACES:
        ids = submitted(host, [DEAD if place in places else GOOD[place] for place in range(COUNT)])
        dead += [ids[place] for place in places]
        first.append([ids[places[0]]])
        good += [ids[place] for place in range(COUNT) if place not in places]
    host.svc("wait", *submitted(host, GOOD))
    kept = ("jobs", "list", "--state", "succeeded", "--ndjson")
    until(lambda: not host.svc(*kept).stdout, "the good jobs are forgotten")

    for restarted in (False, True):
        if restarted:
            manager.kill()
            manager.wait()
            manager = host.start_manager(host.env["SVC_MANAGER"], "--retention", "1")
        for asked in (*first, dead, []):
            told = host.svc("results", *asked, "--ndjson")
            found = [json.loads(line) for line in told.stdout.splitlines()]
            assert told.returncode == (8 if asked else 0), told.stderr
            assert sorted(each["id"] for each in found) == sorted(asked or dead)
            assert all("ValueError" in str(each) for each in found)
        assert host.svc("results", *dead, *good).returncode != 0
        assert manager.poll() is None, (host.folder / "log").read_text()

    assert "has no row" not in (host.folder / "log").read_text()
    end(worker, manager)
