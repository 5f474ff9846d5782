"""The interface of `concurrent.futures` for the durable queue.

::

    with Executor("queue-host:7077", authkey_file="authkey", codec="pickle") as executor:
        for future in concurrent.futures.as_completed([executor.submit(pow, 2, n) for n in range(9)]):
            print(future.job_id, future.result())

`svc.Executor` adds the address and the authkey; the class here gets a client, or a function that connects.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import itertools
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any, Self

from svc import codec as codecs
from svc.broker.base import Broker
from svc.callables import Each, Exactly
from svc.client.background import AT_EXIT
from svc.client.client import BrokerClient
from svc.client.dispatch import Dispatch
from svc.client.futures import Future
from svc.client.pending import PendingJob
from svc.client.pipeline import encoded
from svc.client.session import PATIENCE_SECONDS, Session
from svc.client.specs import Options, TaskLike
from svc.envelope import PickleKeys
from svc.errors import ConfigurationError, ServiceError


class BrokerExecutor(concurrent.futures.Executor):
    """Runs calls as durable jobs, and returns a `concurrent.futures.Future` for each.

    **When a job is durable.** `submit` returns at once, with the `job_id` known. A thread sends the job
    together with others: when 1,000 jobs or 4 MiB are collected, and at the latest about 1 ms after it is
    free to send. The job is durable once the manager has acknowledged it: `flush()` waits for that, and so do
    `shutdown()` (also with `wait=False`) and the end of a `with` block. If a program ends without any of
    these, it waits up to 30 s until its last calls are sent, and names on stderr those that were not. A
    killed process may lose them. A refused job fails its own future with the error that `Client.submit` would
    raise.

    **The callables.** With the codec `plain`, the same as for `Client.submit`: names of tasks, and functions
    in modules that workers serve, with data as arguments. With `pickle`, any callable, as in a
    ProcessPoolExecutor: it is sent as a pickle, and its result or exception comes back as the same kind of
    object. Then workers must accept pickles, and this process unpickles the reports of workers. Both sides
    sign pickles with a key that the manager does not have (`svc auth generate --pickle`).

    **Retries.** A task (a name, or a function marked with `@task`) is retried as it declares. Any other
    callable is called once, unless the option `retries` says otherwise. Either may run again after its
    consumer crashed or its host was lost; after three crashes its own future fails, and no other.

    Safe to use from many threads, and to submit from signal handlers; a handler must not wait for a future,
    as it may have interrupted what sends its job. In a forked child it begins anew: the parent sends what was
    submitted before the fork, and futures of those jobs fail in the child.
    """

    def __init__(
        self,
        source: BrokerClient | Callable[[], Broker],
        *,
        codec: str = codecs.PLAIN,
        patience: float = PATIENCE_SECONDS,
        pickle_keys: PickleKeys | None = None,
    ) -> None:
        """Connect at the first use.

        Args:
            source: a client, to whose manager this makes its own connections, or a function that returns a
                broker.
            codec: `plain` or `pickle`, for calls and their results.
            patience: seconds for which the manager may be away before the futures of its jobs fail with
                ManagerUnreachable; `future(job_id)` finds the jobs again.
            pickle_keys: the keys that sign calls and verify results with the codec `pickle`; else the
                client's.

        Raises:
            ConfigurationError: there is no such codec, or no key for pickles.
        """
        if codec not in codecs.CODECS:
            raise ConfigurationError(f"{codec!r} is not a codec; codecs are {', '.join(codecs.CODECS)}")
        connect = source.connect if isinstance(source, BrokerClient) else source
        keys = source.pickle_keys if pickle_keys is None and isinstance(source, BrokerClient) else pickle_keys
        dispatch = Dispatch(Session(connect, (codec,), patience, keys))
        self._dispatch = dispatch
        self._last_reference = _LastReference(dispatch)
        self._set_options(Options(codec=codec))

    def _set_options(self, options: Options) -> None:
        self._options = options
        self._once = replace(options, retries=0) if options.retries is None else options

    def options(self, **changes: Any) -> Self:
        """Return an executor whose jobs have other options (see `Options`); they share all else, the end too.

        Raises:
            TypeError: there is no such option, or it is `key`: the job with a key may be an earlier one, so
                its id is not known at once; `Client.options` has keys.
        """
        if "key" in changes:
            raise TypeError("an executor's jobs have no key; submit them by Client.options(key=...)")
        other = copy.copy(self)
        other._set_options(self._options.changed(changes))  # noqa: SLF001  # it is of the same class
        return other

    def submit(self, fn: TaskLike, /, *args: Any, **kwargs: Any) -> Future:
        """Run `fn(*args, **kwargs)` as a job; return its future at once.

        Arguments are encoded during this call. If that fails, the future has failed.

        Raises:
            RuntimeError: the executor was shut down, or the interpreter is.
        """
        if AT_EXIT.flushed:
            AT_EXIT.check()
        try:
            job = self._encoded(fn, args, kwargs)
        except ServiceError as error:
            future = self._dispatch.future("")
            future.fail(error)
            return future
        self._dispatch.pipeline.put(job)
        if AT_EXIT.flushed:
            AT_EXIT.send([self._dispatch.pipeline])
        accepted: Future = job.owner
        return accepted

    def map(
        self,
        fn: TaskLike,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Return an iterator over the results of `fn` for each step through *iterables*, in their order.

        All calls are submitted at once. If one fails, or the iterator is closed, the remaining ones are
        cancelled.

        Args:
            fn: as for `submit`.
            iterables: the sources of the arguments.
            timeout: seconds from this call after which the iterator raises TimeoutError.
            chunksize: calls in one job. Only for callables that are sent as pickles: a task is one job for
                each call, and jobs are sent in frames anyway.
            buffersize: the largest number of calls whose results are not taken yet, as in Python 3.14; None
                for no limit.

        Raises:
            ValueError: *chunksize* or *buffersize* is less than 1.
            TypeError: *buffersize* is not an integer.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        end = None if timeout is None else time.monotonic() + timeout
        calls: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        if chunksize == 1 or not self._is_pickled(fn):
            return self._results(fn, calls, end, buffersize)
        chunks = iter(lambda: tuple(itertools.islice(calls, chunksize)), ())
        room = None if buffersize is None else -(-buffersize // chunksize)
        return _flat(self._results(Each(fn), chunks, end, room))  # type: ignore[arg-type]  # no name is pickled

    def future(self, job_id: str) -> Future:
        """Return a future of the job *job_id*; any process may have submitted it.

        Raises:
            UnknownJob: there is no such job, or its retention has passed.
            RuntimeError: the executor was shut down.
        """
        return self._dispatch.watch(job_id)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all jobs are durable or refused; return whether that was within *timeout* seconds."""
        return self._dispatch.pipeline.flush(timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more calls. When this returns, all accepted calls are durable.

        Args:
            wait: also wait until all futures have ended. Otherwise jobs go on, and futures do as long as this
                process lives.
            cancel_futures: cancel the jobs that are still waiting at the manager.
        """
        dispatch = self._dispatch
        dispatch.close()
        dispatch.pipeline.flush()
        if cancel_futures:
            # If the manager does not answer, the futures soon fail by themselves.
            with contextlib.suppress(ServiceError):
                dispatch.cancel_all(dispatch.collector.own())
        if wait:
            dispatch.join()

    def _results(
        self, fn: TaskLike, calls: Iterator[tuple[Any, ...]], end: float | None, room: int | None
    ) -> Iterator[Any]:
        futures = deque(self.submit(fn, *args) for args in itertools.islice(calls, room))
        # The iterator must not keep the executor alive; once that is gone, it submits nothing more.
        reference = weakref.ref(self)

        def more() -> Future | None:
            executor = reference() if room else None
            args = next(calls, None) if executor else None
            return None if executor is None or args is None else executor.submit(fn, *args)

        return _in_order(futures, end, self._dispatch, more)

    def _encoded(self, fn: TaskLike, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PendingJob:
        options = self._options if _is_task(fn) else self._once
        if self._is_pickled(fn):
            fn = Exactly(fn)  # type: ignore[arg-type]  # no name is pickled
        template = self._dispatch.pipeline.template(fn, options)
        return encoded(template, args, kwargs, options.strict, self._dispatch.pipeline.values)

    def _is_pickled(self, fn: TaskLike) -> bool:
        return self._options.codec == codecs.PICKLE and not _is_task(fn)


class _LastReference:
    """Shared by an executor and those made by its `options`: when the last is gone, the threads end."""

    def __init__(self, dispatch: Dispatch) -> None:
        """Close *dispatch* when this is gone, but not at interpreter exit."""
        weakref.finalize(self, dispatch.close).atexit = False


def _is_task(fn: TaskLike) -> bool:
    """Return whether workers know *fn* by a name and a policy of its own: it is a name, or marked."""
    return isinstance(fn, str) or hasattr(fn, "task_options")


def _in_order(
    futures: deque[Future], end: float | None, dispatch: Dispatch, more: Callable[[], Future | None]
) -> Iterator[Any]:
    """Yield the results of *futures*; for each one taken, add another future as long as there are more."""
    try:
        while futures:
            further = more()
            if further is not None:
                futures.append(further)
            del further
            yield _first(futures, end)
    finally:
        if futures:
            with contextlib.suppress(ServiceError):
                dispatch.cancel_all(futures)


def _first(futures: deque[Future], end: float | None) -> Any:
    """Return the first result, and keep no reference to it or its future."""
    futures[0].result(None if end is None else end - time.monotonic())
    return futures.popleft().result()


def _flat(chunks: Iterator[list[Any]]) -> Iterator[Any]:
    """Yield the results in *chunks*, and keep no reference to one that was taken."""
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
