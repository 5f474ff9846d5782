"""Jobs that threads submit at the same time travel together, and each thread gets its own answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from svc.client.specs import FRAME_JOBS, Encoded, Frame
from svc.client.submit_coalescer import SubmitCoalescer, _Entry
from svc.domain.job import Terms
from svc.errors import ManagerUnreachable, QueueFull, ServiceError
from tests.support.workers import until

SECONDS = 20.0


class Line:
    """Sends frames; the first one is held until `go_on`, and all are remembered."""

    def __init__(self, answer: Callable[[bytes], str | ServiceError] = bytes.decode) -> None:
        self.frames: list[list[bytes]] = []
        self.answer = answer
        self.failing: BaseException | None = None
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def send(self, frame: Frame) -> list[str | ServiceError]:
        bodies = [job.body for job in frame.jobs if isinstance(job, Encoded)]
        self.frames.append(bodies)
        if len(self.frames) == 1:
            self.begun.set()
            assert self.go_on.wait(SECONDS)
        elif self.failing is not None:
            raise self.failing
        return [self.answer(body) for body in bodies]


def submit_behind_the_first(line: Line, count: int) -> list[Future[str]]:
    """Submit a job that is held on its way, then *count* more at the same time; return those."""
    coalescer = SubmitCoalescer(line.send)
    with ThreadPoolExecutor(count + 1) as pool:
        first = pool.submit(coalescer.submit, Encoded(Terms("m:f"), b"first"))
        assert line.begun.wait(SECONDS)
        others = [
            pool.submit(coalescer.submit, Encoded(Terms("m:f"), b"%d" % number)) for number in range(count)
        ]
        until(lambda: len(coalescer._waiting) == count)
        line.go_on.set()
    assert first.result() == "first"
    return others


def test_one_thread_alone_waits_for_nobody():
    line = Line()
    line.go_on.set()
    coalescer = SubmitCoalescer(line.send)

    assert [coalescer.submit(Encoded(Terms("m:f"), body)) for body in (b"a", b"b")] == ["a", "b"]
    assert line.frames == [[b"a"], [b"b"]]


def test_all_who_come_while_a_request_is_on_its_way_go_with_the_next():
    line = Line()
    futures = submit_behind_the_first(line, 20)

    assert [future.result() for future in futures] == [str(number) for number in range(20)]
    assert [len(frame) for frame in line.frames] == [1, 20]


def test_no_frame_is_larger_than_the_client_makes_them_elsewhere():
    line = Line()
    coalescer = SubmitCoalescer(line.send)
    line.go_on.set()
    for number in range(FRAME_JOBS):
        coalescer._waiting.append(_Entry(Encoded(Terms("m:f"), b"%d" % number)))

    assert coalescer.submit(Encoded(Terms("m:f"), b"own")) == "own"
    assert [len(frame) for frame in line.frames] == [FRAME_JOBS, 1]


def test_a_job_that_is_refused_fails_its_own_thread_alone():
    line = Line(lambda body: QueueFull("full") if body == b"1" else body.decode())
    futures = submit_behind_the_first(line, 3)

    assert [future.exception() is None for future in futures] == [True, False, True]
    with pytest.raises(QueueFull, match="full"):
        futures[1].result()


def test_a_request_that_fails_fails_each_thread_with_an_error_of_its_own():
    line = Line()
    line.failing = ManagerUnreachable("no answer")
    errors = [future.exception() for future in submit_behind_the_first(line, 3)]

    assert [str(error) for error in errors] == ["no answer"] * 3
    assert len({id(error) for error in errors}) == 3


def test_a_thread_that_is_interrupted_tells_those_it_was_sending_for():
    line = Line()
    line.failing = KeyboardInterrupt()
    errors = [future.exception() for future in submit_behind_the_first(line, 3)]

    assert (
        sorted(type(error).__name__ for error in errors) == ["KeyboardInterrupt"] + ["ManagerUnreachable"] * 2
    )
    assert any("not known whether" in str(error) for error in errors)
