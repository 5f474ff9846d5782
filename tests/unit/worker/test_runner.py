from __future__ import annotations

import asyncio
import pickle
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from svc.codec import PICKLE, PLAIN, decode_exception, decode_result, encode_arguments, encode_call
from svc.domain.field_bounds import MESSAGE_MAX, TRACEBACK_MAX
from svc.domain.job import CALL, Cause, Terms
from svc.domain.retry import RetryPolicy
from svc.envelope import PickleKeys
from svc.errors import ConfigurationError, UntrustedPickle
from svc.worker.failure import Failure
from svc.worker.registry import Registry, Task, TaskOptions
from svc.worker.runner import ResolvedTask, Runner

LIMIT = 1000
DEFAULTS = TaskOptions()
KEYS = PickleKeys((b"k" * 32,))


def resolve(
    function: Callable[..., Any],
    codec: str = PLAIN,
    options: TaskOptions = DEFAULTS,
    accept: tuple[str, ...] = (PLAIN, PICKLE),
    **terms: Any,
) -> ResolvedTask:
    registry = Registry([Task("m:f", function, options)])
    return Runner(registry, accept, LIMIT, KEYS).resolve(Terms("m:f", codec=codec, **terms))


def sealed(pickled: bytes, task: str = "m:f", job: str = "o-0", **options: Any) -> bytes:
    """Return the body of a pickled job as its submitter would sign it."""
    return KEYS.of(job).seal_arguments(Terms(task, codec=PICKLE), pickled, **options)


def run(function: Callable[..., Any], *args: Any, codec: str = PLAIN, **kwargs: Any) -> bytes | Failure:
    body = encode_arguments(codec, args, kwargs)
    return resolve(function, codec).run(sealed(body) if codec == PICKLE else body, "o", 0)


def failure(function: Callable[..., Any], *args: Any, codec: str = PLAIN) -> Failure:
    result = run(function, *args, codec=codec)
    assert isinstance(result, Failure)
    return result


def test_a_result_is_encoded() -> None:
    result = run(lambda a, b: {"sum": a + b}, 1, b=2)
    assert isinstance(result, bytes)
    assert decode_result(result) == {"sum": 3}


def test_a_submitter_that_sent_extension_types_gets_them_though_an_older_manager_drops_its_word() -> None:
    body, used = encode_call(PLAIN, ((1, 2),), {})
    result = resolve(lambda value: value, used).run(body, "o", 0)
    assert isinstance(result, bytes)
    assert decode_result(result) == (1, 2)


def test_a_coroutine_is_awaited() -> None:
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    result = run(later, 1)
    assert isinstance(result, bytes)
    assert decode_result(result) == 2


@pytest.mark.parametrize(
    "error", [ValueError("bad"), SystemExit("bad"), KeyboardInterrupt("bad"), GeneratorExit("bad")]
)
def test_whatever_a_task_raises_is_a_failed_attempt(error: BaseException) -> None:
    def task() -> None:
        raise error

    found = failure(task)
    assert (found.cause, found.permanent) == (Cause.FAILED, False)
    assert (found.error.type, found.error.message) == (type(error).__name__, "bad")


def test_an_error_of_svc_that_a_task_raises_is_a_failed_attempt_too() -> None:
    """A task may be a client itself; its trouble is no reason to give up the job at once."""
    from svc.errors import CodecError

    def task() -> None:
        raise CodecError("inner")

    assert failure(task).cause is Cause.FAILED


def test_the_traceback_begins_in_the_task() -> None:
    def task() -> None:
        deeper()

    def deeper() -> None:
        raise ValueError("here")

    lines = failure(task).error.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "in task" in lines[1]
    assert "service/svc/worker" not in "".join(lines)


def test_a_traceback_is_capped_and_keeps_both_ends() -> None:
    def task(depth: int) -> None:
        if depth == 0:
            raise ValueError("the end" * 10)
        other(depth)

    def other(depth: int) -> None:
        task(depth - 1)

    text = failure(task, 200).error.traceback
    assert len(text) <= TRACEBACK_MAX
    assert text.startswith("Traceback")
    assert text.rstrip().endswith("the end" * 10)
    assert "characters left out" in text


