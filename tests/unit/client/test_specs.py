import functools
import math
import sys

import pytest

from svc import codec
from svc.client import specs
from svc.client.specs import (
    FRAME_BYTES,
    FRAME_JOBS,
    Encoded,
    JobSpec,
    Options,
    encode,
    frames,
    groups,
    new_origin,
    task_name,
)
from svc.domain.job import CALL, Terms
from svc.errors import BadRequest, CodecError, JobTooLarge, QueueFull
from svc.worker.registry import task


@task(name="registered")
def with_a_name():
    pass


@task
def marked():
    pass


class Holder:
    def method(self):
        pass

    def __call__(self):
        pass

    @staticmethod
    def static():
        pass


@pytest.fixture
def importable(monkeypatch):
    """This module under its name, as it is for code that imports it."""
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules["__main__"])
    for each in (with_a_name, marked, Holder):
        monkeypatch.setattr(sys.modules[__name__], each.__name__, each, raising=False)


class TestNames:
    def test_an_origin_is_13_characters_of_crockford_base_32(self):
        names = {new_origin() for _ in range(1000)}
        assert len(names) == 1000
        assert all(
            len(name) == 13 and not set(name) - set("0123456789abcdefghjkmnpqrstvwxyz") for name in names
        )
        assert {name[0] for name in names} <= set("0123456789abcdef")  # 64 bits, so four in the first of 13

    @pytest.mark.parametrize("name", ["any:thing", "registered"])
    def test_text_is_a_name_already(self, name):
        assert task_name(name) == name

    @pytest.mark.usefixtures("importable")
    def test_a_function_has_the_name_it_was_registered_with_else_where_it_is(self):
        assert task_name(with_a_name) == "registered"
        assert task_name(marked) == f"{__name__}:marked"
        assert task_name(math.sqrt) == "math:sqrt"
        assert task_name(Holder) == f"{__name__}:Holder"
        assert task_name(Holder.static) == f"{__name__}:Holder.static"

    @pytest.mark.usefixtures("importable")
    @pytest.mark.parametrize(
        "callable_",
        [lambda: 0, Holder(), Holder().method, functools.partial(math.sqrt, 4)],
        ids=["lambda", "object", "bound method", "partial"],
    )
    def test_what_no_other_process_can_import_has_none(self, callable_):
        assert task_name(callable_) is None

    def test_neither_has_a_local_function_or_one_of_a_script(self, monkeypatch):
        def local():
            pass

        assert task_name(local) is None
        local.__module__, local.__qualname__ = "__main__", "local"
        monkeypatch.setattr(sys.modules["__main__"], "local", local, raising=False)
        assert task_name(local) is None


class TestEncode:
    def test_a_named_task_carries_its_arguments_as_data(self):
        job = encode(JobSpec("t:f", (1, "two"), {"three": 3.0}, Options(delay=5.0, key="k")))
        assert job.terms == Terms("t:f")
        assert codec.decode_arguments("plain", job.body, ["plain"]) == ([1, "two"], {"three": 3.0})
        assert (job.delay, job.key) == (5.0, "k")

    def test_any_other_callable_travels_as_the_first_argument_of_a_pickle(self):
        job = encode(JobSpec(functools.partial(math.pow, 2), (5,)))
        assert (job.terms.task, job.terms.codec) == (CALL, "pickle")
        args, kwargs = codec.decode_arguments("pickle", job.body, ["pickle"], memoryview)
        assert (args[0](*args[1:]), kwargs) == (32.0, {})

    def test_options_become_terms(self):
        options = Options("q", 3, retries=1, backoff=0.5, timeout=9.0, codec="pickle")
        assert encode(JobSpec("t:f", options=options)).terms == Terms("t:f", "q", 3, "pickle", 1, 0.5, 9.0)

    @pytest.mark.parametrize(
        ("task", "changes"),
        [
            (None, {}),
            (7, {}),
            (b"t:f", {}),
            ("t:f", {"codec": "nope"}),
            ("t:f", {"codec": None}),
            ("t:f", {"codec": ["plain"]}),
            ("t:f", {"strict": "yes"}),
            ("t:f", {"strict": 2}),
            ("t:f", {"strict": None}),
        ],
    )
    def test_a_task_or_an_option_of_a_wrong_kind_is_refused_by_the_caller(self, task, changes):
        with pytest.raises(BadRequest):
            encode(JobSpec(task, (1,), {}, Options().but(**changes)))

    def test_arguments_that_are_no_data_are_refused(self):
        with pytest.raises(CodecError, match="not plain data"):
            encode(JobSpec("t:f", (object(),)))

    def test_what_no_message_can_carry_is_refused_with_the_limit(self, monkeypatch):
        monkeypatch.setattr(specs, "BODY_BYTES_MAX", 1000)
        with pytest.raises(JobTooLarge, match="over 1000"):
            encode(JobSpec("t:f", ("x" * 1000,)))


