"""Tasks that run until something stops them, each in another way."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import importlib
import itertools
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from svc import Cancelled, ListedJob, SoftTimeout, current_job, task
from svc.broker.manager import ManagerBroker
from svc.client.client import BrokerClient

# Their tasks write a checkpoint once an exception can no more end them: only a kill does.
STUBBORN = ("stays_in_c", "takes_and_forgets")


@task
def sleeps() -> None:
    time.sleep(60)


@task
def waits_for_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


@task
def waits_for_a_lock() -> None:
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@task
def waits_for_a_job(host: str, port: int, key: str) -> None:
    """Wait for the result of a job that nobody runs."""
    with BrokerClient(lambda: ManagerBroker((host, port), bytes.fromhex(key))) as client:
        client.options(queue="nobody").submit("m:f").result()


@task
def loops() -> None:
    while True:
        pass


@task
def matches() -> None:
    """A catastrophic regular expression."""
    re.match(r"(a+)+$", "a" * 40 + "b")


@task
def stays_in_c() -> None:
    """A loop in C that holds the interpreter's lock and never looks for signals; see `STUBBORN`."""
    with contextlib.suppress(Cancelled, SoftTimeout):
        current_job().checkpoint(1)
        sum(itertools.repeat(0))
    sum(itertools.repeat(0))


@task
def sleeps_in_c() -> int:
    """A call in C that any signal ends early."""
    return int(ctypes.CDLL(None).sleep(60))


@task(batch=2)
def sleeps_in_c_for_all(jobs: list[ListedJob]) -> list[int]:
    return [sleeps_in_c()] * len(jobs)


@task(concurrency=2)
async def sleeps_in_c_on_its_loop() -> int:
    return sleeps_in_c()


@task
def computes() -> None:
    """A loop of NumPy: each call takes a second or so."""
    numpy = importlib.import_module("numpy")
    matrix = numpy.random.default_rng(1).random((1500, 1500))
    while True:
        numpy.linalg.eigvalsh(matrix)


@task
def takes_and_forgets() -> None:
    """A loop that outlives each exception; a checkpoint says that it has begun."""
    with contextlib.suppress(Cancelled, SoftTimeout):
        current_job().checkpoint(1)
        time.sleep(60)
    while True:
        with contextlib.suppress(Cancelled, SoftTimeout):
            time.sleep(60)


@task
def returns_all_the_same() -> str:
    try:
        time.sleep(60)
    except (Cancelled, SoftTimeout):
        return "done"
    return "never"


@task
async def sleeps_in_a_coroutine(path: str) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        Path(path).write_text("CancelledError", encoding="utf-8")  # noqa: ASYNC240 - a few bytes
        raise


@task
async def returns_from_a_coroutine_all_the_same() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await asyncio.sleep(0.01)
    return "done"


@task
async def fails_in_a_coroutine_otherwise() -> None:
    try:
        await asyncio.sleep(60)
    finally:
        raise ValueError("its own")


@task
def tidies(path: str) -> None:
    """Say what was raised, and clean up."""
    try:
        Path(path).write_text("begun", encoding="utf-8")
        time.sleep(60)
    except BaseException as error:
        Path(path).write_text(type(error).__name__, encoding="utf-8")
        raise


@task
def starts_others(path: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        Path(path).write_text(str(child.pid), encoding="utf-8")
        child.wait()


@task
def imports() -> None:
    """Import a module that takes a while, and be stopped after it."""
    importlib.import_module("tests.support.slow_module")
    time.sleep(60)


def _deep(depth: int, ready: threading.Barrier) -> None:
    if depth:
        _deep(depth - 1, ready)
    else:
        ready.wait()
        time.sleep(60)


@task
def has_many_deep_threads(ending: str) -> None:
    """Have more stacks than a pipe takes, and crash or go on for ever."""
    ready = threading.Barrier(61)
    for _ in range(60):
        threading.Thread(target=_deep, args=(95, ready), daemon=True).start()
    ready.wait()
    if ending == "crash":
        ctypes.string_at(0)
    sum(itertools.repeat(0))


@task
def takes_the_signal_for_stacks() -> None:
    signal.signal(signal.SIGRTMAX - 3, signal.SIG_DFL)
    time.sleep(60)


@task(concurrency=2)
async def blocks_the_loop() -> None:
    sum(itertools.repeat(0))


def _fill(megabytes: int, pause: float) -> list[bytearray]:
    kept = []
    for _ in range(megabytes):
        kept.append(bytearray(b"x") * (1 << 20))
        time.sleep(pause)
    return kept


@task
def takes_memory(megabytes: int, pause: float = 0.0, hold: float = 0.3) -> int:
    kept = _fill(megabytes, pause)
    time.sleep(hold)
    return len(kept)


@task
def has_a_greedy_child(megabytes: int) -> None:
    code = f"import time; kept = bytearray(b'x') * ({megabytes} << 20); time.sleep(60)"
    subprocess.run([sys.executable, "-c", code], check=True)
