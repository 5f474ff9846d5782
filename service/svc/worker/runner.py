"""Runs one attempt at one job, in five steps: decode, resolve, bind, call, encode.

No exception of a task ends the process: each one becomes a Failure.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from svc import codec
from svc.domain.job import CALL, Terms, job_id
from svc.domain.retry import RetryPolicy
from svc.envelope import Envelopes, PickleKeys
from svc.errors import (
    ArgumentError,
    JobTooLarge,
)
from svc.large import may_be_large
from svc.worker.arguments import Arguments
from svc.worker.attempt_limits import SPARE_SECONDS, AttemptLimits
from svc.worker.context import Running, running_job
from svc.worker.failure import AttemptFailed, Failure, failure_of, refused, result_too_large
from svc.worker.registry import Registry, Task
from svc.worker.slot import encoded_names

if TYPE_CHECKING:
    from svc.worker.coroutines import TaskLoop
    from svc.worker.values import LargeValuesWorker

#: Bytes of a result beside the value itself.
_RESULT_SPARE = 16


class OpenedJob(NamedTuple):
    """The arguments of a job, and what opens and signs its pickles, if it is one."""

    args: Sequence[Any]
    kwargs: dict[str, Any]
    envelopes: Envelopes | None


class Runner:
    """Runs the jobs of one worker's tasks.

    Args:
        registry: the tasks.
        accept: codecs whose jobs may run here.
        max_result_bytes: the largest size of a result.
        pickle_keys: the keys that verify pickled jobs and sign pickled results; if None, no pickle is opened.
        default_timeout: seconds that an attempt may take if neither its job nor its task has a timeout.
        values: fetches and stores large values; if None, no job has any.
    """

    def __init__(
        self,
        registry: Registry,
        accept: Collection[str],
        max_result_bytes: int,
        pickle_keys: PickleKeys | None = None,
        default_timeout: float | None = None,
        values: LargeValuesWorker | None = None,
    ) -> None:
        self._values = values
        self._registry = registry
        self._accept = frozenset(accept)
        self._max_result_bytes = max_result_bytes
        self._pickle_keys = pickle_keys
        self._coroutines = Coroutines()
        self._default_timeout = default_timeout
        #: Most chunks have the terms of the one before.
        self._last: ResolvedTask | None = None

    def resolve(self, terms: Terms) -> ResolvedTask:
        """Return the task that runs jobs with these terms; if there is none, each of them fails."""
        last = self._last
        if last is None or last.terms != terms:
            last = self._last = self._resolved(terms)
        return last

    def _resolved(self, terms: Terms) -> ResolvedTask:
        keys = self._pickle_keys if terms.codec == codec.PICKLE else None
        kind = self._kind_of(terms)
        resolved = kind(terms, self._accept, self._max_result_bytes, keys, self._coroutines, self._values)
        try:
            resolved.use(self._task_of(terms), self._default_timeout)
        except BaseException as error:  # noqa: BLE001 - the annotations of a task run its code
            resolved.refusal = error
        return resolved

    def _kind_of(self, terms: Terms) -> type[ResolvedTask]:
        if terms.codec != codec.LARGE:
            return ResolvedTask
        from svc.worker.large_task import LargeTask  # most workers never need it

        return LargeTask

    def _task_of(self, terms: Terms) -> Task:
        if terms.task == CALL and terms.codec != codec.PICKLE:
            raise ArgumentError(f"{CALL} takes a pickled callable; submit with the pickle codec")
        return self._registry.get(terms.task)


class Coroutines:
    """Runs coroutines to their end, all on one event loop.

    Attributes:
        changes: changes that they have made to the process and that cannot be put back, by name.
    """

    def __init__(self) -> None:
        self.changes: list[str] = []
        self._loop: TaskLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of *coroutine*, or raise its error."""
        return self.loop.run(coroutine)

    @property
    def loop(self) -> TaskLoop:
        """The event loop, made at the first use."""
        if self._loop is None:
            # Imported here, because most workers never need asyncio.
            from svc.worker.coroutines import TaskLoop

            self._loop = TaskLoop(self.changes)
        return self._loop


