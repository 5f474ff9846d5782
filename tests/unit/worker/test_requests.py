"""A consumer's requests for jobs whose answers come in another order."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence
from datetime import timedelta
from typing import Any, cast

import structlog

from svc.broker.backoff import Backoff
from svc.broker.base import Broker
from svc.domain import replies as r
from svc.domain.job import Terms
from svc.worker.outbox import Holdings, Outbox
from svc.worker.requests import Requests

EARLIER, LATER = 7, 8


class Line:
    """The connection of a consumer, over which the answers come as the test says."""

    def __init__(self) -> None:
        self.sent = 0
        self.answers: deque[tuple[int, Sequence[r.Reply]]] = deque()

    def send(self, _commands: Sequence[object], wait: timedelta = timedelta(0)) -> int:
        self.sent += 1
        return self.sent

    def receive(self, asked: Container[int], _seconds: float, *, final: bool = True) -> Any:
        if not self.answers:
            return None
        assert self.answers[0][0] in asked
        return self.answers.popleft()


def grant(token: int) -> r.Grant:
    return r.Grant([r.Delivery(token, "o", token, Terms("m:f"), [b""])])


def asking(line: Line, times: int) -> Requests:
    """Return requests of which so many have no answer yet."""

    def never(error: Exception) -> None:
        raise error

    made = Requests(Outbox(), Holdings(), 5.0, never, Backoff(), structlog.get_logger())
    for _ in range(times):
        made._post(cast("Broker", line), timedelta(seconds=5))
    return made


def test_behind_a_grant_that_was_overtaken_nothing_on_its_way_is_taken_back() -> None:
    """The manager would take back the jobs of the later lease too, which have been run by then."""
    line = Line()
    requests = asking(line, 3)
    line.answers += [(2, [grant(LATER)]), (1, [grant(EARLIER)])]

    (later,) = requests.take(cast("Broker", line)).deliveries
    assert later.token == LATER
    assert requests.brings_more(LATER)
    (earlier,) = requests.take(cast("Broker", line)).deliveries

    assert earlier.token == EARLIER
    assert requests.asks
    assert not requests.brings_more(EARLIER)


def test_behind_grants_in_their_order_jobs_on_their_way_may_be_taken_back() -> None:
    line = Line()
    requests = asking(line, 3)
    line.answers += [(1, [grant(EARLIER)])]
    requests.take(cast("Broker", line))
    assert requests.brings_more(EARLIER)
    line.answers += [(2, [grant(LATER)])]
    requests.take(cast("Broker", line))
    assert requests.brings_more(LATER)
    line.answers += [(3, [r.Grant([])])]
    requests.look(cast("Broker", line))
    assert not requests.brings_more(LATER)  # nothing is on its way
