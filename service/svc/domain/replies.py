"""The replies of the queue: one for each command, in the same order."""

from __future__ import annotations

import msgspec

from svc.domain.job import Outcome, OutputPiece, Terms, job_ids
from svc.domain.job_view import JobView, Progress
from svc.domain.lifecycle import JobState


class Reply(msgspec.Struct, frozen=True, array_like=True, tag_field="kind"):
    """Base of all replies."""


class Done(Reply, frozen=True, tag="done"):
    """The command is done; `count` is the number of jobs that it changed, or as its handler says.

    If `more` is a number, ask again with it as `passed` or `after`.
    """

    count: int = 0
    more: int | None = None


class Refused(Reply, frozen=True, tag="refused"):
    """The command was refused: the code of an error in `svc.errors`, and its message."""

    code: str
    message: str


class Welcome(Reply, frozen=True, tag="welcome"):
    """The answer to hello: the manager's version, incarnation, release and limits (bytes and seconds).

    `checkpoint_bytes` is 0 if the manager is older than checkpoints and reports of progress. The `stream_…`
    bound the partial results of an attempt: the bytes of each, their number, and the bytes of all. They are 0
    if the manager is older than streams. `largest_value`, in bytes, is 0 if it is older than values in pieces
    of `piece_size`.
    """

    version: int
    incarnation: int
    release: str
    lease_seconds: float
    max_job_bytes: int
    lost: list[int] = []
    checkpoint_bytes: int = 0
    stream_value_bytes: int = 0
    stream_values: int = 0
    stream_bytes: int = 0
    largest_value: int = 0
    piece_size: int = 0


class Note(msgspec.Struct, frozen=True, array_like=True):
    """A remark on one submitted chunk, named by its place in the list: a known id, or a refusal.

    If `anew` is set, the chunk was refused because its numbers belong to other jobs. None of its own jobs was
    accepted, so it may be submitted again under another origin.
    """

    chunk: int
    id: str = ""
    code: str = ""
    message: str = ""
    anew: bool = False


class Accepted(Reply, frozen=True, tag="accepted"):
    """All chunks are durable, except those for which a note says otherwise."""

    notes: list[Note] = []


class Stop(msgspec.Struct, frozen=True, array_like=True):
    """The order to end the attempt of a consumer at job `number` of a lease, within `grace` seconds.

    The job is cancelled; the consumer may have ended the attempt already, or not have begun it.
    """

    consumer: str
    token: int
    number: int
    grace: float


class TakeBack(msgspec.Struct, frozen=True, array_like=True):
    """The order to take back the jobs that a consumer has read ahead, as another one is idle.

    It is for a job of a lease up to `last` that has run for `seconds`, or should not end in `wait` seconds.
    """

    consumer: str
    last: int
    seconds: float
    wait: float


class Extended(Reply, frozen=True, tag="extended"):
    """`count` leases are renewed; `drain` is the epoch of a drain in force for the worker, else 0.

    `stops` has the attempts that the worker has to end; each comes again until its consumer asks for jobs.
    `stops_made` counts all that there were. `take_back` has orders that come once: nothing breaks without
    one.
    """

    count: int = 0
    drain: int = 0
    stops: list[Stop] = []
    stops_made: int = 0
    take_back: list[TakeBack] = []


#: The pill of a plain client's `put(None)`; a drain's pill is its epoch.
PILL_PUT_BY_HAND = -1


class Delivery(msgspec.Struct, frozen=True, array_like=True):
    """A lease: jobs `first`, `first + 1`, … of an origin, a body for each, and counts of earlier attempts.

    `headers` has the header of each job, or is empty if no job has one. `checkpoint` is the last one of the
    only job, or b"" if there is none.
    """

    token: int
    origin: str
    first: int
    terms: Terms
    bodies: list[bytes]
    failures: int = 0
    crashes: int = 0
    interruptions: int = 0
    submitted_at: float = 0.0
    waited: float = 0.0
    headers: list[bytes] = []
    checkpoint: bytes = b""
    suspicions: int = 0


