"""A plain client without a socket, for tests of its calls."""

from __future__ import annotations

import pickle

from svc.broker.host import QueueHost
from svc.domain.members import Member
from svc.server.plain import SharedObjects
from svc.server.plain_values import reply_bytes


class Caller:
    """A plain client without a socket: each call is answered within one turn, or still waits."""

    def __init__(self, host: QueueHost, face: SharedObjects) -> None:
        self.host = host
        self.face = face
        self.member = Member()

    def begin(self, typeid: str, method: str, *args: object, **kwds: object) -> list[object]:
        """Call; the list returned holds the answer as soon as there is one."""
        answers: list[object] = []
        carried_out = self.face.method(typeid, method)
        self.face.carry_out(carried_out, self.member, args, kwds, lambda value: answers.append(_read(value)))
        self.host.turn()
        return answers

    def __call__(self, typeid: str, method: str, *args: object, **kwds: object) -> object:
        (answer,) = self.begin(typeid, method, *args, **kwds)
        if isinstance(answer, Exception):
            raise answer
        return answer


def _read(value: object) -> object:
    """Return a reply as the client's end would read it."""
    kind, result = pickle.loads(reply_bytes(value))
    assert kind == ("#ERROR" if isinstance(value, BaseException) else "#RETURN")
    return result