class TestFrames:
    def test_a_frame_has_at_most_1000_jobs(self):
        found = list(frames(JobSpec("t:f", (number,)) for number in range(2 * FRAME_JOBS + 1)))
        assert [len(frame.jobs) for frame in found] == [FRAME_JOBS, FRAME_JOBS, 1]

    def test_a_frame_takes_no_job_over_4_mib_but_a_single_one(self):
        big, small = "x" * (FRAME_BYTES + 1), "x" * (FRAME_BYTES // 3)
        found = list(frames(JobSpec("t:f", (text,)) for text in (small, small, small, small, big, small)))
        assert [len(frame.jobs) for frame in found] == [2, 2, 1, 1]

    def test_none_ends_a_frame_and_makes_no_empty_one(self):
        found = list(frames([None, JobSpec("a"), None, None, JobSpec("b"), JobSpec("c")]))
        assert [len(frame.jobs) for frame in found] == [1, 2]

    def test_an_error_keeps_its_place(self):
        full = QueueFull()
        (frame,) = frames([JobSpec("a"), full, JobSpec("b", (object(),))])
        assert isinstance(frame.jobs[0], Encoded)
        assert frame.jobs[1] is full
        assert isinstance(frame.jobs[2], CodecError)

    def test_nothing_gives_nothing(self):
        assert list(frames([])) == []


def job(name: str, queue: str = "q", key: str = "", delay: float = 0.0, priority: int = 0) -> Encoded:
    return Encoded(Terms(name, queue, priority), name.encode(), delay, key)


class TestGroups:
    def test_jobs_on_equal_terms_travel_as_one_chunk(self):
        (group,) = groups([job("a")] * 5)
        chunk = group.chunk(7, group.bodies)
        assert (chunk.first, len(chunk.bodies), group.places) == (7, 5, [0, 1, 2, 3, 4])

    def test_a_job_with_a_key_is_a_chunk_of_one(self):
        found = groups([job("a"), job("a", key="k"), job("a", key="k"), job("a")])
        assert [group.places for group in found] == [[0], [1], [2], [3]]
        assert found[1].chunk(0, found[1].bodies).key == "k"

    def test_none_overtakes_another_of_its_queue_and_priority(self):
        found = groups([job("a"), job("b"), job("a")])
        assert [group.places for group in found] == [[0], [1], [2]]

    def test_queues_and_priorities_do_not_hold_each_other_up(self):
        jobs = [job("a", "q1"), job("b", "q2"), job("a", "q1"), job("b", "q2"), job("a", "q1", priority=5)]
        assert [group.places for group in groups(jobs)] == [[0, 2], [1, 3], [4]]

    def test_a_delay_is_a_term_too(self):
        assert [group.places for group in groups([job("a"), job("a", delay=1), job("a", delay=1)])] == [
            [0],
            [1, 2],
        ]

    def test_errors_are_passed_over(self):
        assert [group.places for group in groups([QueueFull(), job("a"), QueueFull(), job("a")])] == [[1, 3]]


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(TypeError, match="qeue"):
        Options().but(qeue="x")
