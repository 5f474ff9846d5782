"""Tasks that are generators, for the tests of partial results."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from pathlib import Path
from typing import Any

from svc import Cancelled, OutsideJob, SoftTimeout, current_job, task

Values = Generator[Any, None, Any]


@task
def count(stop: int) -> Values:
    """Yield the numbers below *stop*; return their sum."""
    yield from range(stop)
    return sum(range(stop))


@task
async def count_async(stop: int) -> AsyncGenerator[int, None]:
    """Yield the numbers below *stop*, and sleep a little."""
    for number in range(stop):
        yield number
        await asyncio.sleep(0)


@task
def nothing() -> Iterator[int]:
    """Yield nothing."""
    yield from ()


@task(retries=0)
def give(values: list[Any]) -> Values:
    """Yield *values*."""
    yield from values


@task(retries=0)
def fail_after(stop: int) -> Values:
    """Yield the numbers below *stop*, and fail."""
    yield from range(stop)
    raise ValueError("as told")


@task(retries=0)
def unsendable(place: int) -> Values:
    """Yield numbers, and at *place* something that cannot be carried."""
    try:
        yield from range(place)
        yield object()
        yield "never"
    finally:
        note("closed")


@task(retries=0)
def stubborn() -> Values:
    """Yield what cannot be carried, and go on in spite of the end."""
    while True:
        try:
            yield object()
        except GeneratorExit:
            yield "again"


@task(retries=1, backoff=0.3)
def flaky(first: int, second: int) -> Values:
    """Yield the numbers below *first* and fail; in the second attempt, letters."""
    if current_job().attempt == 1:
        yield from range(first)
        raise ValueError("the first attempt")
    for number in range(second):
        yield f"of the second {number}"


@task
def about_itself() -> Values:
    """Yield what the job knows of itself, from different places."""
    job = current_job()
    job.progress(1, 2)
    job.checkpoint("half", durable=True)
    yield job.id
    yield current_job().id
    yield current_job().last_checkpoint


@task(retries=0)
def endless(pause: float, caught: bool = False) -> Values:
    """Yield numbers for ever; with *caught*, end well at a soft timeout."""
    number = 0
    try:
        while True:
            yield number
            number += 1
            time.sleep(pause)
    except SoftTimeout:
        if not caught:
            raise
        yield "the last"
        return number
    except Cancelled:
        note("cancelled")
        raise


@task(retries=0)
async def endless_async(pause: float) -> AsyncGenerator[int, None]:
    """Yield numbers for ever."""
    number = 0
    try:
        while True:
            yield number
            number += 1
            await asyncio.sleep(pause)
    except (asyncio.CancelledError, Cancelled):
        note("cancelled")
        raise


@task(retries=0)
def at_signal(path: str, before: int) -> Values:
    """Yield numbers, wait for the file *path*, and yield one more."""
    yield from range(before)
    while not Path(path).exists():
        time.sleep(0.01)
    yield "after"


@task(retries=2, backoff=0)
def dies(before: int, path: str) -> Values:
    """Die by SIGKILL in the first attempt, once the file *path* is there; succeed in the second."""
    first = current_job().attempt == 1
    for number in range(before):
        yield [current_job().attempt, number]
    if first:
        while not Path(path).exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)


@task(retries=5, backoff=0)
def flows(stop: int) -> Values:
    """Yield numbers with that of the attempt, a few thousand a second; return how many."""
    attempt = current_job().attempt
    for number in range(stop):
        yield [attempt, number]
        if not number % 10:
            time.sleep(0.005)
    return stop


@task
def heavy(path: str, values: int, size: int) -> Values:
    """Yield a text of some *size*, and once the file *path* is there, the other ones."""
    for number in range(values):
        yield chr(97 + number % 26) * size
        while not Path(path).exists():
            time.sleep(0.01)


@task(retries=0)
def until_lost(path: str) -> Values:
    """Yield until that raises an error, whose name goes into the file *path*; the second attempt ends."""
    if current_job().attempt > 1:
        yield 2
        return "the second attempt"
    try:
        while True:
            yield 1
            time.sleep(0.05)
    except Exception as error:
        Path(path).write_text(type(error).__name__)
        raise


@task(retries=0)
def forks() -> Values:
    """Yield in a child process, which is no partial result of the job."""
    yield "before"
    child = os.fork()
    if not child:
        try:
            yield "of the child"
        except OutsideJob:
            os._exit(7)
        finally:
            os._exit(1)
    yield os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def note(text: str) -> None:
    """Leave *text* as the progress of the job, where a test can see it, and in a file."""
    path = os.environ.get("SVC_TEST_NOTES")
    if path:
        Path(path).write_text(text)
