"""The one door into the queue: every command, and what carries it out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.domain import admission, operations, queries, settlement
from service.domain import commands as c
from service.domain import replies as r
from service.domain.members import Member
from service.domain.queue_state import QueueState

Handler = Callable[[QueueState, Any, Member, float], r.Reply | None]


def _ping(state: QueueState, command: c.Ping, member: Member, now: float) -> r.Reply:
    return r.Done()


def _lease(state: QueueState, command: c.Lease, member: Member, now: float) -> r.Reply | None:
    return state.lease(command, member, now)


HANDLERS: dict[type[c.Command], Handler] = {
    c.Ping: _ping,
    c.Hello: admission.hello,
    c.Submit: admission.submit,
    c.Leave: admission.leave,
    c.Lease: _lease,
    c.Ack: settlement.ack,
    c.Nack: settlement.nack,
    c.Release: settlement.release,
    c.Recall: settlement.recall,
    c.Lost: settlement.lost,
    c.Extend: operations.extend,
    c.Cancel: operations.cancel,
    c.Requeue: operations.requeue,
    c.Drain: operations.drain,
    c.Resume: operations.resume,
    c.Take: operations.take,
    c.Join: operations.join,
    c.Get: queries.get,
    c.List: queries.find,
    c.Await: queries.await_outcomes,
    c.Feed: queries.feed,
    c.Stats: queries.stats,
    c.Members: queries.members,
}


def apply(state: QueueState, command: c.Command, member: Member, now: float) -> r.Reply | None:
    """Carry out *command* for *member* at time *now* (Unix time, seconds).

    Returns the reply, or None where a command that may wait has nothing to answer yet; the host asks again
    when `state.readied` or `state.progressed` says that something happened.
    """
    handler = HANDLERS.get(type(command))
    if handler is None:
        return r.Refused("bad_request", f"{type(command).__name__} is not served here")
    return handler(state, command, member, now)
