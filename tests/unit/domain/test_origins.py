"""Which numbers of an origin were accepted before: short ways for the usual cases, and the others."""

from __future__ import annotations

import pytest

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
