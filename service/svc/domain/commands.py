"""The commands to the queue; a request on the wire is a list of them.

The class of a command is its declaration: its verb, fields and bounds, the roles that may send it, and its
description. The wire's decoder, the table of rights and the reference in the docs are derived from it. Its
handler is registered with `handlers.handles` or `handlers.reads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, TypeAlias, Union

import msgspec
from msgspec import Meta

from svc.domain import field_bounds as b
from svc.domain.job import Cause, ErrorInfo, NewChunk, is_put_origin
from svc.domain.roles import ADMIN_ALONE, EVERY_ROLE, Role, Roles

#: Version of the commands and replies; a manager and a client with different versions refuse each other.
PROTOCOL_VERSION = 1


#: Jobs that one request may cancel or requeue.
CHANGED_JOBS_MAX = 1000


class Command(msgspec.Struct, frozen=True, array_like=True, tag_field="verb"):
    """Base of all commands.

    Attributes:
        roles: the roles beside `admin` whose keys may send it.
        rights: other rights that it needs if its fields have certain values (see `right`), and their roles.
        on_wire: whether svc's clients may send it; if not, only the manager's part for plain clients does.
        contentless: whether it has no content of its own, so that to refuse one would refuse all.
    """

    roles: ClassVar[Roles] = ADMIN_ALONE
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({})
    on_wire: ClassVar[bool] = True
    contentless: ClassVar[bool] = False

    def right(self) -> str:
        """Return the right that a key needs for this command: its verb, or one of `rights`."""
        return verb_of(type(self))


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A lease that a consumer still holds when it reconnects: jobs `first` … `first + count - 1`."""

    token: b.Counter
    origin: b.Text
    first: int
    count: int


class Hello(Command, frozen=True, tag="hello"):
    """Introduce this connection. Roles: `client`, `consumer`, `worker` (a supervisor).

    `tasks` and `queues` are what a consumer can run; `held` what it still runs from before a broken
    connection: the manager restores those leases or, where it cannot, refuses their outcome later. `accept`
    names the codecs whose jobs it gets; None, as an older consumer says, stands for all. `life` is a number
    that a supervisor and its consumers share; one started later under their name has another.
    """

    roles: ClassVar[Roles] = EVERY_ROLE
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({"hello_work": (Role.WORK,)})

    version: b.Number
    role: b.Label
    name: b.Label = ""
    worker: b.Label = ""
    host: b.Label = ""
    pid: b.Number = 0
    tasks: b.Tasks = []
    queues: b.Queues = []
    held: Annotated[list[Held], Meta(max_length=b.HELD_MAX)] = []
    http: b.Label = ""
    release: b.Label = ""
    accept: b.Codecs | None = None
    life: b.Number = 0

    def right(self) -> str:
        """Return `hello_work` for a consumer or a supervisor: it takes up leases, and counts as a worker."""
        return "hello" if self.role == "client" else "hello_work"


class Submit(Command, frozen=True, tag="submit"):
    """Accept new jobs of one origin (a random name that the client chose). It is safe to send it again.

    `strict` refuses a task that no connected worker knows.
    """

    roles: ClassVar[Roles] = (Role.SUBMIT,)

    origin: b.Text
    chunks: Annotated[list[NewChunk], Meta(max_length=b.SUBMIT_CHUNKS_MAX)]
    strict: bool = False


class Lease(Command, frozen=True, tag="lease"):
    """Take up to `limit` ready jobs, waiting up to `wait` seconds for the first.

    With `ahead`, take one job, or as many as run in that many seconds by the known run times of their tasks.
    With `early`, the answer may come before the reports in the same request are durable; the grant says so.
    """

    roles: ClassVar[Roles] = (Role.WORK,)
    contentless: ClassVar[bool] = True

    limit: b.Number = 1
    wait: b.Seconds = 0.0
    ahead: b.Seconds | None = None
    early: bool = False


