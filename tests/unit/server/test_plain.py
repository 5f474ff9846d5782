"""The calls of plain clients: the meaning of each, and values that must not harm the queue."""

from __future__ import annotations

import math
import queue
from collections.abc import Iterator

import pytest

from svc import codec
from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.codec import encode_arguments
from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.refusals import DISK
from svc.server.journal import SqliteJournal
from svc.server.plain import EXPOSED, SharedObjects
from svc.telemetry.metrics import ManagerMetrics
from tests.support.clock import FakeClock
from tests.support.plain_caller import Caller


@pytest.fixture
def host() -> QueueHost:
    return QueueHost(MemoryJournal(), clock=FakeClock(), limits=Limits(max_queue_jobs=3))


@pytest.fixture
def face(host: QueueHost) -> SharedObjects:
    return SharedObjects(host)


@pytest.fixture
def call(host: QueueHost, face: SharedObjects) -> Iterator[Caller]:
    return Caller(host, face)  # type: ignore[return-value]


@pytest.mark.parametrize(
    "item", [1, "a", b"b", (1, [2, {3}]), {"a": 1}, {"task": 5}, ("m:f",), ("no colon", ())]
)
def test_other_plain_data_comes_out_as_it_went_in(call, item):
    call("tasks", "put", item)

    assert call("tasks", "qsize") == 1
    assert call("tasks", "get") == item


@pytest.mark.parametrize(
    ("item", "job"),
    [
        (("m:f", (1, 2)), ("m:f", (1, 2), {})),
        (("m:f", [1], {"a": 2}), ("m:f", (1,), {"a": 2})),
        ({"task": "m:f", "args": [1], "priority": 3}, ("m:f", (1,), {})),
        ({"task": "m:f", "retries": 2, "timeout": 1, "backoff": 0.5}, ("m:f", (), {})),
    ],
)
def test_a_call_is_a_job(call, item, job):
    call("tasks", "put", item)

    assert call("tasks", "get") == job


@pytest.mark.parametrize("earlier", [False, True])
def test_a_key_does_not_ask_for_an_order_of_keyword_arguments(call, monkeypatch, earlier):
    """A job that an earlier manager took has them as they were written, and is found by that same order."""
    job = {"task": "m:f", "args": [1], "key": "k"}
    with monkeypatch.context() as patch:
        if earlier:
            patch.setattr(codec, "by_name", lambda kwargs: kwargs)
        call("tasks", "put", {**job, "kwargs": {"b": 2, "a": 3}})
    orders = [{"b": 2, "a": 3}] if earlier else [{"b": 2, "a": 3}, {"a": 3, "b": 2}]
    for kwargs in orders:
        call("tasks", "put", {**job, "kwargs": kwargs})
    assert call("tasks", "qsize") == 1
    with pytest.raises(ValueError, match="the key 'k' belongs to a job that has another task or arguments"):
        call("tasks", "put", {**job, "kwargs": {"b": 3, "a": 2}})


def test_task_done_acknowledges_the_oldest_and_complains_when_there_is_none(call):
    call("tasks", "put", 1)
    call("tasks", "put", 2)
    call("tasks", "get")
    call("tasks", "get")
    joined = call.begin("tasks", "join")
    call("tasks", "task_done")
    assert joined == []
    call("tasks", "task_done")

    assert joined == [None]
    with pytest.raises(ValueError, match="too many times"):
        call("tasks", "task_done")


def test_an_empty_queue_raises_empty(call):
    for arguments in ((False,), (True, 0)):
        with pytest.raises(queue.Empty):
            call("tasks", "get", *arguments)
    with pytest.raises(queue.Empty):
        call("results", "get_nowait")


def test_a_full_queue_raises_full(call):
    for number in range(3):
        call("tasks", "put", number)

    assert call("tasks", "full") is True
    for refused in (("put_nowait", 3), ("put", 3, False), ("put", 3, False, 9.0), ("put", 3, True, 0)):
        with pytest.raises(queue.Full):
            call("tasks", *refused)


def test_a_waiting_get_is_answered_by_the_next_put(call):
    waiting = call.begin("tasks", "get")
    assert waiting == []
    call("tasks", "put", "x")

    assert waiting == ["x"]


def test_what_a_gone_client_held_goes_back(host, face, call):
    call("tasks", "put", "x")
    other = Caller(host, face)
    assert other("tasks", "get") == "x"
    host.disconnected(other.member)

    assert call("tasks", "get", True, 1) == "x"


