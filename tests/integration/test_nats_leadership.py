"""Who leads, on real NATS servers: takeovers, hand-overs, and elections that change nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from svc.errors import JournalError, JournalUnreachable
from svc.journal_address import NatsUser
from svc.server.journal.jetstream.candidacy import Candidacy, Entry, Standbys
from svc.server.journal.jetstream.connection import NatsConnection
from svc.server.journal.jetstream.key_bucket import NatsKeyBucket, open_bucket
from svc.server.journal.jetstream.lead_timing import Timing
from svc.server.journal.jetstream.leadership import Leadership, Position
from svc.server.journal.jetstream.loop_thread import end_tasks
from svc.server.journal.jetstream.stream_form import permissions
from tests.support.nats_logs import address_of
from tests.support.nats_servers import NatsCluster, NatsOptions, running_nats

T = Timing()
STREAM = "KV_q_leader"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running_nats(tmp_path_factory.mktemp("nats"), 3) as running:
        yield running


@pytest.fixture(scope="module")
def lone(tmp_path_factory):
    with running_nats(tmp_path_factory.mktemp("lone"), 1) as running:
        yield running


class Candidate:
    """A candidacy with a connection of its own."""

    def __init__(self, bucket: NatsKeyBucket, name: str) -> None:
        self.bucket = bucket
        self.times: list[tuple[Position, float]] = []
        self.candidacy = Candidacy(
            bucket, Leadership(name, (f"{name}:7077",), now=time.monotonic()), self._changed
        )
        self.task = asyncio.ensure_future(self.candidacy.run())

    @property
    def valid(self) -> bool:
        return not self.task.done() and self.candidacy.valid

    @property
    def led_at(self) -> float:
        """When it took the lead last."""
        return [at for position, at in self.times if position is Position.LEADER][-1]

    async def stop(self) -> None:
        """End its task; one cancel may be lost, as `end_tasks` says."""
        await end_tasks(self.task)

    async def kill(self) -> None:
        await self.stop()
        await self.bucket.close()

    def _changed(self, position: Position) -> None:
        self.times.append((position, time.monotonic()))


@asynccontextmanager
async def candidates(cluster: NatsCluster, number: int = 2) -> AsyncIterator[list[Candidate]]:
    """Run candidates, of which the first leads."""
    made: list[Candidate] = []
    try:
        for n in range(number):
            bucket = await open_bucket(address_of(cluster, "q"), T, replicas=len(cluster.nodes))
            made.append(Candidate(bucket, f"m{n}"))
            if n == 0:
                await until(lambda: made[0].valid)
        yield made
    finally:
        for each in made:
            await each.kill()


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> float:
    """Return the seconds until *condition* holds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it has not happened in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


async def settled(made: list[Candidate]) -> None:
    """Wait until the standbys have seen the bucket work long enough to take a key that is gone.

    The one that leads then is the first: if the machine has stood still meanwhile, it may be another one.
    """
    await asyncio.sleep(T.steady + T.renew_every)
    await until(lambda: sum(each.valid for each in made) == 1)
    made.sort(key=lambda each: not each.valid)
    for each in made:
        each.times.clear()


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 240))


def test_a_killed_leader_is_followed_and_a_hand_over_does_not_wait_for_the_end_of_its_key(lone):
    async def story() -> bool:
        """Return whether the successor has taken a key that was free."""
        async with candidates(lone, 3) as made:
            await settled(made)
            async with asyncio.timeout(30):
                while await made[0].candidacy.standbys() != Standbys(ready=2):  # noqa: ASYNC110 - as it is told
                    await asyncio.sleep(0.1)

            made[0].candidacy.name_term(1)  # as one that serves
            await made[0].candidacy.hand_over()
            await until(lambda: any(each.valid for each in made))
            second = next(each for each in made if each.valid)
            taken = second is not made[0] and second.candidacy.leadership.took_free
            await second.kill()
            await until(lambda: any(each.valid for each in made if each is not second))
            return taken

    async def stories() -> None:
        # On a busy machine a standby may be too late, or get no answer, and find the key gone.
        for _ in range(5):
            if await story():
                return
        raise AssertionError("no successor has taken a free key")

    run(stories)


