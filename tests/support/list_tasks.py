"""Tasks that get lists of jobs, for the workers of the tests."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from svc import GiveUp, ListedJob, Retry, Snooze, current_job, task
from svc.errors import OutsideJob


@task(batch=10, linger=30)
def full(jobs: list[ListedJob]) -> list[object]:
    """Return the size of the list, and each job's own argument."""
    return [[len(jobs), job.args[0]] for job in jobs]


@task(batch=3, linger=30)
def three(jobs: list[ListedJob]) -> list[int]:
    return [len(jobs)] * len(jobs)


@task(batch=3, linger=0.5)
def soon(jobs: list[ListedJob]) -> list[int]:
    return [len(jobs)] * len(jobs)


@task(batch=10)
def at_once(jobs: list[ListedJob]) -> list[int]:
    return [len(jobs)] * len(jobs)


def plain(value: int) -> int:
    return value


@task(batch=10, linger=30, retries=0)
def each(jobs: list[ListedJob]) -> list[object]:
    """Return an outcome of the kind that each job asks for; the first one says if the call ends otherwise."""
    match jobs[0].args[0]:
        case "raise":
            raise ValueError("all of you")
        case "too few":
            return [None] * (len(jobs) - 1)
        case "nothing":
            return None  # type: ignore[return-value]
        case "a text":
            return "x" * len(jobs)  # type: ignore[return-value]
        case "exit":
            sys.exit(3)
    return [_outcome(*job.args, **job.kwargs) for job in jobs]


def _outcome(kind: str, value: Any = None) -> object:
    match kind:
        case "fail":
            return ValueError(value)
        case "give up":
            return GiveUp(value)
        case "retry":
            return Retry(delay=3600)
        case "snooze":
            return Snooze(3600)
        case "unsendable":
            return object()
    return value


@task(batch=10, linger=30)
async def coroutine(jobs: list[ListedJob]) -> list[int]:
    await asyncio.sleep(0)
    return [job.args[0] + 1 for job in jobs]


@task(batch=10, linger=30)
def known(jobs: list[ListedJob]) -> list[object]:
    """Return what each job knows of itself, after a report of progress and a checkpoint."""
    try:
        current_job()
    except OutsideJob as error:
        said = str(error)
    for job in jobs:
        job.progress(1, 2, "half")
        job.checkpoint(job.args[0])
    return [[job.id, job.attempt, job.task, job.last_checkpoint, job.deadline, said] for job in jobs]


@task(batch=5, linger=20, retries=0)
def note(jobs: list[ListedJob]) -> list[int]:
    """Add a line with all ids to a file, and wait; return the process.

    The arguments of a job are the file, the seconds, and perhaps "die".
    """
    with Path(jobs[0].args[0]).open("a", encoding="utf-8") as file:
        file.write(" ".join(job.id for job in jobs) + "\n")
    for job in jobs:
        if job.args[2:] == ("die",):
            os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(max(job.args[1] for job in jobs))
    return [os.getpid()] * len(jobs)


@task(batch=5, linger=30, timeout=3.0, retries=0)
def limited(jobs: list[ListedJob]) -> list[int]:
    """Sleep for the longest time that a job asks for."""
    time.sleep(max(job.args[0] for job in jobs))
    return [len(jobs)] * len(jobs)


@task(batch=5, linger=30, soft_timeout=0.3, retries=0)
def asked(jobs: list[ListedJob]) -> list[int]:
    time.sleep(30)
    return [len(jobs)] * len(jobs)


@task(batch=3, linger=30)
def talk(jobs: list[ListedJob]) -> list[None]:
    print("a list of", len(jobs))  # noqa: T201 - the test needs the output
    return [None] * len(jobs)