@pytest.mark.parametrize(
    "item",
    [
        {"task": "m:f", "retries": "three"},
        {"task": "m:f", "timeout": [1]},
        {"task": "m:f", "backoff": {}},
        {"task": "m:f", "priority": math.inf},
        {"task": "m:f", "priority": 10**30},
        {"task": "m:f", "retries": 10**30},
        {"task": "m:f", "timeout": 10**400},
        {"task": "m:f", "delay": "soon"},
        {"task": "m:\ud800"},
        {"task": "m:f", "queue": "\ud800"},
        {"task": "m:f", "key": "\ud800"},
        {"task": "m:f", "kwargs": {"\ud800": 1}},
        {"task": "m:f", "args": 5},
        {"task": "m:f", "kwargs": [1]},
        {"task": "#pill"},
        {"task": "m:f", "queue": "#results"},
        ("m:f", ({1, 2}, object)),
    ],
)
def test_a_job_that_makes_no_sense_is_refused_and_the_journal_stays_readable(tmp_path, item):
    """One such value, once in the journal, would keep the manager from ever starting again."""
    path = tmp_path / "journal.db"
    host = QueueHost(SqliteJournal.open(path, "os"))
    caller = Caller(host, SharedObjects(host))

    try:
        with pytest.raises((ValueError, TypeError)):
            caller("tasks", "put", item)
    finally:
        host.close()

    again = QueueHost(SqliteJournal.open(path, "os"))
    assert again.recovered_jobs == 0
    again.close()


@pytest.mark.parametrize("timeout", [-1, "soon", [], 10**400, math.nan, math.inf, -math.inf, 2**70])
def test_a_timeout_that_makes_no_sense_is_refused(call, timeout):
    for typeid in ("tasks", "results"):
        with pytest.raises(ValueError, match="timeout"):
            call(typeid, "get", True, timeout)
    with pytest.raises(ValueError, match="timeout"):
        call("jobs", "result", "o-0", timeout)


ODD_FIELDS = [
    {"retries": -(2**63) - 1},
    {"retries": -1},
    {"retries": 2**53},
    {"retries": math.inf},
    {"priority": 2**70},
    {"priority": -(2**53)},
    {"priority": math.nan},
    {"delay": math.nan},
    {"delay": math.inf},
    {"delay": 10**400},
    {"backoff": -1.0},
    {"backoff": math.nan},
    {"timeout": math.inf},
    {"timeout": -(10**400)},
    {"queue": "\ud800"},
    {"queue": ""},
    {"queue": "q" * 201},
    {"queue": "a\nb"},
    {"queue": "#results"},
    {"queue": 5},
    {"task": "\udfff:f"},
    {"task": "m:f" * 100},
    {"key": "\ud800"},
    {"key": ""},
    {"key": "k" * 201},
    {"key": 7},
]


@pytest.mark.parametrize("odd", ODD_FIELDS, ids=lambda odd: ascii(odd)[:30])
def test_a_put_out_of_bounds_is_a_value_error_and_leaves_nothing_behind(host, call, odd):
    with pytest.raises(ValueError, match=r".+"):
        call("tasks", "put", {"task": "a:b", **odd})

    assert host.state.ledger.counts == {}
    call("tasks", "put", {"task": "a:b"})
    assert [chunk.id(0) for chunk in host.state.ledger.chunks.values()] == ["put1-0"]


@pytest.mark.parametrize("task", ["\ud800", "", "x" * 201, "#item", "a\0b", 5, None])
def test_a_submit_of_an_odd_task_leaves_nothing_behind(host, call, task):
    with pytest.raises(ValueError, match="cannot name a task"):
        call("jobs", "submit", task)

    assert host.state.ledger.counts == {}
    assert call("jobs", "submit", "a:b") == "put1-0"


@pytest.mark.parametrize("name", ["\ud800", "q" * 1_000_000, "a\nb", "never seen"])
def test_a_refused_put_leaves_no_label_and_the_metrics_stay_readable(name):
    metrics = ManagerMetrics()
    host = QueueHost(MemoryJournal(), observer=metrics)
    caller = Caller(host, SharedObjects(host))
    host.state.refuse(DISK, on=True)

    for _ in range(2):
        with pytest.raises((queue.Full, ValueError)):
            caller("tasks", "put", {"task": "a:b", "queue": name})

    text = "".join(metrics.collect(host.totals()))
    assert text.encode()
    assert name not in text


@pytest.mark.parametrize("args", [(), (2,)])
def test_a_put_with_a_key_of_others_tells_nothing_of_their_jobs(host, call, args):
    victim = NewChunk(0, Terms("a:b"), [encode_arguments("plain", (1,), {})], key="k")
    host.call([c.Submit("k3v9x0m2q7w1z", [victim])], Member(), lambda replies: None)

    with pytest.raises(ValueError, match="belongs to a job") as raised:
        call("tasks", "put", {"task": "a:b", "args": args, "key": "k"})

    assert "k3v9x0m2q7w1z" not in str(raised.value)


