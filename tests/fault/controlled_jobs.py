"""Kills while jobs are cancelled, leave checkpoints, or lose their consumer to a planned replacement.

Each looks by itself whether the service did as it should, and knows the processes that it has killed.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import timedelta

from svc.broker.manager import ManagerBroker
from svc.codec import PLAIN, encode_arguments
from svc.domain.job import NewChunk, Terms
from svc.errors import ManagerUnreachable
from tests.fault import surroundings
from tests.fault.site import CALL_SECONDS, CONSUMERS, TASKS, WORK, submit
from tests.fault.strikes import Strikes
from tests.support.checker import Books, Checker
from tests.support.checkpoints import wrong_checkpoints
from tests.support.history import History, Log, Recorder, Step, read_checkpoints, read_executions, read_faults
from tests.support.processes import children, descendants

#: The queue of the workers of the campaign that has no other load; and the states of jobs that have ended.
_QUEUE, _ENDED = "poison", frozenset(("succeeded", "dead", "cancelled"))
#: Jobs that are cancelled or leave checkpoints in one strike; and seconds for which one lingers.
_JOBS, _LINGER_SECONDS = 8, 8.0
#: What such jobs do about a cancel; a short one may have ended before it.
_HABITS = ("obey", "forget", "loop in C", "be short")
_GRACE_SECONDS = 0.5
#: Checkpoints of one job.
_STEPS = 60
#: Jobs of a worker whose consumers are replaced, the run times of these, and its consumers.
_VISITOR_JOBS, _VISITOR_CONSUMERS = 80, 2
_VISITOR_SECONDS = (0.0, 0.01, 0.1, 0.3)
#: Those of a worker that may be killed.
_VICTIMS = ("consumer", "consumer", "forkserver", "worker", "manager", "nobody")
#: Seconds that a worker may take to begin its first job.
_START_SECONDS = 60.0
_NOW = timedelta(0)


def cancel_jobs(strikes: Strikes, kind: str) -> None:
    """Cancel running jobs just before or after a kill: each has an end when that returns, and keeps it."""
    at, site = time.monotonic(), strikes.site
    recorder = Recorder(site.folder, strikes.name("cancelled"))
    labels = [f"{recorder.client}-{number}" for number in range(_JOBS)]
    # The first ones run when the cancel comes.
    habits = [*_HABITS[:-1], *strikes.random.choices(_HABITS, k=_JOBS)]
    folder = str(site.folder)
    bodies = [
        encode_arguments(PLAIN, (label, 0.2 if habit == "be short" else _LINGER_SECONDS, folder, habit), {})
        for label, habit in zip(labels, habits, strict=False)
    ]
    steps: list[Callable[[], None]] = [lambda: _kill_someone(strikes, kind)]
    with site.broker() as broker:
        submit(broker, recorder, NewChunk(0, Terms(f"{TASKS}:linger", _QUEUE, timeout=60.0), bodies))
        steps.insert(strikes.random.randrange(2), lambda: _cancel(broker, recorder, labels))
        for step in steps:
            _await_runs(strikes, broker, labels)
            step()
        found = states(broker, labels)
        log = Log(site.folder / "cancels" / f"{recorder.client}.jsonl")
        for label, state in zip(labels, found, strict=True):
            log.write(label=label, state=state)
        for state in set(found).difference(_ENDED):
            strikes.violations.append(f"I13: a cancel was answered, and a job is {state}")
        if not _run_all(strikes, broker, _QUEUE):
            strikes.violations.append("I13: jobs behind cancelled ones were not done")
        if states(broker, labels) != found:
            strikes.violations.append(f"I13: cancelled jobs were {found}, then {states(broker, labels)}")
    strikes.note(kind, at)


def _cancel(broker: ManagerBroker, recorder: Recorder, labels: list[str]) -> None:
    """Cancel jobs; repeat it until it is known to be done."""
    ask = functools.partial(broker.cancel, labels, running=True, grace=_GRACE_SECONDS)
    end = time.monotonic() + surroundings.PATIENCE_SECONDS
    while recorder.call("cancel", 0, len(labels), CALL_SECONDS, ask) is None:
        if time.monotonic() >= end:
            raise ManagerUnreachable("the campaign has lost its manager")


def leave_checkpoints(strikes: Strikes, kind: str) -> None:
    """Kill processes of jobs that leave checkpoints: each next attempt gets one that is late enough."""
    at, site = time.monotonic(), strikes.site
    recorder = Recorder(site.folder, strikes.name("stepping"))
    labels = [f"{recorder.client}-{number}" for number in range(_JOBS)]
    bodies = [encode_arguments(PLAIN, (label, _STEPS, str(site.folder)), {}) for label in labels]
    with site.broker() as broker:
        submit(broker, recorder, NewChunk(0, Terms(f"{TASKS}:step", _QUEUE), bodies))
        _await_runs(strikes, broker, labels)
        strikes.until(lambda: _kept(strikes, labels), _START_SECONDS)
        _kill_of(strikes, kind, strikes.site.workers["direct"], "consumer")
        time.sleep(strikes.random.uniform(0.05, 0.5))
        _kill_someone(strikes, kind)
        if not _all_end(strikes, broker, labels):
            strikes.violations.append("I1: jobs with checkpoints have not ended")
    strikes.violations += wrong_checkpoints(_steps(strikes, labels), _checker(strikes).explanations)
    strikes.note(kind, at)


def _kept(strikes: Strikes, labels: Sequence[str]) -> bool:
    """Return whether jobs run on all consumers, and have left checkpoints."""
    steps = [step for step in _steps(strikes, labels) if step.kind == "kept"]
    return len({step.pid for step in steps}) >= CONSUMERS and len(steps) > _JOBS


def _steps(strikes: Strikes, labels: Sequence[str]) -> list[Step]:
    return [step for step in read_checkpoints(strikes.site.folder) if step.label in labels]


def recycle_consumers(strikes: Strikes, kind: str) -> None:
    """Kill processes of a worker that replaces its consumers after a few jobs each."""
    _visit(strikes, kind, ("--recycle-jobs", "8"), lambda _: None)


def reload_tasks(strikes: Strikes, kind: str) -> None:
    """Kill processes of a worker that loads its tasks again."""
    preloads = strikes.random.random() < 0.5
    flags = ("--preload", "json") if preloads else ()
    _visit(strikes, kind, flags, lambda worker: worker.send_signal(signal.SIGHUP))


def _visit(
    strikes: Strikes, kind: str, flags: Sequence[str], act: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    """Have a further worker run jobs, and *act* on it and kill; no job may run twice without a kill."""
    at, site = time.monotonic(), strikes.site
    recorder = Recorder(site.folder, strikes.name("visited"))
    labels = [f"{recorder.client}-{number}" for number in range(_VISITOR_JOBS)]
    visitors: list[subprocess.Popen[bytes]] = []

    def present() -> subprocess.Popen[bytes]:
        if not visitors or visitors[-1].poll() is not None:
            visitors.append(_start_visitor(strikes, recorder.client, flags))
        return visitors[-1]

    bodies = [
        encode_arguments(PLAIN, (label, strikes.random.choice(_VISITOR_SECONDS), str(site.folder)), {})
        for label in labels
    ]
    try:
        with site.broker() as broker:
            present()
            submit(broker, recorder, NewChunk(0, Terms(WORK, recorder.client), bodies))
            _await_runs(strikes, broker, labels)
            act(present())
            if not _are_replaced(strikes, present()):
                strikes.violations.append(f"I12: the consumers of a worker were not replaced: {kind}")
            for _ in range(3):
                time.sleep(strikes.random.uniform(0.0, 0.5))
                act(present())
                time.sleep(strikes.random.uniform(0.0, 0.5))
                _kill_of(strikes, kind, present(), strikes.random.choice(_VICTIMS))
            if not _all_end(strikes, broker, labels, present):
                strikes.violations.append(f"I1: a worker did not run its jobs: {kind}")
        # One that has just been started again has to come so far that it knows the signal.
        strikes.until(lambda: len(_consumers(present())) >= _VISITOR_CONSUMERS, _START_SECONDS)
        visitors[-1].terminate()
        if not strikes.until(lambda: visitors[-1].poll() is not None, surroundings.PATIENCE_SECONDS):
            strikes.violations.append(f"I12: a worker did not leave: {kind}")
        elif visitors[-1].returncode:
            strikes.violations.append(f"I12: a worker left with code {visitors[-1].returncode}: {kind}")
    finally:
        for visitor in visitors:
            site.send([visitor.pid, *descendants(visitor.pid)] * (visitor.poll() is None), signal.SIGKILL)
            visitor.wait()
    strikes.violations += _checker(strikes, labels).repeats()
    strikes.note(kind, at)


def _start_visitor(strikes: Strikes, queue: str, flags: Sequence[str]) -> subprocess.Popen[bytes]:
    folder = str(strikes.site.folder)
    command = ("worker", "--http", "off", "--tasks", TASKS, "--name", strikes.name("visitor"))
    own = ("--consumers", str(_VISITOR_CONSUMERS), "--queues", queue, *flags)
    return strikes.site.service.run(*command, *own, module=("tests.support.fail_points", folder))


# --- kills ------------------------------------------------------------------------------------------------


def _kill_someone(strikes: Strikes, kind: str) -> None:
    """Kill a process of the campaign, or none."""
    victim = strikes.random.choice(("consumer", "consumer", "worker", "manager", "nobody"))
    if victim == "consumer":
        strikes.kill_consumer(f"{kind}, consumer killed")
    elif victim == "worker":
        strikes.kill_worker(f"{kind}, worker killed")
    elif victim == "manager":
        strikes.kill_manager(f"{kind}, manager killed")
    strikes.site.replace_workers()


def _kill_of(strikes: Strikes, kind: str, worker: subprocess.Popen[bytes], victim: str) -> None:
    """Kill a process of *worker*, or the manager, or none."""
    below, consumers = descendants(worker.pid), _consumers(worker)
    if victim == "manager":
        strikes.kill_manager(f"{kind}, manager killed")
    elif victim == "worker":
        strikes.kill([worker.pid, *below], f"{kind}, worker killed")
        worker.wait()
    elif victim != "nobody" and consumers:
        pid = strikes.random.choice(consumers if victim == "consumer" else children(worker.pid))
        strikes.kill([pid], f"{kind}, {victim} killed", also=descendants(pid))


def _consumers(worker: subprocess.Popen[bytes]) -> list[int]:
    """Return the consumers of a worker: the children of its forkservers."""
    return [pid for pid in descendants(worker.pid) if pid not in children(worker.pid)]


def _are_replaced(strikes: Strikes, worker: subprocess.Popen[bytes]) -> bool:
    """Return whether all consumers have others in their place in time."""
    before = set(_consumers(worker))
    return strikes.until(lambda: before.isdisjoint(_consumers(worker)), _START_SECONDS)


# --- looks ------------------------------------------------------------------------------------------------


def states(broker: ManagerBroker, labels: Sequence[str]) -> list[str]:
    """Return the states of jobs, once the manager can be asked."""
    end = time.monotonic() + surroundings.PATIENCE_SECONDS
    while True:
        with contextlib.suppress(ManagerUnreachable):
            by_id = {view.id: view.state for view in broker.get(list(labels))}
            return [by_id[label] for label in labels]
        if time.monotonic() >= end:
            raise ManagerUnreachable("the campaign has lost its manager")


def _await_runs(strikes: Strikes, broker: ManagerBroker, labels: Sequence[str]) -> None:
    """Wait until one of the jobs runs, or all have ended: a worker may be about to start."""

    def runs() -> bool:
        found = states(broker, labels)
        return "leased" in found or _ENDED.issuperset(found)

    strikes.until(runs, _START_SECONDS)


def _all_end(
    strikes: Strikes,
    broker: ManagerBroker,
    labels: Sequence[str],
    mend: Callable[[], object] = lambda: None,
) -> bool:
    """Return whether all jobs end in time; workers that have ended are started again."""

    def over() -> bool:
        mend()
        strikes.site.replace_workers()
        return len(broker.wait(list(labels), _NOW)) == len(labels)

    return strikes.until(over, 2 * surroundings.PATIENCE_SECONDS)


def _run_all(strikes: Strikes, broker: ManagerBroker, queue: str) -> bool:
    """Submit short jobs; return whether all of them end in time."""
    folder, recorder = strikes.site.folder, Recorder(strikes.site.folder, strikes.name("behind"))
    labels = [f"{recorder.client}-{number}" for number in range(_JOBS)]
    bodies = [encode_arguments(PLAIN, (label, 0.01, str(folder)), {}) for label in labels]
    submit(broker, recorder, NewChunk(0, Terms(WORK, queue), bodies))
    return _all_end(strikes, broker, labels)


def _checker(strikes: Strikes, labels: Sequence[str] = ()) -> Checker:
    """Return a checker of the runs of some jobs, and of the faults so far."""
    folder, own = strikes.site.folder, frozenset(labels)
    runs = [run for run in read_executions(folder) if run.label in own] if own else []
    return Checker(History([], runs, [*strikes.faults, *read_faults(folder)]), Books())


CONTROLLED: dict[str, Callable[[Strikes, str], None]] = {
    "F31 kills while jobs are cancelled": cancel_jobs,
    "F32 kills between checkpoints": leave_checkpoints,
    "F33 kills while consumers are recycled": recycle_consumers,
    "F34 kills in a reload": reload_tasks,
}
