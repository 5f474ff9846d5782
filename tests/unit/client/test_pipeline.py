"""The contract of the submit pipeline, for each of its three uses, on the real queue in memory."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from svc.broker.local import LocalBroker
from svc.client import pipeline as pipelines
from svc.client.background import BackgroundPipeline
from svc.client.frames import FRAME_BYTES, FRAME_JOBS, frames
from svc.client.pending import PendingJob
from svc.client.pipeline import SubmitPipeline, encoded
from svc.client.specs import JobSpec, JobTemplate, Options
from svc.domain.job import NewChunk, Terms, job_id
from svc.domain.replies import Note
from svc.envelope import PickleKeys
from svc.errors import (
    BadRequest,
    CodecError,
    JobTooLarge,
    ManagerUnreachable,
    QueueFull,
    ServiceError,
    UnknownTask,
)
from tests.support.workers import until

SECONDS = 20.0
#: A body that is over the limit of the queue for tests.
TOO_LARGE = bytes(10_001)


class Line:
    """The way to the queue: keeps each request, holds the first one if asked to, and fails the next ones."""

    def __init__(self, queue) -> None:
        self.broker = LocalBroker(queue)
        self.requests: list[tuple[str, list[NewChunk], bool]] = []
        self.failing: BaseException | None = None
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.at_a_time = 0
        self.on_request: Callable[[], object] = lambda: None

    def submit(self, origin: str, chunks: Sequence[NewChunk], strict: bool) -> list[Note]:
        self.at_a_time += 1
        assert self.at_a_time == 1, "there is one request at a time"
        try:
            self.requests.append((origin, list(chunks), strict))
            self.begun.set()
            assert self.go_on.wait(SECONDS)
            if self.failing is not None and len(self.requests) > 1:
                raise type(self.failing)(*self.failing.args)
        finally:
            self.at_a_time -= 1
        self.on_request()
        return self.broker.submit(origin, chunks, strict=strict)

    def sizes(self) -> list[int]:
        """Return the number of jobs of each request."""
        return [sum(len(chunk.bodies) for chunk in chunks) for _, chunks, _ in self.requests]


@pytest.fixture
def line(queue):
    return Line(queue)


def jobs_of(*bodies: bytes, strict: bool = False) -> list[PendingJob]:
    return [PendingJob(Terms("m:f"), body, strict=strict) for body in bodies]


def threads(line: Line, jobs: Sequence[PendingJob]) -> None:
    """Submit each job from a thread of its own, as `Client.submit` does."""
    pipeline = SubmitPipeline(line.submit)
    with ThreadPoolExecutor(len(jobs)) as pool:
        for job in jobs:
            pool.submit(pipeline.submit, job)


def stream(line: Line, jobs: Sequence[PendingJob]) -> None:
    """Send frame by frame, as `Client.submit_each` does."""
    pipeline = SubmitPipeline(line.submit)
    for frame in frames(jobs):
        with contextlib.suppress(ManagerUnreachable):
            pipeline.send([job for job in frame if isinstance(job, PendingJob)])


def background(line: Line, jobs: Sequence[PendingJob]) -> None:
    """Have a thread send, as an executor does."""
    pipeline = in_background(line)
    for job in jobs:
        pipeline.put(job)
    assert pipeline.flush(SECONDS)
    pipeline.close()
    pipeline.join()


def in_background(
    line: Line, answered: Callable[[Sequence[PendingJob]], object] = list
) -> BackgroundPipeline:
    return BackgroundPipeline(
        line.submit, None, named=lambda job: None, answered=answered, ended=lambda: None
    )


@pytest.fixture(params=[threads, stream, background])
def send(request, line):
    """Send jobs in one of the three ways."""
    return lambda jobs: request.param(line, jobs)


class TestContract:
    def test_each_job_is_answered_with_the_id_that_the_queue_has_for_it(self, line, send):
        jobs = jobs_of(*(b"%d" % number for number in range(20)))
        send(jobs)
        assert all(job.answered and job.error is None for job in jobs)
        assert len(line.broker.get([job.id for job in jobs])) == 20
        assert {job.id: job.body for job in jobs} == {
            job_id(origin, chunk.first + place): body
            for origin, chunks, _ in line.requests
            for chunk in chunks
            for place, body in enumerate(chunk.bodies)
        }

    def test_a_refused_job_fails_alone(self, send):
        jobs = jobs_of(b"a", TOO_LARGE, b"c")
        send(jobs)
        assert [type(job.error) for job in jobs] == [type(None), JobTooLarge, type(None)]

    def test_only_strict_jobs_need_a_known_task(self, send):
        jobs = jobs_of(b"a", strict=True) + jobs_of(b"b") + jobs_of(b"c", strict=True)
        send(jobs)
        assert [type(job.error) for job in jobs] == [UnknownTask, type(None), UnknownTask]

    def test_a_request_that_fails_fails_each_job_with_an_error_of_its_own(self, line, send):
        line.submit("other", [NewChunk(0, Terms("m:f"), [b""])], False)
        line.failing = ManagerUnreachable("no answer")
        jobs = jobs_of(b"a", b"b", b"c")
        send(jobs)
        assert [str(job.error) for job in jobs] == ["no answer"] * 3
        assert len({id(job.error) for job in jobs}) == 3

    def test_a_request_that_fails_fails_no_job_of_another_request(self, line: Line):
        def submit(origin: str, chunks: Sequence[NewChunk], strict: bool) -> list[Note]:
            if not strict:
                raise BadRequest("refused as a whole")
            return line.submit(origin, chunks, False)

        jobs = jobs_of(b"a") + jobs_of(b"b", strict=True)
        with pytest.raises(BadRequest):
            SubmitPipeline(submit).send(jobs)
        assert [type(job.error) for job in jobs] == [BadRequest, type(None)]

    def test_jobs_whose_numbers_belong_to_others_get_other_numbers(self, queue, line, monkeypatch, send):
        names = iter(["taken", "taken", *(f"fresh{number}" for number in range(9))])
        monkeypatch.setattr(pipelines, "new_origin", lambda: next(names))
        monkeypatch.setattr("svc.client.background.new_origin", lambda: "taken")
        line.broker.submit("taken", [NewChunk(0, Terms("m:f"), [b"1", b"2", b"3"])])
        jobs = jobs_of(b"a", b"b", b"c")
        send(jobs)
        assert not {job.id for job in jobs} & {f"taken-{number}" for number in range(3)}
        assert queue.host.totals().queues[0].submitted == 6


class TestOrder:
    """Of what one thread adds, nothing overtakes what went before it in its queue and priority."""

    @pytest.mark.parametrize("send", [stream, background])
    def test_jobs_keep_their_order_over_all_frames(self, line, send):
        jobs = jobs_of(*(b"%d" % number for number in range(2 * FRAME_JOBS + 5)))
        send(line, jobs)
        sent = [body for _, chunks, _ in line.requests for chunk in chunks for body in chunk.bodies]
        assert sent == [job.body for job in jobs]
        assert max(line.sizes()) <= FRAME_JOBS

    def test_jobs_that_are_named_before_are_in_one_chunk_while_their_numbers_follow(self, line):
        jobs = [PendingJob(Terms(name), b"", origin="o", number=n) for n, name in enumerate("aabaa")]
        SubmitPipeline(line.submit).send(jobs)
        ((origin, chunks, _),) = line.requests
        assert origin == "o"
        assert [(chunk.first, chunk.terms.task, len(chunk.bodies)) for chunk in chunks] == [
            (0, "a", 2),
            (2, "b", 1),
            (3, "a", 2),
        ]

    def test_a_frame_can_be_sent_again(self, queue, line):
        jobs = jobs_of(b"a", b"b")
        pipeline = SubmitPipeline(line.submit)
        pipeline.send(jobs)
        pipeline.send(jobs)
        assert line.requests[0] == line.requests[1]
        assert queue.host.totals().queues[0].submitted == 2


def submit_behind_the_first(line: Line, *bodies: bytes) -> list[Future[str]]:
    """Submit a job that is held on its way, then more at the same time; return those."""
    pipeline = SubmitPipeline(line.submit)
    line.go_on.clear()
    with ThreadPoolExecutor(len(bodies) + 1) as pool:
        first = pool.submit(pipeline.submit, *jobs_of(b"first"))
        assert line.begun.wait(SECONDS)
        others = [pool.submit(pipeline.submit, job) for job in jobs_of(*bodies)]
        until(lambda: len(pipeline._waiting) == len(bodies))
        line.go_on.set()
    assert first.result()
    return others


class TestThreads:
    def test_one_thread_alone_waits_for_no_other(self, line):
        pipeline = SubmitPipeline(line.submit)
        assert [pipeline.submit(job) for job in jobs_of(b"a", b"b")] == [
            job_id(pipeline.origin, number) for number in range(2)
        ]
        assert line.sizes() == [1, 1]

    def test_jobs_that_come_while_a_request_is_on_its_way_go_with_the_next(self, line):
        futures = submit_behind_the_first(line, *(b"%d" % number for number in range(20)))
        assert len({future.result() for future in futures}) == 20
        assert line.sizes() == [1, 20]

    def test_a_frame_is_not_larger_than_a_stream_makes_it(self, line):
        pipeline = SubmitPipeline(line.submit)
        for job in jobs_of(*[b"x"] * FRAME_JOBS):
            pipeline.add(job)
        assert pipeline.submit(*jobs_of(b"own"))
        assert line.sizes() == [FRAME_JOBS, 1]

    def test_an_interrupted_thread_tells_those_it_was_sending_for(self, line):
        line.failing = KeyboardInterrupt()
        errors = [future.exception() for future in submit_behind_the_first(line, b"a", b"b", b"c")]
        kinds = sorted(type(error).__name__ for error in errors)
        assert kinds == ["KeyboardInterrupt"] + ["ManagerUnreachable"] * 2
        assert any("not known whether" in str(error) for error in errors)

    def test_a_job_of_a_signal_handler_is_sent_while_its_own_thread_sends(self, queue, line):
        pipeline = SubmitPipeline(line.submit)
        found: list[str] = []

        def handle() -> None:
            line.on_request = lambda: None
            found.append(pipeline.submit(*jobs_of(b"handler")))

        line.on_request = handle
        found.append(pipeline.submit(*jobs_of(b"interrupted")))
        assert len(set(found)) == 2
        assert queue.host.totals().queues[0].submitted == 2
        assert not pipeline._waiting


class TestBackground:
    def test_answers_come_to_a_callback_once_for_each_frame(self, line):
        told: list[Sequence[PendingJob]] = []
        pipeline = in_background(line, told.append)
        jobs = jobs_of(b"a", TOO_LARGE)
        for job in jobs:
            pipeline.put(job)
        assert all(job.id for job in jobs)
        assert pipeline.flush(SECONDS)
        assert [job for frame in told for job in frame] == jobs
        assert pipeline.unsent() == 0
        assert pipeline.refusals()[0] == 1
        pipeline.close()
        with pytest.raises(RuntimeError, match="after shutdown"):
            pipeline.put(*jobs_of(b"late"))

    def test_the_number_and_the_bytes_of_waiting_jobs_are_bounded(self, line, monkeypatch):
        pipeline = SubmitPipeline(line.submit)
        assert not pipeline.is_full()
        for job in jobs_of(bytes(FRAME_BYTES), bytes(FRAME_BYTES), bytes(FRAME_BYTES), bytes(FRAME_BYTES)):
            pipeline.add(job)
        assert pipeline.is_full()
        assert len(pipeline.take()) == 1
        assert not pipeline.is_full()
        monkeypatch.setattr(pipelines, "WAITING_JOBS_MAX", 3)
        assert pipeline.is_full()

    def test_a_forked_child_has_no_job_of_its_parent_and_another_origin(self, line):
        pipeline = in_background(line)
        pipeline.put(*jobs_of(b"a"))
        assert pipeline.flush(SECONDS)
        before = (pipeline.origin, pipeline.own_origin)
        pipeline.begin_anew()
        assert pipeline.unsent() == 0
        assert pipeline._thread is None
        assert not {pipeline.origin, pipeline.own_origin} & {*before}


class TestFrames:
    def test_a_frame_has_at_most_1000_jobs(self):
        found = list(frames(jobs_of(*[b""] * (2 * FRAME_JOBS + 1))))
        assert [len(frame) for frame in found] == [FRAME_JOBS, FRAME_JOBS, 1]

    def test_a_frame_takes_no_job_over_4_mib_but_a_single_one(self):
        big, small = bytes(FRAME_BYTES + 1), bytes(FRAME_BYTES // 3)
        found = list(frames(jobs_of(small, small, small, small, big, small)))
        assert [len(frame) for frame in found] == [3, 1, 1, 1]

    def test_none_ends_a_frame_and_an_empty_one_tells_of_the_pause(self):
        one, *others = jobs_of(b"a", b"b", b"c")
        found = list(frames([None, one, None, None, *others]))
        assert found == [[one], [], others]

    def test_an_error_keeps_its_place(self, line):
        full = QueueFull()
        specs: list[JobSpec | ServiceError | None] = [JobSpec("a"), full, JobSpec("b", (object(),))]
        (frame,) = frames(SubmitPipeline(line.submit).entries(specs, strict=False))
        assert isinstance(frame[0], PendingJob)
        assert frame[1] is full
        assert isinstance(frame[2], CodecError)
        assert len(frame) == 3

    def test_nothing_gives_nothing(self):
        assert list(frames([])) == []


def job(name: str, queue: str = "q", key: str = "", delay: float = 0.0, priority: int = 0) -> PendingJob:
    terms = Terms(name, queue, priority)
    return PendingJob(terms, name.encode(), delay, key, alone=bool(key))


def chunks_of(line: Line, jobs: Sequence[PendingJob]) -> list[list[int]]:
    """Send *jobs* in one frame; return the places of those in each chunk."""
    SubmitPipeline(line.submit).send(jobs)
    ((_, chunks, _),) = line.requests
    by_number = {job.number: place for place, job in enumerate(jobs)}
    return [[by_number[chunk.first + n] for n in range(len(chunk.bodies))] for chunk in chunks]


class TestChunks:
    def test_jobs_on_equal_terms_travel_as_one_chunk(self, line):
        assert chunks_of(line, [job("a") for _ in range(5)]) == [[0, 1, 2, 3, 4]]

    def test_a_job_with_a_key_is_a_chunk_of_one(self, line):
        jobs = [job("a"), job("a", key="k"), job("a", key="k"), job("a")]
        assert chunks_of(line, jobs) == [[0], [1], [2], [3]]
        assert [chunk.key for chunk in line.requests[0][1]] == ["", "k", "k", ""]
        assert jobs[1].id == jobs[2].id

    def test_none_overtakes_another_of_its_queue_and_priority(self, line):
        assert chunks_of(line, [job("a"), job("b"), job("a")]) == [[0], [1], [2]]

    def test_queues_and_priorities_do_not_hold_each_other_up(self, line):
        jobs = [job("a", "q1"), job("b", "q2"), job("a", "q1"), job("b", "q2"), job("a", "q1", priority=5)]
        assert chunks_of(line, jobs) == [[0, 2], [1, 3], [4]]

    def test_a_delay_is_a_term_too(self, line):
        assert chunks_of(line, [job("a"), job("a", delay=1), job("a", delay=1)]) == [[0], [1, 2]]


class TestTemplates:
    def test_that_of_a_named_task_is_made_once_for_the_same_options(self, line):
        pipeline, options = SubmitPipeline(line.submit), Options()
        template = pipeline.template("m:f", options)
        assert pipeline.template("m:f", options) is template
        other = pipeline.template("m:f", Options(queue="other"))
        assert other.terms.queue == "other"

    def test_a_callable_that_travels_itself_is_not_kept(self, line):
        pipeline = SubmitPipeline(line.submit, PickleKeys((b"a secret of this test",)))
        assert pipeline.template(lambda: 0, Options()).name is None
        assert not pipeline._templates

    def test_pickles_need_a_key(self, line):
        with pytest.raises(CodecError, match="has to be signed"):
            SubmitPipeline(line.submit).template(lambda: 0, Options())

    def test_a_body_that_no_message_can_carry_is_refused_with_the_limit(self, monkeypatch):
        monkeypatch.setattr(pipelines, "BODY_BYTES_MAX", 1000)
        with pytest.raises(JobTooLarge, match="over 1000"):
            encoded(JobTemplate.of("t:f", Options(), signs=False), ("x" * 1000,), {})

    def test_a_delay_that_has_passed_is_refused(self):
        with pytest.raises(BadRequest, match="have passed already"):
            JobTemplate.of("t:f", Options(delay=-1), signs=False)
