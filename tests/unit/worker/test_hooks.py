"""The hooks that are found in modules."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from svc import on_start, on_stop
from svc.worker.hooks import Hooks
from svc.worker.registry import Registry

SOURCE = """
from svc import on_start, on_stop
calls = []
@on_start
def opened():
    calls.append("opened")
@on_stop
def closed():
    calls.append("closed")
again = opened
def job(): ...
"""


@pytest.fixture
def modules() -> Iterator[tuple[str, str]]:
    """Two modules: one with hooks, and one that has imported them."""
    names = ("hooked_module", "importing_module")
    first, second = (ModuleType(name) for name in names)
    exec(compile(SOURCE, "hooked_module.py", "exec"), vars(first))
    vars(second).update({name: vars(first)[name] for name in ("opened", "closed")})
    sys.modules.update(zip(names, (first, second), strict=True))
    yield names
    for name in names:
        del sys.modules[name]


def test_a_hook_is_called_once_whatever_its_names_and_homes(modules: tuple[str, str]):
    hooks = Hooks.load(modules)
    hooks.start()
    hooks.stop()
    assert sys.modules["hooked_module"].calls == ["opened", "closed"]


def test_a_hook_is_no_task(modules: tuple[str, str]):
    assert [name for name in Registry.load(modules).names() if "module" in name] == ["hooked_module:job"]


@pytest.mark.parametrize("mark", [on_start, on_stop])
def test_a_marked_function_can_be_called_as_before(mark):
    assert mark(lambda: 3)() == 3
