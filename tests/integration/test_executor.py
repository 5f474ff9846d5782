"""The executor with a real manager, real workers and other processes."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.app import Executor
from svc.broker.manager import ManagerBroker
from svc.client.client import BrokerClient
from svc.errors import CodecError, JobFailed
from tests.support import executor_tasks as tasks
from tests.support.pickle_keys import PICKLE_KEYS
from tests.support.workers import KEY, Manager, Worker, options

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def service() -> Iterator[Manager]:
    """A manager and a worker with two consumers, which runs any callable."""
    manager = Manager()
    manager.start()
    served = options(2, tasks=(tasks.__name__,), accept=("plain", "pickle"))
    worker = manager.workers["w"] = Worker(manager.address, served, "warning")
    worker.start()
    yield manager
    worker.end()
    manager.stop()


@pytest.fixture
def client(service: Manager) -> Iterator[BrokerClient]:
    with BrokerClient(lambda: ManagerBroker(service.address, KEY), pickle_keys=PICKLE_KEYS) as client:
        yield client


@pytest.fixture
def executor(client: BrokerClient) -> Iterator[Executor]:
    with Executor(client, codec="pickle") as executor:
        yield executor


@pytest.fixture
def keyfile(tmp_path: Path) -> Path:
    for name, key in (("pickle_key", PICKLE_KEYS.secrets[0]), ("authkey", KEY)):
        path = tmp_path / name
        path.write_bytes(key)
        path.chmod(0o600)
    return path


def run_python(program: str, service: Manager, keyfile: Path, *arguments: str) -> str:
    """Run *program* in a process that finds the manager by its environment; return its output."""
    host, port = service.address
    environment = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "SVC_MANAGER": f"{host}:{port}",
        "SVC_AUTHKEY_FILE": str(keyfile),
        "SVC_PICKLE_KEY_FILE": str(keyfile.with_name("pickle_key")),
    }
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    # Only the end of a program on a slow machine says how far it is.
    said = [line for line in done.stderr.splitlines() if not line.startswith("svc: sending ")]
    assert (done.returncode, said) == (0, [])
    return done.stdout


def test_calls_run_in_other_processes(executor: Executor) -> None:
    here, there = os.getpid(), executor.submit(os.getpid).result(timeout=100)
    assert there != here
    futures = [executor.submit(pow, 2, number) for number in range(300)]
    done, waiting = concurrent.futures.wait(futures, timeout=100)
    assert not waiting
    assert sorted(future.result() for future in done) == [2**number for number in range(300)]


def test_a_crashed_consumer_fails_one_future_and_never_all(executor: Executor) -> None:
    before = [executor.submit(pow, 2, number) for number in range(20)]
    fatal = executor.submit(tasks.die)
    after = [executor.submit(pow, 3, number) for number in range(20)]
    error = fatal.exception(timeout=100)
    assert isinstance(error, JobFailed)
    assert "exit" in str(error)
    assert [future.result(timeout=100) for future in before + after] == [
        *(2**number for number in range(20)),
        *(3**number for number in range(20)),
    ]
    assert executor.submit(pow, 2, 2).result(timeout=100) == 4


@pytest.mark.parametrize("kind", ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "Unheard"])
def test_a_result_that_raises_when_it_is_read_fails_its_own_future_only(
    kind: str, executor: Executor
) -> None:
    poisoned = executor.submit(tasks.poison, kind)
    sound = [executor.submit(pow, 2, number) for number in range(20)]
    error = poisoned.exception(timeout=100)
    assert isinstance(error, CodecError)
    assert kind in str(error)
    assert [future.result(timeout=100) for future in sound] == [2**number for number in range(20)]


def test_another_process_finds_a_future_by_its_id(
    executor: Executor, service: Manager, keyfile: Path
) -> None:
    future = executor.submit(tasks.as_it_is, (1, "two"))
    program = """if True:
        import sys
        from svc import Executor
        with Executor(codec="pickle") as executor:
            print(executor.future(sys.argv[1]).result(timeout=100))
    """
    assert executor.flush(60)
    assert run_python(program, service, keyfile, future.job_id) == "(1, 'two')\n"


def test_a_process_that_just_ends_hangs_on_nothing_and_its_jobs_go_on(
    client: BrokerClient, service: Manager, keyfile: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    program = """if True:
        import sys
        from svc import Executor
        executor = Executor()
        future = executor.submit("tests.support.executor_tasks:wait_for", sys.argv[1])
        executor.flush()
        print(future.job_id)
    """
    job = client.job(run_python(program, service, keyfile, str(fifo)).strip())
    assert not job.done()
    fifo.write_bytes(b"go")
    assert isinstance(job.result(timeout=100), int)


def test_a_block_at_the_end_of_a_program_waits(service: Manager, keyfile: Path) -> None:
    program = """if True:
        from svc import Executor
        with Executor() as executor:
            future = executor.submit("tests.support.executor_tasks:add", 1, 2)
        print(future.result(timeout=0))
    """
    assert run_python(program, service, keyfile) == "3\n"


def test_a_running_job_is_cancelled_and_a_waiting_one_too(executor: Executor, tmp_path: Path) -> None:
    fifos = [tmp_path / str(number) for number in range(2)]
    for fifo in fifos:
        os.mkfifo(fifo)
    running = [executor.submit(tasks.wait_for, str(fifo)) for fifo in fifos]
    files = [fifo.open("wb") for fifo in fifos]  # opens once the consumer reads
    waiting = executor.submit(tasks.wait_for, "/nowhere")
    assert all(future.running() for future in running)
    assert not waiting.running()
    assert waiting.cancel() is True
    assert running[0].cancel() is True
    assert running[0].cancelled()
    for file in files:
        file.close()
    assert running[1].result(timeout=100)
    assert not any(future.running() for future in (*running, waiting))


def test_futures_outlive_a_restart_of_the_manager() -> None:
    manager = Manager()
    manager.start()
    worker = Worker(manager.address, options(1, tasks=(tasks.__name__,)), "warning")
    with Executor(BrokerClient(lambda: ManagerBroker(manager.address, KEY))) as executor:
        futures = [executor.submit(tasks.add, number, 1) for number in range(50)]
        assert executor.flush(60)
        manager.restart()
        futures += [executor.submit(tasks.add, number, 1) for number in range(50, 100)]
        worker.start()
        try:
            assert [future.result(timeout=100) for future in futures] == list(range(1, 101))
        finally:
            worker.end()
    manager.stop()


def test_a_loop_of_submits_needs_few_round_trips(service: Manager) -> None:
    requests = 0

    class Counting(ManagerBroker):
        def call(self, commands, *, wait=0.0):
            nonlocal requests
            requests += 1
            return super().call(commands, wait=wait)

    with Executor(BrokerClient(lambda: Counting(service.address, KEY))) as executor:
        futures = [executor.submit(tasks.add, number, 1) for number in range(5000)]
        assert [future.result(timeout=100) for future in futures] == list(range(1, 5001))
    assert requests < 2500
