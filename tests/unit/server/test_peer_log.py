"""The log of workers that come and go is bounded: a key for work can have any number of them (T7)."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from svc.domain.members import Notice
from svc.domain.observer import Observer
from svc.server.peer_log import NOTICES_MAX, NOTICES_SECONDS, PeerLog

EVENTS = {
    "joined": "worker_joined",
    "left": "worker_left",
    "lost": "worker_lost",
    "silent": "worker_silent",
    "doubled": "worker_name_doubled",
    "drained": "drain_started",
}


@pytest.fixture(autouse=True)
def _all_levels() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("what", EVENTS)
def test_a_flood_of_workers_has_a_bounded_number_of_lines_and_a_count_of_the_others(what):
    """One connection that said hello and goodbye again and again wrote thousands of lines a second."""
    now = 5.0
    log = PeerLog(Observer(), clock=lambda: now)
    with capture_logs() as lines:
        for number in range(NOTICES_MAX + 70):
            log.noticed(Notice(what, f"w-{number}"))
        assert len(lines) == NOTICES_MAX
        other = next(each for each in EVENTS if each != what)
        log.noticed(Notice(other, "w"))  # it has a bound of its own
        assert lines[-1]["event"] == EVENTS[other]
        now += NOTICES_SECONDS
        log.noticed(Notice(what, "w-last"))
        log.noticed(Notice(what, "w-later"))
    told = lines[-2:]
    assert [each["event"] for each in told] == [EVENTS[what]] * 2
    assert [each.get("suppressed") for each in told] == [70, None]