class Ack(Command, frozen=True, tag="ack"):
    """Record the results of the jobs from number `first` on, in order, with their run times in seconds."""

    roles: ClassVar[Roles] = (Role.WORK,)

    token: b.Counter
    first: b.Number
    results: b.Results
    seconds: b.RunTimes


class Nack(Command, frozen=True, tag="nack"):
    """Record that one attempt failed; `retry_in` is in seconds, or None to make the job dead."""

    roles: ClassVar[Roles] = (Role.WORK,)

    token: b.Counter
    number: b.Number
    error: ErrorInfo
    retry_in: b.Seconds | None = None
    cause: Cause = Cause.FAILED
    seconds: b.Seconds = 0.0


class Release(Command, frozen=True, tag="release"):
    """Give back, uncharged, the jobs of a lease from number `first` on.

    `started` says that the first of them was really executing, for so many `seconds`: it counts as an
    interruption. If it is `suspect`, all processes of its worker died meanwhile: it gets a suspicion too.
    """

    roles: ClassVar[Roles] = (Role.WORK,)

    token: b.Counter
    first: b.Number
    started: bool = False
    seconds: b.Seconds = 0.0
    suspect: bool = False


class Leave(Command, frozen=True, tag="leave"):
    """End this consumer's membership; jobs that it still holds go back uncharged."""

    roles: ClassVar[Roles] = EVERY_ROLE
    contentless: ClassVar[bool] = True


class Extend(Command, frozen=True, tag="extend"):
    """Renew all leases of this worker's consumers, and report their number by state.

    `consumers` names those whose processes exist; an older worker sends None. A consumer that it does not
    name, and that is not connected either, belongs to no worker. With `told` the reply is `Extended`.
    """

    roles: ClassVar[Roles] = (Role.WORK,)
    contentless: ClassVar[bool] = True

    busy: b.Number = 0
    idle: b.Number = 0
    starting: b.Number = 0
    restarts: b.Number = 0
    stopping: bool = False
    consumers: b.Consumers | None = None
    told: bool = False


class Lost(Command, frozen=True, tag="lost"):
    """A supervisor reports that a consumer process has died.

    With `token` not 0, job `number` was executing and is charged with a crash; all else that the
    consumer held goes back uncharged. If that is `suspect`, some of it may be why the process died, and the
    supervisor cannot tell which.
    """

    roles: ClassVar[Roles] = (Role.WORK,)

    consumer: b.Label
    error: ErrorInfo
    token: b.Counter = 0
    number: b.Number = 0
    seconds: b.Seconds = 0.0
    suspect: bool = False


class Recall(Command, frozen=True, tag="recall"):
    """Take back jobs that a consumer read ahead: all after job `number` of `token`, up to lease `last`."""

    roles: ClassVar[Roles] = (Role.WORK,)

    consumer: b.Label
    token: b.Counter
    number: b.Number
    last: b.Counter


class Cancel(Command, frozen=True, tag="cancel"):
    """Cancel waiting jobs, up to `CHANGED_JOBS_MAX`."""

    ids: b.Ids


class Requeue(Command, frozen=True, tag="requeue"):
    """Make dead jobs ready again, with fresh budgets, up to `CHANGED_JOBS_MAX`.

    Without ids, requeue those of `queue` (or of all), after the first `passed` dead jobs. `Done.more` is the
    number of jobs that are left.
    """

    ids: b.Ids = []
    queue: b.NameOrNone = ""
    passed: b.Number = 0


class Get(Command, frozen=True, tag="get"):
    """Describe jobs; if `paged`, the first part of a list that is too long for one answer."""

    roles: ClassVar[Roles] = (Role.READ,)

    ids: b.Ids
    paged: bool = False


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

    roles: ClassVar[Roles] = (Role.SUBMIT, Role.READ)
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({"get": Get.roles})

    ids: b.Ids
    wait: b.Seconds = 0.0
    paged: bool = False

    def right(self) -> str:
        """Return `get` if the id of one of the jobs can be guessed."""
        guessable = any(is_put_origin(job.rpartition("-")[0]) for job in self.ids)
        return "get" if guessable else "await"


