"""Faults around the service: clients that fork, logs, files, tasks' processes, the clock.

Each takes the `Strikes` that notes it and its kind, and checks by itself that the service coped with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from svc.codec import PLAIN, encode_arguments
from svc.domain.job import NewChunk, Terms
from svc.errors import ManagerUnreachable
from svc.server.journal.large_rows import large_rows_path
from svc.server.journal.ownership import CHECK_SECONDS, TAKEOVER_SECONDS
from tests.fault.scarcity import restart
from tests.fault.site import MANAGER_FLAGS, TASKS, WORK, submit
from tests.fault.strikes import Strikes
from tests.support.history import Recorder, read_leftovers
from tests.support.leftovers import WAYS
from tests.support.ports import lasting_port
from tests.support.processes import ROOT, alive, descendants

#: Seconds that the service has to recover, on a machine that is busy with the campaign.
PATIENCE_SECONDS = 60.0
#: Forked children of a client, and jobs that each submits.
CHILDREN, CHILD_JOBS = 4, 25
#: The smallest pipe that Linux gives (pipe(7)), so that it is full soon.
_PIPE_BYTES = 4096
_POISON_QUEUE, _UNREAD_QUEUE = "poison", "unread"
#: Jobs of a worker whose log nobody reads: they log more than the pipe holds.
_UNREAD_JOBS = 100
AHEAD = "F15 a start a year ahead"
#: How far the clock is ahead then, in seconds; a delay and retentions that end long before that.
_YEAR, _DELAY = 365 * 24 * 3600, 3600.0
_RETENTIONS = ("--retention", "7d", "--dead-retention", "7d")
#: Jobs that are done while it is ahead.
_AHEAD_JOBS = 20


def fork_client(strikes: Strikes, kind: str) -> None:
    """Run a client that submits, forks, and submits in every child, each over its inherited connection."""
    at, site = time.monotonic(), strikes.site
    command = [sys.executable, "-m", "tests.support.forking_client", strikes.name("forking"), WORK]
    counts = [str(site.folder), str(CHILDREN), str(CHILD_JOBS)]
    with (site.folder / "forking.log").open("ab") as log:
        client = subprocess.Popen(
            [*command, *counts], env=site.service.environment, stdout=log, stderr=log, cwd=ROOT
        )
    try:
        code = client.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        _kill_all(client.pid)
        code = client.wait()
    if code:
        strikes.violations.append(f"I7: {code} processes of a client that forked did not get what is theirs")
    strikes.note(kind, at)


def stall_log(strikes: Strikes, kind: str) -> None:
    """Add a worker whose log is a pipe that nobody reads; it has to work on, and to leave when it is told."""
    at, site = time.monotonic(), strikes.site
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    command = ["worker", "--http", "off", "--tasks", TASKS, "--consumers", "1", "--name", "unread"]
    worker = subprocess.Popen(
        [sys.executable, "-m", "svc", *command, "--queues", _UNREAD_QUEUE, "--log-level", "debug"],
        env=site.service.environment, stdout=subprocess.DEVNULL, stderr=writing, cwd=ROOT,
    )  # fmt: skip
    try:
        if not strikes.until(lambda: not select.select([], [writing], [], 0.0)[1], PATIENCE_SECONDS):
            strikes.violations.append("F25: a worker did not log enough to fill its pipe")
        if not _run_all(strikes, _UNREAD_QUEUE, _UNREAD_JOBS):
            strikes.violations.append("I1: a worker with an unread log did not run its jobs")
        pids = frozenset((worker.pid, *descendants(worker.pid)))
        worker.terminate()
        if not strikes.until(lambda: worker.poll() is not None, PATIENCE_SECONDS):
            strikes.violations.append("I12: a worker with an unread log did not leave")
    finally:
        _kill_all(worker.pid)
        worker.wait()
        os.close(writing)
        os.close(reading)
    strikes.note(kind, at, pids)


def _run_all(strikes: Strikes, queue: str, count: int) -> bool:
    """Submit *count* jobs to *queue*; return whether they have all ended in time."""
    site, recorder = strikes.site, Recorder(strikes.site.folder, strikes.name(queue))
    labels = [f"{recorder.client}-{number}" for number in range(count)]
    bodies = [encode_arguments(PLAIN, (label, 0.002, str(site.folder)), {}) for label in labels]
    with site.broker() as broker:
        submit(broker, recorder, NewChunk(0, Terms(WORK, queue), bodies))
        return len(broker.wait(labels, timedelta(seconds=PATIENCE_SECONDS))) == count


def take_journal_away(strikes: Strikes, kind: str) -> None:
    """Move a file of the journal away while the manager has it; it has to end before it tells anyone more."""
    at, service = time.monotonic(), strikes.site.service
    assert service.manager is not None
    manager, journal = service.manager, service.journal
    parts = [journal, Path(f"{journal}-wal"), large_rows_path(journal)]
    part = strikes.random.choice([each for each in parts if each.exists()])
    away = part.with_name(f"{part.name}.away")
    part.rename(away)
    if not strikes.until(lambda: manager.poll() is not None, PATIENCE_SECONDS):
        strikes.violations.append(f"I1: a journal was served though {part.name} had gone")
        service.kill_manager()
    away.rename(part)
    strikes.note(kind, at, None)
    strikes.site.start_manager()


def start_second_manager(strikes: Strikes, kind: str) -> None:
    """Start a second manager on the journal, on a file system whose locks do nothing; the first has to end.

    Every job that either accepts has to be in the journal. The first one is started anew for that, and the
    usual one takes over in the end.
    """
    at, site = time.monotonic(), strikes.site
    site.service.stop_manager()
    site.start_manager(module=("tests.support.lockless",), flags=("--accept-network-filesystem",))
    first = site.service.manager
    assert first is not None
    with _second_manager(strikes) as second:
        patience = PATIENCE_SECONDS + CHECK_SECONDS + TAKEOVER_SECONDS
        if not strikes.until(lambda: first.poll() is not None, patience):
            strikes.violations.append("I1: two managers served one journal")
            site.service.kill_manager()
        if (trouble := second()) is not None:
            strikes.violations.append(f"I1: who took a journal over did not serve it: {trouble}")
    strikes.note(kind, at, None)
    site.start_manager()


@contextlib.contextmanager
def _second_manager(strikes: Strikes) -> Iterator[Callable[[], str | None]]:
    """Run it in the block; the value is a function that submits a job and returns a reason if it fails."""
    service = strikes.site.service
    host, _, _ = service.listen.rpartition(":")
    listen = f"{host}:{lasting_port(host)}"
    process = service.run(
        "manager", "--listen", listen, "--http", "off", "--journal", str(service.journal),
        "--accept-network-filesystem", *MANAGER_FLAGS, module=("tests.support.lockless",),
    )  # fmt: skip
    recorder = Recorder(strikes.site.folder, strikes.name("second"))

    def accept() -> str | None:
        body = encode_arguments(PLAIN, (f"{recorder.client}-0", 0.0, str(strikes.site.folder)), {})
        try:
            with strikes.site.broker(listen=listen) as broker:
                submit(broker, recorder, NewChunk(0, Terms(WORK), [body]), PATIENCE_SECONDS)
        except ManagerUnreachable as error:
            return f"{error}; its exit code is {process.poll()}"
        return None

    try:
        yield accept
    finally:
        process.terminate()
        if not strikes.until(lambda: process.poll() is not None, PATIENCE_SECONDS):
            process.kill()
        process.wait()


def leave_processes(strikes: Strikes, kind: str) -> None:
    """Run a job that leaves a process, to its end or until its consumer is killed; it has to end."""
    at, site = time.monotonic(), strikes.site
    recorder = Recorder(site.folder, strikes.name("leaving"))
    label, way = f"{recorder.client}-0", strikes.random.choice(sorted(WAYS))
    killed = strikes.random.random() < 0.5
    arguments = (label, 1.0 if killed else 0.0, str(site.folder), way)
    chunk = NewChunk(
        0, Terms(f"{TASKS}:leave_process", _POISON_QUEUE), [encode_arguments(PLAIN, arguments, {})]
    )

    def left() -> list[tuple[int, int]]:
        return [(process, consumer) for of, process, consumer in read_leftovers(site.folder) if of == label]

    with site.broker() as broker:
        submit(broker, recorder, chunk)
        if killed and strikes.until(left, PATIENCE_SECONDS):
            strikes.kill([left()[0][1]], f"{kind}, consumer killed")
        broker.wait([label], timedelta(seconds=PATIENCE_SECONDS))
    # A supervisor ends such processes for a dead consumer, or a consumer after the job, and soon after that.
    if not strikes.until(lambda: left() and not any(alive(each) for each, _ in left()), PATIENCE_SECONDS):
        strikes.violations.append(f"I9: what a job had left as a {way} lived on")
        strikes.site.send([each for each, _ in left()], signal.SIGKILL)
    strikes.note(kind, at)


def start_ahead(strikes: Strikes, kind: str) -> None:
    """Start the manager with a clock that is a year ahead, and again with a right one.

    Both times results are kept, a delayed job waits, and others are done.
    """
    site, recorder = strikes.site, Recorder(strikes.site.folder, strikes.name("ahead"))
    states = {
        f"{recorder.client}-0": "succeeded",
        f"{recorder.client}-1": "dead",
        (delayed := f"{recorder.client}-2"): "scheduled",
    }
    bodies = [encode_arguments(PLAIN, (label, 0.0, str(site.folder)), {}) for label in states]
    with site.broker() as broker:
        submit(broker, recorder, NewChunk(0, Terms(WORK), bodies[:1]))
        submit(broker, recorder, NewChunk(1, Terms(f"{TASKS}:unspeakable", _POISON_QUEUE), bodies[1:2]))
        submit(broker, recorder, NewChunk(2, Terms(WORK), bodies[2:], delay=_DELAY))
        broker.wait([label for label in states if label != delayed], timedelta(seconds=PATIENCE_SECONDS))
    site.clock.jump(_YEAR)
    restart(strikes, environment=site.clock.environment, flags=_RETENTIONS)
    at = time.monotonic()
    _look_at_jobs(strikes, states)
    with site.broker() as broker:
        if not broker.stats().clock_held:
            strikes.violations.append("F15: a clock that is a year ahead is not held")
    strikes.note(kind, at)
    restart(strikes)
    _look_at_jobs(strikes, states)
    with site.broker() as broker:
        broker.cancel([delayed])


def _look_at_jobs(strikes: Strikes, states: dict[str, str]) -> None:
    """Run some jobs; then see whether others are in their states."""
    if not _run_all(strikes, "default", _AHEAD_JOBS):
        strikes.violations.append("I1: a manager with a wrong clock did not have its jobs done")
    with strikes.site.broker() as broker:
        found = {view.id: view.state for view in broker.get(list(states))}
    strikes.violations += [
        f"I1: {job} is {found.get(job, 'forgotten')} and not {state} after a start with a wrong clock"
        for job, state in states.items()
        if found.get(job) != state
    ]


def _kill_all(pid: int) -> None:
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


#: The faults of this module, for the deck.
SURROUNDINGS: dict[str, Callable[[Strikes, str], None]] = {
    "F24 a client forks": fork_client,
    "F25 a log that nobody reads": stall_log,
    "F26 the journal's files go": take_journal_away,
    "F27 a second manager, without locks": start_second_manager,
    "F28 tasks leave processes": leave_processes,
    AHEAD: start_ahead,
}
