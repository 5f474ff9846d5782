"""A job that is a pickled callable is shown under the callable's own name."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import pytest

from svc.client.client import BrokerClient
from svc.client.executor import BrokerExecutor
from svc.client.specs import JobSpec
from svc.domain.job import CALL, Terms
from svc.domain.names import NAME_MAX, is_name
from svc.testing import local_client, run_jobs
from tests.support import executor_tasks as tasks
from tests.support.specs import encode

HERE = __name__


class Adder:
    def __init__(self, more: int) -> None:
        self.more = more

    def __call__(self, number: int) -> int:
        return number + self.more

    def add(self, number: int) -> int:
        return number + self.more


def odd(name: str) -> Callable[..., Any]:
    def function() -> None:
        pass

    function.__qualname__ = name
    return function


CALLABLES = [
    (tasks.add, f"{tasks.__name__}:add"),
    (pow, "builtins:pow"),
    ("-".join, "builtins:str.join"),
    (Adder(1), f"{HERE}:Adder"),
    (Adder(1).add, f"{HERE}:Adder.add"),
    (functools.partial(tasks.add, 1), f"{tasks.__name__}:add"),
    (functools.partial(functools.partial(Adder(2)), 1), f"{HERE}:Adder"),
    (operator.itemgetter(1), "operator:itemgetter"),
    (dict, "builtins:dict"),
]


@pytest.fixture
def client(queue) -> BrokerClient:
    return local_client(queue)


@pytest.fixture
def pickling(client):
    executor = BrokerExecutor(client, codec="pickle", patience=30.0)
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)


@pytest.mark.parametrize(("call", "name"), CALLABLES, ids=[name for _, name in CALLABLES])
def test_an_executors_job_has_the_name_of_what_is_called(client, pickling, call, name):
    future = pickling.submit(call, 1)
    pickling.flush(30)

    assert client.view(future.job_id).task == name
    assert [view.id for view in client.find(task=name)] == [future.job_id]
    assert [view.id for view in client.find(task=CALL)] == [future.job_id]


def test_the_calls_of_a_chunk_have_the_name_of_the_function(client, pickling):
    results = pickling.map(tasks.add, range(4), range(4), chunksize=2)
    pickling.flush(30)

    assert {view.task for view in client.find()} == {f"{tasks.__name__}:add"}
    results.close()


@pytest.mark.parametrize("name", ["two\nlines", "x" * 1000, "\x1b[2J", "", "caf\udce9"])
def test_an_odd_name_is_cut_to_one_that_can_be_shown(client, pickling, name):
    future = pickling.submit(odd(name))
    pickling.flush(30)

    assert is_name(client.view(future.job_id).task)
    assert len(client.view(future.job_id).task) <= NAME_MAX


def test_the_outcome_has_it_too_and_the_worker_runs_the_callable(client, queue, pickling):
    good, bad = pickling.submit(tasks.add, 2, 3), pickling.submit(tasks.fail, "no")
    pickling.flush(30)
    run_jobs(queue, [tasks.__name__], accept=["plain", "pickle"])

    outcomes = {outcome.id: outcome.task for outcome in client.outcomes([good.job_id, bad.job_id], 5)}
    assert good.result(30) == 5
    assert outcomes == {good.job_id: f"{tasks.__name__}:add", bad.job_id: f"{tasks.__name__}:fail"}


def test_the_name_has_no_part_in_how_a_task_is_found():
    assert encode(JobSpec(Adder(1), (1,))).terms.task == CALL
    assert Terms("m:f", label="m:harmless").shown_task == "m:f", "nobody hides a task behind a name"
    assert Terms(CALL, label="").shown_task == CALL
