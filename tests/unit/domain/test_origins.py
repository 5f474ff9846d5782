"""Which numbers of an origin were accepted before: short ways for the usual cases, and the others."""

from __future__ import annotations

import random

import pytest

from svc.domain import origins
from svc.domain.chunk import Chunk
from svc.domain.events import Submitted
from svc.domain.job import Terms
from svc.domain.origins import Origin


def chunk_of(first: int, count: int) -> Chunk:
    return Chunk(first + 1, Submitted(0.0, "o", first, Terms("m:f"), [b""] * count))


@pytest.fixture
def origin() -> Origin:
    """Numbers 0 to 2 are forgotten, 5 to 7 are kept."""
    origin = Origin("o")
    gone = chunk_of(0, 3)
    origin.add(gone)
    origin.remove(gone)
    origin.add(chunk_of(5, 3))
    return origin


@pytest.mark.parametrize(
    ("first", "count", "known"), [(8, 4, 0), (7, 4, 1), (3, 2, 0), (0, 9, 6), (2, 1, 1), (4, 2, 1)]
)
def test_numbers_that_were_accepted_before_are_counted(origin, first, count, known):
    assert origin.count_known(first, count) == known


def test_what_is_forgotten_behind_all_else_is_still_counted():
    origin = Origin("o")
    origin.note_forgotten([(0, 4)])

    assert origin.count_known(3, 2) == 1
    assert origin.count_known(4, 2) == 0


def test_ranges_that_an_event_has_do_not_grow_with_the_origin():
    origin = Origin("o")
    origin.note_forgotten([(0, 1)])
    recorded = origin.forgotten
    origin.note_forgotten([(1, 2)])

    assert (recorded, origin.forgotten) == ([(0, 1)], [(0, 2)])


@pytest.mark.parametrize("seed", range(20))
def test_an_origin_in_blocks_finds_what_one_list_of_its_chunks_finds(seed, monkeypatch):
    monkeypatch.setattr(origins, "BLOCK_CHUNKS", 2)
    kept: dict[int, Chunk] = {}
    origin, chance = Origin("o"), random.Random(seed)
    for _ in range(200):
        first = 3 * chance.randrange(40)
        if first in kept:
            origin.remove(kept.pop(first))
        else:
            kept[first] = chunk_of(first, 2)
            origin.add(kept[first])
        low, high = sorted((chance.randrange(125), chance.randrange(125)))

        in_order = [kept[number] for number in sorted(kept)]
        assert [chunk for block in (*origin.blocks, origin.chunks) for chunk in block] == in_order
        assert all(origin.blocks)
        assert bool(origin.chunks) is bool(kept)
        assert all(len(block) < 4 for block in (*origin.blocks, origin.chunks))
        assert origin.find(low) is kept.get(low - low % 3 if low % 3 < 2 else -1)
        found = [(max(low, each), min(high, each + 2)) for each in sorted(kept)]
        assert [place[1:] for place in origin.overlaps(low, high)] == [
            (begin, end) for begin, end in found if begin < end
        ]


@pytest.mark.parametrize("step", [1, -1])
def test_no_list_of_a_million_chunks_is_moved_for_one(step):
    """To insert 1,024 chunks in front of a million took 0.35 s of one turn."""
    origin = Origin("o")
    for number in range(20_000)[::step]:
        origin.add(chunk_of(2 * number, 1))
    assert max(map(len, (*origin.blocks, origin.chunks))) < 2 * origins.BLOCK_CHUNKS
    assert len(origin.blocks) > 1
