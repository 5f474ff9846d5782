"""Runs tasks that are generators: each value that one yields is a partial result of its job.

The generator is asked for the next value only when the last one is on its way. If the manager is slow or away
and much waits, the generator waits at its `yield`. A refusal of the manager, a cancel and a soft timeout are
raised there too. What it returns is the result of the job, which is not reported before all partial results
are recorded.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
from collections.abc import Callable
from types import AsyncGeneratorType, GeneratorType
from typing import Any

from svc.errors import LeaseLost
from svc.worker.outlet import Encode, Outlet, PartialResultRefused

#: Seconds in which a cancel that has taken the lease of an attempt is also heard from the supervisor.
_CANCEL_SECONDS = 2.0


def run(generator: GeneratorType[Any, Any, Any], encode: Encode) -> Any:
    """Record what *generator* yields; return what it returns, or raise its error."""
    outlet = Outlet(encode)
    try:
        returned = _drain(generator, outlet)
        _wait(outlet.when_sent)
        outlet.confirm()
        return returned
    finally:
        outlet.close()


async def run_async(generator: AsyncGeneratorType[Any, Any], encode: Encode) -> None:
    """Do the same as `run` with an asynchronous generator, which returns nothing."""
    outlet = Outlet(encode)
    try:
        await _drain_async(generator, outlet)
        await _come(outlet.when_sent)
        outlet.confirm()
    finally:
        outlet.close()


def _drain(generator: GeneratorType[Any, Any, Any], outlet: Outlet) -> Any:
    """Take all values; an exception that comes between two of them is raised at the `yield`."""
    raised: BaseException | None = None
    while True:
        thrown, raised, taken = raised, None, False
        try:
            value = next(generator) if thrown is None else generator.throw(thrown)
            has_room = outlet.take(value)
            taken = True
            if not has_room:
                _wait(outlet.when_room)
        except StopIteration as stop:
            return stop.value
        except BaseException as error:
            if generator.gi_frame is None:
                raise
            if not taken:
                cause = _cancel_instead(error)
                _end(generator, cause)
                raise cause from None
            raised = error


async def _drain_async(generator: AsyncGeneratorType[Any, Any], outlet: Outlet) -> None:
    raised: BaseException | None = None
    while True:
        thrown, raised, taken = raised, None, False
        try:
            value = await (anext(generator) if thrown is None else generator.athrow(thrown))
            has_room = outlet.take(value)
            taken = True
            if not has_room:
                await _come(outlet.when_room)
        except StopAsyncIteration:
            return
        except BaseException as error:
            if generator.ag_frame is None:
                raise
            if not taken:
                cause = await _cancel_instead_async(error)
                await _end_async(generator, cause)
                raise cause from None
            raised = error


def _cancel_instead(error: BaseException) -> BaseException:
    """Return the exception of a cancel that has taken the lease, once it comes; or else *error*."""
    if isinstance(error, LeaseLost):
        gate = _thread.allocate_lock()
        gate.acquire()
        try:
            gate.acquire(timeout=_CANCEL_SECONDS)
        except BaseException as cancel:  # noqa: BLE001 - raised in the generator
            return cancel
    return error


async def _cancel_instead_async(error: BaseException) -> BaseException:
    if isinstance(error, LeaseLost):
        try:
            await asyncio.sleep(_CANCEL_SECONDS)
        except BaseException as cancel:  # noqa: BLE001 - raised in the generator
            return cancel
    return error


def _end(generator: GeneratorType[Any, Any, Any], error: BaseException) -> None:
    """Close a generator whose last value is lost, so that no other one may follow; tell it of *error*."""
    with contextlib.suppress(BaseException):
        if not isinstance(error, PartialResultRefused):
            generator.throw(error)
        generator.close()


async def _end_async(generator: AsyncGeneratorType[Any, Any], error: BaseException) -> None:
    with contextlib.suppress(BaseException):
        if not isinstance(error, PartialResultRefused):
            await generator.athrow(error)
        await generator.aclose()


def _wait(when: Callable[[Callable[[], None]], None]) -> None:
    """Wait for a call of the sender. A lock of C code does that: a signal may end it at any place."""
    gate = _thread.allocate_lock()
    gate.acquire()
    when(gate.release)
    gate.acquire()


async def _come(when: Callable[[Callable[[], None]], None]) -> None:
    """Wait for a call of the sender, while the loop goes on."""
    loop, come = asyncio.get_running_loop(), asyncio.Event()

    def call() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(come.set)

    when(call)
    await come.wait()
