"""The commands that read: jobs, outcomes, output, counts and metrics. None of them changes the queue."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from svc.domain import field_bounds as b
from svc.domain.command import Command, any_guessable
from svc.domain.job import is_put_origin
from svc.domain.roles import Role, Roles


class Get(Command, frozen=True, tag="get"):
    """Describe jobs; if `paged`, the first part of a list that is too long for one answer.

    With `content` the descriptions have arguments and results, unless the manager hides them.
    """

    roles: ClassVar[Roles] = (Role.READ,)

    ids: b.Ids
    paged: bool = False
    content: bool = False


class Logs(Command, frozen=True, tag="logs"):
    """Return output of one attempt at a job, or of all attempts from `cursor` on, as much as fits.

    With `attempt` 0 and no cursor it is the last attempt that has output; with `stream` 0, both streams.
    """

    roles: ClassVar[Roles] = (Role.SUBMIT, Role.SHELL, Role.READ)
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({"get": Get.roles})

    id: b.JobId
    attempt: b.Number = 0
    stream: b.Number = 0
    cursor: b.Counter = 0

    def right(self) -> str:
        """Return `get` if the id of the job can be guessed."""
        return "get" if is_put_origin(self.id.rpartition("-")[0]) else "logs"


class List(Command, frozen=True, tag="list"):
    """Describe up to `limit` jobs, newest first, of a state, a queue and a task if these are named.

    If `paged`, an answer may end early and say where to go on: that is `before` of the next request.
    """

    roles: ClassVar[Roles] = (Role.READ,)

    state: b.Label = ""
    queue: b.NameOrNone = ""
    task: b.NameOrNone = ""
    limit: b.Number = 50
    before: b.Counter = 0
    paged: bool = False


class Await(Command, frozen=True, tag="await"):
    """Return the outcomes of these jobs once all have one, or those that there are after `wait` seconds.

    If `paged`, return those that fit into one answer.
    """

    roles: ClassVar[Roles] = (Role.SUBMIT, Role.SHELL, Role.READ)
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({"get": Get.roles})

    ids: b.Ids
    wait: b.Seconds = 0.0
    paged: bool = False

    def right(self) -> str:
        """Return `get` if the id of one of the jobs can be guessed."""
        return "get" if any_guessable(self.ids) else "await"


class Feed(Command, frozen=True, tag="feed"):
    """Return outcomes after `cursor`, in the order in which they were recorded; of one origin, or of all.

    With `folded`, successes of one origin may come as `replies.Span`, which costs far less for each job.
    """

    roles: ClassVar[Roles] = (Role.SUBMIT, Role.SHELL, Role.READ)
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({"feed_all": (Role.READ,)})

    origin: b.OriginOrNone = ""
    cursor: b.Cursor = 0
    limit: b.Number = 1000
    wait: b.Seconds = 0.0
    folded: bool = False

    def right(self) -> str:
        """Return `feed_all` for all origins, or for one whose name can be guessed."""
        return "feed_all" if not self.origin or is_put_origin(self.origin) else "feed"


class ReadStream(Command, frozen=True, tag="read_stream"):
    """Return partial results of a job from number `start` on, as many as fit; wait for the first one.

    `token` names the stream that the reader has begun with; if the job has another one by now, the answer
    tells of that and has no values. With 0 it is the stream of the last attempt that has one.
    """

    roles: ClassVar[Roles] = (Role.SUBMIT, Role.SHELL, Role.READ)
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({"get": Get.roles})

    id: b.JobId
    start: b.Number = 0
    token: b.Counter = 0
    wait: b.Seconds = 0.0

    def right(self) -> str:
        """Return `get` if the id of the job can be guessed."""
        return "get" if any_guessable([self.id]) else "read_stream"


class Stats(Command, frozen=True, tag="stats"):
    """Return the counts of every queue."""

    roles: ClassVar[Roles] = (Role.READ,)
    contentless: ClassVar[bool] = True


class Members(Command, frozen=True, tag="members"):
    """Return the connected workers; if `paged`, by name, those after `after` that fit."""

    roles: ClassVar[Roles] = (Role.READ,)

    after: b.Text = ""
    paged: bool = False

    def identity(self) -> object:
        """Return the name after which the page begins, or None for the first page."""
        return self.after or None


class Exposition(Command, frozen=True, tag="exposition"):
    """Return the metrics as Prometheus text."""

    roles: ClassVar[Roles] = (Role.READ,)
    contentless: ClassVar[bool] = True


class AskProgress(Command, frozen=True, tag="ask_progress"):
    """Return the last report of progress of each job, or None for one that does not run or tells nothing."""

    roles: ClassVar[Roles] = (Role.SUBMIT, Role.SHELL, Role.READ)
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({"get": Get.roles})

    ids: b.Ids

    def right(self) -> str:
        """Return `get` if the id of one of the jobs can be guessed."""
        return "get" if any_guessable(self.ids) else "ask_progress"
