"""The settings that a supervisor and its consumers get at their start."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

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
#: Sets logging up in a consumer, with the descriptor for the log. Picklable.
ConfigureLogging = Callable[[int], None]
#: Makes the client by which tasks submit jobs, of a function that connects, the pickle keys, and a function
#: that returns the token of the job that submits. Picklable.
MakeSubmitter = Callable[[Callable[[], Broker], PickleKeys | None, Callable[[], int]], Any]


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
        default_timeout: time after which an attempt is killed if neither job nor task has a timeout; None for
            never.
        import_timeout: time that a consumer may take to import the task modules and to call its start hooks.
        cpu: the number of CPUs that determined `consumers`, for the metrics.
        start_method: how consumer processes start; forkserver is faster, spawn needs no process in between.
        preload: modules that the forkserver imports once for all consumers; none may start a thread.
        user_preload: the user's modules that it imports too, before any consumer is forked.
        recycle_jobs: jobs after which a consumer is replaced; 0 for never.
        recycle_age: age at which it is replaced; 0 for none.
        recycle_rss: bytes of memory by which it may grow before it is replaced; 0 for no limit.
        idle_limit: seconds without a job after which the worker ends; 0 for never.
        time_limit: seconds after its start at which it ends; 0 for never.
        http: where this worker serves its metrics, as it tells the manager.
        release: the version of svc, as it tells the manager.
        manager: where the manager is, as the log says it.
        lease_wait: how long a consumer waits at the manager for a job before it asks again.
        shell: whether they run shell commands.
        shell_output: bytes that are kept of each output of a shell command.
        life: a number that no other process of the same name has; the manager tells by it that one was lost.
        output_bytes: bytes of the output of an attempt that are kept of its beginning, and of its end, for
            stdout and stderr each; 0 leaves the output of tasks alone.
        control_group: the folder of the control group that those of the consumers are in; "" for none.
        submitter: makes the client by which tasks submit jobs; if None, they cannot.
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
    default_timeout: float | None = None
    cpu: CpuCount = field(default_factory=lambda: CpuCount(1, "host"))
    start_method: StartMethod = "forkserver"
    preload: tuple[str, ...] = ("svc.worker.entry",)
    user_preload: tuple[str, ...] = ()
    recycle_jobs: int = 0
    recycle_age: float = 0.0
    recycle_rss: int = 0
    idle_limit: float = 0.0
    time_limit: float = 0.0
    http: str = ""
    release: str = ""
    manager: str = ""
    lease_wait: float = 20.0
    shell: bool = False
    shell_output: int = 64 * 1024
    life: int = field(default_factory=lambda: secrets.randbits(LIFE_BITS))
    output_bytes: int = 256 * 1024
    submitter: MakeSubmitter | None = None
    control_group: str = ""
