"""The follower of a stream asks for many messages at once, and keeps few bytes of them in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing

import pytest

from svc.server.journal.jetstream import following as module
from svc.server.journal.jetstream.following import AHEAD_BYTES, TOGETHER, consume
from svc.server.journal.jetstream.log import Unanswered
from svc.server.journal.jetstream.nats_log import NatsLog
from tests.support.nats_logs import run_on
from tests.support.nats_servers import NatsCluster, running_nats

#: Messages of the largest size: together they have several times the bytes that are asked for ahead.
COUNT = 40


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[NatsCluster]:
    with running_nats(tmp_path_factory.mktemp("nats")) as running:
        yield running


def test_a_follower_that_takes_no_message_is_sent_a_bounded_number_of_bytes(cluster):
    async def story(log: NatsLog) -> None:
        size = (await log.facts()).message_max
        for number in range(1, COUNT + 1):
            await log.append(bytes([number]) * size, expected=number - 1, message_id=f"id{number}")
        stats = log._connection.client.stats
        before, bound = stats["in_bytes"], 3 * AHEAD_BYTES
        async with aclosing(log.follow(1)) as following:
            found = [await anext(following)]
            for _ in range(200):  # as many answers leave the server time to send
                await log.facts()
            assert stats["in_bytes"] - before < bound
            found += [await anext(following) for _ in range(COUNT - 1)]
        assert [(each.sequence, each.data[:1], len(each.data)) for each in found] == [
            (number, bytes([number]), size) for number in range(1, COUNT + 1)
        ]
        assert size * COUNT > 2 * bound

    run_on(cluster, story)


def test_a_follower_of_small_messages_asks_once_for_hundreds_and_yields_them_together(cluster):
    async def story(log: NatsLog) -> None:
        count = 2048
        for number in range(1, count + 1):
            await log.append(b"small", expected=number - 1, message_id=f"id{number}")
        stats = log._connection.client.stats
        async with aclosing(log.follow(1)) as following:
            await anext(following)
            before = stats["out_msgs"]
            found = [await anext(following) for _ in range(count - 1)]
            assert stats["out_msgs"] - before < count // 100
        assert [each.sequence for each in found] == list(range(2, count + 1))
        lone = sum(not each.more for each in found)
        assert count // TOGETHER - 1 <= lone < count // 2
        assert not found[-1].more

    run_on(cluster, story)


def test_a_follower_that_wants_more_while_it_has_no_connection_is_told_so(tmp_path, monkeypatch):
    """Then it connects anew. An error of the library's own would end the manager that follows."""
    monkeypatch.setattr(module, "AHEAD", 1)

    async def story(log: NatsLog) -> None:
        await log.append(b"one", expected=0, message_id="id1")
        connection, client = log._connection, log._connection.client
        async with aclosing(consume(connection, "j", 1, 5.0)) as arriving:
            assert (await anext(arriving)).data == b"one"
            lone.kill(0)
            while client.is_connected:  # noqa: ASYNC110 - the library tells nobody
                await asyncio.sleep(0.01)
            with pytest.raises(Unanswered):
                await anext(arriving)

    with running_nats(tmp_path) as lone:
        run_on(lone, story, name="j")
