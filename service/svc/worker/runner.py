"""Runs one attempt at one job, in five steps: decode, resolve, bind, call, encode.

No exception of a task ends the process: each one becomes a Failure.
"""

from __future__ import annotations

import traceback
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from svc import codec
from svc.domain.field_bounds import MESSAGE_MAX, TRACEBACK_MAX
from svc.domain.job import CALL, Cause, ErrorInfo, Terms, job_id
from svc.domain.names import shown_name
from svc.domain.retry import RetryPolicy
from svc.envelope import Envelopes, PickleKeys
from svc.errors import ArgumentError, JobTooLarge, ServiceError, UntrustedPickle
from svc.worker.registry import Registry, Task

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

    def resolve(self, terms: Terms) -> Attempts:
        """Return the object that runs jobs with these terms; without the task, each of them fails."""
        try:
            task: Task | ServiceError = self._registry.get(terms.task)
            if terms.task == CALL and terms.codec != codec.PICKLE:
                task = ArgumentError(f"{CALL} takes a pickled callable; submit with the pickle codec")
        except ServiceError as error:
            task = error
        keys = self._pickle_keys if terms.codec == codec.PICKLE else None
        return Attempts(task, terms, self._accept, self._max_result_bytes, keys)


class Attempts:
    """Runs jobs that have the same terms.

    Attributes:
        policy: the retry policy, from the terms or, if they have none, from the task.
        timeout: seconds that an attempt may take, or None.
        keep_children: whether processes that the task starts outlive its attempts.
    """

    __slots__ = (
        "_accept",
        "_convert",
        "_keys",
        "_max_result_bytes",
        "_task",
        "_terms",
        "keep_children",
        "policy",
        "timeout",
    )

    def __init__(
        self,
        task: Task | ServiceError,
        terms: Terms,
        accept: frozenset[str],
        max_result_bytes: int,
        keys: PickleKeys | None,
    ) -> None:
        self._task = task
        self._terms = terms
        self._keys = keys
        self._accept = accept
        self._max_result_bytes = max_result_bytes
        # A pickled argument is the very object of the sender; only plain data is converted.
        self._convert = terms.codec != codec.PICKLE or terms.task == CALL
        self.policy = RetryPolicy()
        self.timeout = terms.timeout
        self.keep_children = False
        if isinstance(task, Task):
            options = task.options
            self.policy = RetryPolicy(
                options.retries if terms.retries is None else terms.retries,
                options.backoff if terms.backoff is None else terms.backoff,
            )
            self.timeout = options.timeout if terms.timeout is None else terms.timeout
            self.keep_children = options.keep_children

    def run(self, body: bytes, origin: str = "", number: int = 0) -> bytes | Failure:
        """Run job *number* of *origin*; return its encoded result, or the failure."""
        task = self._task
        if not isinstance(task, Task):
            return _refused(task)
        envelopes = None if self._keys is None else self._keys.of(job_id(origin, number))
        opened = None if envelopes is None else partial(envelopes.open_arguments, self._terms)
        try:
            arguments = codec.decode_arguments(self._terms.codec, body, self._accept, opened)
            args, kwargs = task.bind(*arguments, convert=self._convert)
        except BaseException as error:  # noqa: BLE001 - unpickling runs the sender's code, which may raise anything
            return _refused(error)
        try:
            value = task.call(args, kwargs)
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of a task are failures of it
            return _failed(error, envelopes)
        try:
            result = codec.encode_result(self._terms.codec, value, envelopes)
        except BaseException as error:  # noqa: BLE001 - pickling runs the task's code
            return _refused(error)
        if len(result) > self._max_result_bytes:
            return _refused(self._too_large(len(result)))
        return result

    def _too_large(self, size: int) -> JobTooLarge:
        return JobTooLarge(
            f"the result takes {size} bytes and the manager's limit is {self._max_result_bytes}; "
            "return less, or raise --max-job-bytes of the manager"
        )


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
