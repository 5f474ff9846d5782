"""Stock clients are sent plain data alone, whoever made the job and whatever its codec (threat T6)."""

from __future__ import annotations

import itertools
import pickle
from functools import partial
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

import pytest

from svc.broker.journal import Journal
from svc.domain import commands as c
from svc.domain import names
from svc.domain import replies as r
from svc.domain.job import ITEM_CODEC, NewChunk, Terms
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.server.journal import SqliteJournal
from svc.server.pickle_scan import loads_plain
from svc.wire import PROTOCOL_VERSION, with_header
from tests.support.asking import ack_of, lease_one
from tests.support.hostile_pickles import Call
from tests.support.manager import RunningManager, running_manager
from tests.support.stranger import Stranger

CODECS = (*names.CODECS, names.TYPED, names.LARGE, ITEM_CODEC, "", "other")
#: Those whose jobs may come to a stock client.
GIVEN = tuple(codec for codec in CODECS if codec != names.LARGE)
#: The ways to take an entry that do not wait for ever: method, arguments and keywords.
GETS: dict[str, tuple[str, tuple[object, ...], dict[str, object]]] = {
    "get_nowait()": ("get_nowait", (), {}),
    "get(False)": ("get", (False,), {}),
    "get(block=False)": ("get", (), {"block": False}),
    "get(timeout=60)": ("get", (), {"timeout": 60}),
    "get(True, 60.0)": ("get", (True, 60.0), {}),
}
#: The most that a job may carry.
HUGE = 16 * 1024 * 1024


