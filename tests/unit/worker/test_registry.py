from __future__ import annotations

import sys
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from svc.domain.job import CALL
from svc.domain.retry import DEFAULT_BACKOFF, DEFAULT_RETRIES
from svc.errors import ArgumentError, ConfigurationError, TaskNotFound
from svc.worker.registry import Registry, Task, TaskOptions, task

Modules = dict[str, types.ModuleType]

SOURCE = """
from svc.worker.registry import task
from os.path import join
from json import dumps as borrowed

CONSTANT = 3

def plain(x): return x
def _private(x): return x
class Thing:
    def method(self): pass
async def later(x: int): return x + 1

@task
def marked(x): return -x

@task(name="images.resize", retries=7, backoff=0.5, timeout=9)
def named(x): return x * 2

@task
def _hidden(x): return x
"""


@pytest.fixture
def module() -> Iterator[str]:
    name = "made_for_test_registry"
    module = types.ModuleType(name)
    exec(SOURCE, module.__dict__)
    sys.modules[name] = module
    yield name
    del sys.modules[name]


def make(source: str, name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    exec(source, module.__dict__)
    sys.modules[name] = module
    return module


def test_a_bare_decorator_leaves_the_function_as_it_was() -> None:
    @task
    def double(x: int) -> int:
        """Return twice x."""
        return 2 * x

    assert double(4) == 8
    assert double.__name__ == "double"
    assert double.task_options == TaskOptions()  # type: ignore[attr-defined]
    assert not hasattr(double, "task_name")


def test_a_decorator_with_options_leaves_the_function_as_it_was() -> None:
    @task(name="twice", retries=1, backoff=2, timeout=3)
    def double(x: int) -> int:
        return 2 * x

    assert double(4) == 8
    assert double.task_options == TaskOptions("twice", 1, 2, 3)  # type: ignore[attr-defined]
    assert double.task_name == "twice"  # type: ignore[attr-defined]  # what the client submits it by


def test_options_have_the_defaults_of_the_retry_policy() -> None:
    @task()
    def nothing() -> None:
        pass

    assert nothing.task_options == TaskOptions("", DEFAULT_RETRIES, DEFAULT_BACKOFF, None)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "options",
    [
        {"name": "#pill"},
        {"name": "svc:call"},
        {"name": " x"},
        {"retries": -1},
        {"backoff": -0.1},
        {"timeout": 0},
        {"concurrency": 0},
        {"concurrency": -1},
        {"concurrency": 1001},
        {"concurrency": 1.5},
        {"concurrency": float("nan")},
        {"concurrency": "5"},
        {"concurrency": 2, "max_rss": 1 << 30},
        {"batch": 0},
        {"batch": 1001},
        {"batch": -1},
        {"batch": 1.5},
        {"batch": float("nan")},
        {"batch": "5"},
        {"batch": True},
        {"batch": 5, "linger": -1},
        {"batch": 5, "linger": 60.1},
        {"batch": 5, "linger": float("nan")},
        {"batch": 5, "linger": float("inf")},
        {"batch": 5, "linger": "1"},
        {"batch": 5, "linger": True},
        {"batch": 5, "linger": None},
        {"linger": 1},
        {"batch": 5, "concurrency": 5},
    ],
)
def test_options_out_of_range_are_refused_where_they_are_written(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        task(**options)  # type: ignore[call-overload]


def test_a_module_offers_its_marked_and_its_public_functions(module: str) -> None:
    assert Registry.load([module]).names() == sorted(
        [f"{module}:{name}" for name in ("plain", "later", "marked", "named", "_hidden")]
        + ["images.resize", CALL]
    )


def test_a_named_task_has_its_options_under_both_names(module: str) -> None:
    registry = Registry.load([module])
    assert registry.get("images.resize").options.retries == 7
    assert registry.get(f"{module}:named").options.timeout == 9
    assert registry.get("images.resize").function is registry.get(f"{module}:named").function


def test_a_marked_function_of_another_module_is_found_by_both_homes(module: str) -> None:
    package = make(f"from {module} import marked", "made_for_test_package")
    try:
        assert set(Registry.load([package.__name__]).names()) == {
            f"{package.__name__}:marked",
            f"{module}:marked",
            CALL,
        }
    finally:
        del sys.modules[package.__name__]


def test_only_a_coroutine_function_has_a_concurrency() -> None:
    async def waits() -> None:
        """Do nothing."""

    assert task(concurrency=1000)(waits) is waits
    with pytest.raises(ConfigurationError, match="no coroutine function"):
        task(concurrency=2)(lambda: None)


def test_no_generator_function_has_a_batch() -> None:
    def yields(jobs: list[object]) -> Iterator[object]:
        yield from jobs

    async def yields_later(jobs: list[object]) -> AsyncIterator[object]:
        for job in jobs:
            yield job

    for function in (yields, yields_later):
        with pytest.raises(ConfigurationError, match="generator function"):
            task(batch=5)(function)


def test_loading_one_module_twice_changes_nothing(module: str) -> None:
    assert Registry.load([module, module]).names() == Registry.load([module]).names()


def test_two_functions_of_one_name_are_refused(module: str) -> None:
    other = make("from svc.worker.registry import task\n@task(name='images.resize')\ndef f(): pass", "other")
    try:
        with pytest.raises(ConfigurationError, match=r"images\.resize"):
            Registry.load([module, other.__name__])
    finally:
        del sys.modules["other"]


def test_a_lazy_object_in_a_module_is_not_woken_up() -> None:
    lazy = "class Lazy:\n    def __getattr__(self, name): raise RuntimeError(name)\nit = Lazy()"
    module = make(lazy, "made_with_lazy_object")
    try:
        assert Registry.load([module.__name__]).names() == [CALL]
    finally:
        del sys.modules[module.__name__]


def test_a_module_that_is_not_there_is_named_with_the_cause() -> None:
    with pytest.raises(ConfigurationError, match=r"'no_such_module'.*ModuleNotFoundError"):
        Registry.load(["no_such_module"])


@pytest.mark.parametrize("statement", ["1 / 0", "raise SystemExit(3)"])
def test_a_module_that_raises_is_named_with_the_cause(statement: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "raising_module.py").write_text(statement)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigurationError, match="'raising_module'"):
        Registry.load(["raising_module"])


