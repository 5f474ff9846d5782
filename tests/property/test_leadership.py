"""Managers, a bucket of keys and its faults in virtual time: who leads, and when another one takes over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from svc.server.journal.jetstream.candidacy import Candidacy, Standbys
from svc.server.journal.jetstream.lead_timing import Timing
from svc.server.journal.jetstream.leadership import Leadership, Position
from tests.support.key_model import KeyModel, ModelBucket
from tests.support.virtual_time import run_virtual

T = Timing()
#: An election of nats-server takes 4 to 9 s.
ELECTION_MAX = 9.0
#: The rates of two clocks may differ by twice this. The margin is a sixth of the TTL, and thus bears more.
SKEW = 0.04
LENGTH = 25.0
#: Seconds between two checks.
TICK = 0.05

rates = st.floats(1 - SKEW, 1 + SKEW)
spans = st.lists(st.tuples(st.floats(0, LENGTH), st.floats(0.05, ELECTION_MAX)), max_size=4)


class Manager:
    """A candidacy with a clock of its own."""

    def __init__(self, name: str, model: KeyModel, rng: random.Random, rate: float = 1.0) -> None:
        loop = asyncio.get_running_loop()
        start = rng.uniform(0, 1e6)
        self.name = name
        self.led: list[float] = []
        self.bucket = ModelBucket(model, rng)
        self.caught_up = True
        clock = lambda: start + rate * loop.time()  # noqa: E731  # a clock is a function
        self.candidacy = Candidacy(
            self.bucket,
            Leadership(name, (f"{name}:7077",), now=clock()),
            self._changed,
            clock,
            caught_up=lambda: self.caught_up,
        )
        self.task = asyncio.ensure_future(self.candidacy.run())

    @property
    def leads(self) -> bool:
        return not self.task.done() and self.candidacy.leadership.position is Position.LEADER

    @property
    def valid(self) -> bool:
        return not self.task.done() and self.candidacy.valid

    async def kill(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    def _changed(self, position: Position) -> None:
        if position is Position.LEADER:
            self.led.append(asyncio.get_running_loop().time())


@dataclass
class World:
    """The managers on one bucket."""

    model: KeyModel
    managers: list[Manager]

    async def until_led(self, seconds: float = 20.0) -> Manager:
        """Return the manager that is valid, once one is."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            for each in self.managers:
                if each.valid:
                    return each
            assert asyncio.get_running_loop().time() < deadline, "nobody leads"
            await asyncio.sleep(TICK)

    async def watch(self) -> None:
        """Check for ever that at most one manager is valid."""
        while True:
            valid = [each.name for each in self.managers if each.valid]
            assert len(valid) < 2, valid
            await asyncio.sleep(TICK)


async def made(seed: int, clock_rates: Iterable[float] = (1.0, 1.0), bucket_rate: float = 1.0) -> World:
    rng = random.Random(seed)
    model = KeyModel(rate=bucket_rate)
    return World(model, [Manager(f"m{n}", model, rng, rate) for n, rate in enumerate(clock_rates)])


async def checked(world: World, story: Iterable[asyncio.Future[None]], seconds: float) -> None:
    """Let *seconds* pass while the parts of the *story* happen, and check."""
    watch = asyncio.ensure_future(world.watch())
    try:
        await asyncio.wait(
            [watch, asyncio.ensure_future(asyncio.sleep(seconds))], return_when="FIRST_COMPLETED"
        )
        for part in story:
            await part
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
    for each in world.managers:
        if each.task.done() and not each.task.cancelled():
            each.task.result()


async def election(world: World, start: float, seconds: float) -> None:
    await asyncio.sleep(start)
    world.model.electing = True
    await asyncio.sleep(seconds)
    world.model.electing = False


async def cut(manager: Manager, start: float, seconds: float) -> None:
    await asyncio.sleep(start)
    manager.bucket.cut_off = True
    await asyncio.sleep(seconds)
    manager.bucket.cut_off = False


