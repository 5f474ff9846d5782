"""Jobs and consumers of a queue's state, without a host around it."""

from __future__ import annotations

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.apply import apply
from svc.domain.job import NewChunk, Terms
from svc.domain.members import Member
from svc.domain.queue_state import QueueState


def submit(state: QueueState, terms: list[Terms], *, inside: bool = False, origin: str = "o") -> None:
    chunks = [NewChunk(number, each, [b"x"]) for number, each in enumerate(terms)]
    assert apply(state, c.Submit(origin, chunks), Member(inside=inside), 1.0) == r.Accepted([])


def consumer(
    state: QueueState, queues: list[str] | None = None, tasks: list[str] | None = None, name: str = "w-1"
) -> Member:
    member = Member()
    hello = c.Hello(1, "consumer", name, "w", tasks=tasks or ["m:f"], queues=queues or [])
    assert isinstance(apply(state, hello, member, 1.0), r.Welcome)
    return member
