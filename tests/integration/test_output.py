"""The output of tasks, from the process that wrote it to the manager's store, with real workers."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from svc.domain import commands as c
from svc.domain.job import OutputStream
from tests.support.workers import Client, Manager, Start, until

TASKS = "tests.support.output_tasks"


def output(client: Client, job: str, stream: int = OutputStream.STDOUT, attempt: int = 0) -> bytes:
    """Return the output of a job, with `<N>` where so many bytes are missing."""
    text, cursor, more, end = b"", 0, True, 0
    while more:
        page = client.broker.logs(c.Logs(job, attempt, stream, cursor))
        cursor, more = page.cursor, page.more
        for piece in page.pieces:
            text += b"<%d>" % (piece.offset - end) if piece.offset > end else b""
            text += piece.data
            end = piece.offset + len(piece.data)
    return text


def run(client: Client, task: str, *argses: tuple[object, ...], **terms: Any) -> list[str]:
    jobs = client.submit(f"{TASKS}:{task}", *argses, **terms)
    client.outcomes(jobs)
    return jobs


def shows(client: Client, job: str, text: bytes, stream: int = OutputStream.STDOUT) -> None:
    until(lambda: output(client, job, stream) == text, 30, f"{text!r} of {job}")


@pytest.fixture
def worker(start: Start):
    return start(2, tasks=(TASKS,))


@pytest.mark.usefixtures("worker")
class TestAWorker:
    def test_what_a_task_prints_is_kept_for_its_job_by_stream(self, client: Client):
        jobs = run(client, "write", ("one\n", "bad\n"), ("two", ""))
        shows(client, jobs[0], b"one\n")
        shows(client, jobs[0], b"bad\n", OutputStream.STDERR)
        shows(client, jobs[1], b"two")

    @pytest.mark.parametrize("task", ["by_program", "in_c"])
    def test_programs_and_c_code_are_captured_too(self, client: Client, task: str):
        (job,) = run(client, task, ("from below",))
        shows(client, job, b"from below\n")

    def test_writes_to_the_descriptor_are_captured(self, client: Client):
        (job,) = run(client, "by_descriptor", ("raw",))
        shows(client, job, b"raw")

    def test_short_jobs_of_one_grant_keep_their_prints_apart(self, client: Client):
        texts = [f"{number}\n" for number in range(500)]
        jobs = run(client, "write", *[(text, text) for text in texts])
        for job, text in zip(jobs, texts, strict=True):
            shows(client, job, text.encode())
            shows(client, job, text.encode(), OutputStream.STDERR)

    def test_records_of_logging_are_output_and_stay_in_the_log(self, client: Client, worker):
        (job,) = run(client, "log", ("careful",))
        until(lambda: output(client, job, OutputStream.STDERR).endswith(b" WARNING mytasks: careful\n"), 30)
        until(lambda: worker.events("log_message"), 30)
        (record,) = worker.events("log_message")
        assert (record["job_id"], record["task"]) == (job, f"{TASKS}:log")
        assert record["message"] == "careful"

    def test_lines_of_the_jobs_logger_are_output_and_stay_in_the_log(self, client: Client, worker):
        (job,) = run(client, "log_of_the_job", ("careful",))
        until(lambda: output(client, job, OutputStream.STDERR), 30)
        line = json.loads(output(client, job, OutputStream.STDERR))
        assert (line["event"], line["text"], line["job_id"]) == ("said_by_the_task", "careful", job)
        until(lambda: worker.events("said_by_the_task"), 30)
        assert worker.events("said_by_the_task") == [line]

    def test_each_attempt_has_its_own_output(self, client: Client):
        (job,) = run(client, "fail_after", ("again",), retries=1, backoff=0.001)
        shows(client, job, b"again\n")
        until(lambda: client.broker.logs(c.Logs(job)).attempts == [1, 2], 30)
        assert output(client, job, attempt=1) == b"again\n"

    def test_output_survives_a_process_that_dies_by_sigkill(self, client: Client):
        (job,) = run(client, "die_after", ("last words",))
        until(lambda: client.broker.logs(c.Logs(job)).attempts == [1, 2, 3], 30)
        for attempt in (1, 2, 3):
            assert output(client, job, attempt=attempt) == b"last words\n"

    def test_a_line_is_there_half_a_second_after_its_print(self, client: Client, tmp_path: Path):
        stop = tmp_path / "stop"
        (job,) = client.submit(f"{TASKS}:lines_until", (str(stop),))
        until(lambda: output(client, job), 30)
        late: list[float] = []

        def in_time() -> bool:
            lines = output(client, job).splitlines()
            late.extend(time.time() - float(line) for line in lines[len(late) :])
            return len(late) >= 8 and min(late) < 0.5

        # A loaded machine delays some of them; the pauses on the way are the same for all.
        until(in_time)
        stop.touch()
        client.outcomes([job])

    def test_a_flood_keeps_its_beginning_and_its_end(self, client: Client):
        (job,) = run(client, "flood", (64 << 20,))
        until(lambda: output(client, job).endswith(b"the end\n"), 30)
        text = output(client, job)
        head, _, tail = text.partition(b"<")
        assert head == b"".join(b"%015d\n" % number for number in range(256 * 1024 // 16))
        assert len(tail) >= 256 * 1024
        assert len(text) < 1024 * 1024


def test_output_of_a_job_that_nobody_knows_is_unknown(client: Client):
    from svc.errors import UnknownJob

    with pytest.raises(UnknownJob):
        output(client, "nobody-0")


def test_without_capture_nothing_is_kept(client: Client, start: Start):
    start(1, tasks=(TASKS,), output_bytes=0)
    (job,) = run(client, "write", ("seen\n", ""))
    assert output(client, job) == b""


def test_a_worker_goes_on_with_output_when_the_manager_is_back(
    manager: Manager, client: Client, start: Start, tmp_path: Path
):
    start(1, tasks=(TASKS,))
    more, stop = tmp_path / "more", tmp_path / "stop"
    (job,) = client.submit(f"{TASKS}:line_after_line", ("before\n", str(more), "after\n", str(stop)))
    until(lambda: output(client, job) == b"before\n", 60, "the first line")
    manager.restart()  # the store of this one was in memory
    more.touch()
    until(lambda: output(client, job, attempt=1).endswith(b"after\n"), 60, "the second line")
    stop.touch()
    client.outcomes([job], 60)


def test_a_worker_that_stops_sends_the_last_output(client: Client, start: Start, tmp_path: Path):
    worker = start(1, tasks=(TASKS,))
    begun = tmp_path / "begun"
    (job,) = client.submit(f"{TASKS}:by_descriptor", ("bye\n", 0.3, str(begun)))
    until(begun.exists)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert output(client, job) == b"bye\n"
