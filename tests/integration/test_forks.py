"""Clients and executors in programs that fork, end, or are interrupted by signals."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svc.broker.manager import ManagerBroker
from svc.client.client import BrokerClient
from tests.support import executor_tasks as tasks
from tests.support.workers import KEY, Manager, Worker, options

_ROOT = Path(__file__).parents[2]
ADD = f"{tasks.__name__}:add"


@pytest.fixture(scope="module")
def service() -> Iterator[Manager]:
    """A manager and a worker with two consumers."""
    manager = Manager()
    manager.start()
    worker = manager.workers["w"] = Worker(manager.address, options(2, tasks=(tasks.__name__,)), "warning")
    worker.start()
    yield manager
    worker.end()
    manager.stop()


@pytest.fixture
def client(service: Manager) -> Iterator[BrokerClient]:
    with BrokerClient(lambda: ManagerBroker(service.address, KEY)) as client:
        yield client


def run(program: str, service: Manager, tmp_path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run *program*, which finds the manager by its environment, with *settings*; return how it ended."""
    key = tmp_path / "authkey"
    key.write_bytes(KEY)
    key.chmod(0o600)
    host, port = service.address
    environment = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "SVC_MANAGER": f"{host}:{port}",
        "SVC_AUTHKEY_FILE": str(key),
        **settings,
    }
    script = tmp_path / "program.py"
    script.write_text(f"ADD = {ADD!r}\n{program}")
    return subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=250, check=False
    )


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines on stderr, but for those that tell how far a slow end is."""
    slow = r"svc: sending [0-9,]+ jobs? before this program ends"
    return [line for line in done.stderr.splitlines() if not re.fullmatch(slow, line)]


def output(program: str, service: Manager, tmp_path: Path, **settings: str) -> list[Any]:
    """Run *program*, which must end well and without errors; return the JSON lines that it prints."""
    done = run(program, service, tmp_path, **settings)
    assert (done.returncode, errors(done)) == (0, [])
    return [json.loads(line) for line in done.stdout.splitlines()]


IN_CHILDREN = """
import json, os, sys
def in_children(count, work):
    \"\"\"Print the JSON of work(number) of each of so many forked children, and of work(count) here.\"\"\"
    pids = []
    for number in range(count):
        if (pid := os.fork()) == 0:
            os.write(1, json.dumps(work(number)).encode() + b"\\n")
            os._exit(0)
        pids.append(pid)
    os.write(1, json.dumps(work(count)).encode() + b"\\n")
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
"""


def test_parent_and_child_get_each_their_own_result(service: Manager, tmp_path: Path):
    program = """
from svc import Client
client = Client()
client.submit(ADD, 0, 0).result(timeout=100)
def work(number):
    job = client.submit(ADD, 2, 3 if number else 40)
    return [job.id, job.result(timeout=100)]
in_children(1, work)
"""
    lines = output(IN_CHILDREN + program, service, tmp_path)
    assert sorted(result for _, result in lines) == [5, 42]
    assert len({job_id for job_id, _ in lines}) == 2


@pytest.mark.slow
def test_prefork_children_share_a_client_and_an_executor_and_lose_nothing(service: Manager, tmp_path: Path):
    program = """
from svc import Client, Executor
client, executor = Client(), Executor()
client.submit(ADD, 0, 0).result(timeout=100), executor.submit(ADD, 0, 0).result(timeout=100)
def work(number):
    jobs = client.submit_many(ADD, [(number, n) for n in range(500)])
    futures = [executor.submit(ADD, 1000 * number, n) for n in range(500)]
    right = [job.result(timeout=100) == number + n for n, job in enumerate(jobs)]
    right += [future.result(timeout=100) == 1000 * number + n for n, future in enumerate(futures)]
    return [[job.id for job in jobs] + [future.job_id for future in futures], sum(right)]
in_children(8, lambda number: work(number) if number < 8 else [[], 0])
"""
    lines = output(IN_CHILDREN + program, service, tmp_path)
    assert len({job_id for ids, _ in lines for job_id in ids}) == 8000
    assert sum(right for _, right in lines) == 8000


def test_a_cloned_machine_s_client_notices_that_its_numbers_are_used(service: Manager, tmp_path: Path):
    """Python is not told of a fork that another library makes, as it is not of a snapshot that is resumed."""
    program = """
import ctypes, json, os
from svc import Client
client = Client()
client.submit(ADD, 0, 0).result(timeout=100)
fork = ctypes.PyDLL(None).fork
pid = fork()
if pid == 0:
    client._session.begin_anew()
    jobs = client.submit_many(ADD, [(n, 100) for n in range(3)]) + [client.submit(ADD, 7, 100)]
    os.write(1, json.dumps([[job.id, job.result(timeout=100)] for job in jobs]).encode() + b"\\n")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
