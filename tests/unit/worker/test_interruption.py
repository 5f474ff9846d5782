"""Where an interruption may be raised: in a task, and not between two states of our code that it calls."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from svc.client.client import BrokerClient
from svc.codec import PLAIN, encode_arguments
from svc.domain.job import Terms
from svc.worker.interruption import in_task
from svc.worker.registry import Registry, Task, TaskOptions
from svc.worker.runner import CALL_STEP, Runner
from tests.support.manager import running_manager

JOBS = 3


@pytest.fixture
def client() -> Iterator[BrokerClient]:
    with running_manager() as manager:
        client = BrokerClient(manager.broker, patience=10.0)
        client.submit("m:f")  # it is connected
        yield client
        client.close()


def places_of(task: Callable[[], object]) -> dict[str, set[bool]]:
    """Run a task; return for each module that it enters whether one may be raised at its lines."""
    found: dict[str, set[bool]] = defaultdict(set)

    def note(frame: FrameType, event: str, argument: object) -> Any:
        if event == "line" and frame.f_code is not CALL_STEP:
            found[frame.f_globals["__name__"]].add(in_task(frame))
        return note

    before = sys.gettrace()

    def traced() -> None:
        sys.settrace(note)
        try:
            task()
        finally:
            sys.settrace(before)

    registry = Registry([Task("m:f", traced, TaskOptions())])
    runner = Runner(registry, (PLAIN,), 1000)
    assert isinstance(runner.resolve(Terms("m:f")).run(encode_arguments(PLAIN, (), {})), bytes)
    return found


def test_a_task_is_interrupted_anywhere_in_its_own_code_also_if_a_client_calls_it(
    client: BrokerClient,
) -> None:
    def arguments() -> Iterator[tuple[int]]:
        for number in range(JOBS):
            yield (number,)

    def submit() -> None:
        assert len(client.submit_many("m:f", arguments())) == JOBS

    assert places_of(submit)[__name__] == {True}


def test_a_task_is_not_interrupted_between_two_states_of_its_client_but_while_that_waits(
    client: BrokerClient,
) -> None:
    found = places_of(lambda: client.submit("m:f"))
    assert found.pop("svc.wire") == {True}
    ours = {module for module in found if module.startswith("svc.")}
    assert {"svc.client.pipeline", "svc.client.session", "svc.broker.manager"} <= ours
    assert {module: found[module] for module in ours} == {module: {False} for module in ours}
