"""The output of jobs that run side by side in one consumer, with real workers."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from svc.domain.job import OutputStream
from tests.integration.test_output import TASKS, output, shows
from tests.support.workers import Client, Manager, Start, Worker, options, until

ERR = OutputStream.STDERR


@pytest.fixture
def worker(start: Start) -> Worker:
    return start(1, tasks=(TASKS,))


def together(client: Client, *others: tuple[object, ...], how: str = "") -> list[str]:
    """Run jobs that all write while the others run; return them, that of `last` at the end."""
    jobs = client.submit(f"{TASKS}:together", ("one", "m"), ("two", "m"), *others, ("last", "m", True, how))
    client.outcomes(jobs)
    return jobs


def begins(client: Client, job: str, text: bytes) -> None:
    until(lambda: output(client, job, attempt=1).startswith(text), 30, f"{text!r} of {job}")


def ends(client: Client, job: str, text: bytes, stream: OutputStream = OutputStream.STDOUT) -> None:
    until(lambda: output(client, job, stream).endswith(text), 30, f"{text!r} of {job}")


def test_each_job_has_what_its_code_has_written_and_no_other_line(client: Client, worker: Worker):
    jobs = together(client)
    for job, text in zip(jobs, ("one", "two", "last"), strict=True):
        shows(client, job, f"{text} begins and ends\nin a thread of {text}\n".encode())
        ends(client, job, f"log of {text}\n".encode(), ERR)
        first, own, *rest = output(client, job, ERR).splitlines()
        assert first == b"bytes of " + text.encode()
        assert (json.loads(own)["event"], json.loads(own)["job_id"]) == ("met", job)
        assert [line.partition(b" WARNING ")[2] for line in rest] == [b"mytasks: log of " + text.encode()]


def test_lines_of_the_worker_are_whole_and_those_of_nobody_among_them(
    manager: Manager, client: Client, tmp_path: Path
):
    with (tmp_path / "stdout").open("w", encoding="utf-8") as stdout:
        worker = Worker(manager.address, options(1, tasks=(TASKS,)), stdout=stdout.fileno())
        worker.start()
    together(client)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    shown = [f"{text} begins and ends" for text in ("one", "two", "last")]
    shown += [f"in a thread of {text}" for text in ("one", "two", "last", *["nobody"] * 3)]
    shown += ["on the descriptor"] * 3
    assert sorted((tmp_path / "stdout").read_text(encoding="utf-8").splitlines()) == sorted(shown)


def test_records_name_the_job_that_wrote_them(client: Client, worker: Worker):
    jobs = together(client)
    until(lambda: len(worker.events("log_message")) == 3)
    named = {(record["message"], record["job_id"]) for record in worker.events("log_message")}
    assert named == set(zip(("log of one", "log of two", "log of last"), jobs, strict=True))


def test_output_of_all_survives_a_process_that_dies_by_sigkill(client: Client, worker: Worker):
    jobs = client.submit(
        f"{TASKS}:together", ("one", "m"), ("two", "never"), ("last", "m", True, "die"), retries=0
    )
    for job, text in zip(jobs, (b"one begins", b"two begins", b"last begins and ends"), strict=True):
        begins(client, job, text)


def test_a_flood_of_one_takes_nothing_from_another(client: Client, worker: Worker):
    jobs = together(client, how="flood")
    shows(client, jobs[0], b"one begins and ends\nin a thread of one\n")
    ends(client, jobs[-1], b"000000000199999\n")
    text = output(client, jobs[-1])
    assert text.startswith(b"last begins and ends\nin a thread of last\n")
    assert text.count(b"<") == 1  # a gap between the beginning and the end
