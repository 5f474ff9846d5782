"""A queue host whose commits are counted, and calls to it."""

from __future__ import annotations

from collections.abc import Sequence

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.events import AnyEvent
from svc.domain.job import NewChunk, Terms
from svc.domain.members import Member
from svc.errors import JournalError


class CountingJournal(MemoryJournal):
    """Counts commits, and fails on request."""

    commits = 0
    failing = False

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> None:
        if self.failing:
            raise JournalError("disk full")
        self.commits += 1
        super().append(records, forget)


def submit(host: QueueHost, number: int = 0, body: bytes = b"") -> list[list[r.Reply]]:
    answers: list[list[r.Reply]] = []
    host.call([c.Submit("o", [NewChunk(number, Terms("m:f"), [body])])], Member(), answers.append)
    return answers


def ask(host: QueueHost, member: Member, *commands: c.Command) -> list[list[r.Reply]]:
    answers: list[list[r.Reply]] = []
    host.call(commands, member, answers.append)
    host.turn()
    return answers


def answers(host: QueueHost, member: Member, *commands: c.Command) -> list[r.Reply]:
    """Return the replies to *commands*, each of which has one at once."""
    (replies,) = ask(host, member, *commands)
    return replies


def consumer_of(host: QueueHost, name: str = "w-1") -> Member:
    member = Member()
    ask(host, member, c.Hello(1, "consumer", name, "w", tasks=["m:f"]))
    return member


def handed_out(answers: list[list[r.Reply]]) -> int:
    grants = [reply for replies in answers for reply in replies if isinstance(reply, r.Grant)]
    return sum(len(each.bodies) for grant in grants for each in grant.deliveries)