job = client.submit(ADD, 8, 0)
print(json.dumps([[job.id, job.result(timeout=100)]]))
"""
    copy, original = output(program, service, tmp_path)
    assert [result for _, result in copy + original] == [100, 101, 102, 107, 8]
    assert len({job_id for job_id, _ in copy + original}) == 5


def test_a_stream_of_submits_that_is_inherited_halfway_gives_other_ids(service: Manager, tmp_path: Path):
    program = """
from svc import Client
from svc.client.specs import JobSpec
client = Client()
specs = (spec for n in range(4) for spec in (JobSpec(ADD, (n, 0)), None))
stream = client.submit_each(specs)
first = next(stream)[0].id
def work(number):
    jobs = [job for jobs in stream for job in jobs]
    return [[job.id for job in jobs], [job.result(timeout=100) for job in jobs]]
in_children(2, work)
"""
    lines = output(IN_CHILDREN + program, service, tmp_path)
    assert [results for _, results in lines] == [[1, 2, 3]] * 3
    assert len({job_id for ids, _ in lines for job_id in ids}) == 9


def test_a_stream_of_submits_with_frames_on_their_way_gives_other_ids_in_a_child(
    service: Manager, tmp_path: Path
):
    program = """
from svc import Client
from svc.client.specs import JobSpec
client = Client()
client.submit(ADD, 0, 0).result(timeout=100)
stream = client.submit_each([JobSpec(ADD, (n, 0)) for n in range(20_000)])
first = next(stream)
def work(number):
    jobs = [job for jobs in stream for job in jobs]
    return [[job.id for job in jobs[::1000]], [job.result(timeout=100) for job in jobs[::1000]], len(jobs)]
in_children(1, work)
"""
    lines = output(IN_CHILDREN + program, service, tmp_path)
    assert [results for _, results, _ in lines] == [list(range(1000, 20_000, 1000))] * 2
    assert len({job_id for ids, _, _ in lines for job_id in ids}) == 2 * 19
    assert [count for _, _, count in lines] == [19_000] * 2


def test_a_fork_while_other_threads_submit_leaves_no_lock_behind(service: Manager, tmp_path: Path):
    program = """
import threading
from svc import Client, Executor
client, executor = Client(), Executor()
over = threading.Event()
def keep_on():
    while not over.is_set():
        client.submit(ADD, 1, 1)
        executor.submit(ADD, 1, 1)
threads = [threading.Thread(target=keep_on) for _ in range(4)]
for thread in threads:
    thread.start()
def work(number):
    if number == 5:
        over.set()
        return 2
    return client.submit(ADD, 1, 1).result(timeout=100) + executor.submit(ADD, 0, 0).result(timeout=100)
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # from 3.12 on a fork beside threads warns
in_children(5, work)
for thread in threads:
    thread.join()
executor.shutdown()
"""
    assert output(IN_CHILDREN + program, service, tmp_path) == [2] * 6


@pytest.mark.parametrize("codec", ["plain", "pickle"])
def test_no_thread_of_a_client_imports_anything_that_a_forked_child_would_wait_for(codec, service, tmp_path):
    program = """
import os, sys
from svc import Client, Executor
executor = Executor(codec="CODEC")
client = Client()
before = set(sys.modules)
print(client.submit(ADD, 1, 1).result(timeout=100))
assert executor.submit(ADD, 1, 1) and executor.flush(timeout=100)
print(len(set(sys.modules) - before))
os._exit(0 if sys.stdout.flush() is None else 1)
""".replace("CODEC", codec)
    (tmp_path / "pickle").write_bytes(KEY[::-1])
    (tmp_path / "pickle").chmod(0o600)
    assert output(program, service, tmp_path, SVC_PICKLE_KEY_FILE=str(tmp_path / "pickle")) == [2, 0]


def test_an_inherited_future_fails_in_the_child_and_ends_in_the_parent(service: Manager, tmp_path: Path):
    program = """
from svc import Executor
executor = Executor()
future = executor.submit("nobody:knows")
executor.flush()
def work(number):
    if number == 0:
        return str(future.exception(timeout=100))
    return [future.cancel(), future.cancelled()]
in_children(1, work)
"""
    lines = sorted(output(IN_CHILDREN + program, service, tmp_path), key=str)
    assert "belongs to the process that this one was forked from" in str(lines[1])
    assert lines[0] == [True, True]


@pytest.mark.parametrize("kind", ["Pool(2)", "Process"])
def test_children_of_multiprocessing_use_an_inherited_client(kind: str, service: Manager, tmp_path: Path):
    program = """