def test_a_leader_that_was_cut_off_is_not_valid_and_finds_its_successor(lone):
    async def story() -> None:
        async with candidates(lone) as made:
            await settled(made)
            await made[0].stop()
            await until(lambda: made[1].valid)
            assert not made[0].candidacy.valid

            made[0].task = asyncio.ensure_future(made[0].candidacy.run())
            await until(lambda: made[0].candidacy.leadership.position is Position.STANDBY)
            assert made[1].valid
            await until(lambda: made[0].candidacy.leader is not None)
            leader = made[0].candidacy.leader
            assert leader is not None
            assert leader.addresses == (f"{made[1].candidacy.leadership.holder}:7077",)

    run(story)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", pytest.param("freeze", marks=pytest.mark.long)])
def test_the_end_of_the_server_that_leads_the_bucket_never_changes_the_leading_manager(cluster, how):
    async def story() -> None:
        async with candidates(cluster) as made:
            await settled(made)
            node = await asyncio.to_thread(cluster.wait_leader, STREAM)
            getattr(cluster, how)(node)
            try:
                # While the servers elect, the key cannot be renewed.
                await until(lambda: not made[0].valid)
                await until(lambda: made[0].valid, 60)
                await asyncio.sleep(T.ttl + 1)
                await until(lambda: [each.valid for each in made] == [True, False])
                assert [position for position, _ in made[1].times] == []
            finally:
                if how == "freeze":
                    cluster.thaw(node)
                else:
                    cluster.restart(node, wait=False)  # a server dies with the thread that started it
            await asyncio.to_thread(cluster.wait_ready)

    run(story)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_after_the_end_of_all_servers_the_leader_leads_again(cluster):
    async def story() -> None:
        async with candidates(cluster) as made:
            await settled(made)
            for node in range(3):
                cluster.kill(node)
            for node in range(3):
                cluster.restart(node, wait=False)
            await until(lambda: not made[0].valid)
            await until(lambda: made[0].valid, 60)
            assert made[1].times == []
            await asyncio.to_thread(cluster.wait_ready)

    run(story)


async def remove(cluster: NatsCluster) -> None:
    """Remove the bucket, as an operator does who takes it for one that nobody needs."""
    admin = NatsConnection(address_of(cluster, "q"), None, None)
    await admin.open(10)
    assert (await admin.ask(f"STREAM.DELETE.{STREAM}", None, 5))["success"]
    await admin.close()


def test_a_bucket_that_somebody_removes_is_made_again_and_the_leader_stays(lone):
    async def story() -> None:
        async with candidates(lone) as made:
            await settled(made)
            begun = time.monotonic()
            await remove(lone)
            while time.monotonic() - begun < T.ttl:
                assert made[0].candidacy.leadership.leads
                await asyncio.sleep(0.05)
            await until(lambda: [each.valid for each in made] == [True, False])
            assert made[1].times == []

    run(story)


def test_a_bucket_of_another_form_is_refused(lone):
    async def story() -> None:
        address = address_of(lone, "other")
        await (await open_bucket(address, T, replicas=1)).close()
        with pytest.raises(JournalError, match="is not as svc makes it"):
            await open_bucket(address, Timing(5.0), replicas=1)

    run(story)


def test_without_jetstream_the_bucket_is_not_made(tmp_path: Path):
    with running_nats(tmp_path, 1, NatsOptions(jetstream=False)) as server:

        async def story() -> None:
            with pytest.raises(JournalUnreachable, match="do not make the bucket"):
                await open_bucket(address_of(server, "q"), T, replicas=1, seconds=2)

        run(story)


def test_a_user_with_the_least_permissions_makes_the_bucket_and_uses_it(tmp_path: Path):
    options = NatsOptions(users={"least": ("right", permissions("q"))})
    with running_nats(tmp_path, options=options) as server:

        async def story() -> None:
            user = NatsUser("least", "right")
            bucket = await open_bucket(address_of(server, "q"), T, replicas=1, user=user)
            revision = await bucket.put("standby.a", b"", expected=0)
            assert await bucket.get("standby.a") == Entry(b"", revision)
            assert await bucket.names("standby.") == ["standby.a"]
            await bucket.close()

        run(story)