class Grant(Reply, frozen=True, tag="grant"):
    """The leased jobs; `pill` not 0 is the answer "stop" (a drain's epoch, or -1: put by hand).

    An `early` grant is sent before the reports in the same request are recorded. The next other answer on the
    same connection confirms them. If the connection ends before that, the reports have to be repeated on
    another one.

    With `patience`, the consumer should ask for its next jobs while it runs these. If one of them takes
    longer than so many seconds, the jobs behind it are taken back.
    """

    deliveries: list[Delivery] = []
    pill: int = 0
    early: bool = False
    patience: float = 0.0


class Logged(Reply, frozen=True, tag="logged"):
    """Pieces of output in the order of their arrival; `more` says that others follow after `cursor`.

    `state` is that of the job, or empty if it is not known any more; `attempts` are those that have output.
    `made` is the number of attempts at it, of which one may run; None where the manager is older.
    """

    pieces: list[OutputPiece]
    cursor: int = 0
    more: bool = False
    state: str = ""
    attempts: list[int] = []
    made: int | None = None


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Jobs `first`, `first + 1`, … of an origin that succeeded: a result and a run time for each."""

    origin: str
    first: int
    results: list[bytes]
    seconds: list[float]
    codec: str
    finished_at: float
    task: str

    def ids(self) -> list[str]:
        """Return the id of each job."""
        return job_ids(self.origin, self.first, len(self.results))

    def outcomes(self) -> list[Outcome]:
        """Return the outcome of each job."""
        codec, at, task, succeeded = self.codec, self.finished_at, self.task, JobState.SUCCEEDED
        return [
            Outcome(job, succeeded, result, None, codec, at, seconds, task)
            for job, result, seconds in zip(self.ids(), self.results, self.seconds, strict=True)
        ]


class Outcomes(Reply, frozen=True, tag="outcomes"):
    """Outcomes, and the cursor from which to read on; `pending` of the named jobs have no outcome yet.

    The answer to a folded feed has successes in `spans`, and all other outcomes in `outcomes`. The answer
    to a paged `Await` may lack the outcomes of `left` jobs; ask again for those.
    """

    cursor: int
    outcomes: list[Outcome]
    pending: int = 0
    spans: list[Span] = []
    left: int = 0

    @property
    def jobs(self) -> int:
        """The number of jobs whose outcomes these are."""
        return len(self.outcomes) + sum(len(span.results) for span in self.spans)

    def results(self) -> dict[str, bytes | Outcome]:
        """Return for each job its result as it is encoded, or its outcome if that is not in a span.

        This takes half of the time that `unfolded` takes.
        """
        found: dict[str, bytes | Outcome] = {}
        for span in self.spans:
            found.update(zip(span.ids(), span.results, strict=True))
        for outcome in self.outcomes:
            found[outcome.id] = outcome
        return found

    def unfolded(self) -> Outcomes:
        """Return the same outcomes, one for each job, in the order in which the jobs ended."""
        if not self.spans:
            return self
        found = [outcome for span in self.spans for outcome in span.outcomes()]
        if self.outcomes:
            found = sorted([*found, *self.outcomes], key=lambda outcome: outcome.finished_at)
        return Outcomes(self.cursor, found, self.pending)


class Views(Reply, frozen=True, tag="views"):
    """Descriptions of jobs; ids that are not known are left out.

    If the answer is paged, the last `left` of the ids were not looked at. In the answer to a `List`, no job
    before the place `before` was looked at, if `before` is not 0.
    """

    jobs: list[JobView]
    left: int = 0
    before: int = 0


class QueueStats(msgspec.Struct, frozen=True, array_like=True):
    """The counts of one queue. `oldest` is the age in seconds of its oldest ready job.

    `unknown` names some of the waiting jobs' tasks that no connected worker knows; `unknown_tasks` is the
    number of all such tasks; the names of all queues take a MiB at most. `unaccepted` names codecs of jobs
    that wait although their task is known: no worker that knows the task accepts the codec.
    """

    name: str
    ready: int = 0
    scheduled: int = 0
    leased: int = 0
    dead: int = 0
    succeeded: int = 0
    cancelled: int = 0
    submitted: int = 0
    oldest: float = 0.0
    oldest_running: float = 0.0
    unknown: list[str] = []
    unknown_tasks: int = 0
    unaccepted: list[str] = []


class Totals(Reply, frozen=True, tag="totals"):
    """The whole service at a glance. `drain` is the epoch of a drain in force, else 0.

    The host's time of day is `clock_offset` seconds ahead of the manager's clock; if that is `clock_held`, it
    goes on from the journal's time until somebody accepts the host's. `leader` is the address at which the
    manager serves that leads a replicated journal, and `standbys` how many it knows of that have caught up
    with it; "" on other journals.
    """

    queues: list[QueueStats]
    workers: int = 0
    consumers: int = 0
    busy: int = 0
    drain: int = 0
    drained_workers: list[str] = []
    incarnation: int = 0
    uptime: float = 0.0
    journal_bytes: int = 0
    release: str = ""
    durability: str = ""
    clock_offset: float = 0.0
    clock_held: bool = False
    leader: str = ""
    standbys: int = 0


class WorkerView(msgspec.Struct, frozen=True, array_like=True):
    """One connected worker; `code` has the number of its consumers with each version of the tasks' code.

    `round_trip` is in seconds, and 0 if the worker has not measured it. `read_ahead` counts the jobs that its
    consumers hold behind those that they run. If it is `silent`, it was not heard of for a lease time, and
    the jobs that it had went back. If it is `doubled`, two processes of its name were heard of in the last
    minute.
    """

    name: str
    host: str
    pid: int
    release: str
    consumers: int
    busy: int
    restarts: int
    leased: int
    queues: list[str]
    tasks: list[str]
    connected_at: float
    seen_at: float
    draining: bool
    http: str = ""
    address: str = ""
    code: dict[str, int] = {}
    round_trip: float = 0.0
    read_ahead: int = 0
    silent: bool = False
    doubled: bool = False


class Roster(Reply, frozen=True, tag="roster"):
    """The connected workers. If the answer is paged and `after` is not "", more follow after that name."""

    workers: list[WorkerView]
    after: str = ""


class StreamPart(Reply, frozen=True, tag="stream_part"):
    """Partial results of a job, from number `first` of its stream on; `ended` says that no more follow.

    `token` is that of the attempt that gives them, `number` counts the streams of the job, and `attempt` its
    attempts; all are 0 if there is no stream yet.
    """

    token: int = 0
    number: int = 0
    attempt: int = 0
    first: int = 0
    values: list[bytes] = []
    ended: bool = False


class ProgressReports(Reply, frozen=True, tag="progress_reports"):
    """The last report of each job that was asked for, in that order; None where there is none."""

    reports: list[Progress | None]


class Piece(Reply, frozen=True, tag="piece"):
    """A piece of a large value."""

    data: bytes


class Text(Reply, frozen=True, tag="text"):
    """A text."""

    text: str


class Copy(Reply, frozen=True, tag="copy"):
    """The state of a backup (`copying`, `checking`, `done`, `failed`), and its path on the manager's host.

    `host` is the name of that host, and empty from a manager of an earlier release.
    """

    path: str
    state: str
    copied: int = 0
    pages: int = 0
    error: str = ""
    host: str = ""


AnyReply = (
    Done
    | Extended
    | Refused
    | Welcome
    | Accepted
    | Grant
    | Outcomes
    | Views
    | Totals
    | Roster
    | Text
    | Copy
    | Logged
    | ProgressReports
    | StreamPart
    | Piece
)
