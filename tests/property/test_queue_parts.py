"""The queue's parts, each under all inputs: retry policy, feeds, lanes, origins, wire and codecs."""

from __future__ import annotations

import contextlib
import enum
import pickle
from typing import Annotated, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from svc import codec, wire
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.events import Submitted
from svc.domain.job import Terms
from svc.domain.lifecycle import JobState
from svc.domain.origins import Completion, Completions, Origin
from svc.domain.retry import RetryPolicy, crash_retry_in
from svc.domain.scheduling.lanes import Lanes
from svc.errors import BadRequest

QUICK = settings(max_examples=60, deadline=None)

DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def chunk(sequence: int, first: int, count: int, *, priority: int = 0, task: str = "m:f") -> Chunk:
    terms = Terms(task, priority=priority)
    return Chunk(sequence, Submitted(float(sequence), "o", first, terms, [b""] * count))


@QUICK
@given(
    st.builds(RetryPolicy, st.integers(0, 50), st.floats(0, 100), st.floats(0, 5000)),
    st.integers(1, 2000),
    st.floats(0, 1, exclude_max=True),
)
def test_a_retry_waits_between_half_and_the_whole_of_the_backoff(policy, failures, jitter):
    wait = policy.retry_in(failures, jitter)

    if failures > policy.retries:
        assert wait is None
    else:
        full = min(policy.backoff * 2.0 ** (failures - 1), policy.max_backoff)
        assert wait is not None
        assert full / 2 <= wait <= full


@QUICK
@given(st.integers(0, 10))
def test_the_crash_budget_is_three(crashes):
    assert crash_retry_in(crashes) == (0.0 if crashes < 3 else None)


def page_of(completions: Completions, cursor: int, limit: int) -> list[Completion]:
    """Return the next entries, until they name *limit* jobs or more."""
    page: list[Completion] = []
    for entry in completions.after(cursor):
        if sum(each.jobs for each in page) >= limit:
            break
        page.append(entry)
    return page


@QUICK
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), max_size=20), st.integers(1, 7), st.data())
def test_a_feed_read_page_by_page_gives_every_entry_once(steps, limit, data):
    """Also if a restart drops the forgotten jobs: the cursor stays good."""
    completions, number = Completions(), 0
    entries = []
    for sequence, (parts, jobs) in enumerate(steps, start=1):
        for part in range(parts):
            completions.append(sequence, part, number, jobs)
            entries.append(Completion(sequence, part, number, jobs))
            number += jobs
    cursor, seen = 0, list[Completion]()
    while page := page_of(completions, cursor, limit):
        assert sum(entry.jobs for entry in page[:-1]) < limit
        seen += page
        cursor = page[-1].cursor
        if data.draw(st.booleans()):
            completions.drop_below(page[-1].first)

    assert seen == entries


@QUICK
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5), st.booleans()), max_size=12))
def test_an_origin_finds_and_knows_exactly_what_it_was_given(pieces):
    origin, known, live = Origin("o"), set[int](), {}
    for sequence, (first, count, forgotten) in enumerate(pieces, start=1):
        numbers = range(first, first + count)
        assert origin.count_known(first, count) == len(known.intersection(numbers))
        if known.intersection(numbers):
            continue
        known.update(numbers)
        added = chunk(sequence, first, count)
        origin.add(added)
        if forgotten:
            origin.remove(added)
        else:
            live.update(dict.fromkeys(numbers, added))

    for number in range(40):
        assert origin.find(number) is live.get(number)
        assert origin.count_known(number, 1) == (number in known)


