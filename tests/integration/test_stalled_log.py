"""A worker whose log nobody reads, and output of tasks while others read."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.workers import Client, Manager, Worker, options


class Unread(Worker):
    """A worker whose stderr is a pipe that nobody reads."""

    def _read(self) -> None:
        pass


@pytest.fixture
def unread(manager: Manager) -> Iterator[Worker]:
    worker = Unread(manager.address, options(2))
    worker.start()
    yield worker
    worker.end()
    assert worker.process.stderr is not None
    worker.process.stderr.close()


def test_a_log_that_nobody_reads_stops_neither_jobs_nor_a_stop(client: Client, unread: Worker):
    # Each failure is a line of about 300 bytes, and each death another: a pipe holds 64 KiB.
    jobs = client.submit("leave", *[()] * 400) + client.submit("die", *[(3,)] * 5, retries=0)
    client.outcomes(jobs, seconds=60)
    unread.signal(signal.SIGTERM)
    assert unread.process.wait(45) == 0


def test_lines_that_tasks_print_are_never_torn(manager: Manager, client: Client):
    reading, writing = os.pipe()
    unbuffered = {"PYTHONUNBUFFERED": "1"}
    worker = Worker(manager.address, options(4), stdout=writing, environment=unbuffered)
    worker.start()
    os.close(writing)
    with os.fdopen(reading) as stdout, ThreadPoolExecutor(1) as pool:
        printed = pool.submit(stdout.read)
        try:
            client.results(client.submit("say", *[(str(number), 300) for number in range(64)]))
            worker.signal(signal.SIGTERM)
            assert worker.wait() == 0
            lines = printed.result(20).splitlines()
        finally:
            worker.end()  # or the pipe would never end
    assert len(lines) == 64 * 300
    assert {len(set(line.split())) for line in lines} == {1}
