"""Tasks of kinds that only svc runs; its workers import them as `benchmarks.kinds`."""

from __future__ import annotations

import asyncio
import random

from svc import ListedJob, current_job, task


@task(concurrency=1000)
async def wait(seconds: float) -> float:
    """Wait, as for an answer over the network."""
    await asyncio.sleep(seconds)
    return seconds


@task(concurrency=250)
async def tell(seconds: float) -> None:
    """Tell the progress 10 times a second."""
    for number in range(int(10 * seconds)):
        current_job().progress(number, 10 * seconds, "on its way")
        await asyncio.sleep(0.1)


@task(concurrency=250)
async def report(seconds: float) -> None:
    """Tell the progress 10 times a second, and leave a checkpoint of 1 KiB every 5 seconds."""
    shift = random.randrange(50)  # so that not all jobs leave theirs at the same time
    for number in range(int(10 * seconds)):
        current_job().progress(number, 10 * seconds, "on its way")
        if (number + shift) % 50 == 0:
            current_job().checkpoint(bytes(1024))
        await asyncio.sleep(0.1)


def plain(value: int) -> int:
    """Do nothing."""
    return value


@task(batch=1)
def listed_alone(jobs: list[ListedJob]) -> list[int]:
    """Do nothing, with one job in each call."""
    return [job.args[0] for job in jobs]


@task(batch=100)
def listed(jobs: list[ListedJob]) -> list[int]:
    """Do nothing, with up to 100 jobs in each call."""
    return [job.args[0] for job in jobs]
