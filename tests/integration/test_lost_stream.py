"""A stream that is gone: the managers keep their mirrors, of which it can be made again."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from svc.errors import JournalError
from svc.journal_address import StreamAddress
from svc.server.journal.copying import INCARNATIONS_SKIPPED
from svc.server.journal.jetstream.connection import NatsConnection
from tests.support.jetstream_journals import led, new_stream, opened
from tests.support.journal_copies import copied
from tests.support.journals import EVENTS, event, numbered
from tests.support.workers import until


def test_a_stream_that_somebody_deletes_can_be_made_again_of_the_mirrors_that_are_kept(tmp_path):
    address = new_stream()
    leader, standby = led(address, tmp_path / "a"), opened(address, tmp_path / "b")
    ticket = leader.append(numbered(EVENTS))
    assert ticket is not None
    assert ticket.wait(60)
    until(lambda: standby.table.rows == len(EVENTS))

    asyncio.run(delete(address))
    unsaved = leader.append([(len(EVENTS) + 1, event(100))])
    assert unsaved is not None
    with pytest.raises(JournalError, match="is gone"):
        unsaved.wait(60)
    until(lambda: standby.replica.failure is not None)
    leader.close()
    standby.close()

    assert not (tmp_path / "a").exists()
    for name in ("a", "b"):
        again = new_stream()
        copied(tmp_path / f"{name}.lost-1" / "mirror-1", again)
        with closing(led(again, tmp_path / f"{name}2")) as journal:
            assert list(journal.replay())[: len(EVENTS)] == list(numbered(EVENTS))
            assert journal.incarnation > INCARNATIONS_SKIPPED


async def delete(address: StreamAddress) -> None:
    """Delete a stream, as an operator does who takes it for another one."""
    admin = NatsConnection(address, None, None)
    await admin.open(30)
    assert (await admin.ask(f"STREAM.DELETE.{address.name}", None, 30))["success"]
    await admin.close()
