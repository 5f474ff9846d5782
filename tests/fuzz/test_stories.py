"""Findings of the fuzzer of typed commands: each story failed once, and has only the necessary steps."""

from __future__ import annotations

import logging

import pytest
import structlog

from svc.domain import commands as c
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.roles import Role
from tests.fuzz.commands import retell
from tests.fuzz.steps import (
    Call,
    Connect,
    Desert,
    Frame,
    HangUp,
    Pass,
    Restart,
    Review,
    Silence,
    Step,
    Story,
    Turn,
)  # fmt: skip

ERROR = ErrorInfo("ValueError", "no")
FIRST_TOKEN = (1 << 40) + 1
ADMIN, WORKER = 1, 2
BEGIN = (Connect(ADMIN, Role.ADMIN), Connect(WORKER, Role.WORK))
END = (Review(), Restart(committed=True), Desert(), Review())


def submit(origin: str, first: int = 0, jobs: int = 1, key: str = "", **terms: object) -> Frame:
    """Return the step that submits jobs."""
    chunk = NewChunk(first, Terms("m:f", **terms), [b"\x92\x90\x80"] * jobs, 0.0, key)  # type: ignore[arg-type]
    return Frame(ADMIN, (c.Submit(origin, [chunk]),))


def ask(*commands: c.Command, peer: int = ADMIN) -> Frame:
    """Return the step that sends a frame."""
    return Frame(peer, commands)


def put(item: object) -> Call:
    """Return the step of a stock client's put."""
    return Call(ADMIN, "tasks", "put", (item,))


def large_ack(lease: int) -> Frame:
    """Return the step that ends the job of the lease with this number with a large result."""
    return ask(c.Ack(FIRST_TOKEN + lease, lease, [b"x" * 5000], [0.1]), peer=WORKER)


GET = Call(WORKER, "tasks", "get", (False,))
NACK = ask(c.Nack(FIRST_TOKEN, 0, ERROR), peer=WORKER)
ACK_WITH_NO_PICKLE = ask(c.Ack(FIRST_TOKEN, 0, [b"xxx"], [0.1]), peer=WORKER)
TAKE = Call(ADMIN, "results", "get", (False,))

STORIES: dict[str, tuple[Step, ...]] = {
    "one job is cancelled under two spellings": (submit("o", jobs=2), ask(c.Cancel(["o-0", "o-00"]))),
    "a dead job is requeued under two spellings": (
        submit("o"), GET, NACK, ask(c.Requeue(["o-0", "o-00"])), ask(c.Requeue(["o-000", "o-0"])),
    ),
    "a plain item is cancelled under two spellings": (put(1.5), ask(c.Cancel(["put1-0", "put1-00"]))),
    "a feed reads on after its jobs were forgotten": (
        *(submit("o", number, priority=-number) for number in range(3)), ask(c.Cancel(["o-1"])),
        Turn(), Pass(400.0), *(step for place in range(3) for step in (put(1.5), GET, large_ack(place))),
        ask(c.Feed("o")), ask(c.Feed()), ask(c.Feed("o", folded=True)),
    ),
    "a client holds a lease": (
        submit("o"), ask(c.Hello(1, "client", held=[c.Held(7, "o", 0, 1)])), Desert(),
    ),
    "a supervisor holds a lease": (
        submit("o"), ask(c.Hello(1, "worker", "w", "w", held=[c.Held(7, "o", 0, 1)]), peer=WORKER), Desert(),
    ),
    "a stale supervisor leaves": (
        ask(c.Hello(1, "worker", "w", "w")), ask(c.Hello(1, "worker", "w", "w"), peer=WORKER), HangUp(WORKER),
        Pass(1.0), Connect(3, Role.WORK), ask(c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"]), peer=3),
        submit("o"), ask(c.Lease(), peer=3), ask(c.Leave()), Desert(),
    ),
    "a supervisor that lives on leaves": (
        ask(c.Hello(1, "worker", "w", "w")), ask(c.Hello(1, "worker", "w", "w"), peer=WORKER),
        Connect(3, Role.WORK), ask(c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"]), peer=3),
        submit("o"), ask(c.Lease(), peer=3), ask(c.Leave()), ask(c.Leave(), peer=WORKER), Silence(), Desert(),
    ),
    "a client takes the numbers of later puts": (
        submit("put1"), put("x"), submit("put1", 1), put(("m:f", (1,))), submit("put1", 2, priority=1),
        Pass(1.0), Call(ADMIN, "results", "put", ("x",)),
    ),
    "an awaited job ends twice in one turn": (
        submit("o"), ask(c.Await(["o-0"], 5.0)), GET,
        ask(c.Nack(FIRST_TOKEN, 0, ERROR), c.Requeue(["o-0"]), c.Cancel(["o-0"])), Turn(),
    ),
    "an awaited job fails and is cancelled in one turn": (
        submit("o"), ask(c.Await(["o-0"], 5.0)), GET,
        ask(c.Nack(FIRST_TOKEN, 0, ERROR, 0.5), c.Cancel(["o-0"])), Turn(),
    ),
    "a pill is given up": (put(None), GET, NACK, ask(c.Requeue()), Review()),
    "an item that was given up and requeued fails again when the others have ended": (
        put(1.5), put(2.5), GET, GET, ask(c.Nack(FIRST_TOKEN + 1, 1, ERROR), peer=WORKER),
        ask(c.Requeue()), GET,
        ask(c.Ack(FIRST_TOKEN, 0, [b""], [0.1]), c.Nack(FIRST_TOKEN + 2, 1, ERROR, 0.0), peer=WORKER),
    ),
    "an item is given up": (put(1.5), GET, NACK, ask(c.Requeue()), Review()),
    "a result without a codec is no pickle": (
        submit("o", codec="", answer=True), GET, ACK_WITH_NO_PICKLE, TAKE,
    ),
    "an item's result is no pickle": (put(1.5), GET, ACK_WITH_NO_PICKLE, TAKE),
    "a job dies again after a retry that waited": (
        submit("o"), GET, ask(c.Nack(FIRST_TOKEN, 0, ERROR, 0.5), peer=WORKER), Turn(), Pass(1.0),
        GET, ask(c.Nack(FIRST_TOKEN + 1, 0, ERROR), peer=WORKER), Turn(), ask(c.Requeue()), Turn(),
        GET, ask(c.Nack(FIRST_TOKEN + 2, 0, ERROR), peer=WORKER), Turn(), Review(),
    ),
    "one worker whose drain refuses jobs is resumed": (ask(c.Drain("w", refuse=True)), ask(c.Resume("w"))),
    "a second drain refuses jobs and one is resumed": (
        ask(c.Drain("w", refuse=True)), ask(c.Drain("", refuse=True)), ask(c.Resume("w")), submit("o"),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def quiet():
    """Drop a manager's log lines about refused calls."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("seed", range(4))  # each with other limits
@pytest.mark.parametrize("name", STORIES)
def test_a_story_that_failed_once_does_so_no_more(name, seed):
    failure = retell(Story(str(seed), [*BEGIN, *STORIES[name], *END]))
    if failure is not None:
        raise failure.error
