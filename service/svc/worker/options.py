"""The settings that a supervisor and its consumers get at their start."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from svc.broker.base import Broker
from svc.codec import PLAIN
from svc.domain.commands import Hello
from svc.domain.field_bounds import NUMBER_MAX
from svc.domain.job import DEFAULT_QUEUE
from svc.envelope import PickleKeys
from svc.worker.cpu import CpuCount

#: What fits into a number of the wire.
LIFE_BITS = NUMBER_MAX.bit_length()
StartMethod = Literal["forkserver", "spawn"]
#: Makes the connection of one process. It calls the given function for the hello of each new connection.
#: Picklable: each consumer makes its own.
Connect = Callable[[Callable[[], Hello]], Broker]
#: Sets logging up in a consumer. Picklable.
ConfigureLogging = Callable[[], None]


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """The settings of one worker. Times are in seconds.

    Attributes:
        name: the worker's name, unique among the workers of a manager.
        host: the host's name, for people.
        consumers: number of consumer processes.
        tasks: modules whose tasks they run.
        queues: queues that they take jobs from.
        accept: codecs of the jobs that they run.
        pickle_keys: the keys that verify pickled jobs and sign pickled results.
        grace: time that running jobs have after the worker was told to stop.
        import_timeout: time that a consumer may take to import the task modules.
        cpu: the number of CPUs that determined `consumers`, for the metrics.
        start_method: how consumer processes start; forkserver is faster, spawn needs no process in between.
        preload: modules that the forkserver imports once for all consumers; none may start a thread.
        http: where this worker serves its metrics, as it tells the manager.
        release: the version of svc, as it tells the manager.
        manager: where the manager is, as the log says it.
        lease_wait: how long a consumer waits at the manager for a job before it asks again.
        life: a number that no other process of the same name has; the manager tells by it that one was lost.
    """

    name: str
    host: str
    consumers: int
    tasks: tuple[str, ...] = ()
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    accept: tuple[str, ...] = (PLAIN,)
    pickle_keys: PickleKeys | None = None
    grace: float = 30.0
    import_timeout: float = 60.0
    cpu: CpuCount = field(default_factory=lambda: CpuCount(1, "host"))
    start_method: StartMethod = "forkserver"
    preload: tuple[str, ...] = ("svc.worker.entry",)
    http: str = ""
    release: str = ""
    manager: str = ""
    lease_wait: float = 20.0
    life: int = field(default_factory=lambda: secrets.randbits(LIFE_BITS))