import json, multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from svc import Client
client = Client()
client.submit(ADD, 0, 0).result(timeout=100)
context = multiprocessing.get_context("fork")
def work(number, out=None):
    job = client.submit(ADD, number, 100)
    found = [job.id, job.result(timeout=100)]
    return found if out is None else out.put(found)
"""
    pool = """
with context.Pool(2) as pool:
    found = pool.map(work, range(6))
"""
    process = """
out = context.Queue()
processes = [context.Process(target=work, args=(n, out)) for n in range(6)]
for process in processes:
    process.start()
found = [out.get(timeout=100) for process in processes]
"""
    program += (
        pool if "Pool" in kind else process
    ) + "print(json.dumps(sorted(found, key=lambda each: each[1])))"
    (found,) = output(program, service, tmp_path)
    assert [result for _, result in found] == list(range(100, 106))
    assert len({job_id for job_id, _ in found}) == 6


# --- the end of a program ---------------------------------------------------------------------------


def submitted(client: BrokerClient, queue: str) -> int:
    """Return how many jobs a queue was ever given."""
    return next((each.submitted for each in client.stats().queues if each.name == queue), 0)


@pytest.mark.parametrize(
    "ending", ["", "raise SystemExit(0)", "import threading; threading.Thread(target=print).start()"]
)
def test_a_script_that_ends_after_its_submits_loses_none(
    ending: str, client: BrokerClient, service: Manager, tmp_path: Path
):
    queue = f"end{len(ending)}"
    program = f"""
from svc import Executor
executor = Executor().options(queue={queue!r})
for number in range(5000):
    executor.submit(ADD, number, 1)
{ending}
"""
    done = run(program, service, tmp_path)
    assert (done.returncode, errors(done)) == (0, [])
    assert submitted(client, queue) == 5000


def test_a_child_of_multiprocessing_that_ends_loses_none(
    client: BrokerClient, service: Manager, tmp_path: Path
):
    program = """
import multiprocessing, warnings
warnings.simplefilter("ignore", DeprecationWarning)
from svc import Executor
executor = Executor().options(queue="mp-child")
def work():
    for number in range(3000):
        executor.submit(ADD, number, 1)
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
"""
    output(program, service, tmp_path)
    assert submitted(client, "mp-child") == 3000


def test_a_script_whose_jobs_are_refused_at_its_end_says_so(service: Manager, tmp_path: Path):
    program = """
from svc import Executor
executor = Executor().options(strict=True)
for number in range(3):
    executor.submit("nobody:knows", number)
"""
    done = run(program, service, tmp_path)
    assert done.returncode == 0
    assert "3 jobs not accepted" in done.stderr


def test_a_script_whose_manager_is_away_ends_in_bounded_time_and_says_what_was_not_sent(
    service: Manager, tmp_path: Path
):
    program = """
from svc import Executor
from svc.client import background
background.EXIT_SECONDS = 1.5
executor = Executor("127.0.0.1:1")
for number in range(20):
    executor.submit(ADD, number, 1)
"""
    done = run(program, service, tmp_path)
    assert done.returncode == 0
    assert "svc: sending 20 jobs before this program ends" in done.stderr
    assert "svc: 20 jobs not sent" in done.stderr


# --- signals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("submit", ["client.submit", "executor.submit"])
def test_a_submit_in_a_signal_handler_neither_hangs_nor_mixes_jobs_up(
    submit: str, service: Manager, tmp_path: Path
):
    program = f"""
import json, signal
from svc import Client, Executor
client, executor = Client(), Executor()
found, handlers = [], []
def arm():
    signal.setitimer(signal.ITIMER_REAL, 0.003)
def handle(number, frame):
    # A handler may interrupt another one, but on a slow machine not without end.
    handlers.append(number)
    if len(handlers) < 4:
        arm()
    found.append((1000, {submit}(ADD, 1000, 0)))
    handlers.pop()
    arm()
signal.signal(signal.SIGALRM, handle)
arm()
number = 0
while sum(each == 1000 for each, _ in found) < 30:
    found.append((number, {submit}(ADD, number, 0)))
    number = (number + 1) % 1000
signal.setitimer(signal.ITIMER_REAL, 0)
wrong = [number for number, job in found if job.result(timeout=100) != number]
ids = {{getattr(job, "id", None) or job.job_id for _, job in found}}
print(json.dumps([wrong, len(ids) == len(found)]))
"""
    assert output(program, service, tmp_path) == [[[], True]]
