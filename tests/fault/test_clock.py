"""A manager whose host has another time of day than its journal: nothing is lost or run for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.faketime import Clock
from tests.support.privileges import obtained
from tests.support.svc import Host, end, until

DAY = 24 * 3600
ADD = "tests.support.executor_tasks:add"
#: How long the tests' delayed job waits.
DELAY = 3600


class Site(Host):
    """A manager, stopped and started under another time of day each time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.clock = obtained(lambda: Clock(folder / "time_of_day"))
        self.clock_environment = self.clock.environment
        self.manager: subprocess.Popen[bytes] | None = None

    def start_at(self, offset: int, *flags: str) -> None:
        """Start the manager with a time of day that is *offset* seconds off; it is stopped before."""
        self.stop()
        self.clock.jump(offset)
        plain, self.env = self.env, {**self.env, **self.clock_environment}
        try:
            self.manager = self.start_manager("127.0.0.1:0", *flags)
            plain |= {name: self.env[name] for name in ("SVC_MANAGER", "MANAGER_HTTP")}
        finally:
            self.env = plain

    def stop(self) -> None:
        if self.manager is not None:
            end(self.manager)

    def ask(self, *argv: str) -> Any:
        done = self.svc(*argv, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def submit(self, *flags: str) -> str:
        return str(self.ask("submit", *flags, ADD, "2", "3")["id"])

    def run_one(self) -> str:
        """Have a worker run one job; return its id."""
        worker = self.start_worker("--tasks", "tests.support.executor_tasks")
        job = self.submit()
        assert [each["value"] for each in self.ask("results", job, "--timeout", "30")] == [5]
        end(worker)
        return job

    def state(self, job: str) -> str:
        return str(self.ask("jobs", "show", job)["state"])

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (self.folder / "log").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line.get("event") == name]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.stop()
    site.log.close()


def seconds(offset: float) -> Any:
    """Return a value that equals *offset*, but for the time that a test takes."""
    return pytest.approx(offset, abs=120)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("jump", [365 * DAY, 2 * DAY])
def test_a_start_with_the_clock_ahead_holds_retention_and_delays_until_somebody_accepts_it(
    site: Site, jump: int
):
    site.start_at(0)
    done, delayed = site.run_one(), site.submit("--delay", str(DELAY))
    site.start_at(jump)

    status = site.ask("status")
    assert (status["clock_held"], status["clock_offset_seconds"]) == (True, seconds(jump))
    assert (site.state(done), site.state(delayed)) == ("succeeded", "scheduled")
    assert [line["held"] for line in site.events("clock_off")] == [True]
    assert "svc journal accept-clock" in site.svc("status").stdout
    assert "svc_manager_clock_held 1" in site.svc("metrics").stdout

    assert site.ask("journal", "accept-clock")["offset_seconds"] == seconds(jump)
    status = site.ask("status")
    assert (status["clock_held"], status["clock_offset_seconds"]) == (False, seconds(0))
    assert site.state(delayed) == "ready"
    until(lambda: site.svc("jobs", "show", done).returncode != 0, "the result is past its retention")
    assert site.ask("journal", "accept-clock")["offset_seconds"] == 0

    site.start_at(jump)
    assert not site.ask("status")["clock_held"]


@pytest.mark.slow
@pytest.mark.long
def test_a_start_with_the_clock_behind_goes_on_from_the_journal_s_time(site: Site):
    site.start_at(0)
    done, delayed = site.run_one(), site.submit("--delay", str(DELAY))
    site.start_at(-365 * DAY)

    status = site.ask("status")
    assert (status["clock_held"], status["clock_offset_seconds"]) == (True, seconds(-365 * DAY))
    assert (site.state(done), site.state(delayed)) == ("succeeded", "scheduled")
    site.run_one()

    site.clock.jump(0)
    until(lambda: not site.ask("status")["clock_held"], "the host's time is right again")
    assert site.ask("status")["clock_offset_seconds"] == seconds(0)
    assert (site.state(done), site.state(delayed)) == ("succeeded", "scheduled")


@pytest.mark.slow
@pytest.mark.long
def test_what_was_recorded_while_the_clock_was_ahead_is_set_back_with_it(site: Site):
    """As an earlier release did it: a journal that has been a year ahead."""
    jump = 365 * DAY
    site.start_at(0)
    early = site.submit("--delay", str(2 * jump))
    site.start_at(jump, "--max-clock-jump", "36500d")
    done, delayed = site.run_one(), site.submit("--delay", str(DELAY))
    site.start_at(0)

    assert site.ask("status")["clock_offset_seconds"] == seconds(-jump)
    assert site.ask("journal", "accept-clock")["offset_seconds"] == seconds(-jump)
    for _ in range(2):
        assert site.ask("status")["clock_offset_seconds"] == seconds(0)
        now = site.ask("jobs", "show", site.submit())["submitted_at"]
        shown = site.ask("jobs", "show", delayed)
        assert shown["submitted_at"][:10] <= now[:10]
        assert int(shown["due_at"][:4]) - int(now[:4]) <= 1
        assert int(site.ask("jobs", "show", early)["due_at"][:4]) - int(now[:4]) >= 1
        assert site.state(done) == "succeeded"
        site.start_at(0)


@pytest.mark.slow
@pytest.mark.long
def test_what_runs_while_the_clock_is_set_runs_once(site: Site, tmp_path: Path):
    site.start_at(0)
    site.run_one()
    site.start_at(365 * DAY)
    worker = site.start_worker("--tasks", "tests.support.worker_tasks")
    mark = tmp_path / "runs"
    job = site.ask("submit", "tests.support.worker_tasks:mark", json.dumps(str(mark)), "3")["id"]
    until(mark.exists, "the job runs")
    site.ask("journal", "accept-clock")
    (outcome,) = site.ask("results", job, "--timeout", "30")
    assert outcome["state"] == "succeeded"
    assert [line.split()[0] for line in mark.read_text().splitlines()] == ["begin", "end"]
    end(worker)
