"""No mapping of a queue grows in one long step: it is a table of parts, or has few entries."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.apply import apply
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.keys import Keys
from svc.domain.leases import SETTLED_KEPT, Leases
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from svc.domain.scheduling.lanes import added
from svc.domain.tables import PART_BITS, SPLIT, Mapped, Table, by_digits, by_hash, by_number, in_parts

#: Entries of each kind in these tests, and those that a part by number may have.
COUNT = 20_000
MOST = 2**PART_BITS
TERMS = Terms("m:f")


# --- a table ---------------------------------------------------------------------------------------------


def test_a_table_by_number_is_in_the_order_of_the_numbers_and_no_part_has_many():
    table: Table[int, int] = Table(by_number)
    for number in range(COUNT):
        table[number] = -number

    assert list(table) == list(range(COUNT))
    assert list(table.since(5000)) == [-number for number in range(5000, COUNT)]
    assert list(table.until(5000)) == [-number for number in range(5000, -1, -1)]
    assert list(table.values()) == [-number for number in range(COUNT)]
    assert list(table.items()) == [(number, -number) for number in range(COUNT)]
    assert max(map(len, table.parts.values())) <= MOST
    assert (len(table), table[7], table.get(COUNT)) == (COUNT, -7, None)
    assert 7 in table
    assert COUNT not in table


def test_the_parts_of_a_table_by_hash_do_not_grow_all_at_the_same_time():
    table: Table[tuple[int, int], int] = Table(by_hash)
    for number in range(COUNT):
        table[number, 0] = number

    sizes = sorted(map(len, table.parts.values()))
    assert sizes[-1] < 2 * COUNT / len(sizes)
    assert sizes[-1] > 1.2 * sizes[0]


@pytest.mark.parametrize("part_of", [by_number, by_hash])
def test_a_table_without_entries_takes_no_memory_and_one_with_few_takes_little(part_of: Callable[[Any], int]):
    table: Table[int, int] = Table(part_of)
    for number in range(COUNT):
        table[number] = number
    full = memory_of(table)
    for number in range(COUNT):
        if number % 1000:
            assert table.pop(number) == number

    assert table.pop(1) is None
    assert sorted(table) == list(range(0, COUNT, 1000))
    assert memory_of(table) < full / 20
    for number in range(0, COUNT, 1000):
        table.pop(number)
    assert not table
    assert not table.parts


@pytest.mark.parametrize(
    "keys",
    [range(COUNT), range(0, COUNT << 40, 1 << 40), range(-COUNT, 0)],
    ids=["all", "far apart", "negative"],
)
def test_a_dict_that_becomes_large_is_a_table_whatever_numbers_are_chosen(keys: range):
    entries: Mapped[int, int] = {}
    for place, key in enumerate(keys):
        entries = added(entries, key, -place, by_digits)
        assert isinstance(entries, dict) == (place < SPLIT)

    parts = list(in_parts(entries))
    assert {key: value for part in parts for key, value in part.items()} == {
        key: -place for place, key in enumerate(keys)
    }
    assert max(map(len, parts)) < 2 * COUNT / len(parts)
    assert len({len(part) for part in parts}) > 10


def test_parts_are_given_while_entries_come_and_go():
    entries: Mapped[str, int] = {}
    for number in range(COUNT):
        entries = added(entries, str(number), number)
    seen = 0
    for part in in_parts(entries):
        seen += len(part)
        for key in list(part):
            entries.pop(key)
        added(entries, f"new-{seen}", seen)

    assert COUNT <= seen <= 2 * COUNT


def memory_of(table: Table[int, int]) -> int:
    return sum(part.__sizeof__() for part in table.parts.values())


# --- a queue with many of everything ---------------------------------------------------------------------


class Jobs:
    """A queue to which many jobs come."""

    def __init__(self) -> None:
        self.state = QueueState()
        self.members: list[Member] = []

    def submit(self, terms: Callable[[int], Terms] = lambda number: TERMS, **fields: Any) -> None:
        """Submit `COUNT` jobs, each a chunk of its own."""
        for start in range(0, COUNT, 1000):
            numbers = range(start, start + 1000)
            chunks = [NewChunk(2 * each, terms(each), [b""], **fields) for each in numbers]
            assert apply(self.state, c.Submit("o", chunks), Member(), 1.0) == r.Accepted([])

    def submit_with_keys(self) -> None:
        """Submit `COUNT` jobs with keys."""
        for start in range(0, COUNT, 1000):
            chunks = [NewChunk(each, TERMS, [b""], 0.0, f"k{each}") for each in range(start, start + 1000)]
            assert apply(self.state, c.Submit("k", chunks), Member(), 1.0) == r.Accepted([])

    def lease(self) -> list[r.Delivery]:
        """Lease the jobs, a thousand to a member."""
        found: list[r.Delivery] = []
        while True:
            if not self.members or len(self.members[-1].leases) >= 1000:
                self.members.append(Member("plain"))
            grant = apply(self.state, c.Lease(128), self.members[-1], 2.0)
            assert isinstance(grant, r.Grant)
            if not grant.deliveries:
                return found
            found += grant.deliveries

    def end(self, answer: Callable[[r.Delivery], c.Command]) -> None:
        """Lease the jobs, and end each lease by itself."""
        for each in self.lease():
            assert isinstance(apply(self.state, answer(each), Member("plain"), 3.0), r.Done)
            self.state.take_events()
            self.state.result_bytes.clear()


def waiting(jobs: Jobs) -> None:
    jobs.submit()


def of_many_priorities(jobs: Jobs) -> None:
    jobs.submit(lambda number: Terms("m:f", priority=number))


def of_many_tasks(jobs: Jobs) -> None:
    jobs.submit(lambda number: Terms(f"m:f{number}"))


def of_many_codecs(jobs: Jobs) -> None:
    jobs.submit(lambda number: Terms("m:f", codec=f"c{number}"))


def with_keys(jobs: Jobs) -> None:
    jobs.submit_with_keys()


def of_many_origins(jobs: Jobs) -> None:
    for number in range(COUNT):
        apply(jobs.state, c.Submit(f"o{number}", [NewChunk(0, TERMS, [b""])]), Member(), 1.0)


def leased(jobs: Jobs) -> None:
    jobs.submit()
    assert len(jobs.lease()) == COUNT


def succeeded(jobs: Jobs) -> None:
    jobs.submit()
    jobs.end(lambda each: c.Ack(each.token, each.first, [b""], [0.0]))


def answered(jobs: Jobs) -> None:
    jobs.submit(lambda number: Terms("m:f", answer=True))
    jobs.end(lambda each: c.Ack(each.token, each.first, [b"x"], [0.0]))


def dead(jobs: Jobs) -> None:
    jobs.submit(lambda number: Terms("m:f", retries=0))
    jobs.end(lambda each: c.Nack(each.token, each.first, ErrorInfo("E", "no")))
    assert len(jobs.state.ledger.dead) == COUNT


@pytest.mark.parametrize(
    "fill",
    [
        *(waiting, of_many_priorities, of_many_tasks, of_many_codecs, of_many_origins, with_keys),
        *(leased, succeeded, answered, dead),
    ],
)
def test_no_dict_and_no_set_of_a_queue_has_an_entry_for_each(fill: Callable[[Jobs], None]):
    jobs = Jobs()
    fill(jobs)
    large = {place: size for place, size in sizes_in(jobs.state, "state") if size > SETTLED_KEPT}
    assert large == {}


def sizes_in(thing: object, place: str) -> Iterator[tuple[str, int]]:
    """Yield the sizes of the dicts and sets in *thing* and in the parts of svc that it has."""
    seen: set[int] = set()
    waiting: deque[tuple[str, object]] = deque([(place, thing)])
    while waiting:
        place, thing = waiting.popleft()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, (dict, set, OrderedDict)):
            yield place, len(thing)
            if isinstance(thing, dict):
                waiting += ((f"{place}[…]", each) for each in list(thing.values())[:300])
        elif type(thing).__module__.startswith("svc.domain"):
            waiting += ((f"{place}.{name}", getattr(thing, name)) for name in names_of(thing))


def names_of(thing: object) -> list[str]:
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return [name for name in (*slots, *getattr(thing, "__dict__", ())) if hasattr(thing, name)]


def test_the_search_for_large_dicts_sees_through_the_parts_of_a_queue():
    places = {place for place, _ in sizes_in(Jobs().state, "state")}
    assert {"state.ledger.references.parts", "state.leases._by_token.parts", "state.lanes._lanes"} <= places
    assert (Keys.__module__, Leases.__module__) == ("svc.domain.keys", "svc.domain.leases")