@pytest.mark.parametrize("job", ["o-0" * 100, "\ud800-0", "put1-00", "put1-", "", "put1-9" + "9" * 15])
def test_an_odd_id_is_the_callers_error(call, job):
    call("jobs", "submit", "a:b")

    for method in ("show", "result"):
        with pytest.raises((KeyError, ValueError)):
            call("jobs", method, job)


def test_only_what_is_exposed_can_be_called(call):
    for typeid, method in (("tasks", "_put"), ("tasks", "__init__"), ("jobs", "put"), ("nobody", "get")):
        with pytest.raises(AttributeError):
            call(typeid, method)


def test_wrong_arguments_are_a_type_error(call):
    with pytest.raises(TypeError):
        call("tasks", "put")
    with pytest.raises(TypeError):
        call("tasks", "get", nonsense=1)


def test_a_result_that_was_put_is_taken_once(call):
    call("results", "put", {"a": (1, 2)})

    assert call("results", "qsize") == 1
    assert call("results", "get") == {"a": (1, 2)}
    assert call("results", "empty") is True


def test_every_exposed_method_exists(face):
    for typeid, methods in EXPOSED.items():
        for method in methods:
            assert method == "call" or callable(getattr(face, f"_{typeid}_{method}"))


def nested(depth: int) -> list[object]:
    """Return lists in lists."""
    inner: list[object] = []
    for _ in range(depth):
        inner = [inner]
    return inner


ODD: list[object] = [
    None, True, -1, 1 << 70, math.inf, math.nan, "", "m:f", "\ud800", "#pill", b"x", (), ("m:f", 1),
    ("m:f", (1j,)), ("m:f", (1 << 70,)), ("m:f", ("\ud800",)), ("m:f", (), {1: 2}), ["m:f"], {}, {"task": 1},
    {"task": "m:f", "args": 3}, {"task": "m:f", "key": 1, "delay": "x"},
    {"task": "m:f", "priority": math.inf}, {1, 2}, 1j, nested(60),
]  # fmt: skip


@pytest.mark.parametrize("typeid", EXPOSED)
def test_no_argument_of_a_call_ends_the_manager(typeid: str):
    """The sender gets the error: an exception that leaves this module would end the loop."""
    for method in set(EXPOSED[typeid]) - {"call"}:  # frames do not come this way
        for args in [(), *((odd,) for odd in ODD), *((odd, other) for odd in ODD[:8] for other in ODD)]:
            host = QueueHost(MemoryJournal(), clock=FakeClock())
            Caller(host, SharedObjects(host)).begin(typeid, method, *args)


@pytest.mark.parametrize("body", [b"\xc1", b"\xa1x", b""])
def test_a_body_that_is_not_what_its_codec_says_is_given_out_as_it_is(host, call, body):
    """Whoever may submit could otherwise end the manager with one job, again and again."""
    terms = Terms("m:f")
    host.call([c.Submit("o", [NewChunk(0, terms, [body])])], Member(), lambda replies: None)
    assert call("tasks", "get") == {"id": "o-0", "task": "m:f", "codec": "plain", "body": body}


KINDS: tuple[object, ...] = (
    [],
    {},
    (),
    None,
    True,
    -1,
    1 << 70,
    float("nan"),
    "",
    "o-0",
    b"x",
    {1},
    ("m:f", [], {}),
    {"task": "m:f"},
)
# `jobs.call` never gets there: it is the frames of our own clients.
CALLS = [(typeid, method) for typeid, methods in EXPOSED.items() for method in methods if method != "call"]


@pytest.mark.parametrize(("typeid", "method"), CALLS, ids=[".".join(call) for call in CALLS])
def test_arguments_of_any_kind_and_number_are_answered_and_harm_nobody(host, face, typeid, method):
    """`jobs.show([])` once ended the manager: the fuzzer's finding, for every call and kind."""
    one = [(value,) for value in KINDS]
    two = [(value, other) for value in KINDS for other in KINDS]
    for args in [(), *one, *two, (1,) * 9]:
        Caller(host, face).begin(typeid, method, *args)
        Caller(host, face).begin(typeid, method, *args[:1], timeout=args[-1] if args else "soon")
        Caller(host, face).begin(typeid, method, **{"no such": args})
    assert Caller(host, face)("tasks", "qsize") is not None


@pytest.mark.parametrize(
    "name", ["args", "kwargs", "queue", "priority", "retries", "backoff", "timeout", "delay", "key"]
)
def test_a_job_with_a_field_of_any_kind_is_answered_and_harms_nobody(host, face, name):
    for value in KINDS:
        Caller(host, face).begin("tasks", "put", {"task": "m:f", name: value})
    assert Caller(host, face)("tasks", "qsize") is not None
