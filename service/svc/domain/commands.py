"""The commands to the queue; a request on the wire is a list of them.

The class of a command is its declaration: its verb, fields and bounds, the roles that may send it, and its
description. The wire's decoder, the table of rights and the reference in the docs are derived from it. Its
handler is registered with `handlers.handles` or `handlers.reads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, TypeAlias, Union

from msgspec import Meta

from svc.domain import field_bounds as b
from svc.domain.attempt_commands import Checkpoint as Checkpoint
from svc.domain.attempt_commands import JobProgress as JobProgress
from svc.domain.attempt_commands import TellProgress as TellProgress
from svc.domain.attempt_commands import Yield as Yield
from svc.domain.claims import ClaimedJob as ClaimedJob
from svc.domain.claims import Held as Held
from svc.domain.command import Command as Command
from svc.domain.command import verb_of as verb_of
from svc.domain.job import SHELL, Cause, ErrorInfo, NewChunk, OutputPiece, is_reserved_origin
from svc.domain.large_commands import FetchArgument as FetchArgument
from svc.domain.large_commands import FetchResult as FetchResult
from svc.domain.large_commands import StorePiece as StorePiece
from svc.domain.large_commands import StoreResultPiece as StoreResultPiece
from svc.domain.limits import CANCEL_GRACE_SECONDS
from svc.domain.plain_commands import Join as Join
from svc.domain.plain_commands import Put as Put
from svc.domain.plain_commands import Take as Take
from svc.domain.read_commands import AskProgress as AskProgress
from svc.domain.read_commands import Await as Await
from svc.domain.read_commands import Exposition as Exposition
from svc.domain.read_commands import Feed as Feed
from svc.domain.read_commands import Get as Get
from svc.domain.read_commands import List as List
from svc.domain.read_commands import Logs as Logs
from svc.domain.read_commands import Members as Members
from svc.domain.read_commands import ReadStream as ReadStream
from svc.domain.read_commands import Stats as Stats
from svc.domain.roles import ADMIN_ALONE, EVERY_ROLE, Role, Roles

#: Version of the commands and replies; a manager and a client with different versions refuse each other.
PROTOCOL_VERSION = 1


#: Jobs that one request may cancel or requeue.
CHANGED_JOBS_MAX = 1000


class Hello(Command, frozen=True, tag="hello"):
    """Introduce this connection. Roles: `client`, `consumer`, `worker` (a supervisor).

    `tasks` and `queues` are what a consumer can run; `held` what it still runs from before a broken
    connection: the manager restores those leases or, where it cannot, refuses their outcome later. `accept`
    names the codecs whose jobs it gets; None, as an older consumer says, stands for all. `life` is a number
    that a supervisor and its consumers share; one started later under their name has another. `code` is the
    version of the code of a consumer's tasks.
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
    code: b.Label = ""

    def right(self) -> str:
        """Return `hello_work` for a consumer or a supervisor: it takes up leases, and counts as a worker."""
        return "hello" if self.role == "client" else "hello_work"


class Submit(Command, frozen=True, tag="submit"):
    """Accept new jobs of one origin (a random name that the client chose). It is safe to send it again.

    `strict` refuses a task that no connected worker knows. `under` is the token of the job whose task submits
    the jobs: it has to be in force, unless all of them were accepted before.
    """

    roles: ClassVar[Roles] = (Role.SUBMIT, Role.SHELL)
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType(
        {"submit_shell": (Role.SHELL,), "submit_child": (Role.SUBMIT, Role.SHELL, Role.WORK)}
    )

    origin: b.Text
    chunks: Annotated[list[NewChunk], Meta(max_length=b.SUBMIT_CHUNKS_MAX)]
    strict: bool = False
    under: b.Counter = 0

    def right(self) -> str:
        """Return `submit_shell` if one of the jobs is a shell command: it may do anything on a worker.

        `submit_child` is for the task of a job that runs.
        """
        shell = any(chunk.terms.task == SHELL for chunk in self.chunks)
        return "submit_shell" if shell else "submit_child" if self.under else "submit"


