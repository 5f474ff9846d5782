"""`svc dev`: a manager and a worker in one terminal."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from svc.addresses import DEFAULT_PORT, LOOPBACK
from svc.cli.output import tell, tell_lines
from svc.cli.task_files import TaskFiles, mistake_in
from svc.settings import MANAGER_HTTP_PORT, DevSettings

if TYPE_CHECKING:
    from svc.cli.children import ChildProcess, Service
    from svc.client.client import BrokerClient

_LOOK_SECONDS = 0.1
#: Seconds that one call to the manager may take.
_CALL_SECONDS = 10.0
#: Seconds that tasks may take to be imported before the settings are told without a consumer.
_JOIN_SECONDS = 30.0
_DEMO_TASKS = "svc.cli.demo_tasks"
_OLD_CODE = "the worker goes on with the code that it has"
#: The worker's name, which a drain of it uses; a new worker has the same name.
_WORKER = "dev"
_KEPT = (
    "the manager keeps the jobs, and a new worker starts when a Python file here is changed; Ctrl-C ends all"
)


def dev(ctx: typer.Context, settings: DevSettings) -> int:
    """Run a manager and a worker in this terminal.

    They have a temporary authkey and, unless --journal names one, a temporary journal, end with Ctrl-C, and
    listen on this host alone: on the usual ports, or on free ones if these are taken. A worker that is
    drained comes back at `svc resume`, and a new one takes its place when a Python file in the working
    directory, or of the tasks, is changed: jobs that run then have 3 s to end, and start anew if they do
    not. With --reload it is the same worker, which loads the tasks again, and jobs that run go on.
    """
    from svc.cli.children import ended_by_signals, running_service
    from svc.cli.wiring import open_client

    # Without --http a worker takes a free port itself if the usual one is taken.
    worker_flags = ("--name", _WORKER, *_terms(settings))
    with ended_by_signals():
        try:
            with (
                running_service(_addresses, worker_flags, quiet=False, journal=settings.journal) as service,
                open_client(ctx, service.connection, _CALL_SECONDS) as client,
            ):
                if _joined(service, client):
                    _welcome(service, settings)
                return _watch(service, client, TaskFiles(settings.tasks), reload=settings.reload)
        except KeyboardInterrupt:
            tell_lines("\nstopped")
            return 0


def _joined(service: Service, client: BrokerClient) -> bool:
    """Wait for the first consumer; return False if the worker fails and there is no job to look at."""
    end = time.monotonic() + _JOIN_SECONDS
    while not client.stats().consumers and time.monotonic() < end:
        if (code := service.worker.process.poll()) is not None:
            # A journal that was kept may have a drain in force, and the worker goes home with 0.
            return code == 0 or any(queue.submitted for queue in client.stats().queues)
        time.sleep(_LOOK_SECONDS)
    return True


def _watch(service: Service, client: BrokerClient, files: TaskFiles, *, reload: bool) -> int:
    """Keep a worker beside the manager until the manager ends; return the exit code of `svc dev`.

    A worker that ends takes no job with it: one that was drained comes back when the drain is over, and one
    that failed when its tasks are changed. The latter ends `svc dev` only if there is no job to be lost.
    """
    worker, failed = service.worker, False
    while service.manager.process.poll() is None:
        code = worker.process.poll()
        if changed := files.changed():
            if mistake := mistake_in(changed):
                tell(f"svc: the tasks have changed: {mistake}; {_OLD_CODE if code is None else _KEPT}")
            elif reload and code is None:
                tell(f"svc: the tasks have changed ({_names(changed)}); the worker loads them again")
                worker.process.send_signal(signal.SIGHUP)
            else:
                tell(f"svc: the tasks have changed ({_names(changed)}); a new worker takes the place")
                worker.stop()
                worker, failed = service.start_worker(), False
        elif code == 0:
            worker = _worker_after_drain(service, client) or worker
        elif code is not None and not failed:
            if not any(queue.submitted for queue in client.stats().queues):
                tell(f"svc: the worker has ended with exit code {code}")
                return code
            tell(f"svc: the worker has ended with exit code {code}; {_KEPT}")
            failed = True
        time.sleep(_LOOK_SECONDS)
    tell(f"svc: the manager has ended with exit code {service.manager.process.returncode}")
    return 1


def _names(files: Sequence[Path]) -> str:
    """Return the name of the first of *files*, and how many others there are."""
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _worker_after_drain(service: Service, client: BrokerClient) -> ChildProcess | None:
    """Wait until no drain is in force, and return a new worker; None if the manager ends first."""
    if _drained(client):
        tell("svc: the worker has been drained; the jobs are kept, and it comes back at `svc resume`")
    while service.manager.process.poll() is None:
        if not _drained(client):
            return service.start_worker()
        time.sleep(_LOOK_SECONDS)
    return None


def _drained(client: BrokerClient) -> bool:
    totals = client.stats()
    return bool(totals.drain) or _WORKER in totals.drained_workers


def _welcome(service: Service, settings: DevSettings) -> None:
    ending = f"and keeps the jobs in {settings.journal}" if settings.journal else "and forgets all jobs"
    own = "".join(f"Tasks of {name}: svc submit {name}:FUNCTION [ARG]... --wait\n" for name in settings.tasks)
    tell_lines(
        f"""
svc is ready: manager {service.connection.manager}, metrics http://{service.manager.addresses["http"]}/metrics
In another terminal:

  PATH="{Path(sys.executable).parent}:$PATH"
  export SVC_MANAGER={service.connection.manager}
  export SVC_AUTHKEY_FILE={service.connection.authkey_file}
  export SVC_PICKLE_KEY_FILE={service.pickle_key_file}
  svc submit multiply 6 7 --wait

Ctrl-C here ends both {ending}.
{own}"""
    )


def _terms(settings: DevSettings) -> Iterator[str]:
    """Yield the flags of the worker that say which jobs it takes."""
    yield from ("--tasks", ",".join((*settings.tasks, _DEMO_TASKS)), "--queues", ",".join(settings.queues))
    yield from ("--accept", ",".join(settings.accept), "--consumers", str(settings.consumers or "auto"))
    if settings.shell:
        yield "--shell"


def _addresses() -> tuple[str, ...]:
    """Return the flags of the manager with its addresses, as far as they are free now."""
    return ("--listen", _local(DEFAULT_PORT), "--http", _local(MANAGER_HTTP_PORT))


def _local(port: int) -> str:
    """Return the loopback address with *port*, or with 0 for any free port if that one is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return f"{LOOPBACK}:0"
    return f"{LOOPBACK}:{port}"
