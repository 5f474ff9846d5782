"""The faults that a job brings upon its worker; each time it runs, until it is dead.

Good jobs wait behind it, and a worker that has ended is started again. Each looks by itself whether the
service did as it should.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta

from svc.broker.manager import ManagerBroker
from svc.codec import PLAIN, encode_arguments
from svc.domain.job import NewChunk, Outcome, Terms
from svc.domain.job_view import JobView
from svc.domain.lifecycle import JobState
from svc.domain.limits import Limits
from tests.fault.site import TASKS, WORK, submit
from tests.fault.strikes import Strikes
from tests.support.history import Recorder, read_faults

#: Tasks that take their worker or consumer down, by the kind of fault that a job of them is; and the name
#: under which the task writes down each time.
DEADLY = {
    "F29 a job ends its worker": ("end_worker", "worker ended"),
    "F29 a job ends its forkserver": ("end_forkserver", "forkserver ended"),
    "F30 a job closes its descriptors": ("close_descriptors", "descriptors closed"),
}
#: Runs after which such a job is dead: the first makes a suspect of it, each further one is a suspicion.
LOSSES_MAX = 1 + Limits().suspicion_budget
#: Suspicions of a good job at most: one that has one runs while no other suspect does. But it may be handed
#: to a consumer that has just died with the forkserver, of which nobody has told the manager yet.
_SHARED_SUSPICIONS = 2
_GOOD_JOBS = 100
_PATIENCE_SECONDS = 240.0
_NOW = timedelta(0)


def run_deadly_job(strikes: Strikes, kind: str) -> None:
    """Submit a job that takes its worker or consumer down, and good ones behind it; see all of them end."""
    at, site = time.monotonic(), strikes.site
    task, each_time = DEADLY[kind]
    recorder = Recorder(site.folder, strikes.name("deadly"))
    poison, *good = labels = [f"{recorder.client}-{number}" for number in range(1 + _GOOD_JOBS)]
    bodies = [encode_arguments(PLAIN, (label, 0.002, str(site.folder)), {}) for label in labels]

    def losses() -> int:
        return sum(fault.kind == each_time and fault.at >= at for fault in read_faults(site.folder))

    with site.broker() as broker:

        def over() -> bool:
            site.replace_workers()
            return losses() > LOSSES_MAX or len(broker.wait(labels, _NOW)) == len(labels)

        submit(broker, recorder, NewChunk(0, Terms(f"{TASKS}:{task}", "poison"), bodies[:1]))
        submit(broker, recorder, NewChunk(1, Terms(WORK, "poison"), bodies[1:]))
        strikes.until(over, _PATIENCE_SECONDS)
        strikes.violations += _wrongs(broker, poison, good, losses())
    strikes.note(kind, at)


def _wrongs(broker: ManagerBroker, poison: str, good: Sequence[str], losses: int) -> list[str]:
    """Return an error if the poison job is not dead for a bounded loss, or the good ones are not done."""
    wrongs = []
    if not 1 < losses <= LOSSES_MAX:
        wrongs.append(f"I5: a job took {losses} workers or consumers down")
    outcomes = broker.wait([poison], _NOW)
    if not any(_is_blamed(outcome) for outcome in outcomes):
        wrongs.append(f"I5: a job that takes its worker down has not died of it: {outcomes}")
    done = sum(outcome.state == JobState.SUCCEEDED for outcome in broker.wait(good, _NOW))
    if done < len(good):
        wrongs.append(f"I1: {len(good) - done} good jobs were not done behind one that takes workers down")
    most = max(broker.get(good), key=lambda view: view.suspicions)
    if most.suspicions > _SHARED_SUSPICIONS:
        (taken,) = broker.get([poison])
        wrongs.append(
            f"I5: a good job has {most.suspicions} suspicions beside one that takes workers down: "
            f"{most.id} {_told(most)}, {poison} {_told(taken)}"
        )
    return wrongs


def _told(view: JobView) -> list[tuple[str, str, float, float]]:
    """Return cause, consumer, time and run time of each attempt."""
    return [(each.cause, each.consumer, each.at, round(each.seconds, 3)) for each in view.attempts]


def _is_blamed(outcome: Outcome) -> bool:
    dead = outcome.state == JobState.DEAD
    return dead and outcome.error is not None and outcome.error.type in ("WorkerLost", "ConsumerDied")