def test_a_message_is_capped() -> None:
    def task() -> None:
        raise ValueError("x" * 10**6)

    assert len(failure(task).error.message) == MESSAGE_MAX


def test_an_exception_that_cannot_be_shown_is_still_a_failure() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise SystemExit

    def task() -> None:
        raise Broken

    assert failure(task).error.type == "Broken"


def test_what_no_wire_can_carry_is_escaped() -> None:
    def task() -> None:
        raise OSError("file \udcff")

    error = failure(task).error
    error.message.encode()
    error.traceback.encode()
    assert "udcff" in error.message


@pytest.mark.parametrize("recursion", [sys.getrecursionlimit() * 2])
def test_a_task_that_recurses_for_ever_is_a_failure(recursion: int) -> None:
    def task(n: int) -> int:
        return task(n - 1) if n else 0

    assert failure(task, recursion).error.type == "RecursionError"


def refused(result: bytes | Failure) -> str:
    assert isinstance(result, Failure)
    assert (result.cause, result.permanent) == (Cause.REFUSED, True)
    return f"{result.error.type}: {result.error.message}"


def test_arguments_that_do_not_fit_are_refused() -> None:
    assert refused(run(lambda a: a, 1, 2)).startswith("ArgumentError: m:f: too many positional arguments")


def test_a_body_that_cannot_be_read_is_refused() -> None:
    assert refused(resolve(len).run(b"\xc1")).startswith("CodecError")


def test_a_codec_that_is_not_accepted_is_refused_with_the_way_out() -> None:
    attempts = resolve(len, PICKLE, accept=(PLAIN,))
    assert "--accept pickle" in refused(attempts.run(encode_arguments(PICKLE, ["x"], {})))


def test_a_result_that_is_no_data_is_refused() -> None:
    assert refused(run(object)).startswith("CodecError: the result of type object is not plain data")


def test_a_result_over_the_limit_is_refused_by_the_name_of_the_limit() -> None:
    assert refused(run(lambda: "x" * LIMIT)).startswith("JobTooLarge: the result takes 1003 bytes")


def test_a_task_that_is_not_known_is_refused() -> None:
    attempts = Runner(Registry(), (PLAIN,), LIMIT).resolve(Terms("m:g"))
    assert refused(attempts.run(b"")).startswith("TaskNotFound")


def test_a_memory_limit_of_a_job_that_may_run_beside_others_is_refused_as_that_of_its_task() -> None:
    async def wait() -> str:
        return "done"

    limited = resolve(wait, options=TaskOptions(concurrency=2), max_rss=1 << 30)
    body = encode_arguments(PLAIN, (), {})
    with pytest.raises(ConfigurationError) as of_task:
        TaskOptions(concurrency=2, max_rss=1 << 30)
    assert refused(limited.run(body)) == f"ConfigurationError: {of_task.value}"
    assert refused(asyncio.run(limited.run_beside(body, "o", 0))) == f"ConfigurationError: {of_task.value}"
    alone = resolve(wait, options=TaskOptions(batch=2), max_rss=1 << 30)
    assert (alone.refusal, alone.limits.max_rss) == (None, 1 << 30)


class Bomb:
    def __init__(self, error: str) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return explode, (self.error,)


def explode(error: str) -> None:
    raise {"exit": SystemExit, "value": ValueError}[error]("boom")


@pytest.mark.parametrize("error", ["exit", "value"])
def test_arguments_that_raise_when_unpickled_are_refused(error: str) -> None:
    body = pickle.dumps(((Bomb(error),), {}))
    assert "boom" in refused(resolve(lambda x: x, PICKLE).run(sealed(body), "o", 0))


class Unpicklable:
    def __reduce__(self) -> tuple[Any, ...]:
        raise SystemExit("no")


def test_a_result_that_exits_when_pickled_is_refused() -> None:
    assert refused(run(Unpicklable, codec=PICKLE)).startswith(("SystemExit", "CodecError"))


