"""Tasks that do odd things with their output: no job is lost, no other job's output is touched."""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from svc.domain.job import OutputStream
from svc.domain.lifecycle import JobState
from tests.integration.test_output import output, run, shows
from tests.support.output_tasks import TAKEN
from tests.support.workers import Client, Manager, Worker, options, until

TASKS = "tests.support.output_tasks"


@dataclass
class Printed:
    """A client of a worker with one consumer, and all that appears on the worker's own stdout."""

    client: Client
    worker: Worker
    path: Path

    @property
    def lines(self) -> list[str]:
        return self.path.read_text(errors="replace").splitlines()

    def stop(self) -> int:
        self.worker.signal(signal.SIGTERM)
        return self.worker.wait(60)


@contextlib.contextmanager
def printing(folder: Path, consumers: int = 1) -> Iterator[Printed]:
    manager = Manager()
    manager.start()
    path = folder / "stdout"
    with path.open("wb") as file, manager.client() as client:
        worker = Worker(manager.address, options(consumers, tasks=(TASKS,)), stdout=file.fileno())
        worker.start()
        try:
            yield Printed(client, worker, path)
        finally:
            worker.end()
    manager.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Printed]:
    with printing(tmp_path_factory.mktemp("shared")) as printed:
        yield printed


@pytest.fixture
def printed(tmp_path: Path) -> Iterator[Printed]:
    with printing(tmp_path) as printed:
        yield printed


def test_a_process_that_keeps_the_pipe_open_holds_nothing_up_and_belongs_to_no_job(
    printed: Printed, tmp_path: Path
):
    client, go = printed.client, tmp_path / "go"
    (first,) = run(client, "leave_a_writer", (str(go),))
    (second,) = run(client, "write", ("second\n", ""))
    shows(client, first, b"before\n")
    shows(client, second, b"second\n")
    go.touch()
    until(lambda: "late" in printed.lines, 60)
    (third,) = run(client, "write", ("third\n", ""))
    shows(client, third, b"third\n")
    assert (output(client, first), output(client, second)) == (b"before\n", b"second\n")
    assert output(client, first, OutputStream.STDERR) == b""
    assert printed.stop() == 0


@pytest.mark.parametrize("way", TAKEN)
def test_a_task_that_takes_descriptors_away_harms_no_later_job(shared: Printed, way: str):
    client = shared.client
    (job,) = client.submit(f"{TASKS}:take_away", (way,))
    (outcome,) = client.outcomes([job], 60)
    assert outcome.state == JobState.SUCCEEDED or outcome.error is not None
    until(lambda: output(client, job).startswith(b"before\n"), 30)
    for text in ("next\n", "and next\n"):
        (later,) = run(client, "write", (text, text))
        shows(client, later, text.encode())
        shows(client, later, text.encode(), OutputStream.STDERR)


def test_a_task_that_waits_for_no_room_in_its_output_ends_no_consumer(shared: Printed):
    client = shared.client
    for _ in range(5):
        (job,) = run(client, "fill_without_waiting")
        (size,) = client.results([job])
        assert isinstance(size, int)
        (later,) = run(client, "blocks")
        assert client.results([later]) == [[True, True]]


def test_output_at_the_end_of_the_process_is_passed_on_and_belongs_to_no_job(printed: Printed):
    client = printed.client
    (job,) = run(client, "write_at_exit")
    shows(client, job, b"in time\n")
    assert printed.stop() == 0
    assert output(client, job) == b"in time\n"
    assert printed.lines == ["in time", "at exit"]


@pytest.mark.parametrize("how", ["_exit", "exit", "raise", "return"])
def test_the_output_of_a_fork_is_that_of_its_job_and_stands_there_once(shared: Printed, how: str):
    client = shared.client
    jobs = client.submit(f"{TASKS}:fork_and_write", (how,), (how,))
    codes = client.results(jobs, 60)
    assert codes == ([0, 0] if how == "_exit" else [1, 1])
    for job in jobs:
        shows(client, job, b"child\nchild's descriptor\nparent\n")
    (later,) = run(client, "write", ("later\n", ""))
    shows(client, later, b"later\n")


def test_bytes_that_are_no_text_and_lines_without_an_end_pass_a_worker_whole(shared: Printed):
    client = shared.client
    odd = bytes(range(256)) * 40
    (job,) = run(client, "write_bytes", (odd,))
    shows(client, job, odd)
    (endless,) = run(client, "write_bytes", (b"x" * 400_000,))
    shows(client, endless, b"x" * 400_000)
    until(lambda: shared.path.read_bytes().count(b"x") >= 400_000, 30)
    assert odd in shared.path.read_bytes()


def test_the_end_of_output_that_was_read_early_waits_for_no_later_output(printed: Printed):
    client = printed.client
    for text in (b"no end", b"nor here\0"):  # a mark begins with a zero byte
        (job,) = run(client, "write_and_see_it_read", (text,))
        shows(client, job, text)
        until(functools.partial(_is_last, printed, text), 30)


def _is_last(printed: Printed, line: bytes) -> bool:
    return printed.path.read_bytes().endswith(line + b"\n")


def test_output_of_two_jobs_shares_no_line(printed: Printed):
    client = printed.client
    (first,) = run(client, "write_and_see_it_read", (b"first\0",))
    (second,) = run(client, "write_and_see_it_read", (b"second\n",))
    shows(client, first, b"first\0")
    shows(client, second, b"second\n")
    until(lambda: printed.lines == ["first\0", "second"], 30)


def test_a_line_that_a_job_writes_in_pieces_stays_whole_while_other_lines_are_ended(tmp_path: Path):
    with printing(tmp_path, consumers=2) as printed:
        client, go = printed.client, tmp_path / "go"
        (slow,) = client.submit(f"{TASKS}:write_in_two", (b"one ", str(go), b"line\n"))
        shows(client, slow, b"one ")
        for text in ("no end", "nor here"):
            run(client, "write_and_see_it_read", (text.encode(),))
            until(functools.partial(_is_last, printed, text.encode()), 30)
        go.touch()
        client.outcomes([slow], 60)
        until(lambda: printed.lines == ["no end", "nor here", "one line"], 30)


def _is_whole(client: Client, job: str) -> bool:
    return output(client, job).endswith(b"the end\n")


@pytest.mark.slow
def test_floods_of_many_jobs_stay_within_the_store(shared: Printed):
    """The store of this manager has 64 MiB, and each of these jobs leaves half a MiB."""
    client = shared.client
    jobs: list[str] = []
    for _ in range(10):  # so few at once that the worker drops nothing on its side
        jobs += run(client, "flood", *[(1 << 20,)] * 15)
        until(functools.partial(_is_whole, client, jobs[-1]), 60)
    assert output(client, jobs[0]) == b""
    sizes = [len(output(client, job)) for job in jobs]
    assert (60 << 20) < sum(sizes) <= (64 << 20)
    assert all(size >= 512 << 10 for size in sizes[-100:])