def parallel(elections: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the spans one after the other, so that the end of one does not end the next."""
    found: list[tuple[float, float]] = []
    for start, seconds in sorted(elections):
        begin = max(start, found[-1][0] + found[-1][1] + 0.01) if found else start
        found.append((begin, seconds))
    return found


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(rates, min_size=2, max_size=3),
    rates,
    spans,
    st.lists(spans, min_size=2, max_size=2),
    st.floats(0, 0.2),
)
def test_no_two_managers_are_valid_at_once_whatever_fails(seed, clock_rates, rate, elections, cuts, lost):
    async def story() -> None:
        world = await made(seed, clock_rates, rate)
        for each in world.managers:
            each.bucket.lost = lost
        parts = [asyncio.ensure_future(election(world, *span)) for span in parallel(elections)]
        for each, own in zip(world.managers, cuts, strict=False):
            parts += [asyncio.ensure_future(cut(each, *span)) for span in parallel(own)]
        await checked(world, parts, LENGTH)
        for each in world.managers:
            each.bucket.lost = 0.0
        # A cut that began late ends within the longest time of one.
        leader = await world.until_led(4 * (ELECTION_MAX + T.ttl))
        assert leader.leads

    run_virtual(story())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.lists(rates, min_size=2, max_size=3), rates, spans)
def test_an_election_of_the_bucket_never_changes_the_leader(seed, clock_rates, rate, elections):
    async def story() -> None:
        world = await made(seed, clock_rates, rate)
        first = await world.until_led()
        parts = [asyncio.ensure_future(election(world, *span)) for span in parallel(elections)]
        await checked(world, parts, LENGTH + 1)
        assert await world.until_led() is first
        assert [each.name for each in world.managers if each.led] == [first.name]

    run_virtual(story())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 2), st.lists(rates, min_size=2, max_size=3))
def test_a_bucket_that_is_made_anew_between_two_looks_never_changes_the_leader(seed, after, clock_rates):
    async def story() -> None:
        world = await made(seed, clock_rates)
        first = await world.until_led()
        await asyncio.sleep(T.steady + T.renew_every + after)
        world.model.remake()
        await checked(world, [], 2 * T.ttl)
        assert await world.until_led() is first
        assert [each.name for each in world.managers if each.led] == [first.name]

    run_virtual(story())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 2), st.lists(rates, min_size=2, max_size=3), st.booleans())
def test_a_killed_leader_is_followed_within_three_and_a_half_seconds(seed, after, clock_rates, caught_up):
    async def story() -> None:
        world = await made(seed, clock_rates)
        for each in world.managers:
            each.caught_up = caught_up
        first = await world.until_led()
        # The standbys have seen the bucket work for a while.
        await asyncio.sleep(T.steady + T.renew_every + after)
        await first.kill()
        killed = asyncio.get_running_loop().time()

        await world.until_led()

        assert asyncio.get_running_loop().time() - killed <= 3.5

    run_virtual(story())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.lists(rates, min_size=2, max_size=3))
def test_a_hand_over_takes_a_look_and_the_old_leader_stays_a_standby(seed, clock_rates):
    async def story() -> None:
        world = await made(seed, clock_rates)
        first = await world.until_led()
        await asyncio.sleep(1)
        begun = asyncio.get_running_loop().time()

        await first.candidacy.hand_over()
        second = await world.until_led()

        assert asyncio.get_running_loop().time() - begun <= 0.3
        assert second is not first
        await checked(world, [], 2 * T.held_back)
        assert second.leads
        assert not first.leads

    run_virtual(story())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_a_hand_over_goes_to_the_standby_that_has_caught_up(seed):
    async def story() -> None:
        world = await made(seed, [1.0, 1.0, 1.0])
        first = await world.until_led()
        ready, behind = (each for each in world.managers if each is not first)
        behind.caught_up = False
        await asyncio.sleep(T.ttl + 1)
        assert await first.candidacy.standbys() == Standbys(ready=1, behind=1)

        await first.candidacy.hand_over()

        assert await world.until_led() is ready

    run_virtual(story())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 5))
def test_a_leader_that_ends_in_order_is_followed_by_a_standby_that_has_not_caught_up(seed, after):
    """As soon as it has, and without that when the key has vanished."""

    async def story() -> None:
        world = await made(seed)
        first = await world.until_led()
        (second,) = (each for each in world.managers if each is not first)
        second.caught_up = False
        await asyncio.sleep(T.ttl + 1)
        assert await first.candidacy.standbys() == Standbys(behind=1)
        clock = asyncio.get_running_loop().time
        begun = clock()
        await first.candidacy.hand_over()
        assert clock() - begun <= 0.3
        await first.kill()

        async def catches_up() -> None:
            await asyncio.sleep(after)
            second.caught_up = True

        parts = [asyncio.ensure_future(catches_up())]
        assert await world.until_led() is second
        assert min(after, T.ttl) <= clock() - begun <= min(after, T.ttl) + 0.6
        for part in parts:
            part.cancel()

    run_virtual(story())


def test_who_hands_over_to_nobody_leads_again_after_some_seconds():
    async def story() -> None:
        world = await made(1, [1.0])
        only = await world.until_led()

        await only.candidacy.hand_over()
        begun = asyncio.get_running_loop().time()
        await world.until_led()

        assert T.held_back <= asyncio.get_running_loop().time() - begun <= 2 * T.held_back

    run_virtual(story())


def test_a_leader_counts_the_standbys_and_not_itself():
    async def story() -> list[Standbys]:
        world = await made(2, [1.0, 1.0, 1.0])
        first = await world.until_led()
        await asyncio.sleep(T.ttl + 1)
        both = await first.candidacy.standbys()
        await next(each for each in world.managers if each is not first).kill()
        await asyncio.sleep(T.ttl + 1)
        return [both, await first.candidacy.standbys()]

    assert run_virtual(story()) == [Standbys(ready=2), Standbys(ready=1)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 2 * T.renew_every))
def test_a_standby_that_was_killed_is_not_heard_after_three_renewals_and_one_that_lives_always_is(seed, at):
    async def story() -> None:
        world = await made(seed, [1.0, 1 - SKEW, 1 + SKEW])
        first = await world.until_led()
        one, _ = (each for each in world.managers if each is not first)
        await asyncio.sleep(T.ttl + 1 + at)
        assert await first.candidacy.standbys(heard=True) == Standbys(ready=2)
        await one.kill()
        await asyncio.sleep(3 * T.renew_every * (1 + SKEW) + 0.2)
        assert await first.candidacy.standbys() == Standbys(ready=2)
        assert await first.candidacy.standbys(heard=True) == Standbys(ready=1)

    run_virtual(story())


def test_managers_that_have_ended_in_order_are_no_standbys_from_then_on():
    async def story() -> list[Standbys]:
        world = await made(3, [1.0, 1.0, 1.0])
        first = await world.until_led()
        await asyncio.sleep(T.ttl + 1)
        one, other = (each for each in world.managers if each is not first)
        await one.candidacy.end()
        seen = [await first.candidacy.standbys()]
        await first.candidacy.end()
        assert await world.until_led() is other
        return [*seen, await other.candidacy.standbys()]

    assert run_virtual(story()) == [Standbys(ready=1), Standbys()]


def test_a_standby_that_has_caught_up_is_counted_once_and_at_once():
    async def story() -> list[Standbys]:
        world = await made(4)
        first = await world.until_led()
        (second,) = (each for each in world.managers if each is not first)
        second.caught_up = False
        await asyncio.sleep(T.ttl + 1)
        before = await first.candidacy.standbys()
        second.caught_up = True
        await asyncio.sleep(T.renew_every + 0.1)
        return [before, await first.candidacy.standbys()]

    assert run_virtual(story()) == [Standbys(behind=1), Standbys(ready=1)]


def test_a_leader_changes_its_server_after_two_requests_without_an_answer():
    async def story() -> int:
        world = await made(3)
        first = await world.until_led()
        await cut(first, 0.0, 2.0)
        return first.bucket.servers_left

    assert run_virtual(story()) == 1


def test_a_standby_without_its_rule_would_take_the_key_of_a_living_leader(monkeypatch):
    """The fault that the rule is against exists: the test of elections can fail."""
    monkeypatch.setattr(Timing, "steady", property(lambda self: 0.0))
    changed = sum(run_virtual(_led_by(6 + seed / 10, seed)) for seed in range(8))

    assert changed > 0


async def _led_by(seconds: float, seed: int) -> int:
    """Return how many managers but the first have led after an election of so many seconds."""
    world = await made(seed)
    first = await world.until_led()
    await checked(world, [asyncio.ensure_future(election(world, 1.0, seconds))], 20)
    return sum(bool(each.led) for each in world.managers if each is not first)