def test_a_pickled_callable_runs() -> None:
    attempts = Runner(Registry(), (PICKLE,), LIMIT, KEYS).resolve(Terms(CALL, codec=PICKLE))
    result = attempts.run(sealed(encode_arguments(PICKLE, [max, 1, 2], {}), CALL), "o", 0)
    assert isinstance(result, bytes)
    assert decode_result(result) == 2


def test_a_callable_cannot_come_as_plain_data() -> None:
    attempts = Runner(Registry(), (PLAIN,), LIMIT).resolve(Terms(CALL))
    assert "pickle codec" in refused(attempts.run(encode_arguments(PLAIN, ["os:system", "x"], {})))


def test_pickled_arguments_are_the_objects_that_were_sent() -> None:
    class Text(str):
        __slots__ = ()

    def kind(x: str) -> str:
        return type(x).__name__

    attempts = resolve(kind, PICKLE)
    import cloudpickle

    result = attempts.run(sealed(cloudpickle.dumps(((Text("a"),), {}))), "o", 0)
    assert isinstance(result, bytes)
    assert decode_result(result) == "Text"


def test_a_task_says_when_it_is_tried_again_and_the_terms_override_it() -> None:
    options = TaskOptions(retries=7, backoff=2.0, timeout=9.0)
    own = resolve(len, options=options)
    assert (own.policy, own.limits.timeout) == (RetryPolicy(7, 2.0), 9.0)
    other = resolve(len, options=options, retries=0, backoff=0.5, timeout=1.0)
    assert (other.policy, other.limits.timeout) == (RetryPolicy(0, 0.5), 1.0)


@pytest.mark.parametrize(
    ("body", "origin", "number"),
    [
        (pickle.dumps(((Bomb("exit"),), {})), "o", 0),
        (b"", "o", 0),
        (sealed(pickle.dumps(((Bomb("exit"),), {}))), "o", 1),
        (sealed(pickle.dumps(((Bomb("exit"),), {}))), "other", 0),
        (sealed(pickle.dumps(((Bomb("exit"),), {})), task="m:g"), "o", 0),
        (sealed(b"x") + b"y", "o", 0),
    ],
    ids=["unsigned", "empty", "of another job", "of another origin", "of another task", "changed"],
)
def test_a_pickle_that_nobody_signed_for_this_job_is_not_opened(
    body: bytes, origin: str, number: int
) -> None:
    called: list[object] = []
    result = resolve(called.append, PICKLE).run(body, origin, number)
    assert refused(result).startswith("UntrustedPickle")
    assert isinstance(result, Failure)
    assert result.untrusted
    assert not called


def test_without_a_key_no_pickle_is_opened() -> None:
    attempts = Runner(Registry([Task("m:f", len)]), (PICKLE,), LIMIT).resolve(Terms("m:f", codec=PICKLE))
    assert "no key" in refused(attempts.run(sealed(pickle.dumps((("x",), {}))), "o", 0))


def test_a_pickled_result_and_an_exception_are_signed_for_their_job() -> None:
    result = run(lambda: Fraction(1, 2), codec=PICKLE)
    assert isinstance(result, bytes)
    assert decode_result(result, KEYS.of("o-0")) == Fraction(1, 2)
    error = failure(lambda: 1 // 0, codec=PICKLE).error
    assert isinstance(decode_exception(error.exception, KEYS.of("o-0")), ZeroDivisionError)
    for reading in (
        lambda envelopes: decode_result(result, envelopes),
        lambda envelopes: decode_exception(error.exception, envelopes),
    ):
        with pytest.raises(UntrustedPickle):
            reading(KEYS.of("o-1"))


@pytest.mark.parametrize(
    ("job", "task", "counts"), [(None, None, 9.0), (None, 5.0, 5.0), (3.0, 5.0, 3.0), (0.0, 5.0, 9.0)]
)
def test_the_default_timeout_counts_where_neither_job_nor_task_has_one(
    job: float | None, task: float | None, counts: float
) -> None:
    """A client of an earlier release may send 0, for none."""
    registry = Registry([Task("m:f", len, TaskOptions(timeout=task))])
    runner = Runner(registry, (PLAIN,), LIMIT, default_timeout=9.0)
    assert runner.resolve(Terms("m:f", timeout=job)).limits.timeout == counts
