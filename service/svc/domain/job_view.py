"""The description of a job, as `svc jobs show` prints it and Python returns it."""

from __future__ import annotations

import msgspec

from svc.domain.job import Attempt, Struct


class Content(Struct, frozen=True):
    """The arguments and the result of a job, encoded; empty if they are larger than a description may be.

    `hidden` says that the manager shows them to nobody; the sizes are 0 then.
    """

    arguments: bytes = b""
    arguments_bytes: int = 0
    result: bytes = b""
    result_bytes: int = 0
    hidden: bool = False


class Progress(Struct, frozen=True, gc=False):
    """How far a running job is: `done` of `total`, in a unit of its task's own, at the Unix time `at`.

    `total` is None if the task does not know it.
    """

    done: float
    total: float | None = None
    note: str = ""
    at: float = 0.0

    @property
    def fraction(self) -> float | None:
        """The share that is done, from 0 to 1; None if there is no total, or the total is 0."""
        return min(1.0, self.done / self.total) if self.total else None


class JobView(Struct, frozen=True):
    """A job as `svc jobs show` prints it. Times are Unix times; `reason` says why it waits.

    A `suspect` is a job that a lost worker held: it is handed out alone until it ends. `started_at` and
    `seconds` are those of the attempt that runs or was the last, and `consumer` has it; `worker` as it runs.
    `code` is the version of its code, and `peak_rss` the most memory in bytes that it took, once it is known.
    `progress` is the last report of a job that runs. `checkpoint_bytes` and `checkpoint_at` are about the
    last checkpoint, which the next attempt gets. `partial_results` is the number of those that can be read,
    `stream_bytes` their size, and `stream_number` that of their stream.
    """

    id: str
    task: str
    queue: str
    state: str
    priority: int
    codec: str
    submitted_at: float
    due_at: float | None = None
    failures: int = 0
    crashes: int = 0
    interruptions: int = 0
    retries: int | None = None
    timeout: float | None = None
    key: str = ""
    consumer: str = ""
    reason: str = ""
    finished_at: float | None = None
    attempts: list[Attempt] = msgspec.field(default_factory=list)
    suspicions: int = 0
    suspect: bool = False
    soft_timeout: float | None = None
    max_rss: int | None = None
    started_at: float | None = None
    seconds: float | None = None
    worker: str = ""
    content: Content | None = None
    progress: Progress | None = None
    checkpoint_bytes: int = 0
    checkpoint_at: float | None = None
    code: str = ""
    peak_rss: int | None = None
    partial_results: int = 0
    stream_bytes: int = 0
    stream_number: int = 0

    def redacted(self) -> JobView:
        """Return the description without values and without texts that its task has written."""
        attempts = [msgspec.structs.replace(each, error=each.error.redacted()) for each in self.attempts]
        progress = self.progress and msgspec.structs.replace(self.progress, note="")
        return msgspec.structs.replace(self, attempts=attempts, progress=progress, content=None)
