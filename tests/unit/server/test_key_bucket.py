"""The bucket of the lead is made once enough servers have come."""

from __future__ import annotations

from typing import Any

import pytest

from svc.errors import JournalError
from svc.journal_address import parse_stream
from svc.server.journal.jetstream import key_bucket
from svc.server.journal.jetstream.key_bucket import open_bucket
from svc.server.journal.jetstream.lead_timing import Timing
from svc.server.journal.jetstream.stream_form import NO_PEERS, PEERS_SECONDS
from tests.support.virtual_time import run_virtual

JOURNAL = parse_stream("nats://127.0.0.1:4222/q")
#: nats-server 2.15 to a request right after the start of a cluster.
TOO_FEW = {"err_code": NO_PEERS, "description": "no suitable peers for placement, peer offline"}


class Refusing:
    """A connection to servers that make no bucket at the first *refusals* requests."""

    def __init__(self, refusals: int) -> None:
        self.refusals, self.asked, self.closed = refusals, 0, False

    async def open(self, seconds: float) -> None:
        pass

    async def ask(self, verb: str, body: dict[str, Any], seconds: float) -> dict[str, Any]:
        self.asked += 1
        return {"error": TOO_FEW} if self.asked <= self.refusals else {}

    async def close(self) -> None:
        self.closed = True


def made(connection: Refusing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_bucket, "NatsConnection", lambda *args, **options: connection)

    async def story() -> None:
        await open_bucket(JOURNAL, Timing())

    run_virtual(story())


def test_servers_that_do_not_know_each_other_yet_are_waited_for(monkeypatch):
    connection = Refusing(3)
    made(connection, monkeypatch)
    assert connection.asked == 4
    assert not connection.closed


def test_too_few_servers_are_an_error_in_the_end(monkeypatch):
    connection = Refusing(1_000_000)
    with pytest.raises(JournalError, match="no suitable peers"):
        made(connection, monkeypatch)
    assert connection.asked > PEERS_SECONDS
    assert connection.closed