def test_an_unknown_name_is_answered_with_the_nearest_ones(module: str) -> None:
    with pytest.raises(TaskNotFound, match=f"did you mean {module}:plain"):
        Registry.load([module]).get(f"{module}:plian")


@pytest.mark.parametrize(
    "name", ["os:system", "builtins:eval", "made_for_test_registry:Thing.method", "", "x" * 10**6]
)
def test_a_name_from_the_wire_is_only_looked_up(module: str, name: str) -> None:
    """Nothing is imported for it and no attribute is asked for; a huge one does not make a huge message."""
    with pytest.raises(TaskNotFound) as raised:
        Registry.load([module]).get(name)
    assert len(raised.value.message) < 1000


def test_arguments_that_do_not_fit_name_task_and_parameter(module: str) -> None:
    with pytest.raises(ArgumentError, match=rf"{module}:later: argument x: expected `int`, got `str`"):
        Registry.load([module]).get(f"{module}:later").bind(["1"], {})


def test_every_worker_can_call_a_callable() -> None:
    call = Registry().get(CALL)
    assert call.function(max, 1, 2, key=lambda x: -x) == 1
    with pytest.raises(ArgumentError, match="argument target"):
        call.bind([3], {})
    with pytest.raises(ArgumentError, match="target"):
        call.bind([], {})


def test_a_task_without_options_has_the_defaults() -> None:
    assert Task("m:f", max).options == TaskOptions()


def test_an_unknown_option_is_told_with_the_one_that_may_be_meant() -> None:
    unknown: dict[str, Any] = {"retires": 5}
    with pytest.raises(
        TypeError, match="a task has no option 'retires'; did you mean retries\\? Options are name, "
    ):
        task(**unknown)