class Lease(Command, frozen=True, tag="lease"):
    """Take up to `limit` ready jobs, waiting up to `wait` seconds for the first.

    With `ahead`, take one job, or as many as run in that many seconds by the known run times of their tasks.
    With `early`, the answer may come before the reports in the same request are durable; the grant says so.
    With `beside`, the jobs are to run beside those that the consumer holds: all are of that task, each under
    a lease of its own. The answer is empty, without a wait, if another task is first in turn.
    With `running`, the consumer may still run jobs: then others come shortly before the end of those that it
    holds, to run behind them, and its next request that is `running` ends the wait of this one.
    """

    roles: ClassVar[Roles] = (Role.WORK,)
    contentless: ClassVar[bool] = True

    limit: b.Number = 1
    wait: b.Seconds = 0.0
    ahead: b.Seconds | None = None
    early: bool = False
    beside: b.NameOrNone = ""
    running: bool = False


class Ack(Command, frozen=True, tag="ack"):
    """Record the results of the jobs from number `first` on, in order, with their run times in seconds.

    `large` has the numbers of those whose result is stored in pieces. If one of these is lost, the jobs go
    back.
    `peaks` has the most memory in bytes that each of them took, or is empty.
    """

    roles: ClassVar[Roles] = (Role.WORK,)

    token: b.Counter
    first: b.Number
    results: b.Results
    seconds: b.RunTimes
    large: b.LargeNumbers = []
    peaks: b.Peaks = []


