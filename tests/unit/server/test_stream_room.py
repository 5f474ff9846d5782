"""The room of a stream, as its servers and the account tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from svc.server.journal.jetstream import room as under_test
from svc.server.journal.jetstream.log import Unanswered
from svc.server.journal.jetstream.room import RoomWatch, room_of


def account(limit: int, used: int) -> dict[str, object]:
    return {"storage": used, "limits": {"max_storage": limit}}


def server(limit: int, used: int) -> dict[str, object]:
    return {"storage": used, "config": {"max_storage": limit}}


def test_most_of_the_servers_need_room_and_a_full_one_is_done_without():
    unlimited = account(-1, 5)
    assert room_of(unlimited, [server(100, 40), server(100, 100), server(100, 30)], 3) == 60
    assert room_of(unlimited, [server(100, 40), server(100, 110), server(100, 99)], 3) == 1
    assert room_of(unlimited, [server(100, 40), server(100, 100), server(100, 120)], 3) == 0


def test_of_two_servers_that_are_left_both_need_room():
    assert room_of({}, [server(100, 40), server(100, 90)], 3) == 10


def test_one_server_of_three_says_nothing_about_most_of_them():
    assert room_of({}, [server(100, 40)], 3) is None


def test_the_limit_of_the_account_counts_too():
    assert room_of(account(50, 45), [server(100, 40)], 1) == 5
    assert room_of(account(50, 45), [], 1) == 5
    assert room_of({"error": {"code": 503}}, [{}], 1) is None


def test_what_was_sent_since_the_question_counts_as_used():
    sent = [10]

    async def ask() -> int:
        sent[0] = 25  # while the answer is on its way
        return 100

    watch = RoomWatch(ask, lambda: sent[0])

    async def story() -> None:
        running = asyncio.ensure_future(watch.run())
        assert watch.left() is None
        await asyncio.sleep(0)
        running.cancel()

    asyncio.run(story())
    assert watch.left() == 85
    sent[0] = 200
    assert watch.left() == 0


async def after(answers: Iterator[int | Unanswered | None]) -> int | None:
    """Return the room once all *answers* are used up."""
    used_up = asyncio.Event()

    async def ask() -> int | None:
        answer = next(answers, used_up)
        if isinstance(answer, asyncio.Event):
            answer.set()
            return await asyncio.Future[int]()
        if isinstance(answer, Unanswered):
            raise answer
        return answer

    watch = RoomWatch(ask, lambda: 0)
    running = asyncio.ensure_future(watch.run())
    await used_up.wait()
    running.cancel()
    return watch.left()


@pytest.mark.parametrize("silence", [None, Unanswered("nobody leads")], ids=["no limit", "no answer"])
def test_servers_that_are_late_with_an_answer_do_not_lift_the_limit_for_a_minute(silence, monkeypatch):
    monkeypatch.setattr(under_test, "_ASK_SECONDS", 0)
    monkeypatch.setattr(under_test, "_UNTOLD_SECONDS", 0)

    assert asyncio.run(after(iter([100, *[silence] * 29]))) == 100
    assert asyncio.run(after(iter([100, *[silence] * 29, 50, silence]))) == 50
    assert asyncio.run(after(iter([100, *[silence] * 30]))) is None


def test_a_risk_that_a_server_tells_later_is_logged_once_and_one_of_the_start_not_again(monkeypatch):
    """As of a server that was down at the start, and of one that is busy with every other question."""
    monkeypatch.setattr(under_test, "_ASK_SECONDS", 0)
    told = [["n0"], ["n0", "n1"], ["n0"], ["n0", "n1", "n2"]]
    asked = asyncio.Event()
    rounds = iter([100, 100, 100])

    async def ask() -> int:
        del told[0]
        if (room := next(rounds, None)) is None:
            asked.set()
            return await asyncio.Future[int]()
        return room

    async def story() -> None:
        running = asyncio.ensure_future(watch.run())
        await asked.wait()
        running.cancel()

    with capture_logs() as logs:
        watch = RoomWatch(ask, lambda: 0, lambda: told[0])
        asyncio.run(story())

    assert [(each["event"], each["reason"]) for each in logs] == [
        ("journal_at_risk", "n1"),
        ("journal_at_risk", "n2"),
    ]
