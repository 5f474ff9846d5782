"""A cancel holds whatever happens meanwhile, and only those may give one who know the job."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from svc.broker.manager import ManagerBroker
from svc.domain.roles import Role
from svc.errors import Forbidden, UnknownJob
from svc.server.keys import Key, KeyRing
from tests.support.manager import running_manager
from tests.support.stoppable_tasks import STUBBORN
from tests.support.workers import Client, Manager, Start, Worker, options, until

TASKS = "tests.support.stoppable_tasks"
MODULES = (TASKS, "tests.support.worker_tasks")


def running(client: Client, task: str, observer: Client | None = None) -> str:
    """Submit a job; return its id once it runs, as *observer* sees it if the client may not look."""
    seen = observer or client
    (job,) = client.submit(f"{TASKS}:{task}")
    until(lambda: seen.state(job) == "leased", what="the job is leased")
    until(lambda: task not in STUBBORN or seen.has_begun(job), what="its task has begun")
    return job


def ends_cancelled(client: Client, job: str) -> None:
    """See that the job is cancelled, once, without an error, and that nothing is charged."""
    view = client.view(job)
    assert view.state == "cancelled"
    assert [each.how for each in view.attempts] == ["cancelled"]
    assert (view.failures, view.crashes, view.interruptions) == (0, 0, 0)


@pytest.mark.parametrize("task", ["sleeps", "stays_in_c"])
@pytest.mark.parametrize("cancelled_first", [False, True])
def test_a_cancel_during_a_drain(task: str, cancelled_first: bool, client: Client, start: Start) -> None:
    worker = start(2, tasks=MODULES)
    client.results(client.submit("pid"))
    job = running(client, task)
    if not cancelled_first:
        client.broker.drain()
    assert client.broker.cancel([job], running=True, grace=0.4) == 1
    client.broker.drain()
    assert worker.wait() == 0
    ends_cancelled(client, job)
    assert not worker.events("report_refused")


@pytest.mark.parametrize("task", STUBBORN)
@pytest.mark.parametrize(("seconds", "worker_s"), [(0.2, 30.0), (60.0, 4.0)])
def test_a_cancel_during_the_shutdown_of_a_worker_whose_grace_is_the_shorter_or_the_longer_one(
    task: str, seconds: float, worker_s: float, client: Client, start: Start
) -> None:
    worker = start(1, tasks=MODULES, grace=worker_s)
    client.results(client.submit("pid"))
    job = running(client, task)
    worker.signal(signal.SIGTERM)
    until(lambda: worker.events("worker_stopping"))
    assert client.broker.cancel([job], running=True, grace=seconds) == 1
    assert worker.wait() == 0
    (killed,) = worker.events("consumer_killed")
    assert killed["reason"] == ("cancelled" if seconds < worker_s else "grace")
    ends_cancelled(client, job)
    assert not worker.events("report_refused")


@pytest.mark.parametrize("order", ["worker first", "cancel first"])
def test_a_cancel_of_a_job_whose_worker_vanishes(
    order: str, manager: Manager, client: Client, start: Start
) -> None:
    worker = Worker(manager.address, options(1, tasks=MODULES, name="lost"))
    worker.start()
    job = running(client, "takes_and_forgets")
    if order == "worker first":
        worker.process.kill()
    assert client.broker.cancel([job], running=True, grace=30.0) == 1
    worker.end()
    start(1, tasks=MODULES)
    client.results(client.submit("pid"))
    ends_cancelled(client, job)


# --- who may ------------------------------------------------------------------------------------------


ClientOf = Callable[[Role, str], Client]


@pytest.fixture
def client_of() -> Iterator[ClientOf]:
    """Give clients of an origin with a key of a role; the manager's one worker has one for work."""
    keys = {role: bytes([65 + place]) * 32 for place, role in enumerate(Role)}
    ring = KeyRing([Key(role, secret) for role, secret in keys.items()])
    with running_manager(keys=ring) as manager, ExitStack() as stack:
        worker = Worker(manager.endpoint, options(2, tasks=MODULES), key=keys[Role.WORK])
        worker.start()

        def connected(role: Role, origin: str) -> Client:
            broker = stack.enter_context(ManagerBroker(manager.endpoint, keys[role], timeout=30.0))
            return Client(broker, origin=origin)

        yield connected
        worker.end()


def test_a_submit_key_cancels_running_jobs_whose_origin_it_knows_and_no_others(client_of: ClientOf) -> None:
    ours = client_of(Role.SUBMIT, "ourjobs3v9x0m2q7w1")
    admin = client_of(Role.ADMIN, "theirs4v9x0m2q7w1z")
    job, other = running(ours, "sleeps", admin), running(admin, "sleeps")

    with pytest.raises(UnknownJob):
        ours.broker.cancel(["theirs4v9x0m2q7w1y-0"], running=True)
    for ids in (["put1-0"], [job, "put1-0"]):
        with pytest.raises(Forbidden):
            ours.broker.cancel(ids, running=True)
    for task in ("", f"{TASKS}:sleeps"):
        with pytest.raises(Forbidden):
            ours.broker.cancel_all(task=task, running=True)
    assert {admin.state(job), admin.state(other)} == {"leased"}

    assert ours.broker.cancel([job], running=True, grace=0.2) == 1
    ends_cancelled(admin, job)
    assert admin.state(other) == "leased"
    assert admin.broker.cancel([other], running=True, grace=0.2) == 1


@pytest.mark.parametrize("role", [Role.READ, Role.WORK])
def test_other_keys_cancel_nothing(role: Role, client_of: ClientOf) -> None:
    admin = client_of(Role.ADMIN, "theirs4v9x0m2q7w1z")
    job = running(admin, "sleeps")
    with pytest.raises(Forbidden):
        client_of(role, "x").broker.cancel([job], running=True)
    assert admin.state(job) == "leased"
    admin.broker.cancel([job], running=True, grace=0.0)
