"""Tasks with large arguments and results."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import svc

MEBIBYTE = 1 << 20


def echo(value: Any) -> Any:
    return value


def size_of(value: bytes) -> int:
    return len(value)


def made(mebibytes: int) -> bytes:
    """Return bytes whose every mebibyte is another one."""
    return b"".join(number.to_bytes(8) * (MEBIBYTE // 8) for number in range(mebibytes))


def digest(file: svc.File) -> list[Any]:
    """Read a file piece by piece; return its name, size and digest."""
    found, size = hashlib.sha256(), 0
    with file.open() as content:
        while part := content.read(MEBIBYTE):
            found.update(part)
            size += len(part)
    return [file.path.name, size, found.hexdigest()]


def written(mebibytes: int) -> svc.File:
    path = Path(os.environ["LARGE_TASKS_FOLDER"]) / "made.bin"
    with path.open("wb") as file:
        for number in range(mebibytes):
            file.write(number.to_bytes(8) * (MEBIBYTE // 8))
    return svc.File(path)


def deep(value: Any) -> Any:
    return {"inside": value}


def slow(file: svc.File, seconds: float) -> str:
    """Tell where the file is, and keep it for a while; a second attempt does neither."""
    told = Path(os.environ["LARGE_TASKS_FOLDER"], "where")
    if not told.exists():
        told.write_text(str(file.path))
        time.sleep(seconds)
    return str(file.path)


@svc.task(concurrency=4)
async def echo_beside(value: Any) -> Any:
    return value


@svc.task(batch=10)
def echo_all(jobs: list[svc.ListedJob]) -> list[Any]:
    """Return the argument of each job; of a file the name, its content and whether all are there at once."""
    paths = [job.args[0].path for job in jobs if isinstance(job.args[0], svc.File)]
    there = all(path.exists() for path in paths)
    return [
        [job.args[0].path.name, len(job.args[0].path.read_bytes()), there]
        if isinstance(job.args[0], svc.File)
        else job.args[0]
        for job in jobs
    ]


#: The outcomes of `results`; a test sets them.
RESULTS: list[Any] = []


@svc.task(batch=10, retries=0)
def results(jobs: list[svc.ListedJob]) -> list[Any]:
    return RESULTS[: len(jobs)]
