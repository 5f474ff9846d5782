"""Runs one attempt at one job, in five steps: decode, resolve, bind, call, encode.

No exception of a task ends the process: each one becomes a Failure.
"""

from __future__ import annotations

import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from types import CoroutineType, TracebackType
from typing import Any

from svc import codec
from svc.domain.field_bounds import MESSAGE_MAX, TRACEBACK_MAX
from svc.domain.job import CALL, Cause, ErrorInfo, Terms, job_id
from svc.domain.names import shown_name
from svc.domain.retry import RetryPolicy
from svc.envelope import Envelopes, PickleKeys
from svc.errors import ArgumentError, JobTooLarge, ServiceError, UntrustedPickle
from svc.worker.arguments import Arguments
from svc.worker.registry import Registry, Task
from svc.worker.slot import encoded_names

#: Characters that are kept of the beginning of a traceback; the rest that is kept is its end.
_TRACEBACK_HEAD = 2048
_OURS = ("svc.worker.", "svc.codec", "svc.callables")


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt without a result; a permanent failure would happen again each time.

    Attributes:
        error: the description of the failure.
        cause: the reason, which decides the counter that is charged.
        permanent: whether a retry would be in vain.
        untrusted: whether the job is a pickle whose signature is missing or wrong.
    """

    error: ErrorInfo
    cause: Cause
    permanent: bool
    untrusted: bool = False


class Runner:
    """Runs the jobs of one worker's tasks.

    Args:
        registry: the tasks.
        accept: codecs whose jobs may run here.
        max_result_bytes: the largest size of a result.
        pickle_keys: the keys that verify pickled jobs and sign pickled results; if None, no pickle is opened.
    """

    def __init__(
        self,
        registry: Registry,
        accept: Collection[str],
        max_result_bytes: int,
        pickle_keys: PickleKeys | None = None,
    ) -> None:
        self._registry = registry
        self._accept = frozenset(accept)
        self._max_result_bytes = max_result_bytes
        self._pickle_keys = pickle_keys
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
        resolved = ResolvedTask(terms, self._accept, self._max_result_bytes, keys)
        try:
            resolved.use(self._task_of(terms))
        except BaseException as error:  # noqa: BLE001 - the annotations of a task run its code
            resolved.refusal = error
        return resolved

    def _task_of(self, terms: Terms) -> Task:
        if terms.task == CALL and terms.codec != codec.PICKLE:
            raise ArgumentError(f"{CALL} takes a pickled callable; submit with the pickle codec")
        return self._registry.get(terms.task)


class ResolvedTask:
    """A task and the terms of jobs; runs the jobs that have these terms.

    Attributes:
        terms: the terms.
        names: the names of task and queue, as a slot holds them.
        policy: the retry policy, from the terms or, if they have none, from the task.
        timeout: seconds that an attempt may take, or None.
        keep_children: whether processes that the task starts outlive its attempts.
        refusal: the reason why no job with these terms can run, or None.
    """

    def __init__(
        self, terms: Terms, accept: frozenset[str], max_result_bytes: int, keys: PickleKeys | None
    ) -> None:
        self.terms = terms
        self.names = encoded_names(terms)
        self.policy = RetryPolicy()
        self.timeout = terms.timeout
        self.keep_children = False
        self.refusal: BaseException | None = None
        self._accept = accept
        self._max_result_bytes = max_result_bytes
        self._keys = keys
        # A pickled argument is the very object of the sender; only plain data is converted.
        self._convert = terms.codec != codec.PICKLE or terms.task == CALL

    def use(self, task: Task) -> None:
        """Run *task*, with its own options if the terms have none."""
        terms, options, signature = self.terms, task.options, task.signature
        self.policy = RetryPolicy(
            options.retries if terms.retries is None else terms.retries,
            options.backoff if terms.backoff is None else terms.backoff,
        )
        self.timeout = options.timeout if terms.timeout is None else terms.timeout
        self.keep_children = options.keep_children
        self._task = task
        self._function = task.function
        self._fewest, self._most = signature.fewest, signature.most
        self._exact = signature.exact if self._convert else ()

    def run(self, body: bytes, origin: str = "", number: int = 0) -> bytes | Failure:
        """Run job *number* of *origin*; return its encoded result, or the failure."""
        if self.refusal is not None:
            return _refused(self.refusal)
        envelopes = None if self._keys is None else self._keys.of(job_id(origin, number))
        try:
            args, kwargs = self._arguments(body, envelopes)
        except BaseException as error:  # noqa: BLE001 - unpickling runs the sender's code, which may raise anything
            return _refused(error)
        try:
            value = self._call(args, kwargs)
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of a task are failures of it
            return _failed(error, envelopes)
        try:
            return self._encoded(value, envelopes)
        except BaseException as error:  # noqa: BLE001 - pickling runs the task's code
            return _refused(error)

    def _arguments(self, body: bytes, envelopes: Envelopes | None) -> Arguments:
        """Decode the arguments, and bind them to the parameters of the task."""
        opened = None if envelopes is None else partial(envelopes.open_arguments, self.terms)
        args, kwargs = codec.decode_arguments(self.terms.codec, body, self._accept, opened)
        # Positional arguments need no `inspect`, and mostly each has its type already.
        if kwargs or not self._fewest <= len(args) <= self._most or (self._exact and not self._fit(args)):
            return self._task.bind(args, kwargs, convert=self._convert)
        return args, kwargs

    def _fit(self, args: Sequence[Any]) -> bool:
        """Whether no argument needs a conversion."""
        for value, exact in zip(args, self._exact):  # noqa: B905 - a keyword would take as long as the loop
            if exact is not Any and type(value) is not exact:
                return False
        return True

    def _call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Call the function; a coroutine is run to its end."""
        value = self._function(*args, **kwargs)
        return _completed(value) if isinstance(value, CoroutineType) else value

    def _encoded(self, value: Any, envelopes: Envelopes | None) -> bytes:
        result = codec.encode_result(self.terms.codec, value, envelopes)
        if len(result) > self._max_result_bytes:
            raise JobTooLarge(
                f"the result takes {len(result)} bytes and the manager's limit is {self._max_result_bytes}; "
                "return less, or raise --max-job-bytes of the manager"
            )
        return result


