"""The fuzzer of typed commands finds deliberate faults, and can run a story again."""

from __future__ import annotations

import contextlib
import logging
import pickle
import random
from typing import Annotated

import msgspec
import pytest
import structlog
from msgspec import inspect

from svc.broker import durable_state
from svc.domain import commands as c
from svc.domain import membership, settlement, upkeep
from svc.domain.apply import HANDLERS, READERS
from svc.domain.events import Failed
from svc.domain.job import SHELL
from svc.domain.lifecycle import JobState
from svc.domain.names import CODECS, LARGE, TYPED
from svc.domain.queue_state import QueueState
from svc.domain.replay import replay
from svc.domain.roles import Role
from svc.server import msgpack_scan, plain_calls
from svc.server.plain import EXPOSED
from tests.fuzz import author, commands, oracle
from tests.fuzz.scene import Scene
from tests.fuzz.steps import Call, Connect, Frame, Story, Typed
from tests.fuzz.values import Values

#: Steps within which a deliberate fault is found; mostly it takes some hundreds.
STEPS_MAX = 60_000


@pytest.fixture(scope="module", autouse=True)
def quiet():
    """Drop a manager's log lines about refused calls."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


def a_handler_drops_a_count(monkeypatch):
    cancel = HANDLERS[c.Cancel]

    def forgetful(state, command, member, now):
        reply = cancel(state, command, member, now)
        for counts in state.ledger.counts.values():
            counts._by_state[JobState.CANCELLED] = 0
        return reply

    monkeypatch.setitem(HANDLERS, c.Cancel, forgetful)


def a_settled_lease_stays(monkeypatch):
    monkeypatch.setattr(QueueState, "end_lease", lambda state, lease: None)


def whoever_goes_keeps_the_jobs(monkeypatch):
    for module in (membership, settlement, upkeep):
        monkeypatch.setattr(module, "give_back_all", lambda *arguments, **named: 0)


def ready_jobs_are_in_no_lane(monkeypatch):
    make_ready = QueueState.make_ready

    def lazy(state, chunk, start, stop, now):
        make_ready(state, chunk, start, stop - 1 if stop - start > 1 else stop, now)

    monkeypatch.setattr(QueueState, "make_ready", lazy)


def a_replay_leaves_failures_out(monkeypatch):
    def forgetful(ledger, sequence, event):
        if not isinstance(event, Failed):
            replay(ledger, sequence, event)

    monkeypatch.setattr(durable_state, "replay", forgetful)


def a_handler_cannot_take_a_number(monkeypatch):
    feed = READERS[c.Feed]

    def fragile(state, command, room, now):
        return feed(state, command, room, now + 0 // (command.limit - 8))

    monkeypatch.setitem(READERS, c.Feed, fragile)


def an_answer_names_a_function(monkeypatch):
    monkeypatch.setattr(plain_calls, "reply_bytes", lambda value: pickle.dumps(("#RETURN", print)))


def a_point_in_time_is_no_text(monkeypatch):
    examine = msgpack_scan.examine

    def forgetful(body):
        examine(body)
        return body

    monkeypatch.setattr(msgpack_scan, "examine", forgetful)


def a_request_is_looked_for_for_ever(monkeypatch):
    monkeypatch.setattr(oracle, "HANG_SECONDS", 0.5)
    feed = READERS[c.Feed]

    def endless(state, command, room, now):
        while command.limit == 8:
            pass
        return feed(state, command, room, now)

    monkeypatch.setitem(READERS, c.Feed, endless)


#: Deliberate faults, and the kind of failure that shows each.
FAULTS = {
    a_handler_drops_a_count: "the counts of a queue",
    a_settled_lease_stays: "a lease is empty",
    whoever_goes_keeps_the_jobs: "leases outlive",
    ready_jobs_are_in_no_lane: "the lanes do not hold",
    a_replay_leaves_failures_out: "differ",
    a_handler_cannot_take_a_number: "ZeroDivisionError",
    an_answer_names_a_function: "answer names",
    a_point_in_time_is_no_text: "answer names",
    a_request_is_looked_for_for_ever: "has not ended",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_that_is_put_in_is_found(fault, monkeypatch):
    fault(monkeypatch)
    tally = commands.Tally()
    kinds = set()
    while tally.steps < STEPS_MAX:
        failure = commands.tell(f"fault-{tally.stories}", tally)
        if failure is not None:
            kinds.add(failure.kind)
            if FAULTS[fault] in failure.kind:
                return
    pytest.fail(f"{tally.steps} steps found only {kinds}")


def test_a_failed_story_fails_again_when_it_is_read_from_its_file_and_with_fewer_steps(monkeypatch, tmp_path):
    a_handler_cannot_take_a_number(monkeypatch)
    tally = commands.Tally()
    failure = None
    while failure is None or "ZeroDivisionError" not in failure.kind:
        failure = commands.tell(f"again-{tally.stories}", tally)
    short = commands.shortened(failure)
    short.story.save(tmp_path / "story")
    again = commands.retell(Story.load(tmp_path / "story"))
    assert again is not None
    assert again.kind == short.kind == failure.kind
    assert [type(step) for step in short.story.steps] in ([Connect, Frame], [Connect, Typed])
    assert "Feed" in (tmp_path / "story.txt").read_text()


def told(seed):
    """Yield the steps of one story, each before it runs."""
    with Scene(seed) as scene:
        writer = author.Author(scene, random.Random(seed))
        for _ in range(200):
            step = writer.step()
            yield step
            scene.tell(step)


def test_the_same_seed_tells_the_same_story():
    assert [repr(step) for step in told("same")] == [repr(step) for step in told("same")]


@pytest.fixture(scope="module")
def steps():
    """Return the steps of 40 stories."""
    steps = []
    for number in range(40):
        with contextlib.suppress(Exception):  # findings are the business of the fuzzer itself
            steps += told(f"every-{number}")
    return steps


def test_every_command_and_every_call_is_told(steps):
    asked = {type(command) for step in steps for command in getattr(step, "commands", ())}
    called = {(step.typeid, step.method) for step in steps if isinstance(step, Call)}
    assert asked == set(c.COMMANDS)
    assert called == {(typeid, name) for typeid, names in EXPOSED.items() for name in names} - {
        ("jobs", "call")
    }


def test_every_role_arrives_and_shell_commands_and_typed_jobs_are_submitted(steps):
    commands = [command for step in steps for command in getattr(step, "commands", ())]
    chunks = [chunk for command in commands if isinstance(command, c.Submit) for chunk in command.chunks]
    assert {step.role for step in steps if isinstance(step, Connect)} == set(Role)
    assert {SHELL, "m:f"} <= {chunk.terms.task for chunk in chunks}
    assert {*CODECS, TYPED, LARGE} <= {chunk.terms.codec for chunk in chunks}
    assert any(b"\xd6\xff" in body for chunk in chunks for body in chunk.bodies)


def test_a_field_that_is_new_gets_values_of_its_type_and_one_of_a_new_type_is_an_error():
    class Newer(msgspec.Struct):
        unheard_of: list[int | None]
        limited: Annotated[int, msgspec.Meta(le=7)] = 0

    class Strange(msgspec.Struct):
        fields: dict[str, int]

    values = Values(random.Random(1))
    values.oddity = 1.0
    made = [values.of(inspect.type_info(Newer), "", {}) for _ in range(200)]
    assert {type(each) for one in made for each in one.unheard_of} == {int, type(None)}
    assert {6, 7, 8} <= {one.limited for one in made}
    with pytest.raises(TypeError, match="teach the fuzzer DictType, for 'fields'"):
        values.of(inspect.type_info(Strange), "", {})
