"""The state of a consumer's process is looked at once in a millisecond, and before the next jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.worker.leftovers import LOOK_SECONDS, Leftovers


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    directory, environment = Path.cwd(), dict(os.environ)
    umask = os.umask(0o022)
    os.umask(umask)
    yield
    os.chdir(directory)
    os.umask(umask)
    os.environ.clear()
    os.environ.update(environment)


def change_directory() -> None:
    os.chdir("/")


def change_environment() -> None:
    os.environ["SVC_TEST_LEFT"] = "1"


def change_umask() -> None:
    os.umask(0o777)


def state() -> tuple[Path, dict[str, str], int]:
    umask = os.umask(0)
    os.umask(umask)
    return Path.cwd(), dict(os.environ), umask


@pytest.mark.parametrize("change", [change_directory, change_environment, change_umask])
def test_what_changes_right_after_a_look_is_put_back_before_the_next_jobs(change) -> None:
    now = [0.0]
    leftovers, before = Leftovers(lambda: now[0]), state()
    assert leftovers.clear(keep_children=True) == []
    change()

    now[0] += LOOK_SECONDS / 2
    assert leftovers.clear(keep_children=True) == []
    assert state() != before
    now[0] += LOOK_SECONDS / 2
    assert leftovers.catch_up() == []

    assert state() == before


@pytest.mark.parametrize("change", [change_directory, change_environment, change_umask])
def test_what_changes_a_while_after_a_look_is_put_back_at_once(change) -> None:
    now = [0.0]
    leftovers, before = Leftovers(lambda: now[0]), state()
    leftovers.clear(keep_children=True)
    change()

    now[0] += LOOK_SECONDS
    leftovers.clear(keep_children=True)

    assert state() == before