@QUICK
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(-1, 1)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_lanes_give_each_ready_job_once_by_priority_then_age(sizes, rng):
    lanes, expected, chunks = Lanes(), [], []
    for sequence, (count, priority) in enumerate(sizes, start=1):
        made = chunk(sequence, sequence * 10, count, priority=priority)
        chunks.append(made)
        lanes.push(made, 0, count, 0.0)
        expected += [(-priority, sequence, index) for index in range(count)]
    for made in chunks:
        for index in range(made.count):
            if rng.random() < 0.2:
                made._states[index] = JobState.CANCELLED
                lanes.skip(made, 1)
                expected.remove((-made.terms.priority, made.sequence, index))
    got, given_back = [], False
    while lane := lanes.best((frozenset(("default",)), None, None)):
        span = lanes.take(lane, rng.randint(1, 3))
        if not given_back and rng.random() < 0.3:
            lanes.push(span.chunk, span.start, span.stop, 1.0)
            given_back = True
            continue
        got += [(-lane.terms.priority, span.order, index) for index in range(span.start, span.stop)]

    assert got == sorted(expected)
    assert not lanes.queues


SIMPLE: dict[object, st.SearchStrategy[object]] = {
    int: st.integers(-(1 << 63), (1 << 64) - 1),
    float: st.floats(allow_nan=False),
    str: st.text(max_size=5),
    bytes: st.binary(max_size=5),
    bool: st.booleans(),
    type(None): st.none(),
}


def bounded(kind: object, bounds: msgspec.Meta) -> st.SearchStrategy[object]:
    """Return a strategy for the values that an annotation with bounds allows."""
    if kind is int:
        return st.integers(int(bounds.ge or 0), int(bounds.le or 0))
    if kind is float:
        return st.floats(bounds.ge, bounds.le)
    if kind is str:
        return st.text(min_size=bounds.min_length or 0, max_size=5)
    return values_of(kind)


def values_of(kind: object) -> st.SearchStrategy[object]:
    """Return a strategy for an annotation: something simple, with bounds or not, or made of such things."""
    if get_origin(kind) is Annotated:
        return bounded(*get_args(kind))
    if kind in SIMPLE:
        return SIMPLE[kind]
    arguments = get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind, include_extras=True)
        fields = {field: values_of(hints[field]) for field in kind.__struct_fields__}
        return st.builds(kind, **fields)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    if get_origin(kind) is list:
        return st.lists(values_of(arguments[0]), max_size=2)
    if get_origin(kind) is dict:
        return st.dictionaries(*map(values_of, arguments), max_size=2)
    if get_origin(kind) is tuple:
        return st.tuples(*map(values_of, arguments))
    return st.one_of(*map(values_of, arguments))


COMMANDS = values_of(c.AnyCommand)
REPLIES = values_of(r.AnyReply)


@settings(QUICK, max_examples=40)
@given(st.integers(0, 1 << 60), st.lists(COMMANDS, max_size=4))
def test_every_command_comes_back_and_its_message_is_a_pickle(request, commands):
    message = wire.encode_request(request, commands)[wire.HEADER.size :]
    frame = wire.request_frame(message)

    assert frame is not None
    assert wire.decode_request(frame) == (request, commands)
    assert pickle.loads(message) == ("jobs", "call", (bytes(frame),), {})


@settings(QUICK, max_examples=40)
@given(st.integers(0, 1 << 60), st.lists(REPLIES, max_size=3))
def test_every_reply_comes_back_and_its_message_is_a_pickle(request, replies):
    message = wire.encode_response(request, replies)[wire.HEADER.size :]
    frame = wire.response_frame(message)

    assert frame is not None
    assert wire.decode_response(frame) == (request, replies)
    assert pickle.loads(message) == ("#RETURN", bytes(frame))


@QUICK
@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_fail_otherwise(junk):
    for decode in (wire.decode_request, wire.decode_response):
        with contextlib.suppress(BadRequest):
            decode(junk)


@QUICK
@given(st.lists(DATA, max_size=3), st.dictionaries(st.text(), DATA, max_size=3))
def test_plain_arguments_come_back(args, kwargs):
    encoded = codec.encode_arguments(codec.PLAIN, args, kwargs)

    assert codec.decode_arguments(codec.PLAIN, encoded, (codec.PLAIN,)) == (args, kwargs)


@QUICK
@given(DATA, st.sampled_from(codec.CODECS))
def test_results_come_back(value, name):
    assert codec.decode_result(codec.encode_result(name, value)) == value