class Nack(Command, frozen=True, tag="nack"):
    """Record that one attempt failed; `retry_in` is in seconds, or None to make the job dead.

    `snoozed` says that the task put its job off: it runs again after `retry_in`, and no budget is charged.
    The cause is then INTERRUPTED, which an older manager counts. `peak` is the most memory in bytes that the
    attempt took, or 0.
    """

    roles: ClassVar[Roles] = (Role.WORK,)

    token: b.Counter
    number: b.Number
    error: ErrorInfo
    retry_in: b.Seconds | None = None
    cause: Cause = Cause.FAILED
    seconds: b.Seconds = 0.0
    snoozed: bool = False
    peak: b.Number = 0

    @property
    def told_cause(self) -> Cause:
        """The cause as the journal has it."""
        return Cause.SNOOZED if self.snoozed and self.retry_in is not None else self.cause


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
    name, and that is not connected either, belongs to no worker. With `told` the reply is `Extended`. It
    comes after `wait` seconds, or as soon as the worker has more than `stops_made` attempts to end.
    `round_trip` is the time in seconds of a request that is answered at once, as the worker measures it; 0 if
    it has not. After a restart of the manager, `claims` names the jobs of consumers that may not be able to
    say hello: they get those leases back, or are ordered to end a cancelled job. With `takes_back` the worker
    obeys `Extended.take_back`, for which the answer does not wait either.
    """

    roles: ClassVar[Roles] = (Role.WORK,)

    busy: b.Number = 0
    idle: b.Number = 0
    starting: b.Number = 0
    restarts: b.Number = 0
    stopping: bool = False
    consumers: b.Consumers | None = None
    told: bool = False
    wait: b.Seconds = 0.0
    stops_made: b.Number = 0
    round_trip: b.Seconds = 0.0
    claims: Annotated[list[ClaimedJob], Meta(max_length=b.HELD_MAX)] = []
    takes_back: bool = False

    def identity(self) -> object:
        """Return the claims, or None without any."""
        return self.claims or None


class StopsAwaited(Command, frozen=True, tag="stops_awaited"):
    """Answer an `Extend` that has waited. It renews no lease: nothing was heard of its worker meanwhile."""

    on_wire: ClassVar[bool] = False
    contentless: ClassVar[bool] = True

    wait: b.Seconds = 0.0


class Lost(Command, frozen=True, tag="lost"):
    """A supervisor reports that a consumer process has died.

    With `token` not 0, job `number` was executing and is charged with a crash; all else that the
    consumer held goes back uncharged. `peak` is the most memory in bytes that the job was seen to take, or 0.
    If the rest is `suspect`, some of it may be why the process died, and the supervisor cannot tell which.
    """

    roles: ClassVar[Roles] = (Role.WORK,)

    consumer: b.Label
    error: ErrorInfo
    token: b.Counter = 0
    number: b.Number = 0
    seconds: b.Seconds = 0.0
    suspect: bool = False
    peak: b.Number = 0


class Recall(Command, frozen=True, tag="recall"):
    """Take back jobs that a consumer read ahead: all after job `number` of `token`, up to lease `last`.

    With `unread`, as long as that job runs, take back those that were granted since, too.
    """

    roles: ClassVar[Roles] = (Role.WORK,)

    consumer: b.Label
    token: b.Counter
    number: b.Number
    last: b.Counter
    unread: bool = False


class Output(Command, frozen=True, tag="output"):
    """Keep output of attempts beside the journal; the same again changes nothing.

    Of each stream of an attempt, `keep` bytes of the beginning and of the end stay.
    """

    roles: ClassVar[Roles] = (Role.WORK,)

    pieces: Annotated[list[OutputPiece], Meta(max_length=b.OUTPUT_PIECES_MAX)]
    keep: b.Counter


class Cancel(Command, frozen=True, tag="cancel"):
    """Cancel waiting jobs, up to `CHANGED_JOBS_MAX`; if `running`, also those that consumers have.

    The attempt at one that runs is ended by its worker: `Cancelled` is raised in the task, and if it has not
    ended after `grace` seconds, its consumer is killed.
    """

    roles: ClassVar[Roles] = (Role.SUBMIT, Role.SHELL)
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({"cancel_any": ADMIN_ALONE})

    ids: b.Ids
    running: bool = False
    grace: b.Seconds = CANCEL_GRACE_SECONDS

    def right(self) -> str:
        """Return `cancel_any` if the id of one of the jobs can be guessed, or only tells of its outcome."""
        origins = {job.rpartition("-")[0] for job in self.ids}
        return "cancel_any" if any(map(is_reserved_origin, origins)) else "cancel"


class Requeue(Command, frozen=True, tag="requeue"):
    """Make dead jobs ready again, with fresh budgets, up to `CHANGED_JOBS_MAX`.

    Without ids, requeue those of `queue` (or of all), after the first `passed` dead jobs. `Done.more` is the
    number of jobs that are left.
    """

    ids: b.Ids = []
    queue: b.NameOrNone = ""
    passed: b.Number = 0


class Purge(Command, frozen=True, tag="purge"):
    """Remove jobs that have ended, as if their retention had passed: those of `ids`, or all that match.

    `states` are the states in which they ended, all if it is empty; `older` is in seconds since then. A
    request without ids and without any condition is refused unless `every` is set. `Done.more` is `after` of
    the next request; with `dry`, jobs are counted only.
    """

    ids: b.Ids = []
    states: b.States = []
    queue: b.NameOrNone = ""
    task: b.NameOrNone = ""
    older: b.Seconds = 0.0
    every: bool = False
    dry: bool = False
    after: b.Counter = 0


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


class HandOver(Command, frozen=True, tag="hand_over"):
    """Have the manager end, and a standby take the lead. Refused if there is no standby."""

    contentless: ClassVar[bool] = True


class Ping(Command, frozen=True, tag="ping"):
    """Check that the manager answers.

    The number in its reply is for how many seconds the servers of a replicated journal have not answered, or
    0. So a client whose request has no answer can ask for the reason on another connection.
    """

    roles: ClassVar[Roles] = EVERY_ROLE
    contentless: ClassVar[bool] = True


class Wake(Command, frozen=True, tag="wake"):
    """End a wait of this connection at once, with the answer that there is by then."""

    roles: ClassVar[Roles] = EVERY_ROLE
    contentless: ClassVar[bool] = True


class Backup(Command, frozen=True, tag="backup"):
    """Begin a backup of the journal under a file name, or report its progress; ask again until it is done."""

    name: b.Label


#: All commands, as they are declared above.
COMMANDS: Final[tuple[type[Command], ...]] = tuple(Command.__subclasses__())
#: Commands that may wait for their answer.
WAITERS: Final = frozenset(kind for kind in COMMANDS if "wait" in kind.__struct_fields__)
#: Commands that svc's own clients may send; the wire's decoder knows these.
if TYPE_CHECKING:
    AnyCommand: TypeAlias = Command
else:
    AnyCommand = Union[tuple(kind for kind in COMMANDS if kind.on_wire)]  # noqa: UP007  # made of a tuple
