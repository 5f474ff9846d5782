"""Takes a protection away in every Python process whose PYTHONPATH begins here: SVC_SABOTAGE names it.

So a test shows that a fault of the campaign is noticed if svc does not bear it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def forks() -> None:
    """A forked child goes on with its inherited connections."""
    from svc.broker import forks

    vars(forks)["begin_anew_in_children"] = lambda inherited: None


def lines() -> None:
    """A line waits until its reader makes room."""
    from svc.lines import LineWriter

    def write(self: LineWriter, line: bytes) -> bool:
        return os.write(self._descriptor, line) == len(line)

    LineWriter.write = write  # type: ignore[method-assign]


def presence() -> None:
    """Nobody looks whether the journal's files are in their place."""
    from svc.server.journal.presence import UNSETTLED, Presence

    Presence.check = lambda self: UNSETTLED  # type: ignore[method-assign]


def ownership() -> None:
    """Nobody looks whether another manager has taken the journal over."""
    from svc.server.journal.ownership import Ownership

    Ownership.check = lambda self: None  # type: ignore[method-assign]


def leftovers() -> None:
    """Nobody ends the processes that a task has left."""
    from svc.worker.leftovers import Leftovers

    Leftovers.clear = lambda self, *, keep_children: []  # type: ignore[method-assign]
    Leftovers.end = lambda self: None  # type: ignore[method-assign]


def suspicion() -> None:
    """No job is suspected, or dead, for the loss of its worker."""
    from svc.domain import suspicion

    vars(suspicion)["_suspect"] = lambda *lost, **how: None
    os.environ["SVC_SUSPICION_BUDGET"] = "0"


def crashes() -> None:
    """No job is charged for the death of its consumer."""
    from svc.worker import consumer_exit

    vars(consumer_exit)["_AT_FAULT"] = ()


def clock() -> None:
    """Whatever the host's time of day is at the start, it is believed."""
    os.environ["SVC_MAX_CLOCK_JUMP"] = "36500d"


def cancels() -> None:
    """Jobs that run are left alone by a cancel."""
    from svc.domain import stops

    vars(stops)["leases_at"] = lambda state, places: {}


def checkpoints() -> None:
    """A supervisor says that it has a checkpoint, and drops it."""
    from svc.worker import job_reports

    def keep(self: job_reports.JobReports, child: Any, body: bytes) -> None:
        number, *_ = msgspec.msgpack.decode(body)
        self._pieces.pop(child.name, None)
        vars(job_reports)["_tell"](child, number, True, "", "")

    import msgspec

    job_reports.JobReports._keep = keep  # type: ignore[method-assign]


def leaving() -> None:
    """A consumer that is to leave is killed at once."""
    from svc.worker.consumer_exit import Killed
    from svc.worker.consumer_process import ConsumerProcess

    ConsumerProcess.stop = lambda self: self.kill(Killed.LINGERED)  # type: ignore[method-assign]


def tickets() -> None:
    """A replicated journal acknowledges what no server has yet."""
    from svc.server.journal.jetstream.journal import JetStreamJournal

    append = JetStreamJournal.append

    def acknowledge(self: JetStreamJournal, *records: Any, **forget: Any) -> None:
        append(self, *records, **forget)

    JetStreamJournal.append = acknowledge  # type: ignore[method-assign]


def answers() -> None:
    """An append that has no answer is taken to be stored."""
    from svc.server.journal.jetstream.log import Unanswered
    from svc.server.journal.jetstream.writer import FrameWriter

    append = FrameWriter._append

    async def believe(self: FrameWriter, message: bytes) -> None:
        try:
            await append(self, message)
        except Unanswered:
            return

    FrameWriter._append = believe  # type: ignore[method-assign]


def takeover() -> None:
    """A standby that has seen a leader never takes its key."""
    from svc.server.journal.jetstream.leadership import Leadership

    may_take, seen = Leadership._may_take, []

    def never(self: Leadership, now: float) -> bool:
        seen.extend([self.holding] if self.holding is not None else [])
        return not seen and may_take(self, now)

    Leadership._may_take = never  # type: ignore[method-assign]


def bucket() -> None:
    """The manager stands for the lead in another bucket than those of an unchanged svc."""
    from svc.server.journal.jetstream import stream_form

    vars(stream_form)["BUCKET_SUFFIX"] = "_elsewhere"


def followers() -> None:
    """A leader lets its log be silent, whoever follows it."""
    from svc.server.journal.jetstream.follower_watch import FollowerWatch

    note = FollowerWatch.note
    FollowerWatch.note = lambda self, facts: note(self, facts._replace(followers=0))  # type: ignore[method-assign]


_ALL: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        *(forks, lines, presence, ownership, leftovers, suspicion, crashes, clock),
        *(cancels, checkpoints, leaving),
        *(tickets, answers, takeover),
        *(bucket, followers),
    )
}
_ALL.get(os.environ.get("SVC_SABOTAGE", ""), lambda: None)()