class Feed(Command, frozen=True, tag="feed"):
    """Return outcomes after `cursor`, in the order in which they were recorded; of one origin, or of all.

    With `folded`, successes of one origin may come as `replies.Span`, which costs far less for each job.
    """

    roles: ClassVar[Roles] = (Role.SUBMIT, Role.READ)
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({"feed_all": (Role.READ,)})

    origin: b.OriginOrNone = ""
    cursor: b.Cursor = 0
    limit: b.Number = 1000
    wait: b.Seconds = 0.0
    folded: bool = False

    def right(self) -> str:
        """Return `feed_all` for all origins, or for one whose name can be guessed."""
        return "feed_all" if not self.origin or is_put_origin(self.origin) else "feed"


class Stats(Command, frozen=True, tag="stats"):
    """Return the counts of every queue."""

    roles: ClassVar[Roles] = (Role.READ,)
    contentless: ClassVar[bool] = True


class Members(Command, frozen=True, tag="members"):
    """Return the connected workers; if `paged`, by name, those after `after` that fit."""

    roles: ClassVar[Roles] = (Role.READ,)
    contentless: ClassVar[bool] = True

    after: b.Text = ""
    paged: bool = False


class Drain(Command, frozen=True, tag="drain"):
    """Hand a pill to every consumer that asks, of one worker or of all, until resumed.

    `refuse` also refuses new jobs meanwhile.
    """

    worker: b.Label = ""
    refuse: bool = False


class Resume(Command, frozen=True, tag="resume"):
    """End a drain."""

    worker: b.Label = ""


class AcceptClock(Command, frozen=True, tag="accept_clock"):
    """Set the manager's clock to its host's time of day. Answers with 1 if it will be, else it is right."""


class Ping(Command, frozen=True, tag="ping"):
    """Check that the manager answers."""

    roles: ClassVar[Roles] = EVERY_ROLE
    contentless: ClassVar[bool] = True


class Wake(Command, frozen=True, tag="wake"):
    """End a wait of this connection at once, with the answer that there is by then."""

    roles: ClassVar[Roles] = EVERY_ROLE
    contentless: ClassVar[bool] = True


class Exposition(Command, frozen=True, tag="exposition"):
    """Return the metrics as Prometheus text."""

    roles: ClassVar[Roles] = (Role.READ,)
    contentless: ClassVar[bool] = True


class Backup(Command, frozen=True, tag="backup"):
    """Begin a backup of the journal under a file name, or report its progress; ask again until it is done."""

    name: b.Label


class Take(Command, frozen=True, tag="take"):
    """Hand out the next answer of the `results` queue, for good. For plain clients only."""

    on_wire: ClassVar[bool] = False
    contentless: ClassVar[bool] = True

    wait: b.Seconds = 0.0


class Join(Command, frozen=True, tag="join"):
    """Answer when no job of a queue is waiting or leased. For plain clients only."""

    on_wire: ClassVar[bool] = False
    contentless: ClassVar[bool] = True

    queue: b.Name
    wait: b.Seconds = 0.0


def verb_of(kind: type[Command]) -> str:
    """Return the verb of a kind of command: its tag on the wire."""
    return str(kind.__struct_config__.tag)


#: All commands, as they are declared above.
COMMANDS: Final[tuple[type[Command], ...]] = tuple(Command.__subclasses__())
#: Commands that may wait for their answer.
WAITERS: Final = tuple(kind for kind in COMMANDS if "wait" in kind.__struct_fields__)
#: Commands that svc's own clients may send; the wire's decoder knows these.
if TYPE_CHECKING:
    AnyCommand: TypeAlias = Command
else:
    AnyCommand = Union[tuple(kind for kind in COMMANDS if kind.on_wire)]  # noqa: UP007  # made of a tuple
