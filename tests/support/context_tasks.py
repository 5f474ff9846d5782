"""Tasks that ask for their own job."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from svc import OutsideJob, ServiceError, current_job, task


def _described() -> dict[str, Any]:
    job = current_job()
    return {
        "id": job.id,
        "task": job.task,
        "queue": job.queue,
        "attempt": job.attempt,
        "failures": job.failures,
        "crashes": job.crashes,
        "interruptions": job.interruptions,
        "suspicions": job.suspicions,
        "submitted_at": job.submitted_at,
        "left": None if job.deadline is None else job.deadline - time.monotonic(),
    }


def _in_thread(function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


@task(retries=0)
def describe() -> dict[str, Any]:
    return _described()


@task(retries=0, timeout=60.0)
def describe_bounded() -> dict[str, Any]:
    return _described()


@task(retries=1, backoff=0.01)
def describe_second_attempt() -> dict[str, Any]:
    if current_job().failures == 0:
        raise ValueError("the first attempt")
    return _described()


@task(retries=0)
def ids_of_threads() -> list[str]:
    copied = contextvars.copy_context()
    return [
        _in_thread(lambda: current_job().id),
        _in_thread(lambda: copied.run(lambda: current_job().id)),
    ]


@task(retries=0)
async def ids_of_coroutines() -> list[str]:
    async def inner() -> str:
        await asyncio.sleep(0)
        return current_job().id

    return [current_job().id, *await asyncio.gather(inner(), inner()), await asyncio.to_thread(_own_id)]


@task(retries=0)
def ids_of_a_generator() -> list[str]:
    def inner() -> Iterator[str]:
        yield current_job().id
        yield current_job().id

    return list(inner())


def _own_id() -> str:
    return current_job().id


_kept: list[Callable[[], Any]] = []


@task(retries=0)
def keep_the_context() -> None:
    copied = contextvars.copy_context()
    _kept.append(lambda: copied.run(_own_id))


@task(retries=0)
def use_the_kept_context() -> str:
    try:
        return str(_kept.pop()())
    except OutsideJob as error:
        return str(error)


@task(retries=0)
def log_a_line() -> None:
    current_job().logger.info("a_line_of_a_task", rows=3)


@task(retries=0)
def tell_and_wait(path: str, done: float, total: float | None, note: str = "") -> None:
    """Tell the progress, and wait until the file *path* is there."""
    current_job().progress(done, total, note)
    _wait_for(path)


@task(retries=0)
def tell_often(path: str, times: int) -> None:
    """Report *times* times, and wait until the file *path* is there."""
    for number in range(1, times + 1):
        current_job().progress(number, times)
    _wait_for(path)


@task(retries=0)
def tell(done: Any, total: Any = None) -> None:
    current_job().progress(done, total)


@task(retries=1, backoff=0.01)
def leave_and_fail(size: int, durable: bool) -> Any:
    """Leave a checkpoint in the first attempt, which fails; return it in the second."""
    job = current_job()
    if job.failures:
        return job.last_checkpoint
    job.checkpoint([bytes([number % 256 for number in range(size)])], durable=durable)
    raise ValueError("the first attempt")


@task(retries=0)
def leave_and_die(times: int) -> Any:
    """Leave checkpoints and die, in the first attempt; return the last one in the second."""
    job = current_job()
    if job.crashes:
        return job.last_checkpoint
    for number in range(times):
        job.checkpoint({"row": number})
    os.kill(os.getpid(), signal.SIGKILL)
    return None


@task(retries=0)
def leave(data: Any, durable: bool = True) -> Any:
    current_job().checkpoint(data, durable=durable)
    return current_job().last_checkpoint


@task(retries=0)
def leave_from_threads(threads: int) -> int:
    """Leave durable checkpoints from several threads at once; return how many came back."""
    job = current_job()
    with ThreadPoolExecutor(threads) as pool:
        return len(list(pool.map(lambda number: job.checkpoint(number, durable=True), range(threads))))


@task(retries=0)
def leave_in_a_child() -> str:
    """Return the error that a process which the task forks gets."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            current_job().checkpoint(b"of a child")
        except OutsideJob as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    return os.read(reader, 1000).decode()


@task(retries=0)
def leave_until_refused(path: str) -> str:
    """Leave durable checkpoints until one is refused; write the name of the error to the file *path*."""
    if current_job().last_checkpoint is not None:
        return "the second attempt"
    while True:
        try:
            current_job().checkpoint(b"again", durable=True)
        except ServiceError as error:
            Path(path).write_text(type(error).__name__, encoding="utf-8")
            return type(error).__name__


@task(retries=1, backoff=0.01)
def leave_while_away(begun: str, away: str, left: str) -> Any:
    """Leave a checkpoint while the manager is away, and die; return it in the second attempt."""
    if current_job().crashes:
        return current_job().last_checkpoint
    Path(begun).touch()
    _wait_for(away)
    current_job().checkpoint("while away")
    Path(left).touch()
    current_job().checkpoint("while away", durable=True)
    os.kill(os.getpid(), signal.SIGKILL)
    return None


@task(retries=0)
def submit_child(text: str) -> str:
    """Submit a job, and return its id."""
    return str(current_job().submit(f"{__name__}:echo", text).id)


@task(retries=0)
def submit_children(count: int) -> list[str]:
    submitter = current_job().options(priority=3)
    return [job.id for job in submitter.submit_many(f"{__name__}:echo", [(str(n),) for n in range(count)])]


@task(retries=0)
def echo(text: str) -> str:
    return text


def _wait_for(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.005)