class ResolvedTask:
    """A task and the terms of jobs; runs the jobs that have these terms.

    Attributes:
        terms: the terms.
        names: the names of task and queue, as a slot holds them.
        policy: the retry policy, from the terms or, if they have none, from the task.
        limits: the limits of an attempt, likewise.
        keep_children: whether processes that the task starts outlive its attempts.
        leaves_nothing: whether the task clears up after itself.
        concurrency: how many of its jobs a consumer runs at once.
        batch: how many of them one call gets as a list; None if each call is one job.
        linger: seconds that such a list waits for more jobs.
        coroutines: runs the coroutines of tasks.
        refusal: the reason why no job with these terms can run, or None.
    """

    def __init__(
        self,
        terms: Terms,
        accept: frozenset[str],
        max_result_bytes: int,
        keys: PickleKeys | None,
        coroutines: Coroutines,
        values: LargeValuesWorker | None = None,
    ) -> None:
        self.terms = terms
        self.values = values
        self._large = self._stored if terms.large and values is not None else None
        self.coroutines = coroutines
        self.names = encoded_names(terms)
        self.policy = RetryPolicy()
        self.limits = AttemptLimits(terms.timeout, terms.soft_timeout, terms.max_rss)
        self.keep_children = self.leaves_nothing = False
        self.concurrency = 1
        self.batch: int | None = None
        self.linger = 0.0
        self.refusal: BaseException | None = None
        self._decode = codec.quick_decoder(terms.codec, accept) if keys is None else None
        self._encode = codec.quick_encoder(terms.codec)
        self._accept = accept
        self._max_result_bytes = max_result_bytes
        self._keys = keys
        # A pickled argument is the very object of the sender; only plain data is converted.
        self._convert = terms.codec != codec.PICKLE or terms.task == CALL
        # An older manager drops the word of the submitter; one that sends extension types reads them.
        self._typed = terms.typed or terms.codec == codec.TYPED

    def use(self, task: Task, default_timeout: float | None = None) -> None:
        """Run *task*; its own options and *default_timeout* count where the terms have none.

        Raises:
            ConfigurationError: the terms have a limit that cannot be kept for jobs of this task.
        """
        terms, options, signature = self.terms, task.options, task.signature
        options.check_max_rss(terms.max_rss)
        self.policy = RetryPolicy(
            options.retries if terms.retries is None else terms.retries,
            options.backoff if terms.backoff is None else terms.backoff,
        )
        own_timeout = options.timeout if terms.timeout is None else terms.timeout
        self.limits = AttemptLimits(
            own_timeout or default_timeout,
            options.soft_timeout if terms.soft_timeout is None else terms.soft_timeout,
            options.max_rss if terms.max_rss is None else terms.max_rss,
        )
        self.keep_children = options.keep_children
        self.leaves_nothing = task.leaves_nothing
        self.concurrency = options.concurrency
        self.batch, self.linger = options.batch, options.linger
        self._function = task.function
        timeout = self.limits.timeout
        if task.within is not None and timeout is not None:
            self._function = task.within(timeout)
            self.limits = self.limits._replace(timeout=timeout + SPARE_SECONDS)
        self._task = task
        self._fewest, self._most = signature.fewest, signature.most
        self._exact = signature.exact if self._convert else ()

    @property
    def runs_many(self) -> bool:
        """Whether a consumer runs many of its jobs at once, or in one call."""
        return self.concurrency > 1 or self.batch is not None

    def run(self, body: bytes, origin: str = "", number: int = 0) -> bytes | Failure:
        """Run job *number* of *origin*; return its encoded result, or the failure."""
        if self.refusal is not None:
            return refused(self.refusal)
        envelopes = None if self._keys is None else self._keys.of(job_id(origin, number))
        try:
            args, kwargs = self._arguments(body, envelopes)
        except BaseException as error:  # noqa: BLE001 - unpickling runs the sender's code, which may raise anything
            return refused(error)
        try:
            value = self._call(args, kwargs)
        except AttemptFailed as error:
            return error.failure
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of a task are failures of it
            return failure_of(error, envelopes)
        try:
            return self._encoded(value, envelopes)
        except BaseException as error:  # noqa: BLE001 - pickling runs the task's code
            return refused(error)

    async def run_beside(self, body: bytes, origin: str, number: int) -> bytes | Failure:
        """Do the same as `run`, as a coroutine on a loop on which other jobs run too."""
        if self.refusal is not None:
            return refused(self.refusal)
        envelopes = None if self._keys is None else self._keys.of(job_id(origin, number))
        try:
            args, kwargs = self._arguments(body, envelopes)
        except BaseException as error:  # noqa: BLE001 - as in `run`
            return refused(error)
        return await self._call_beside(args, kwargs, envelopes)

    async def _call_beside(
        self, args: Sequence[Any], kwargs: dict[str, Any], envelopes: Envelopes | None
    ) -> bytes | Failure:
        import asyncio

        try:
            value = await self._function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - as in `run`
            return failure_of(error, envelopes)
        try:
            if self._large is not None and may_be_large(value):
                return await asyncio.to_thread(self._encoded, value, envelopes)
            return self._encoded(value, envelopes)
        except BaseException as error:  # noqa: BLE001 - as in `run`
            return refused(error)

    def opened(self, running: Running) -> OpenedJob | Failure:
        """Return the arguments of a job for a list, as they were submitted; or the failure."""
        if self.refusal is not None:
            return refused(self.refusal)
        delivery = running.delivery
        envelopes = None if self._keys is None else self._keys.of(job_id(delivery.origin, delivery.first))
        opened = None if envelopes is None else partial(envelopes.open_arguments, self.terms)
        try:
            args, kwargs = self._decoded(delivery.bodies[0], opened)
        except BaseException as error:  # noqa: BLE001 - as in `run`
            return refused(error)
        return OpenedJob(args, kwargs, envelopes)

    def call_with(self, jobs: Sequence[Any]) -> Any:
        """Call the function with a list of jobs."""
        return self._call([list(jobs)], {})

    def outcome(self, value: Any, envelopes: Envelopes | None) -> bytes | Failure:
        """Return the outcome of a job from an entry in the list that the task has returned."""
        if isinstance(value, BaseException):
            return failure_of(value, envelopes)
        try:
            return self._encoded(value, envelopes)
        except BaseException as error:  # noqa: BLE001 - as in `run`
            return refused(error)

    def attempt(self) -> AbstractContextManager[None]:
        """Return a context around the attempt at a job in a list; `run` has its own."""
        return nullcontext()

    def _arguments(self, body: bytes, envelopes: Envelopes | None) -> Arguments:
        """Decode the arguments, and bind them to the parameters of the task."""
        if self._decode is None:
            opened = None if envelopes is None else partial(envelopes.open_arguments, self.terms)
            args, kwargs = self._decoded(body, opened)
        else:
            try:
                args, kwargs = self._decode(body)
            except Exception:  # noqa: BLE001 - the slow way says what is wrong
                args, kwargs = self._decoded(body, None)
        # Positional arguments need no `inspect`, and mostly each has its type already.
        if kwargs or not self._fewest <= len(args) <= self._most or (self._exact and not self._fit(args)):
            return self._task.bind(args, kwargs, convert=self._convert)
        return args, kwargs

    def _decoded(self, body: bytes, opened: Callable[[bytes], memoryview] | None) -> Arguments:
        return codec.decode_arguments(self.terms.codec, body, self._accept, opened)

    def _stored(self, value: Any) -> bytes | None:
        """Store a result that is too large, and return its encoded form."""
        if self.values is None:
            return None
        running, number = running_job()
        token = running.delivery.token
        return self.values.stored(value, token, number, self._max_result_bytes - _RESULT_SPARE)

    def _fit(self, args: Sequence[Any]) -> bool:
        """Whether no argument needs a conversion."""
        for value, exact in zip(args, self._exact):  # noqa: B905 - a keyword would take as long as the loop
            if exact is not Any and type(value) is not exact:
                return False
        return True

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Call the function; a coroutine or a generator is run to its end."""
        value = self._function(*args, **kwargs)
        kind = type(value)
        if kind is CoroutineType or kind is GeneratorType or kind is AsyncGeneratorType:
            return self._run_to_its_end(value)
        return value

    def _run_to_its_end(self, value: Any) -> Any:
        if isinstance(value, CoroutineType):
            return self.coroutines.run(value)
        # Imported here, because most workers have no such tasks.
        from svc.worker.generators import run, run_async
        from svc.worker.outlet import PartialResultRefused

        try:
            if isinstance(value, GeneratorType):
                return run(value, self._encoded_value)
            return self.coroutines.run(run_async(value, self._encoded_value))
        except PartialResultRefused as told:
            raise AttemptFailed(refused(told.error, f"{told}: ")) from None

    def _encoded_value(self, value: Any, job: str, token: int, index: int) -> bytes:
        """Encode a partial result."""
        envelopes = None if self._keys is None else self._keys.of_value(job, token, index)
        return codec.encode_result(self.terms.codec, value, envelopes, typed=self._typed)

    def _encoded(self, value: Any, envelopes: Envelopes | None) -> bytes:
        if type(value) in codec.QUICK:
            try:
                result = self._encode(value)
            except Exception:  # noqa: BLE001 - the slow way says what is wrong
                result = self._encoded_slowly(value, envelopes)
        else:
            result = self._encoded_slowly(value, envelopes)
        if len(result) > self._max_result_bytes:
            raise JobTooLarge(result_too_large(len(result), self._max_result_bytes))
        return result

    def _encoded_slowly(self, value: Any, envelopes: Envelopes | None) -> bytes:
        return codec.encode_result(self.terms.codec, value, envelopes, typed=self._typed, large=self._large)


#: The code in whose call a task may be interrupted: what it raises there is a failure of the task.
CALL_STEP: Final = ResolvedTask._call.__code__  # noqa: SLF001 - it is of this module
