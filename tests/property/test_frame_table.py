"""The table of live rows, against a model that keeps each row by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from svc.server.journal.jetstream.frame_table import SPACE_BYTES, FrameTable, FrameUse
from svc.server.journal.rows import runs_of

SIZE = 1000
#: The rows that a frame adds (some again), and those that it forgets.
STEPS = st.lists(
    st.tuples(
        st.lists(st.integers(1, 40), unique=True, max_size=8),
        st.lists(st.integers(1, 45), max_size=8),
    ),
    max_size=25,
)


class Model:
    """The frames as a stream keeps them: replaying those from *start* on gives the live rows."""

    def __init__(self) -> None:
        self.frames: list[tuple[list[int], list[int]]] = []
        self.start = 0

    def live(self, start: int = 0) -> set[int]:
        rows: set[int] = set()
        for added, forgotten in self.frames[start:]:
            rows.difference_update(forgotten)
            rows.update(added)
        return rows


def grown(table: FrameTable, model: Model, steps: list[tuple[list[int], list[int]]]) -> list[FrameUse]:
    uses = []
    for number, (added, forgotten) in enumerate(steps, start=1):
        use = table.open()
        table.forget(runs_of(sorted(set(forgotten))), number)
        table.add(use, added)
        table.stored(use, number, SIZE)
        model.frames.append((added, forgotten))
        uses.append(use)
    return uses


@given(STEPS)
def test_the_table_knows_the_rows_that_a_replay_gives(steps):
    table, model = FrameTable(), Model()
    grown(table, model, steps)
    live = model.live()
    assert {number for number in range(50) if number in table} == live
    assert table.rows == len(live)
    other = FrameTable()
    other.add(other.open(), sorted(live))
    assert table.digest_bytes() == other.digest_bytes()


@given(STEPS, st.integers(0, 25))
def test_a_purge_changes_nothing_that_a_replay_gives_whenever_it_comes(steps, acknowledged):
    table, model = FrameTable(), Model()
    uses = grown(table, model, steps)
    last, size = table.purgeable(acknowledged)
    assert size == SIZE * last
    assert model.live(last) == model.live()
    assert last <= acknowledged
    assert last < max(1, len(uses)), "the last frame has the term"
    assert table.size == SIZE * (len(uses) - last)
    assert all((number in table) == (number in model.live()) for number in range(50))
    assert table.purgeable(acknowledged) == (0, 0)


@given(STEPS)
def test_rewriting_the_oldest_rows_lets_their_frames_go(steps):
    table, model = FrameTable(), Model()
    grown(table, model, steps)
    live = model.live()
    while oldest := table.oldest(1):
        number = len(model.frames) + 1
        use = table.open()
        table.add(use, oldest)
        table.stored(use, number, SIZE)
        model.frames.append((oldest, []))
        last, _ = table.purgeable(number)
        assert model.live(last) == live
        if last >= len(steps):
            break
    assert {number for number in range(50) if number in table} == live


def test_a_stream_is_worth_a_rewrite_once_most_of_it_is_dead():
    table = FrameTable()
    for number in range(1, 41):
        use = table.open()
        table.add(use, [2 * number, 2 * number + 1])
        table.stored(use, number, SPACE_BYTES // 10)
    assert not table.worth_rewriting()
    table.forget([(4, 81)], 40)
    assert table.worth_rewriting()
    assert table.oldest(1) == [2, 3]
