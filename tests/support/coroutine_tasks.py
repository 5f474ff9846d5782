"""Coroutines for the workers of the tests."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sys
import time
from pathlib import Path

from svc.worker.attempt_ends import GiveUp
from svc.worker.context import current_job
from svc.worker.registry import task


async def where() -> tuple[int, int, str]:
    """Return the process, its event loop and the job."""
    await asyncio.sleep(0)
    return os.getpid(), id(asyncio.get_running_loop()), current_job().id


async def others() -> int:
    """Return the number of asyncio tasks beside this one."""
    return len(asyncio.all_tasks()) - 1


async def leave_behind(path: str) -> None:
    """Leave an asyncio task behind, which writes to a file once it is cancelled."""

    async def behind() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            Path(path).write_text(current_job().id, encoding="utf-8")  # noqa: ASYNC240 - a few bytes

    asyncio.create_task(behind())  # noqa: RUF006 - it is left behind
    await asyncio.sleep(0)


async def leave_stubborn() -> int:
    """Leave an asyncio task behind that does not end; return the process."""

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                continue

    asyncio.create_task(stubborn())  # noqa: RUF006 - it is left behind
    await asyncio.sleep(0)
    return os.getpid()


@task(timeout=0.5, retries=0)
async def wait_for_ever() -> None:
    await asyncio.Event().wait()


async def shell(words: str) -> str:
    """Return the output of another program."""
    process = await asyncio.create_subprocess_shell(f"echo {words}", stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return output.decode().strip()


@task(concurrency=1000)
async def wait(seconds: float) -> str:
    """Wait; return the id of the job."""
    await asyncio.sleep(seconds)
    return current_job().id


@task(concurrency=50, retries=0)
async def note(path: str, seconds: float, until: str = "") -> int:
    """Add a line with the job and the process to a file, and wait, at least for the file *until*.

    Return the process.
    """
    with Path(path).open("a", encoding="utf-8") as file:  # noqa: ASYNC230 - a few bytes
        file.write(f"{current_job().id} {os.getpid()}\n")
    await asyncio.sleep(seconds)
    while until and not Path(until).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.02)
    return os.getpid()


@task(concurrency=1000, retries=0)
async def stay(path: str, until: str, how: str = "") -> int:
    """Note the job as `note` does. Then wait for the file *until*, or block the loop, or hold the GIL."""
    with Path(path).open("a", encoding="utf-8") as file:  # noqa: ASYNC230 - a few bytes
        file.write(f"{current_job().id} {os.getpid()}\n")
    if how == "block":
        time.sleep(300)  # noqa: ASYNC251 - the test is about that
    elif how == "hold the GIL":
        ctypes.PyDLL(None).sleep(300)
    while not Path(until).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.2)  # a thousand of them look
    return os.getpid()


@task(concurrency=50, timeout=2.0, retries=0)
async def limited(seconds: float, how: str = "") -> str:
    """Wait, and perhaps block the loop or ignore the cancellation."""
    if how == "block":
        time.sleep(seconds)  # noqa: ASYNC251 - the test is about that
    elif how == "ignore":
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(seconds)
        await asyncio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)
    return "done"


@task(concurrency=50, soft_timeout=1.0, timeout=20, retries=0)
async def asked(seconds: float, catches: bool = False) -> str:
    """Wait, and perhaps return a result when asked to end."""
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if not catches:
            raise
        return "in time"
    return "done"


@task(concurrency=50, retries=0)
async def end_oddly(how: str) -> None:
    """End the attempt, the process or the loop."""
    await asyncio.sleep(0.05)
    match how:
        case "raise":
            raise ValueError("raised")
        case "give up":
            raise GiveUp("enough")
        case "exit":
            sys.exit(3)
        case "exit in a task":
            await asyncio.create_task(_exits())
        case "stop the loop":
            asyncio.get_running_loop().stop()
            await asyncio.sleep(0.05)
        case "cancel all":
            for each in asyncio.all_tasks():
                each.cancel()
            await asyncio.sleep(30)


async def _exits() -> None:
    sys.exit(3)


def at_once() -> int:
    return os.getpid()


@task(concurrency=50, retries=0)
async def stubborn(seconds: float) -> str:
    """Wait, and go on when cancelled."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(left)
    return "done"


@task(concurrency=50, retries=0)
async def weigh(path: str, size: int) -> bytes:
    """Wait until there is a file, and note the end in it; return so many bytes."""
    file = Path(path)
    while not file.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(0.02)
    with file.open("a", encoding="utf-8") as noted:  # noqa: ASYNC230 - a few bytes
        noted.write("ended\n")
    return bytes(size)
