"""The contract of the log under the replicated journal: each append is fenced, and kept once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack, aclosing, suppress
from functools import cache, partial
from typing import Any

import pytest

from svc.server.journal.jetstream.log import Fenced, Log, LogMessage, PrefixPurged, Tail
from tests.support.log_model import LogModel, ModelStream
from tests.support.nats_logs import run_on
from tests.support.nats_servers import NatsCluster, running_nats
from tests.support.virtual_time import run_virtual

#: Runs a story on a new log.
Run = Callable[[Callable[[Log], Coroutine[Any, Any, None]]], None]


@pytest.fixture(scope="module")
def clusters(tmp_path_factory) -> Iterator[Callable[[int], NatsCluster]]:
    """Starts a cluster of so many servers, once for all tests: each has a stream of its own."""
    with ExitStack() as running:

        @cache
        def cluster(size: int) -> NatsCluster:
            return running.enter_context(running_nats(tmp_path_factory.mktemp("nats"), size))

        yield cluster


@pytest.fixture(params=["one server", "three servers", "model"])
def run(request, clusters) -> Run:
    """Runs a story on a log of each kind."""
    if request.param == "model":
        return lambda story: run_virtual(story(LogModel(ModelStream(), "client")))
    return partial(run_on, clusters(1 if request.param == "one server" else 3))


async def fill(log: Log, count: int, after: int = 0) -> None:
    """Append messages after message *after*: `m1`, `m2`, … by their numbers."""
    for number in range(after + 1, after + count + 1):
        assert await log.append(b"m%d" % number, expected=number - 1, message_id=f"id{number}") == number


async def take(following: AsyncIterator[LogMessage], count: int) -> list[LogMessage]:
    return [await anext(following) for _ in range(count)]


def test_a_new_log_is_empty(run):
    async def story(log: Log) -> None:
        assert await log.tail() == Tail(0, None)
        facts = await log.facts()
        assert (facts.first, facts.last, facts.messages) == (1, 0, 0)
        assert facts.leader
        assert facts.message_max > 60_000

    run(story)


def test_all_who_keep_the_log_become_current(run):
    async def story(log: Log) -> None:
        await fill(log, 2)
        async with asyncio.timeout(30):
            while True:
                facts = await log.facts()
                if facts.current == facts.replicas:
                    break
                await asyncio.sleep(0.01)
        assert facts.offline == 0

    run(story)


def test_messages_are_kept_in_order_under_numbers_without_gaps(run):
    async def story(log: Log) -> None:
        await fill(log, 5)
        assert await log.tail() == Tail(5, b"m5")
        facts = await log.facts()
        assert (facts.first, facts.last, facts.messages) == (1, 5, 5)
        assert facts.bytes > 0

    run(story)


def test_an_append_that_expects_another_end_is_refused_and_told_the_end(run):
    async def story(log: Log) -> None:
        await fill(log, 3)
        for expected in (0, 2, 4):
            with pytest.raises(Fenced) as refused:
                await log.append(b"late", expected=expected, message_id=f"late{expected}")
            assert refused.value.last == 3
        assert await log.tail() == Tail(3, b"m3")

    run(story)


def test_of_two_writers_that_expect_the_same_end_one_is_refused(run):
    async def story(log: Log) -> None:
        await fill(log, 1)
        tries = [log.append(name, expected=1, message_id=name.decode()) for name in (b"a", b"b")]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        assert sorted(map(str, outcomes), key=len) == ["2", "the log ends with message 2"]
        assert (await log.tail()).last == 2

    run(story)


def test_a_repeated_append_is_written_once(run):
    async def story(log: Log) -> None:
        await fill(log, 2)
        for expected in (1, 2):
            with suppress(Fenced):
                assert await log.append(b"m2", expected=expected, message_id="id2") == 2
        assert await log.tail() == Tail(2, b"m2")

    run(story)


def test_a_message_of_the_largest_size_is_kept_and_read(run):
    async def story(log: Log) -> None:
        large = bytes(range(256)) * ((await log.facts()).message_max // 256)
        assert await log.append(large, expected=0, message_id="x" * 80) == 1
        assert await log.tail() == Tail(1, large)
        async with aclosing(log.follow(1)) as following:
            assert await anext(following) == LogMessage(1, large)

    run(story)


def test_a_follower_gets_all_messages_and_then_each_new_one(run):
    async def story(log: Log) -> None:
        await fill(log, 300)
        async with aclosing(log.follow(2)) as following:
            found = await take(following, 299)
            assert found == [LogMessage(number, b"m%d" % number) for number in range(2, 301)]
            await fill(log, 2, after=300)
            assert await take(following, 2) == [LogMessage(301, b"m301"), LogMessage(302, b"m302")]

    run(story)


def test_one_may_follow_from_a_message_that_is_not_written_yet(run):
    async def story(log: Log) -> None:
        await fill(log, 1)
        async with aclosing(log.follow(3)) as following:
            waiting = asyncio.ensure_future(anext(following))
            await fill(log, 2, after=1)
            assert await waiting == LogMessage(3, b"m3")

    run(story)


def test_a_purge_removes_what_is_below_and_may_be_repeated_or_late(run):
    async def story(log: Log) -> None:
        await fill(log, 6)
        for below in (4, 4, 2):
            await log.purge(below)
            facts = await log.facts()
            assert (facts.first, facts.last, facts.messages) == (4, 6, 3)

    run(story)


def test_a_purge_of_everything_keeps_the_end(run):
    async def story(log: Log) -> None:
        await fill(log, 3)
        await log.purge(100)
        assert await log.tail() == Tail(3, None)
        facts = await log.facts()
        assert (facts.first, facts.last, facts.messages) == (4, 3, 0)
        await fill(log, 1, after=3)
        assert await log.tail() == Tail(4, b"m4")

    run(story)


def test_a_follower_of_purged_messages_is_told_and_never_skips_them(run):
    async def story(log: Log) -> None:
        await fill(log, 6)
        await log.purge(4)
        async with aclosing(log.follow(2)) as following:
            with pytest.raises(PrefixPurged) as told:
                await anext(following)
        assert told.value.first == 4
        async with aclosing(log.follow(4)) as following:
            assert await anext(following) == LogMessage(4, b"m4")

    run(story)


def test_a_follower_of_purged_messages_is_told_if_nothing_is_left(run):
    async def story(log: Log) -> None:
        await fill(log, 3)
        await log.purge(4)
        async with aclosing(log.follow(2)) as following:
            with pytest.raises(PrefixPurged) as told:
                await anext(following)
        assert told.value.first == 4

    run(story)
