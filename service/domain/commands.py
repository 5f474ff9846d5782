"""What may be asked of the queue; the requests of the wire are lists of these."""

from __future__ import annotations

import msgspec

from service.domain.job import Cause, ErrorInfo, NewBatch

#: Version of what is asked and answered; a manager and a client with different ones refuse each other.
PROTOCOL_VERSION = 1


class Command(msgspec.Struct, frozen=True, array_like=True, tag_field="verb"):
    """Base of all commands."""


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A lease that a consumer still holds when it connects again: jobs `first` … `first + count - 1`."""

    token: int
    origin: str
    first: int
    count: int


class Hello(Command, frozen=True, tag="hello"):
    """Introduce this connection. Roles: `client`, `consumer`, `worker` (a supervisor).

    `tasks` and `queues` are what a consumer can run; `held` what it still runs from before a broken
    connection: the manager restores those leases or, where it cannot, refuses their outcome later.
    """

    version: int
    role: str
    name: str = ""
    worker: str = ""
    host: str = ""
    pid: int = 0
    tasks: list[str] = []
    queues: list[str] = []
    held: list[Held] = []
    http: str = ""
    release: str = ""


class Submit(Command, frozen=True, tag="submit"):
    """Accept new jobs of one origin (a random name that the client chose). Safe to send again.

    `strict` refuses a task that no connected worker knows.
    """

    origin: str
    batches: list[NewBatch]
    strict: bool = False


class Lease(Command, frozen=True, tag="lease"):
    """Take up to `limit` ready jobs, waiting up to `wait` seconds for the first.

    With `ahead`, one job, or as many as run in that many seconds by what their tasks took so far. With
    `early` the answer may come before what was reported in the same request is on record; the grant says so.
    """

    limit: int = 1
    wait: float = 0.0
    ahead: float | None = None
    early: bool = False


class Ack(Command, frozen=True, tag="ack"):
    """Record the results of the jobs from number `first` on, in order, with their run times in seconds."""

    token: int
    first: int
    results: list[bytes]
    seconds: list[float]


class Nack(Command, frozen=True, tag="nack"):
    """Record that one attempt failed; `retry_in` seconds, or None to give the job up."""

    token: int
    number: int
    error: ErrorInfo
    retry_in: float | None = None
    cause: Cause = Cause.FAILED
    seconds: float = 0.0


class Release(Command, frozen=True, tag="release"):
    """Give back, uncharged, the jobs of a lease from number `first` on.

    `started` says that the first of them was really executing: it counts as an interruption.
    """

    token: int
    first: int
    started: bool = False


class Leave(Command, frozen=True, tag="leave"):
    """End this consumer's membership; what it still holds goes back uncharged."""


class Extend(Command, frozen=True, tag="extend"):
    """Renew all leases of this worker's consumers, and report their number by state."""

    busy: int = 0
    idle: int = 0
    starting: int = 0
    restarts: int = 0
    stopping: bool = False


class Lost(Command, frozen=True, tag="lost"):
    """A supervisor reports that a consumer process has died.

    With `token` not 0, job `number` was executing and is charged with a crash; all else that the
    consumer held goes back uncharged.
    """

    consumer: str
    error: ErrorInfo
    token: int = 0
    number: int = 0
    seconds: float = 0.0


class Recall(Command, frozen=True, tag="recall"):
    """Take back what a consumer read ahead: all after job `number` of `token`, up to lease `last`."""

    consumer: str
    token: int
    number: int
    last: int


class Cancel(Command, frozen=True, tag="cancel"):
    """Cancel waiting jobs."""

    ids: list[str]


class Requeue(Command, frozen=True, tag="requeue"):
    """Make dead jobs ready again, with fresh budgets; without ids, all dead jobs of `queue` (or of all)."""

    ids: list[str] = []
    queue: str = ""


class Get(Command, frozen=True, tag="get"):
    """Describe jobs."""

    ids: list[str]


class List(Command, frozen=True, tag="list"):
    """Describe up to `limit` jobs, newest first, of a state, a queue and a task where these are named."""

    state: str = ""
    queue: str = ""
    task: str = ""
    limit: int = 50


class Await(Command, frozen=True, tag="await"):
    """Return the outcomes of these jobs once all have one, or what there is after `wait` seconds."""

    ids: list[str]
    wait: float = 0.0


class Feed(Command, frozen=True, tag="feed"):
    """Return outcomes after `cursor`, in the order they were recorded; of one origin, or of all.

    With `folded`, successes of one origin may come as `replies.Span`, which costs far less for each job.
    """

    origin: str = ""
    cursor: int = 0
    limit: int = 1000
    wait: float = 0.0
    folded: bool = False


class Stats(Command, frozen=True, tag="stats"):
    """Return the counts of every queue."""


class Members(Command, frozen=True, tag="members"):
    """Return the workers that are connected."""


class Drain(Command, frozen=True, tag="drain"):
    """Hand a pill to every consumer that asks, of one worker or of all, until resumed.

    `refuse` also refuses new jobs meanwhile.
    """

    worker: str = ""
    refuse: bool = False


class Resume(Command, frozen=True, tag="resume"):
    """End a drain."""

    worker: str = ""


class Ping(Command, frozen=True, tag="ping"):
    """Ask for nothing but an answer."""


class Wake(Command, frozen=True, tag="wake"):
    """Answer at once what this connection is still waiting for, with what there is."""


class Exposition(Command, frozen=True, tag="exposition"):
    """Return the metrics as Prometheus text."""


class Backup(Command, frozen=True, tag="backup"):
    """Begin a backup of the journal under a file name, or say how far it is; ask again until it is done."""

    name: str


class Take(Command, frozen=True, tag="take"):
    """Hand out the next answer of the `results` queue, for good. For plain clients only."""

    wait: float = 0.0


class Join(Command, frozen=True, tag="join"):
    """Answer when nothing of a queue is waiting or leased. For plain clients only."""

    queue: str
    wait: float = 0.0


#: What our own clients may send; `Take` and `Join` come only from the face for plain clients.
AnyCommand = (
    Hello
    | Submit
    | Lease
    | Ack
    | Nack
    | Release
    | Leave
    | Extend
    | Lost
    | Recall
    | Cancel
    | Requeue
    | Get
    | List
    | Await
    | Feed
    | Stats
    | Members
    | Drain
    | Resume
    | Ping
    | Wake
    | Exposition
    | Backup
)