def bodies(canary: Path) -> dict[str, bytes]:
    """Return bytes that no client may get as a pickle."""
    touch = pickle.dumps(Call(Path.touch, canary))
    return {
        "writes a file": touch,
        "writes a file, protocol 0": pickle.dumps(Call(Path.touch, canary), protocol=0),
        "writes a file, after an object": b"\x80\x03N0" + touch[2:],
        "two pickles": b"\x80\x03N." + touch,
        "truncated": pickle.dumps([1, 2, 3], protocol=3)[:-2],
        "a frame that is too long": b"\x80\x05\x95\xff" + b"\0" * 7 + b"](NNe.",
        "a key that cannot be one": b"\x80\x03}]Ns.",
        "no text": b"\x80\x03X\x01\0\0\0\xff.",
        "an odd number of items": b"\x80\x03}(NNNu.",
        "huge, and writes a file": pickle.dumps((b"x" * (HUGE // 2), Call(Path.touch, canary)), protocol=3),
        "very many objects": b"\x80\x03]" + b"(}e" * (HUGE // 16) + b".",
        "very many mappings": b"\xdd" + (HUGE // 2).to_bytes(4, "big") + b"\x80" * (HUGE // 2),
        "deep": b"\x91" * 5000 + b"\xc0",
        "a point in time of no length": b"\xd4\xff\0",
        "a point in time after all": b"\xc7\x0c\xff" + b"\xff" * 12,
    }


class Victim(Stranger):
    """A stock client that shows the bytes of a reply before they are unpickled."""

    def ask(self, typeid: str, method: str, *args: object, **kwds: object) -> object:
        self.call(typeid, method, *args, **kwds)
        return self.answer()

    def call(self, typeid: str, method: str, *args: object, **kwds: object) -> None:
        self.send(with_header(pickle.dumps((typeid, method, args, kwds), protocol=5)))

    def answer(self) -> object:
        match loads_plain(self.receive()):
            case ("#RETURN", value):
                return value
        pytest.fail("the call raised")


class StockClient(BaseManager):
    """An unmodified client, which unpickles each reply."""


StockClient.register("tasks")
StockClient.register("results")


class Planted:
    """Jobs put in from inside, as somebody could write them into the journal: nothing is refused there."""

    def __init__(self, manager: RunningManager, tmp_path: Path) -> None:
        self.manager = manager
        self.canary = tmp_path / "canary"
        self.bodies = bodies(self.canary)
        self._numbers = itertools.count()

    def plant(self, terms: Terms, *contents: bytes) -> str:
        """Return the id of the first of jobs with *contents*."""
        origin, inside = f"planted{next(self._numbers)}", Member("plain", inside=True)
        is_large = terms.codec == names.LARGE
        if is_large:
            asked(self.manager, inside, c.StorePiece(origin, 0, 1, 1, 0, b"x"))
        submit = c.Submit(origin, [NewChunk(0, terms, list(contents), large=[1] if is_large else [])])
        assert asked(self.manager, inside, submit) == r.Accepted([])
        return f"{origin}-0"

    def run(self, terms: Terms, result: bytes) -> str:
        """Plant a job, and acknowledge it with *result* by a key for `work`."""
        job = self.plant(terms, b"\x92\x90\x80")
        hello = c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=[terms.task], accept=[terms.codec])
        with self.manager.broker(lambda: hello) as consumer:
            delivery = lease_one(consumer)
            consumer.call([ack_of(delivery, result)])
        return job


@pytest.fixture
def planted(tmp_path):
    with running_manager() as manager:
        yield Planted(manager, tmp_path)


@pytest.fixture
def victim(planted):
    with Victim(planted.manager.endpoint) as stranger:
        stranger.serve(planted.manager.authkey)
        yield stranger


def is_told_apart(value: object, job: str, codec: str) -> bool:
    """Return whether *value* names a job and its codec, in place of the job's content."""
    return isinstance(value, dict) and (value["id"], value["codec"]) == (job, codec)


@pytest.mark.parametrize("codec", GIVEN)
@pytest.mark.parametrize("task", ["m:f", "#item"])
def test_a_task_that_is_no_plain_data_goes_out_as_its_id_and_codec(planted, victim, task, codec):
    for name, body in planted.bodies.items():
        job = planted.plant(Terms(task, codec=codec), body)
        assert is_told_apart(victim.ask("tasks", "get"), job, codec), name
    assert not planted.canary.exists()


@pytest.mark.parametrize("codec", GIVEN)
def test_an_item_of_results_that_is_no_plain_data_goes_out_as_its_id_and_codec(planted, victim, codec):
    for name, body in planted.bodies.items():
        job = planted.plant(Terms("#item", "#results", codec=codec), body)
        value = victim.ask("results", "get")
        assert is_told_apart(value, job, "item"), name
    assert not planted.canary.exists()


def of_code(planted: Planted) -> list[bytes]:
    """Return the pickles that would write a file."""
    return [body for name, body in planted.bodies.items() if "writes a file" in name and "huge" not in name]


@pytest.mark.parametrize("get", GETS)
@pytest.mark.parametrize("codec", GIVEN)
@pytest.mark.parametrize("task", ["m:f", "#item"])
def test_no_other_way_to_take_a_task_gives_a_pickle_that_was_not_scanned(planted, victim, task, codec, get):
    method, args, kwds = GETS[get]
    for body in of_code(planted):
        job = planted.plant(Terms(task, codec=codec), body)
        assert is_told_apart(victim.ask("tasks", method, *args, **kwds), job, codec)
    assert not planted.canary.exists()


@pytest.mark.parametrize("get", GETS)
@pytest.mark.parametrize("codec", CODECS)
def test_no_other_way_to_take_a_result_gives_a_pickle_that_was_not_scanned(planted, victim, codec, get):
    method, args, kwds = GETS[get]
    for body in of_code(planted):
        job = planted.run(Terms("m:f", codec=codec, answer=True), body)
        assert is_told_apart(victim.ask("results", method, *args, **kwds), job, codec)
        if codec != names.LARGE:
            job = planted.plant(Terms("#item", "#results", codec=codec), body)
            assert is_told_apart(victim.ask("results", method, *args, **kwds), job, "item")
    assert not planted.canary.exists()


@pytest.mark.parametrize("get", ["get(timeout=60)", "get(True, 60.0)"])
@pytest.mark.parametrize("codec", GIVEN)
def test_a_get_that_waited_gives_no_pickle_that_was_not_scanned(planted, victim, codec, get):
    method, args, kwds = GETS[get]
    kinds = [
        ("tasks", Terms("m:f", codec=codec), codec),
        ("tasks", Terms("#item", codec=codec), codec),
        ("results", Terms("#item", "#results", codec=codec), "item"),
    ]
    for (typeid, terms, told), body in itertools.product(kinds, of_code(planted)):
        victim.call(typeid, method, *args, **kwds)
        planted.manager.until(lambda: bool(planted.manager.host._waiters.all))
        job = planted.plant(terms, body)
        assert is_told_apart(victim.answer(), job, told)
    assert not planted.canary.exists()


@pytest.mark.parametrize("get", GETS)
def test_an_unmodified_client_runs_nothing_whichever_way_it_takes_an_entry(planted, get):
    method, args, kwds = GETS[get]
    client: Any = StockClient(planted.manager.endpoint, planted.manager.authkey)
    client.connect()
    tasks, results = client.tasks(), client.results()
    for codec, body in itertools.product(GIVEN, of_code(planted)):
        jobs = [planted.plant(Terms(task, codec=codec), body) for task in ("m:f", "#item")]
        jobs += [planted.plant(Terms("#item", "#results", codec=codec), body)]
        given = [getattr(queue, method)(*args, **kwds) for queue in (tasks, tasks, results)]
        assert [each["id"] for each in given] == jobs
    assert not planted.canary.exists()


def asked(manager: RunningManager, member: Member, command: c.Command) -> Any:
    """Return the reply to a command of a member that the manager's loop serves."""
    replies: list[Any] = []
    manager.server.ask(lambda: manager.host.call([command], member, replies.extend)).result(10)
    manager.until(lambda: bool(replies))
    return replies[0]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("call", ["results.get", "jobs.result"])
def test_a_result_that_is_no_plain_data_goes_out_as_its_id_and_codec(planted, victim, call, codec):
    for name, body in planted.bodies.items():
        job = planted.run(Terms("m:f", codec=codec, answer=True), body)
        value = victim.ask("results", "get") if call == "results.get" else victim.ask("jobs", "result", job)
        assert is_told_apart(value, job, codec), name
    assert not planted.canary.exists()


@pytest.mark.parametrize(
    ("typeid", "large"),
    [
        ("tasks", Terms("m:f", codec=names.LARGE)),
        ("tasks", Terms("#item", codec=names.LARGE)),
        ("results", Terms("#item", "#results", codec=names.LARGE)),
    ],
)
def test_a_job_with_large_arguments_is_given_to_no_stock_client(planted, victim, typeid, large):
    planted.plant(large, planted.bodies["writes a file"])
    victim.ask(typeid, "put", [1])
    assert victim.ask(typeid, "get") == [1]


@pytest.mark.parametrize("codec", GIVEN)
def test_an_item_acknowledged_with_a_pickle_goes_out_as_its_id_and_codec(planted, victim, codec):
    """Its outcome is known for as long as there is another item of the same chunk."""
    item = b"\x80\x03N."
    for name, body in planted.bodies.items():
        job = planted.plant(Terms("#item", codec=codec), item, item)
        # A stock connection may hold an item, and may send frames as well.
        ask = partial(asked, planted.manager, Member("plain"))
        ask(ack_of(ask(c.Lease()).deliveries[0], body))
        assert is_told_apart(victim.ask("jobs", "result", job), job, codec), name
        ask(ack_of(ask(c.Lease()).deliveries[0], b""))
    assert not planted.canary.exists()


def test_rows_planted_in_the_journal_go_out_as_ids_and_codecs(tmp_path):
    def journal() -> Journal:
        return SqliteJournal.open(tmp_path / "journal", "os")

    with running_manager(journal()) as manager:
        planted = Planted(manager, tmp_path)
        bodies = planted.bodies.values()
        answers = [planted.run(Terms("m:f", codec="item", answer=True), body) for body in bodies]
        items = [planted.plant(Terms("#item", codec="item"), body) for body in bodies]
        results = [planted.plant(Terms("#item", "#results", codec="item"), body) for body in bodies]
    limits = Limits(reconnect_seconds=0.0)
    with running_manager(journal(), limits) as manager, Victim(manager.endpoint) as victim:
        victim.serve(manager.authkey)
        for job in items:
            assert is_told_apart(victim.ask("tasks", "get"), job, "item")
        for job in [*answers, *results]:
            assert is_told_apart(victim.ask("results", "get"), job, "item")
        for job in answers:
            assert is_told_apart(victim.ask("jobs", "result", job), job, "item")
    assert not planted.canary.exists()


@pytest.mark.parametrize(
    "time", [b"\xd6\xff" + b"\0" * 4, b"\xd7\xff" + b"\0" * 8, b"\xc7\x0c\xff" + b"\0" * 12]
)
def test_a_point_in_time_goes_out_as_text_and_names_no_class(planted, victim, time):
    """MessagePack has points in time of its own, so no codec and no hook stands in their way."""
    text = "1970-01-01T00:00:00+00:00"
    within_a_tuple = b"\xc7" + bytes((len(time) + 1, 1, 0x91)) + time
    for result, got in ((time, text), (b"\x91" + time, [text]), (within_a_tuple, (text,))):
        for used in (names.CODECS[0], names.TYPED):
            job = planted.run(Terms("m:f", codec=used, answer=True), result)
            assert victim.ask("jobs", "result", job) == got
            assert victim.ask("results", "get") == got
            planted.plant(Terms("m:f", codec=used), b"\x92\x91" + result + b"\x80")
            assert victim.ask("tasks", "get") == ("m:f", (got,), {})
            assert victim.ask("tasks", "task_done") is None


@pytest.mark.parametrize(
    "item",
    [None, 1, "text", b"bytes", bytearray(b"a"), {1, "a"}, frozenset({2}), [1, [2.5, {}]], ("a", {"b": ()})],
)
def test_plain_data_goes_through_both_queues_as_it_is(planted, victim, item):
    victim.ask("results", "put", item)
    assert victim.ask("results", "get") == item
    victim.ask("tasks", "put", [item])
    assert victim.ask("tasks", "get") == [item]


def test_as_much_as_a_message_may_hold_goes_through_both_queues(planted, victim):
    """An accepted item can be taken, although the manager's own pickle of it has more opcodes."""
    items: list[object] = [[number / 8 for number in range(100_000)]]
    items += [[f"{number:06}" for number in range(100_000)], {str(key): key for key in range(50_000)}]
    for item in items:
        victim.ask("results", "put", item)
        assert victim.ask("results", "get") == item
        victim.ask("tasks", "put", item)
        assert victim.ask("tasks", "get") == item
