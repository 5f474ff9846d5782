"""Why a request to the manager has no reply: the question to the manager itself, and the words for it.

A leader whose journal's servers are silent holds all requests back, also the hello of a new connection. It
answers a ping at once, so that a client that is about to give up can ask for the reason.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from svc.broker.standbys import IsStandby
from svc.domain import commands as c
from svc.domain import replies as r
from svc.errors import ManagerUnreachable, ServiceError
from svc.first_answer import NoAnswer
from svc.wire import decode_response, encode_request, response_frame

if TYPE_CHECKING:
    from svc.broker.dial import Dialer

#: The share of the time that is left which the question may take; the reply may still come afterwards.
_SHARE: Final = 0.8


def asked_reason(dialer: Dialer, deadline: float, *, back: bool) -> str:
    """Ask the manager on another connection, well before *deadline*; return the reason, or "".

    Args:
        dialer: connects to the manager.
        deadline: when the request is given up (monotonic, in seconds).
        back: whether the manager was away since the request was made.
    """
    now = time.monotonic()
    limit = now + _SHARE * (deadline - now)
    try:
        stream = dialer.connect(limit)
    except (OSError, EOFError, ServiceError):
        return ""
    try:
        stream.allow(limit)
        stream.send(encode_request(1, [c.Ping()]))
        frame = response_frame(stream.receive(limit))
        replies = [] if frame is None else decode_response(frame)[1]
    except (OSError, EOFError, ServiceError):
        return ""
    finally:
        stream.close()
    if not (replies and isinstance(replies[0], r.Done)):
        return ""
    return _told(replies[0].count, back=back)


def _told(silent: int, *, back: bool) -> str:
    if silent:
        return (
            f"it leads, and has had no answer from the servers of its journal for {silent} s; nothing that "
            "it accepted is lost, and it goes on once most of them answer"
        )
    if back:
        return "it was away, answers a ping again, and has not answered this request yet: try again"
    return "it answers a ping, and not this request; is it busy?"


def unreachable(name: str, error: Exception, reason: str) -> ManagerUnreachable:
    """Return the error of a request without a reply.

    Args:
        name: the addresses of the manager, as the user has named them.
        error: the last error.
        reason: the answer of the manager itself to the question why; "" if there is none.
    """
    why = str(error) or type(error).__name__
    told = reason or f"{why}; {_advice(name, error)}"
    return ManagerUnreachable(f"no answer from the manager at {name}: {told}")


def _advice(name: str, error: Exception) -> str:
    errors = [each for _, each in error.errors] if isinstance(error, NoAnswer) else [error]
    standbys = [each for each in errors if isinstance(each, IsStandby)]
    if not standbys:
        return "is it running, and at this address?"
    known = name.split(",")
    leaders = [str(each.leader) for each in standbys if each.leader is not None]
    if any(at not in known for leader in leaders for at in leader.split(",")):
        return f"from here nothing answers at {leaders[0]}; name all managers in --manager"
    return "if the leader is lost, a standby leads within seconds: try again"
