import functools
import math
import sys
from dataclasses import replace

import pytest

from svc import codec
from svc.client.pending import new_origin
from svc.client.specs import JobSpec, JobTemplate, Options, task_name
from svc.domain.job import CALL, Terms
from svc.errors import BadRequest, CodecError
from svc.testing import local_client
from svc.worker.registry import task
from tests.support.specs import encode


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
        assert job.terms == Terms("t:f", typed=True, large=True)
        assert codec.decode_arguments("plain", job.body, ["plain"]) == ([1, "two"], {"three": 3.0})
        assert (job.delay, job.key) == (5.0, "k")

    def test_any_other_callable_travels_as_the_first_argument_of_a_pickle(self):
        job = encode(JobSpec(functools.partial(math.pow, 2), (5,)))
        assert (job.terms.task, job.terms.codec) == (CALL, "pickle")
        args, kwargs = codec.decode_arguments("pickle", job.body, ["pickle"], memoryview)
        assert (args[0](*args[1:]), kwargs) == (32.0, {})

    def test_options_become_terms(self):
        options = Options("q", 3, retries=1, backoff=0.5, timeout=9.0, codec="pickle")
        assert encode(JobSpec("t:f", options=options)).terms == Terms(
            "t:f", "q", 3, "pickle", 1, 0.5, 9.0, typed=True, large=True
        )

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
            encode(JobSpec(task, (1,), {}, replace(Options(), **changes)))

    def test_arguments_that_are_no_data_are_refused(self):
        with pytest.raises(CodecError, match="not plain data"):
            encode(JobSpec("t:f", (object(),)))


def test_options_that_do_not_exist_are_refused(queue):
    with pytest.raises(TypeError, match="qeue"):
        local_client(queue).options(qeue="x")


def test_an_option_that_there_is_not_is_told_with_those_that_there_are():
    with pytest.raises(TypeError) as refused:
        Options().changed({"prioritty": 5})
    told = "there is no option 'prioritty'; did you mean priority? Options are queue, priority, delay, key, "
    assert str(refused.value).startswith(told)
    assert Options().changed({"priority": 5}) == Options(priority=5)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("priority", "5", "a whole number, not '5'"),
        ("retries", 2.5, "a whole number, not 2.5"),
        ("timeout", "5s", "a number of seconds, not '5s'"),
        ("delay", True, "a number of seconds, not True"),
        ("max_rss", "1GB", "a number of bytes, as a whole number, not '1GB'"),
        ("queue", 5, "a text, not 5"),
    ],
)
def test_an_option_of_the_wrong_kind_is_told_what_it_has_to_be(name, value, told):
    with pytest.raises(BadRequest) as refused:
        JobTemplate.of("t:f", Options(**{name: value}), signs=False)
    assert str(refused.value) == f"the option {name} of a job is {told}"


def test_an_option_out_of_bounds_is_told_so_whatever_the_others_are():
    with pytest.raises(BadRequest, match="the job is out of bounds: retries: "):
        JobTemplate.of("t:f", Options(retries=-1, timeout=5, max_rss=None), signs=False)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"timeout": 0}, "timeout: 0 s is too short; it takes 0.001 s at least"),
        ({"timeout": -3}, "timeout: -3 s is too short; it takes 0.001 s at least"),
        ({"soft_timeout": -0.5}, "soft_timeout: -0.5 s is too short; it takes 0.001 s at least"),
        ({"delay": -1}, "delay: "),
        ({"retries": -1}, "retries: "),
        ({"codec": "json"}, "'json' is not a codec"),
        ({"strict": 1}, "strict is True or False"),
    ],
)
def test_options_refuse_a_bad_value_where_it_is_written(changes, told, queue):
    with pytest.raises(BadRequest) as refused:
        local_client(queue).options(**changes)
    assert told in str(refused.value)


def test_a_soft_timeout_that_is_not_shorter_names_the_flags():
    with pytest.raises(
        BadRequest, match=r"\(--soft-timeout\) of 2 s .* \(--job-timeout\) of 1 s; make it shorter"
    ):
        Options(timeout=1.0, soft_timeout=2.0).check()