def _completed(coroutine: CoroutineType[Any, Any, Any]) -> Any:
    # Imported here, because most workers never need it.
    import asyncio

    return asyncio.run(coroutine)


def _refused(error: BaseException) -> Failure:
    # svc's own errors need no traceback; errors that the sender's or the task's code raised in a codec do.
    shown = error.__cause__ if isinstance(error, ServiceError) else error
    info = ErrorInfo(_type_name(error), _message(error), _traceback(shown))
    return Failure(info, Cause.REFUSED, permanent=True, untrusted=isinstance(error, UntrustedPickle))


def _failed(error: BaseException, envelopes: Envelopes | None) -> Failure:
    # The sender of a pickle can read one; the reader decides whether it does.
    exception = b"" if envelopes is None else codec.encode_exception(error, envelopes)
    info = ErrorInfo(_type_name(error), _message(error), _traceback(error), exception)
    return Failure(info, Cause.FAILED, permanent=False)


def _message(error: BaseException) -> str:
    try:
        return _sendable(str(error))[:MESSAGE_MAX]
    except BaseException:  # noqa: BLE001 - the `__str__` of a task's exception may do anything
        return f"<the message of {_type_name(error)} cannot be shown>"


def _type_name(error: BaseException) -> str:
    return shown_name(type(error).__name__)


def _traceback(error: BaseException | None) -> str:
    """Return the traceback of *error* from the first frame outside svc, or "" for None."""
    if error is None:
        return ""
    try:
        lines = traceback.format_exception(type(error), error, _beyond_ours(error.__traceback__))
    except BaseException:  # noqa: BLE001 - as for the message
        return ""
    text = _sendable("".join(lines))
    if len(text) <= TRACEBACK_MAX:
        return text
    tail = TRACEBACK_MAX - _TRACEBACK_HEAD
    cut = f"\n… {len(text) - TRACEBACK_MAX} characters left out …\n"
    return text[:_TRACEBACK_HEAD] + cut + text[-tail + len(cut) :]


def _beyond_ours(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and _is_ours(frames.tb_frame.f_globals):
        frames = frames.tb_next
    return frames


def _is_ours(names: dict[str, Any]) -> bool:
    return str(names.get("__name__", "")).startswith(_OURS)


def _sendable(text: str) -> str:
    """Return *text* without lone surrogates (as in undecodable file names), which no wire format supports."""
    return text.encode("utf-8", "backslashreplace").decode()
